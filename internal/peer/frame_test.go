package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

func sealed(k kind, id uint64, payload ...byte) []byte {
	b := append(beginFrame(nil), payload...)
	sealFrame(b, k, id)
	return b
}

// What is read is written again as the same bytes, and nothing makes a decoder
// panic.
func FuzzFrame(f *testing.F) {
	f.Add(sealed(framePing, 0))
	f.Add(sealed(frameRequest, 7, append(appendTimeLeft(context.Background(), nil, time.Time{}), "request"...)...))
	f.Add(sealed(frameMessages, 0, appendMessage(appendMessage(nil, Message{1, []byte("a")}), Message{1 << 60, nil})...))
	f.Add(sealed(frameFailure, 1<<63, appendFailure(nil, message.Errorf(message.NotLeader, "by 3"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bytes.NewReader(b), new([headerBytes]byte), maxFrame)
		if err == nil {
			if again := sealed(got.kind, got.id, got.payload...); !bytes.HasPrefix(b, again) {
				t.Fatalf("%x is read, and written as %x", b, again)
			}
			b = got.payload
		}
		if batch, err := decodeMessages(b); err == nil {
			var again []byte
			for _, m := range batch {
				again = appendMessage(again, m)
			}
			if back, err := decodeMessages(again); err != nil || !reflect.DeepEqual(back, batch) {
				t.Fatalf("%v comes back as %v, %v", batch, back, err)
			}
		}
		if e, err := decodeFailure(b); err == nil && len(e.Text) <= maxText {
			if back, err := decodeFailure(appendFailure(nil, e)); err != nil || *back != *e {
				t.Fatalf("%v comes back as %v, %v", e, back, err)
			}
		}
		if left, rest, err := takeTimeLeft(b); err == nil && (left < 0 || left > maxTimeLeft || len(rest) >= len(b)) {
			t.Fatalf("%x: %v left, %d bytes of %d", b, left, len(rest), len(b))
		}
	})
}

func FuzzHello(f *testing.F) {
	h := hello{Identity: Identity{Cluster: "cluster", Node: 3, Boot: 9}, purpose: forStream, expects: 4}
	f.Add(appendHello(nil, h))
	h.refusal = message.Errorf(message.PermissionDenied, "node 3 was removed")
	f.Add(appendHello(nil, h))
	f.Add([]byte(magic + "\x02\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err != nil { // then perhaps it is a body
			if h, err = decodeHello(b); err != nil {
				return
			}
		}
		if h.refusal != nil && len(h.refusal.Text) > maxText {
			return
		}
		back, err := readHello(bytes.NewReader(appendHello(nil, h)))
		if err != nil || !reflect.DeepEqual(back, h) {
			t.Fatalf("%+v comes back as %+v, %v", h, back, err)
		}
	})
}

func TestLargestHelloIsTaken(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 10_000))
	b := appendHello(nil, hello{Identity: Identity{Cluster: long[:MaxCluster]}, refusal: message.Errorf(message.ForeignOrigin, "%s", long)})
	if h, err := readHello(bytes.NewReader(b)); err != nil || len(h.refusal.Text) != maxText || len(b) > maxHello {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
}

// flip changes one bit of what is written through it, and then no more.
type flip struct {
	net.Conn
	left *atomic.Int64 // bits until the one that flips
}

func (f flip) Write(b []byte) (int, error) {
	if at := f.left.Add(-int64(len(b))*8) + int64(len(b))*8; at >= 0 && at < int64(len(b))*8 {
		b = bytes.Clone(b)
		b[at/8] ^= 1 << (at % 8)
	}
	return f.Conn.Write(b)
}

// A bit that flips on its way is found, whichever it is: no handler sees a
// request that was not made, and no caller an answer that was not given.
func TestEveryBitFlipIsFound(t *testing.T) {
	request := []byte("0123456789")
	handshake := len(appendHello(nil, hello{Identity: Identity{Cluster: "c", Node: 1, Boot: 1}}))
	timeLeft := len(appendTimeLeft(t.Context(), nil, time.Time{}))
	for _, answers := range []bool{false, true} {
		bytesSent := handshake + headerBytes + len(request)
		if !answers {
			bytesSent += timeLeft
		}
		for bit := range int64(bytesSent) * 8 {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				var left atomic.Int64
				left.Store(bit)
				bend := func(c net.Conn) net.Conn { return flip{c, &left} }
				b := n.options(2, funcs{call: func(_ context.Context, _ uint64, got []byte) ([]byte, error) {
					if !bytes.Equal(got, request) {
						t.Errorf("bit %d: the handler got %q", bit, got)
					}
					return got, nil
				}})
				if answers {
					b.Listener = &bentListener{b.Listener, bend}
				} else {
					n.wrapping(bend)
				}
				run(t, b)
				a := n.run(t, 1, funcs{})
				_, err := a.Call(t.Context(), 2, request)
				if bit < int64(handshake)*8 {
					wantCode(t, err, message.Unavailable)
				} else {
					wantCode(t, err, message.UnknownOutcome)
				}
			})
		}
	}
}

type bentListener struct {
	net.Listener
	bend func(net.Conn) net.Conn
}

func (l *bentListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c = l.bend(c)
	}
	return c, err
}

// drip reads and writes one byte at a time.
type drip struct{ net.Conn }

func (d drip) Read(b []byte) (int, error) { return d.Conn.Read(b[:min(len(b), 1)]) }

func (d drip) Write(b []byte) (n int, err error) {
	for i := range b {
		if _, err := d.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestByteByByte(t *testing.T) {
	n := newNetwork()
	n.wrapping(func(c net.Conn) net.Conn { return drip{c} })
	got := make(chan []byte, 1)
	n.run(t, 2, funcs{stream: func(_ context.Context, _ uint64, header []byte, body io.Reader) error {
		b, err := io.ReadAll(body)
		got <- append(header, b...)
		return err
	}})
	a := n.run(t, 1, funcs{})
	request := bytes.Repeat([]byte("abc"), 1000)
	if answer, err := a.Call(t.Context(), 2, request); err != nil || !bytes.Equal(answer, request) {
		t.Fatalf("%d bytes, %v", len(answer), err)
	}
	if err := a.Stream(t.Context(), 2, []byte("head"), bytes.NewReader(request)); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, append([]byte("head"), request...)) {
		t.Fatalf("%d bytes of the stream", len(b))
	}
}

// A connection ends with the first frame that cannot be.
func TestImpossibleFramesEndAConnection(t *testing.T) {
	large := beginFrame(nil)
	sealFrame(large, frameRequest, 1)
	binary.BigEndian.PutUint32(large, maxFrame+1)
	sealHeader(large)
	for name, said := range map[string][]byte{
		"an answer":            sealed(frameAnswer, 1),
		"an unknown kind":      sealed(200, 1),
		"a request of nothing": sealed(frameRequest, 1),
		"messages of junk":     sealed(frameMessages, 0, 0xff),
		"a part of a stream":   sealed(frameData, 0),
		"too large a frame":    large,
	} {
		n := newNetwork()
		n.run(t, 2, funcs{})
		c := speak(t, n)
		go c.Write(append(appendHello(nil, hello{Identity: Identity{Cluster: "c", Node: 1}, purpose: forCalls}), said...))
		if h, err := readHello(c); err != nil || h.refusal != nil {
			t.Fatalf("%+v, %v", h, err)
		}
		if f, err := readFrame(c, new([headerBytes]byte), maxFrame); !errors.Is(err, io.EOF) {
			t.Errorf("%s: answered with %+v, %v", name, f, err)
		}
	}
}
