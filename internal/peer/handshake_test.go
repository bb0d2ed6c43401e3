package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Each refusal is told to the side that is refused, with its reason, and nothing
// was sent.
func TestRefusals(t *testing.T) {
	removed := message.Errorf(message.PermissionDenied, "node 1 was removed")
	for name, c := range map[string]struct {
		dialer, acceptor func(*Options)
		by               uint64
		want             message.Code
		text             string
	}{
		"other cluster": {
			dialer: func(o *Options) { o.Self.Cluster = "d" },
			by:     2, want: message.InvalidArgument, text: "belongs to cluster c, node 1 to cluster d",
		},
		"other node": {
			dialer: func(o *Options) { o.Address = func(uint64) (string, bool) { return address(2), true } },
			by:     2, want: message.InvalidArgument, text: "node 2 listens here, not node 3",
		},
		"no cluster": {
			dialer: func(o *Options) { o.Self.Cluster = "" },
			by:     2, want: message.InvalidArgument, text: "names no cluster",
		},
		"no node id": {
			dialer: func(o *Options) { o.Self.Node = 0 },
			by:     2, want: message.PermissionDenied, text: "join first",
		},
		"not admitted": {
			acceptor: func(o *Options) { o.Admit = func(Identity) error { return removed } },
			by:       2, want: message.PermissionDenied, text: "node 1 was removed",
		},
		"not admitted by the dialer": {
			dialer: func(o *Options) { o.Admit = func(Identity) error { return removed } },
			by:     1, want: message.PermissionDenied, text: "node 1 was removed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork()
			acceptor, dialer := n.options(2, funcs{}), n.options(1, funcs{})
			to := uint64(2)
			if name == "other node" {
				to = 3
			}
			if c.acceptor != nil {
				c.acceptor(&acceptor)
			}
			if c.dialer != nil {
				c.dialer(&dialer)
			}
			run(t, acceptor)
			a, _ := run(t, dialer)
			_, err := a.Call(t.Context(), to, nil)
			wantCode(t, err, message.Unavailable)
			wantRefusal(t, err, c.by, c.want, c.text)
			err = a.Stream(t.Context(), to, nil, strings.NewReader(""))
			wantCode(t, err, message.Unavailable)
			wantRefusal(t, err, c.by, c.want, c.text)
		})
	}
}

func wantRefusal(t *testing.T, err error, by uint64, code message.Code, text string) {
	t.Helper()
	r, ok := errors.AsType[*Refusal](err)
	if !ok || r.By.Node != by || r.Reason.Code != code || !strings.Contains(r.Reason.Text, text) {
		t.Fatalf("%v: want a refusal by node %d, code %s, %q", err, by, code, text)
	}
}

// Admit sees who is there on both sides, boot number and all.
func TestAdmitSeesBothSides(t *testing.T) {
	n := newNetwork()
	a, b := n.options(1, funcs{}), n.options(2, funcs{})
	a.Self.Boot, b.Self.Boot = 7, 8
	atA, atB := make(chan Identity, 1), make(chan Identity, 1)
	a.Admit = func(who Identity) error { atA <- who; return nil }
	b.Admit = func(who Identity) error { atB <- who; return nil }
	run(t, b)
	pa, _ := run(t, a)
	if _, err := pa.Call(t.Context(), 2, nil); err != nil {
		t.Fatal(err)
	}
	if got := <-atA; got != b.Self {
		t.Errorf("the dialer is asked about %v", got)
	}
	if got := <-atB; got != a.Self {
		t.Errorf("the acceptor is asked about %v", got)
	}
}

// book keeps what is logged.
type book struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *book) count(words string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), words)
}

// A node that could not be reached at first, and that this side then refuses, is
// told of in the log, once: nobody else can.
func TestOwnRefusalIsTold(t *testing.T) {
	n := newNetwork()
	var told book
	a := n.options(1, funcs{})
	a.Admit = func(Identity) error { return message.Errorf(message.Conflict, "an old copy") }
	a.Logger = slog.New(slog.NewTextHandler(&told, nil))
	pa, _ := run(t, a)
	call := func() {
		if _, err := pa.Call(t.Context(), 2, nil); err == nil {
			t.Fatal("it was not refused")
		}
	}
	call()
	if told.count("not connected") != 1 || told.count("an old copy") != 0 {
		t.Fatalf("of a node that is not there: %s", told.b.String())
	}
	run(t, n.options(2, funcs{}))
	for range 200 {
		call()
	}
	for told.count("an old copy") == 0 {
		call()
	}
	if got := told.count("not connected"); got != 2 {
		t.Errorf("told %d times: %s", got, told.b.String())
	}
}

// While a process of a node is connected and heard, another one with its id is
// refused for good, however high its boot number: it runs on a copy. Once the first
// has ended the next one is let in.
func TestSecondProcessOfANode(t *testing.T) {
	n := newNetwork()
	var asked atomic.Int64
	o := n.options(2, funcs{})
	o.Admit = func(Identity) error { asked.Add(1); return nil }
	run(t, o)
	original, stop := run(t, n.options(1, funcs{}))
	if _, err := original.Call(t.Context(), 2, nil); err != nil {
		t.Fatal(err)
	}
	twin := n.options(3, funcs{})
	twin.Self.Node, twin.Self.Boot = 1, 2
	second, _ := run(t, twin)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for range 30 {
			_, _ = original.Call(t.Context(), 2, nil) // what matters is that it is heard
			second.pause(rivalPause)
		}
	}()
	before := asked.Load()
	_, _, err := second.CallAddress(t.Context(), address(2), nil)
	wantRefusal(t, err, 2, message.Conflict, "two servers run on copies")
	if got := asked.Load(); got != before {
		t.Errorf("it was asked %d times about the second process: its boot number counts now", got-before)
	}
	<-heard
	stop()
	if _, _, err := second.CallAddress(t.Context(), address(2), nil); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

func TestVisitsNeedNoNodeIDs(t *testing.T) {
	n := newNetwork()
	n.run(t, 2, funcs{call: func(_ context.Context, from uint64, request []byte) ([]byte, error) {
		if from != 0 {
			return nil, errors.New("who is that?")
		}
		return append(request, '!'), nil
	}})
	o := n.options(1, funcs{})
	o.Self = Identity{}
	joiner, _ := run(t, o)
	answer, who, err := joiner.CallAddress(t.Context(), address(2), []byte("let me in"))
	if err != nil || string(answer) != "let me in!" || who != (Identity{Cluster: "c", Node: 2, Boot: 1}) {
		t.Fatalf("%q of %v, %v", answer, who, err)
	}
	_, _, err = joiner.CallAddress(t.Context(), "nowhere", nil)
	wantCode(t, err, message.Unavailable)
	if got := joiner.Stats().Connections; got != 0 {
		t.Fatalf("%d connections are left", got)
	}
}

// speak opens a connection to node 2 and speaks by hand.
func speak(t *testing.T, n *network) net.Conn {
	t.Helper()
	c, err := n.dial(t.Context(), address(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOtherVersionsAreTold(t *testing.T) {
	n := newNetwork()
	n.run(t, 2, funcs{})
	c := speak(t, n)
	b := appendHello(nil, hello{Identity: Identity{Cluster: "c", Node: 1, Boot: 1}, purpose: forCalls})
	b[len(magic)] = version + 1
	go c.Write(b)
	answer, err := readHello(c)
	if err != nil || answer.refusal == nil || answer.refusal.Code != message.Unimplemented {
		t.Fatalf("answered with %+v, %v", answer, err)
	}
	if _, err := c.Read(b); !errors.Is(err, io.EOF) {
		t.Fatalf("the connection goes on: %v", err)
	}
}

func TestStrangersAreHungUpOn(t *testing.T) {
	n := newNetwork()
	n.run(t, 2, funcs{})
	for _, said := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		magic + "\x01\xff\xff\x00\x00\x00\x00",        // 64 KiB of a hello
		magic + "\x01\x00\x02\x00\x00\x00\x00ab",      // a wrong checksum
		string(appendHello(nil, hello{purpose: 200})), // answered, then ended
	} {
		c := speak(t, n)
		go io.WriteString(c, said)
		if b, err := io.ReadAll(c); err != nil || len(b) > maxHello {
			t.Errorf("%q is answered with %q, %v", said, b, err)
		}
	}
}

// A handshake that drips in is ended after 10 s, however steadily it drips.
func TestSlowHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.run(t, 2, funcs{})
		c := speak(t, n)
		began := time.Now()
		var err error
		for _, b := range appendHello(nil, hello{Identity: Identity{Cluster: strings.Repeat("x", 100)}}) {
			if _, err = c.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); err == nil || took < 9*time.Second || took > 12*time.Second {
			t.Fatalf("ended after %v: %v", took, err)
		}
	})
}

func TestHandshakesUnderWayAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		b := n.run(t, 2, funcs{})
		for range maxGuests {
			speak(t, n)
		}
		synctest.Wait()
		if got := b.Stats(); got.Connections != maxGuests || got.Refused != 0 {
			t.Fatalf("%+v", got)
		}
		c := speak(t, n)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("one too many got %v", err)
		}
		if got := b.Stats(); got.Connections != maxGuests || got.Refused != 1 {
			t.Fatalf("%+v", got)
		}
		time.Sleep(11 * time.Second) // all of them were too slow
		a := n.run(t, 1, funcs{})
		if _, err := a.Call(t.Context(), 2, nil); err != nil {
			t.Fatal(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.guests != 0 || len(b.conns) != 1 {
			t.Fatalf("%d guests, %d connections", b.guests, len(b.conns))
		}
	})
}

// A node that connects again, for example after it was cut off, does not leave
// its older connection behind.
func TestNewerConnectionReplacesTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.run(t, 2, funcs{})
		greet := func() net.Conn {
			c := speak(t, n)
			go c.Write(appendHello(nil, hello{Identity: Identity{Cluster: "c", Node: 1, Boot: 1}, purpose: forCalls}))
			if h, err := readHello(c); err != nil || h.refusal != nil {
				t.Fatalf("%+v, %v", h, err)
			}
			synctest.Wait()
			return c
		}
		older := greet()
		newer := greet()
		if _, err := io.ReadAll(older); err != nil {
			t.Fatal(err)
		}
		if f, err := readFrame(newer, new([headerBytes]byte), maxFrame); err != nil || f.kind != framePing {
			t.Fatalf("the newer one got %+v, %v", f, err)
		}
	})
}

// Who has no id may ask to be let in, and no more: what it sends as another
// replica's messages reaches nobody.
func TestVisitorsSendNoMessages(t *testing.T) {
	n := newNetwork()
	n.run(t, 2, funcs{messages: func(from uint64, batch []Message) { t.Errorf("node %d sent %v", from, batch) }})
	c := speak(t, n)
	said := appendHello(nil, hello{purpose: forVisit})
	go c.Write(append(said, sealed(frameMessages, 0, appendMessage(nil, Message{Group: 1, Data: []byte("vote")})...)...))
	if h, err := readHello(c); err != nil || h.refusal != nil {
		t.Fatalf("%+v, %v", h, err)
	}
	if f, err := readFrame(c, new([headerBytes]byte), maxFrame); !errors.Is(err, io.EOF) {
		t.Errorf("answered with %+v, %v", f, err)
	}
}

func TestVisitorsAskForLittle(t *testing.T) {
	n := newNetwork()
	n.run(t, 2, funcs{call: func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	greet := func() net.Conn {
		c := speak(t, n)
		go c.Write(appendHello(nil, hello{purpose: forVisit}))
		if h, err := readHello(c); err != nil || h.refusal != nil {
			t.Fatalf("%+v, %v", h, err)
		}
		return c
	}
	c := greet()
	large := beginFrame(nil)
	sealFrame(large, frameRequest, 1)
	binary.BigEndian.PutUint32(large, maxForeign+1)
	sealHeader(large)
	go c.Write(large)
	if f, err := readFrame(c, new([headerBytes]byte), maxFrame); !errors.Is(err, io.EOF) {
		t.Errorf("a frame of more than 64 KiB: answered with %+v, %v", f, err)
	}
	c = greet()
	request := appendTimeLeft(t.Context(), nil, time.Time{})
	go c.Write(append(sealed(frameRequest, 1, request...), sealed(frameRequest, 2, request...)...))
	f, err := readFrame(c, new([headerBytes]byte), maxFrame)
	if refusal, bad := decodeFailure(f.payload); err != nil || f.id != 2 || bad != nil || refusal.Code != message.ResourceExhausted {
		t.Errorf("a second call at a time: answered with %+v, %v", f, err)
	}
}
