package peer

import (
	"bytes"
	"context"
	"errors"
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

// gated are two nodes whose connection, from 1 to 2, the test can shut. The
// handler of node 2 notes the requests that reach it.
type gated struct {
	a    *Peers
	gate *gate

	mu   sync.Mutex
	seen []string
}

func newGated(t *testing.T) *gated {
	g, n := &gated{}, newNetwork()
	n.wrapping(func(c net.Conn) net.Conn { g.gate = newGate(c); return g.gate })
	n.run(t, 2, funcs{call: func(_ context.Context, _ uint64, request []byte) ([]byte, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.seen = append(g.seen, string(request))
		return request, nil
	}})
	g.a = n.run(t, 1, funcs{})
	if _, err := g.a.Call(t.Context(), 2, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *gated) requests() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprint(g.seen)
}

// call starts a call and returns where its error comes.
func (g *gated) call(ctx context.Context, request string) chan error {
	done := make(chan error, 1)
	go func() {
		_, err := g.a.Call(ctx, 2, []byte(request))
		done <- err
	}()
	return done
}

func wantCode(t *testing.T, err error, want message.Code) {
	t.Helper()
	if got := message.CodeOf(err); got != want {
		t.Errorf("code %q, want %q: %v", got, want, err)
	}
}

// A request that the writer has taken may have left; one behind it has not, and
// when its caller gives up it never does.
func TestGivenUpBeforeAndAfterItLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		ctx, cancel := context.WithCancel(t.Context())
		g.gate.shut()
		first := g.call(ctx, "first")
		<-g.gate.knock // it is being written
		second, third := g.call(ctx, "second"), g.call(t.Context(), "third")
		synctest.Wait()
		cancel()
		err := <-first
		wantCode(t, err, message.UnknownOutcome)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("the error hides why: %v", err)
		}
		err = <-second
		wantCode(t, err, message.Unavailable)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("the error hides why: %v", err)
		}
		g.gate.unshut()
		if err := <-third; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := g.requests(); got != "[hello first third]" && got != "[hello third first]" {
			t.Fatalf("the handler saw %v", got)
		}
	})
}

func TestBrokenBeforeAndAfterItLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.gate.shut()
		first := g.call(t.Context(), "first")
		<-g.gate.knock
		second := g.call(t.Context(), "second")
		synctest.Wait()
		g.gate.Close()
		wantCode(t, <-first, message.UnknownOutcome)
		wantCode(t, <-second, message.Unavailable)
		time.Sleep(minRest * 2) // fake time: the rest is over
		if _, err := g.a.Call(t.Context(), 2, []byte("again")); err != nil {
			t.Fatal(err)
		}
		if got := g.requests(); got != "[hello again]" {
			t.Fatalf("the handler saw %v", got)
		}
	})
}

func TestBrokenWhileItIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var dialed net.Conn
		n.wrapping(func(c net.Conn) net.Conn { dialed = c; return c })
		ended := make(chan error, 1)
		n.run(t, 2, funcs{call: func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
			dialed.Close()
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}})
		a := n.run(t, 1, funcs{})
		_, err := a.Call(t.Context(), 2, nil)
		wantCode(t, err, message.UnknownOutcome)
		if err := <-ended; err == nil {
			t.Fatal("the handler's context goes on after its caller")
		}
	})
}

// Without a connection nothing is sent, and a call does not wait for ever.
func TestNotSentWithoutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a := n.run(t, 1, funcs{})
		_, err := a.Call(t.Context(), 77, nil)
		wantCode(t, err, message.Unavailable)
		_, err = a.Call(t.Context(), 2, nil)
		wantCode(t, err, message.Unavailable)
		if !errors.Is(err, errNobody) {
			t.Fatalf("the error hides why: %v", err)
		}
		began := time.Now()
		_, err = a.Call(t.Context(), 2, nil) // resting: told at once
		wantCode(t, err, message.Unavailable)
		if waited := time.Since(began); waited != 0 {
			t.Fatalf("waited %v in a rest", waited)
		}

		n.listen(address(3)) // takes nobody
		began = time.Now()
		_, err = a.Call(t.Context(), 3, nil)
		wantCode(t, err, message.Unavailable)
		if waited := time.Since(began); waited != connectTimeout {
			t.Fatalf("waited %v, want %v", waited, connectTimeout)
		}
		time.Sleep(maxRest)
		ctx, cancel := context.WithTimeout(t.Context(), connectTimeout/2)
		defer cancel()
		_, err = a.Call(ctx, 3, nil)
		wantCode(t, err, message.Unavailable)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != connectTimeout+maxRest+connectTimeout/2 {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}

		silent := n.listen(address(4)) // takes the connection, as another server would, and does not answer
		go func() {
			c, err := silent.Accept()
			if err == nil {
				_, _ = io.Copy(io.Discard, c) // until it is cut
			}
		}()
		_, _, err = a.CallAddress(t.Context(), address(4), nil)
		wantCode(t, err, message.Unavailable)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is that the --cluster-listen address") {
			t.Fatalf("the error does not say what is wrong: %v", err)
		}
	})
}

func TestErrorsOfHandlersTravel(t *testing.T) {
	n := newNetwork()
	reply := make(chan error, 1)
	n.run(t, 2, funcs{call: func(context.Context, uint64, []byte) ([]byte, error) { return nil, <-reply }})
	a := n.run(t, 1, funcs{})
	for _, c := range []struct {
		err  error
		want message.Error
	}{
		{message.Errorf(message.NotLeader, "led by 3"), message.Error{Code: message.NotLeader, Text: "led by 3"}},
		{fmt.Errorf("send: %w", message.Errorf(message.Fenced, "no")), message.Error{Code: message.Fenced, Text: "no"}},
		{errors.New("oops"), message.Error{Code: message.Internal, Text: "oops"}},
		{&message.Error{Text: "no code"}, message.Error{Code: message.Internal, Text: ": no code"}},
		{
			message.Errorf(message.Gone, "%s", bytes.Repeat([]byte("x"), maxText+1)),
			message.Error{Code: message.Gone, Text: string(bytes.Repeat([]byte("x"), maxText))},
		},
	} {
		reply <- c.err
		_, err := a.Call(t.Context(), 2, nil)
		got, ok := errors.AsType[*message.Error](err)
		if !ok || *got != c.want {
			t.Errorf("%v arrives as %v", c.err, err)
		}
	}
}

func TestDeadlinesTravelAndCancelsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		left, ended := make(chan time.Duration, 1), make(chan time.Time, 1)
		n.run(t, 2, funcs{call: func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
			if deadline, ok := ctx.Deadline(); ok {
				left <- time.Until(deadline)
			} else {
				left <- 0
			}
			<-ctx.Done()
			ended <- time.Now()
			return nil, ctx.Err()
		}})
		a := n.run(t, 1, funcs{})

		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		began := time.Now()
		_, err := a.Call(ctx, 2, nil)
		if got := <-left; got != 90*time.Second {
			t.Fatalf("the handler has %v, want 90 s", got)
		}
		if got := (<-ended).Sub(began); got != 90*time.Second {
			t.Fatalf("the handler ended after %v", got)
		}
		if !errors.Is(err, context.DeadlineExceeded) && message.CodeOf(err) != message.Internal {
			t.Fatalf("a caller without time got %v", err)
		}

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		began = time.Now()
		_, err = a.Call(ctx, 2, nil)
		wantCode(t, err, message.UnknownOutcome)
		if got := <-left; got != 0 {
			t.Fatalf("the handler has %v, want no deadline", got)
		}
		if got := (<-ended).Sub(began); got != time.Minute {
			t.Fatalf("the handler ended after %v", got)
		}
	})
}

// A handler is told whether somebody still waits: only a caller that hurries it
// does.
func TestHandlersLearnWhoStillWaits(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(hurry chan struct{}, giveUp, stop func())
		waits bool
		code  message.Code
	}{
		"the caller hurries":     {func(hurry chan struct{}, _, _ func()) { close(hurry) }, true, ""},
		"the caller gives up":    {func(_ chan struct{}, giveUp, _ func()) { giveUp() }, false, message.UnknownOutcome},
		"the caller's node ends": {func(_ chan struct{}, _, stop func()) { stop() }, false, message.UnknownOutcome},
		"the time is over":       {func(chan struct{}, func(), func()) { time.Sleep(time.Hour) }, false, message.UnknownOutcome},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				began, causes := make(chan struct{}), make(chan error, 1)
				n.run(t, 2, funcs{call: func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
					close(began)
					<-ctx.Done()
					causes <- context.Cause(ctx)
					time.Sleep(time.Second)
					return []byte("what there is"), nil
				}})
				a, stop := run(t, n.options(1, funcs{}))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				hurry, done := make(chan struct{}), make(chan error, 1)
				go func() {
					answer, err := a.CallUntil(ctx, 2, nil, hurry)
					if (err == nil) != (string(answer) == "what there is") {
						t.Errorf("%q, %v", answer, err)
					}
					done <- err
				}()
				<-began
				c.end(hurry, cancel, stop)
				wantCode(t, <-done, c.code)
				if cause := <-causes; errors.Is(cause, context.Canceled) != c.waits {
					t.Errorf("the handler is told: %v", cause)
				}
			})
		})
	}
}

// A handler of a node that stops has nobody to answer to either.
func TestHandlersLearnThatTheirNodeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		began, causes := make(chan struct{}), make(chan error, 1)
		_, stop := run(t, n.options(2, funcs{call: func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
			close(began)
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		}}))
		a := n.run(t, 1, funcs{})
		go a.Call(t.Context(), 2, nil)
		<-began
		stop()
		if cause := <-causes; errors.Is(cause, context.Canceled) {
			t.Errorf("the handler is told: %v", cause)
		}
	})
}
