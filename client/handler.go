package client

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Handler does the work of one message. What it returns is the only signal: nil
// acks; RetryAfter, Reject and Release say what they say; any other error, and a
// panic, is a failed attempt.
type Handler func(ctx context.Context, job *RawJob) error

// Middleware puts something around a handler: it may look at the job, change the
// context and the error, or not call the handler at all. What the handler panicked
// with, it sees as an error.
type Middleware func(Handler) Handler

// around is h with middleware around it.
func around(h Handler, middleware []Middleware) Handler {
	h = safe(h)
	for _, m := range slices.Backward(middleware) {
		h = safe(m(h))
	}
	return h
}

// safe turns a panic of h into an error that says where it was.
func safe(h Handler) Handler {
	return func(ctx context.Context, job *RawJob) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, panicked())
			}
		}()
		return h(ctx, job)
	}
}

// panicked lists the calls that led to the panic that is being recovered, innermost
// first. A full stack would spend the little room of an error text on ourselves and
// on addresses.
func panicked() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	var b strings.Builder
	for more, found := true, false; more; {
		var f runtime.Frame
		f, more = frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			found = true
		case found && !strings.HasPrefix(f.Function, "runtime."):
			fmt.Fprintf(&b, "%s %s:%d\n", f.Function, f.File, f.Line)
		}
	}
	return b.String()
}

// verdict is what a handler's error says about the message.
type verdict struct {
	action Action
	delay  time.Duration
	err    error
}

func (v *verdict) Error() string {
	switch {
	case v.err != nil:
		return v.err.Error()
	case v.action == ActionReject:
		return "rejected by the handler"
	case v.action == ActionRelease:
		return "released by the handler"
	default:
		return "the handler asks for another attempt"
	}
}

func (v *verdict) Unwrap() error { return v.err }

// RetryAfter is for a handler to return: it fails the attempt with err and has the
// message tried again after delay instead of the queue's backoff; at once if delay is
// not above 0. err may be nil: the attempt has failed all the same.
func RetryAfter(err error, delay time.Duration) error {
	// No delay at all would mean the queue's backoff.
	return &verdict{action: ActionNack, delay: max(delay, time.Millisecond), err: err}
}

// Reject is for a handler to return: it makes the message dead at once. err, which may
// be nil, is kept as the reason.
func Reject(err error) error { return &verdict{action: ActionReject, err: err} }

// Release is for a handler to return: it gives the message back after delay without
// counting an attempt.
func Release(delay time.Duration) error {
	return &verdict{action: ActionRelease, delay: max(delay, 0)}
}

// settlementOf puts a handler's error into a settlement.
func settlementOf(token string, err error) Settlement {
	if err == nil {
		return Settlement{Token: token, Action: ActionAck}
	}
	s := Settlement{Token: token, Action: ActionNack, Error: err.Error()}
	var v *verdict
	if errors.As(err, &v) {
		s.Action, s.Delay = v.action, v.delay
	}
	if s.Action == ActionRelease {
		s.Error = ""
	}
	return s
}
