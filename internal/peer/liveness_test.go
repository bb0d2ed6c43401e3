package peer

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// cable is a connection that can be cut so that neither side is told: what is
// written vanishes, and nothing comes.
type cable struct {
	net.Conn
	cut   chan struct{}
	ended chan struct{}
	once  sync.Once
}

func (c *cable) gone() bool {
	select {
	case <-c.cut:
		return true
	default:
		return false
	}
}

func (c *cable) Write(b []byte) (int, error) {
	if c.gone() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *cable) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if !c.gone() {
			return n, err
		}
		if err != nil {
			<-c.ended
			return 0, err
		}
	}
}

func (c *cable) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

// waitForEnd is a handler that works until its context ends, and says when.
func waitForEnd(ended chan<- time.Time) func(context.Context, uint64, []byte) ([]byte, error) {
	return func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended <- time.Now()
		return nil, ctx.Err()
	}
}

func TestSilenceEndsAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		cut := make(chan struct{})
		n.wrapping(func(c net.Conn) net.Conn { return &cable{Conn: c, cut: cut, ended: make(chan struct{})} })
		ended := make(chan time.Time, 1)
		n.run(t, 2, funcs{call: waitForEnd(ended)})
		a := n.run(t, 1, funcs{})
		began := time.Now()
		time.AfterFunc(time.Hour, func() { close(cut) })
		_, err := a.Call(t.Context(), 2, nil)
		wantCode(t, err, message.UnknownOutcome)
		for _, took := range []time.Duration{time.Since(began), (<-ended).Sub(began)} {
			if took < time.Hour+2*time.Second || took > time.Hour+5*time.Second {
				t.Errorf("ended after %v, want 3 s after an hour", took)
			}
		}
		synctest.Wait()
		if a.Connected(2) {
			t.Error("connected over a cable that is cut")
		}
	})
}

// Pings keep a connection on which nobody says anything.
func TestIdleConnectionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.run(t, 2, funcs{})
		a := n.run(t, 1, funcs{})
		for range 24 {
			if _, err := a.Call(t.Context(), 2, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if got := n.dialed(); got != 1 {
			t.Fatalf("dialed %d times in a day", got)
		}
	})
}

// A reader that is busy with what it read, or a process that was paused, is not
// a peer that is silent.
func TestOnlyAWaitingReaderHearsSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.run(t, 2, funcs{messages: func(uint64, []Message) { time.Sleep(time.Minute) }})
		a := n.run(t, 1, funcs{})
		a.Send(2, []Message{{Group: 1}})
		if _, err := a.Call(t.Context(), 2, nil); err != nil {
			t.Fatal(err)
		}
		if got := n.dialed(); got != 1 {
			t.Fatalf("dialed %d times", got)
		}
	})
}

func TestRestsGrowAndAConnectionFromThereEndsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a := n.run(t, 1, funcs{})
		for range 6000 { // a minute in which somebody always wants to send
			a.Send(2, []Message{{Group: 1}})
			time.Sleep(10 * time.Millisecond)
		}
		// 50, 100, … 1,600 ms, and then 2 s for the rest of the minute.
		if got := n.dialed(); got < 25 || got > 45 {
			t.Fatalf("dialed %d times in a minute", got)
		}
		if got := a.Stats(); got.MessagesSent != 6000 || got.MessagesLost != 6000 {
			t.Fatalf("%+v", got)
		}
		a.Send(2, nil)
		for !resting(a.links[2]) {
			a.Send(2, nil)
			time.Sleep(time.Millisecond)
		}
		b := n.run(t, 2, funcs{})
		if _, err := b.Call(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := a.Call(t.Context(), 2, nil); err != nil {
			t.Fatalf("the node is there again, but: %v", err)
		}
	})
}

func resting(l *link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down != nil
}

func TestRestsDiffer(t *testing.T) {
	seen := map[time.Duration]bool{}
	for node := range uint64(100) {
		d := restFor(node, 7, 3)
		if d < 320*time.Millisecond || d > 480*time.Millisecond {
			t.Fatalf("rests %v after 3 failures", d)
		}
		seen[d] = true
	}
	if len(seen) < 90 {
		t.Fatalf("100 nodes rest for only %d different times", len(seen))
	}
	if d := restFor(1, 2, 1<<40); d > maxRest*6/5 {
		t.Fatalf("rests %v", d)
	}
}

// What is kept for a node ends when it is not known any more: its goroutines, its
// connection, and what waits for it.
func TestLinksToUnknownNodesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var removed atomic.Bool
		o := n.options(1, funcs{})
		o.Address = func(node uint64) (string, bool) { return address(node), node < 5 && !removed.Load() }
		a, _ := run(t, o)
		n.run(t, 2, funcs{call: waitForEnd(make(chan time.Time, 1))})
		waiting := make(chan error, 1)
		go func() {
			_, err := a.Call(t.Context(), 2, nil)
			waiting <- err
		}()
		a.Send(3, []Message{{Group: 1}}) // nobody listens there: this link rests, or is idle
		synctest.Wait()
		if got := linksRunning(); got != 2 || !a.Connected(2) {
			t.Fatalf("%d links run, want 2", got)
		}
		removed.Store(true)
		select {
		case err := <-waiting:
			wantCode(t, err, message.UnknownOutcome)
		case <-time.After(2 * tickEvery):
			t.Error("a call to a removed node still waits")
		}
		synctest.Wait()
		if got := linksRunning(); got != 0 || a.Connected(2) || len(a.links) != 0 {
			t.Fatalf("%d links run, %d are kept, connected: %v", got, len(a.links), a.Connected(2))
		}
		_, err := a.Call(t.Context(), 2, nil)
		wantCode(t, err, message.Unavailable)
		removed.Store(false)
		a.Send(2, []Message{{Group: 1}})
		synctest.Wait()
		if !a.Connected(2) {
			t.Fatal("a node that is known again is not connected")
		}
	})
}

// linksRunning counts the goroutines of links, in all of the process.
func linksRunning() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "peer.(*link).run(")
}
