package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// pair runs nodes 1 and 2 over real sockets.
func pair(t testing.TB, one, two funcs) (a, b *Peers) {
	t.Helper()
	addrs := map[uint64]string{}
	listeners := map[uint64]net.Listener{}
	for _, node := range []uint64{1, 2} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[node], addrs[node] = l, l.Addr().String()
	}
	start := func(node uint64, h funcs) *Peers {
		o := newNetwork().options(node, h)
		o.Listener = listeners[node]
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
		o.Address = func(node uint64) (string, bool) { addr, ok := addrs[node]; return addr, ok }
		p, _ := run(t, o)
		return p
	}
	return start(1, one), start(2, two)
}

func TestRoundTrips(t *testing.T) {
	atA, atB := make(chan []Message, 10), make(chan []Message, 10)
	a, b := pair(t,
		funcs{messages: func(_ uint64, batch []Message) { atA <- batch }},
		funcs{
			messages: func(_ uint64, batch []Message) { atB <- batch },
			call: func(_ context.Context, from uint64, request []byte) ([]byte, error) {
				return append(request, byte(from)), nil
			},
		})
	for _, n := range []int{0, 1, 1000, 1 << 20, MaxRequest - 1} {
		request := bytes.Repeat([]byte{7}, n)
		answer, err := a.Call(t.Context(), 2, request)
		if err != nil || !bytes.Equal(answer, append(request, 1)) {
			t.Fatalf("a call of %d bytes: %d bytes, %v", n, len(answer), err)
		}
	}
	_, err := a.Call(t.Context(), 2, make([]byte, MaxRequest)) // its answer would be larger
	wantCode(t, err, message.TooLarge)
	_, err = a.Call(t.Context(), 2, make([]byte, MaxRequest+1))
	wantCode(t, err, message.TooLarge)

	batch := []Message{{1, []byte("one")}, {1 << 40, nil}, {3, bytes.Repeat([]byte("x"), 1<<20)}}
	a.Send(2, batch)
	b.Send(1, batch)
	for _, got := range [][]Message{<-atA, <-atB} {
		if len(got) != 3 || got[1].Group != 1<<40 || string(got[0].Data) != "one" || !bytes.Equal(got[2].Data, batch[2].Data) {
			t.Fatalf("%d messages: %.100v", len(got), got)
		}
	}
	if !a.Connected(2) || !b.Connected(1) || a.Connected(3) {
		t.Error("wrong about who is connected")
	}
	a.Send(2, []Message{{Data: make([]byte, maxFrame)}})
	if s := a.Stats(); s.MessagesLost != 1 {
		t.Errorf("%+v: a message was too large", s)
	}
	if s := a.Stats(); s.MessagesSent != 4 || s.MessagesReceived != 3 || s.Connections != 2 || s.BytesWritten < 1<<20 || s.BytesRead < 1<<20 {
		t.Errorf("%+v", s)
	}
}

// Both nodes dial at the same time: each has its own connection, and all calls
// are answered.
func TestBothDialAtOnce(t *testing.T) {
	a, b := pair(t, funcs{}, funcs{})
	var calls sync.WaitGroup
	for i := range 100 {
		from, to := a, uint64(2)
		if i%2 == 1 {
			from, to = b, 1
		}
		calls.Go(func() {
			if _, err := from.Call(t.Context(), to, nil); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if got := a.Stats().Connections; got != 2 {
		t.Errorf("%d connections, want one for each direction", got)
	}
}

// Answers find their callers, in whatever order they come.
func TestThousandCallsAtOnce(t *testing.T) {
	const n = 1000
	var all sync.WaitGroup
	all.Add(n)
	a, _ := pair(t, funcs{}, funcs{call: func(_ context.Context, _ uint64, request []byte) ([]byte, error) {
		all.Done()
		all.Wait() // none is answered before all are here
		return request, nil
	}})
	var calls sync.WaitGroup
	for i := range uint64(n) {
		calls.Go(func() {
			request := binary.BigEndian.AppendUint64(nil, i)
			if answer, err := a.Call(t.Context(), 2, request); err != nil || !bytes.Equal(answer, request) {
				t.Errorf("call %d: %x, %v", i, answer, err)
			}
		})
	}
	calls.Wait()
}

func TestMessagesKeepTheirOrder(t *testing.T) {
	const n = 10_000
	done := make(chan error, 1)
	var next uint64 // of the one connection's reader
	a, _ := pair(t, funcs{}, funcs{messages: func(_ uint64, batch []Message) {
		for _, m := range batch {
			if m.Group != next {
				done <- fmt.Errorf("message %d comes after %d", m.Group, next-1)
			}
			next++
		}
		if next == n {
			done <- nil
		}
	}})
	for i := range uint64(n) {
		a.Send(2, []Message{{Group: i, Data: make([]byte, i%100)}})
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCallsOfOneNodeAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		release := make(chan struct{})
		n.run(t, 2, funcs{call: func(ctx context.Context, _ uint64, request []byte) ([]byte, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return request, nil
		}})
		a := n.run(t, 1, funcs{})
		var calls sync.WaitGroup
		for range MaxCalls {
			calls.Go(func() {
				if _, err := a.Call(t.Context(), 2, nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		_, err := a.Call(t.Context(), 2, nil)
		wantCode(t, err, message.ResourceExhausted)
		if !strings.Contains(err.Error(), "wait for node 2") {
			t.Errorf("not refused by the caller's side: %v", err)
		}
		close(release)
		calls.Wait()
		if _, err := a.Call(t.Context(), 2, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// A side that does not trust the other to count answers what is too much, and
// goes on.
func TestRequestsInHandlersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.run(t, 2, funcs{call: func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		a := n.run(t, 1, funcs{})
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		for range MaxQueued / (16 << 20) {
			calls.Go(func() {
				_, err := a.Call(ctx, 2, make([]byte, 16<<20))
				wantCode(t, err, message.UnknownOutcome)
			})
			synctest.Wait()
		}
		_, err := a.Call(t.Context(), 2, make([]byte, 1<<10))
		wantCode(t, err, message.ResourceExhausted)
		cancel()
		calls.Wait()
	})
}

func TestQueueIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.gate.shut()
		first := g.call(t.Context(), "first")
		<-g.gate.knock

		small := make([]Message, MaxQueuedMessages)
		g.a.Send(2, small)
		g.a.Send(2, small[:10]) // no room by count
		if got := g.a.Stats().MessagesLost; got != 10 {
			t.Errorf("%d messages were lost, want 10", got)
		}
		g.gate.unshut()
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		g.gate.shut()
		first = g.call(t.Context(), "first")
		<-g.gate.knock
		large := []Message{{Group: 1, Data: make([]byte, 1<<20)}}
		for range 100 {
			g.a.Send(2, large)
		}
		if got := g.a.Stats().MessagesLost; got < 10+100-64 || got > 10+100-60 {
			t.Errorf("%d messages were lost", got)
		}
		_, err := g.a.Call(t.Context(), 2, make([]byte, 1<<20))
		wantCode(t, err, message.ResourceExhausted)
		g.gate.Close() // and what waits is lost too
		wantCode(t, <-first, message.UnknownOutcome)
		synctest.Wait()
		if got := g.a.Stats().MessagesLost; got != 110 {
			t.Errorf("%d messages were lost, want 110", got)
		}
	})
}

// Run returns when nothing is left: calls are answered, handlers have returned,
// streams have ended.
func TestStopEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		ended := make(chan time.Time, 3)
		inStream := func(ctx context.Context, _ uint64, _ []byte, body io.Reader) error {
			_, err := io.Copy(io.Discard, body)
			return err
		}
		a, stopA := run(t, n.options(1, funcs{call: waitForEnd(ended), stream: inStream}))
		b, stopB := run(t, n.options(2, funcs{call: waitForEnd(ended), stream: inStream}))
		errs := make(chan error, 5)
		go func() { _, err := a.Call(t.Context(), 2, nil); errs <- err }()
		go func() { _, err := b.Call(t.Context(), 1, nil); errs <- err }()
		go func() { _, _, err := a.CallAddress(t.Context(), address(2), nil); errs <- err }()
		stopped := make(chan struct{})
		slow := readerFunc(func(b []byte) (int, error) { time.Sleep(time.Second); return 1, nil })
		go func() { errs <- a.Stream(t.Context(), 2, nil, slow) }()
		go func() { errs <- b.Stream(t.Context(), 1, nil, slow) }()
		time.Sleep(time.Minute)
		go func() { stopA(); close(stopped) }()
		for range 5 {
			if err := <-errs; message.CodeOf(err) != message.UnknownOutcome && message.CodeOf(err) != message.Internal {
				t.Errorf("a call in flight ended with %v", err)
			}
		}
		<-stopped
		_, err := a.Call(t.Context(), 2, nil)
		wantCode(t, err, message.Unavailable)
		_, err = a.Call(t.Context(), 3, nil)
		wantCode(t, err, message.Unavailable)
		wantCode(t, a.Stream(t.Context(), 2, nil, slow), message.Unavailable)
		_, _, err = a.CallAddress(t.Context(), address(2), nil)
		wantCode(t, err, message.Unavailable)
		a.Send(2, []Message{{Group: 1}})
		stopB()
		if got := b.Stats().Connections + a.Stats().Connections; got != 0 {
			t.Errorf("%d connections are left", got)
		}
	})
}

// What is asked before Run waits for it.
func TestCallsBeforeRunWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.run(t, 2, funcs{})
		a := New(n.options(1, funcs{}))
		done := make(chan error, 1)
		go func() { _, err := a.Call(t.Context(), 2, nil); done <- err }()
		time.Sleep(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }()
		if err := <-done; err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func TestListenerThatFailsEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		o := n.options(1, funcs{})
		p := New(o)
		ran := make(chan error, 1)
		go func() { ran <- p.Run(t.Context()) }()
		synctest.Wait()
		o.Listener.Close()
		if err := <-ran; err == nil {
			t.Error("nobody is told that nobody can connect any more")
		}
	})
}

// What waits while a write is under way leaves in one write.
func TestWaitingFramesLeaveInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.gate.shut()
		done := []chan error{g.call(t.Context(), "first")}
		<-g.gate.knock
		for i := range 100 {
			done = append(done, g.call(t.Context(), fmt.Sprint(i)))
		}
		synctest.Wait()
		before := g.gate.writes.Load()
		g.gate.unshut()
		for _, done := range done {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if got := g.gate.writes.Load() - before; got != 2 {
			t.Fatalf("%d writes for the first and 100 others", got)
		}
	})
}

// Handlers that go on after their callers gave up still count.
func TestHandlersOfOneConnectionAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		release := make(chan struct{})
		n.run(t, 2, funcs{call: func(context.Context, uint64, []byte) ([]byte, error) {
			<-release
			return nil, nil
		}})
		a := n.run(t, 1, funcs{})
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		for range MaxCalls {
			calls.Go(func() { a.Call(ctx, 2, nil) })
		}
		synctest.Wait()
		cancel()
		calls.Wait()
		_, err := a.Call(t.Context(), 2, nil)
		wantCode(t, err, message.ResourceExhausted)
		close(release)
		synctest.Wait()
		if _, err := a.Call(t.Context(), 2, nil); err != nil {
			t.Error(err)
		}
	})
}
