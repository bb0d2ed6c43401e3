package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// endless is a body that counts what was read of it.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(b []byte) (int, error) {
	e.read.Add(int64(len(b)))
	return len(b), nil
}

// A stream that nobody reads waits, with little of it in memory, for as long as
// it takes, and delays neither calls nor messages.
func TestStreamHoldsBackItsSenderAndNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		began, messages := make(chan struct{}), make(chan Message, 1)
		n.run(t, 2, funcs{
			messages: func(_ uint64, batch []Message) { messages <- batch[0] },
			stream: func(ctx context.Context, _ uint64, _ []byte, body io.Reader) error {
				if _, err := body.Read(make([]byte, 1)); err != nil {
					return err
				}
				close(began)
				time.Sleep(10 * time.Minute)
				return message.Errorf(message.ResourceExhausted, "no room")
			},
		})
		a := n.run(t, 1, funcs{})
		body, answer := new(endless), make(chan error)
		go func() { answer <- a.Stream(t.Context(), 2, nil, body) }()
		<-began
		synctest.Wait()
		if got := body.read.Load(); got > streamQueue+4*chunkBytes {
			t.Errorf("%d bytes of the body were read", got)
		}
		for range 100 {
			a.Send(2, []Message{{Group: 1}})
			<-messages
			if _, err := a.Call(t.Context(), 2, nil); err != nil {
				t.Fatal(err)
			}
		}
		wantCode(t, <-answer, message.ResourceExhausted)
		synctest.Wait()
		if got := a.Stats().Connections; got != 1 {
			t.Errorf("%d connections are left", got)
		}
	})
}

// A body that breaks off never looks complete to the handler, and ends its
// context.
func TestBrokenStreams(t *testing.T) {
	errTorn := errors.New("the disk is torn")
	for name, c := range map[string]struct {
		breakOff func(cancel context.CancelFunc) error
		want     error
	}{
		"the body fails":      {func(context.CancelFunc) error { return errTorn }, errTorn},
		"the caller gives up": {func(cancel context.CancelFunc) error { cancel(); return io.EOF }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork()
			began, got := make(chan struct{}), make(chan error, 1)
			n.run(t, 2, funcs{stream: func(ctx context.Context, _ uint64, _ []byte, body io.Reader) error {
				_, err := io.ReadFull(body, make([]byte, 3))
				close(began)
				if err == nil {
					if _, err = io.ReadAll(body); err != nil {
						<-ctx.Done()
					}
				}
				got <- err
				return err
			}})
			a := n.run(t, 1, funcs{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			breaking := readerFunc(func([]byte) (int, error) {
				<-began
				err := c.breakOff(cancel)
				return 0, err
			})
			err := a.Stream(ctx, 2, nil, io.MultiReader(strings.NewReader("abc"), breaking))
			wantCode(t, err, message.UnknownOutcome)
			if !errors.Is(err, c.want) {
				t.Errorf("the error hides why: %v", err)
			}
			if err := <-got; err == nil {
				t.Error("the handler read a complete body")
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestStreamsAreNotSentToNobody(t *testing.T) {
	n := newNetwork()
	a := n.run(t, 1, funcs{})
	wantCode(t, a.Stream(t.Context(), 2, nil, new(endless)), message.Unavailable)
	wantCode(t, a.Stream(t.Context(), 99, nil, new(endless)), message.Unavailable)
	wantCode(t, a.Stream(t.Context(), 2, make([]byte, MaxRequest+1), new(endless)), message.TooLarge)
}

// Over real sockets an early refusal must not be lost behind a body that was not
// read.
func TestEarlyRefusalArrives(t *testing.T) {
	a, _ := pair(t, funcs{}, funcs{stream: func(_ context.Context, from uint64, header []byte, _ io.Reader) error {
		return message.Errorf(message.NotLeader, "%s of %d", header, from)
	}})
	for range 20 {
		err := a.Stream(t.Context(), 2, []byte("snapshot"), new(endless))
		if got := fmt.Sprint(err); got != "NOT_LEADER: snapshot of 1" {
			t.Fatal(got)
		}
	}
}

func TestLargeStream(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	var got []byte
	a, _ := pair(t, funcs{}, funcs{stream: func(_ context.Context, _ uint64, _ []byte, body io.Reader) (err error) {
		got, err = io.ReadAll(body)
		return err
	}})
	if err := a.Stream(t.Context(), 2, nil, bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d arrived", len(got), len(want))
	}
}
