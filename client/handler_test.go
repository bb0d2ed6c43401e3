package client_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// handled runs a worker with one message, and returns how it was settled.
func handled(t *testing.T, h client.Handler, middleware ...client.Middleware) (st *comandav1.Settlement) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: h, Middleware: middleware, DrainTimeout: time.Second}
		f.put("a")
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if len(f.settled) != 1 {
			t.Fatalf("settled %v", f.settled)
		}
		st = f.settled[0]
	})
	return st
}

// The verdicts also say something without an error, and with a time that is over.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		err    error
		action client.Action
		text   string
		delay  time.Duration
	}{
		{client.RetryAfter(errors.New("cold"), time.Minute), client.ActionNack, "cold", time.Minute},
		{client.RetryAfter(nil, -time.Minute), client.ActionNack, "the handler asks for another attempt", time.Millisecond},
		{client.Reject(nil), client.ActionReject, "rejected by the handler", 0},
		{client.Release(-time.Minute), client.ActionRelease, "", 0},
		{fmt.Errorf("oven 3: %w", client.Reject(errors.New("not a pizza"))), client.ActionReject, "oven 3: not a pizza", 0},
	} {
		st := handled(t, func(context.Context, *client.RawJob) error { return c.err })
		if st.GetAction() != c.action || st.GetError() != c.text || st.GetDelay().AsDuration() != c.delay {
			t.Errorf("%v: settled %v", c.err, st)
		}
	}
}

// burn panics, below some calls.
func burn(depth int) {
	if depth > 0 {
		burn(depth - 1)
		return
	}
	var oven *struct{ temperature int }
	oven.temperature++
}

// A panic is a failed attempt that says where it was, the innermost call first, as
// far as an error text goes.
func TestAPanicSaysWhereItWas(t *testing.T) {
	st := handled(t, func(context.Context, *client.RawJob) error { burn(20); return nil })
	want := regexp.MustCompile(`^panic: runtime error: invalid memory address or nil pointer dereference\n\S+\.burn \S+handler_test\.go:\d+\n\S+\.burn `)
	if got := st.GetError(); st.GetAction() != client.ActionNack || !want.MatchString(got) || len(got) > 1024 {
		t.Errorf("settled %v", st)
	}
	st = handled(t, func(context.Context, *client.RawJob) error {
		defer func() { panic("in the end") }()
		panic("first")
	})
	if got := st.GetError(); !strings.HasPrefix(got, "panic: in the end\n") || !strings.Contains(got, "TestAPanicSaysWhereItWas") {
		t.Errorf("two panics: %s", got)
	}
}

// A handler that ends its goroutine has failed, and its slot is free.
func TestGoexit(t *testing.T) {
	st := handled(t, func(context.Context, *client.RawJob) error { runtime.Goexit(); return nil })
	if st.GetAction() != client.ActionNack || !strings.Contains(st.GetError(), "Goexit") {
		t.Errorf("settled %v", st)
	}
}

// Middleware goes around the handler, the first outermost; it sees the job, a panic
// as an error, and what it returns counts.
func TestMiddleware(t *testing.T) {
	var saw []string
	note := func(name string) client.Middleware {
		return func(next client.Handler) client.Handler {
			return func(ctx context.Context, job *client.RawJob) error {
				saw = append(saw, name+" "+job.ID())
				err := next(ctx, job)
				line, _, _ := strings.Cut(fmt.Sprint(err), "\n")
				saw = append(saw, name+" "+line)
				return err
			}
		}
	}
	st := handled(t, func(context.Context, *client.RawJob) error { panic("fire") }, note("outer"),
		func(next client.Handler) client.Handler {
			return func(ctx context.Context, job *client.RawJob) error {
				if err := next(ctx, job); err != nil {
					return client.Reject(err)
				}
				return nil
			}
		}, note("inner"))
	if want := []string{"outer id-a", "inner id-a", "inner panic: fire", "outer panic: fire"}; !slices.Equal(saw, want) {
		t.Errorf("saw %q", saw)
	}
	if st.GetAction() != client.ActionReject {
		t.Errorf("settled %v", st)
	}
	st = handled(t, func(context.Context, *client.RawJob) error { return nil }, func(client.Handler) client.Handler {
		return func(context.Context, *client.RawJob) error { panic("in the middle") }
	})
	if !strings.HasPrefix(st.GetError(), "panic: in the middle\n") {
		t.Errorf("settled %v", st)
	}
}
