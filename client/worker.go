package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	defaultLease   = 30 * time.Second
	minLease       = time.Second
	maxLease       = 12 * time.Hour
	defaultDrain   = 30 * time.Second
	maxConcurrency = 10_000
)

// Causes of a handler's context, found by context.Cause.
var (
	// ErrLeaseLost: the message is, or will be, another worker's. Whatever the
	// handler still does may be done twice.
	ErrLeaseLost = errors.New("the lease was lost")
	// ErrCancelled: somebody cancels the message. Whatever the handler returns but
	// nil ends it for good.
	ErrCancelled = errors.New("the message is cancelled")
	// ErrDrainTimeout: the worker is stopping and can't wait longer.
	ErrDrainTimeout = errors.New("the worker's drain timeout is over")
)

// Worker takes messages of a queue and runs a handler for each. Its fields are
// not changed while it runs; one Worker may be run many times.
type Worker struct {
	Client *Client
	Queue  string
	// Concurrency is how many handlers run at a time: 1–10,000; default
	// GOMAXPROCS.
	Concurrency int
	// Handler does the work; for messages of several types it is a Mux's Run. Its
	// context keeps the values of Run's, and is cancelled when the lease is lost or
	// the drain timeout is over, not when Run's ends: a handler must then return
	// soon.
	Handler Handler
	// Middleware goes around the handler of each message, the first outermost.
	Middleware []Middleware
	// Settled, if set, is called once for each message whose handler ran, when
	// nothing more will become of it: with nil what the handler said is durable.
	// It must return soon, because answers wait for it.
	Settled func(job *RawJob, err error)
	// TTL is how long the worker may be silent before the server takes it for dead
	// and others get its messages: 5 s–5 min; default 10 s. It sends a heartbeat
	// every fifth of it. When none was answered for four fifths of it the handlers
	// are cancelled with ErrLeaseLost.
	TTL time.Duration
	// OnDisconnect says what a broken connection means: with OnDisconnectReroute,
	// the default, the messages are others' after a second, and handlers are
	// cancelled when no server has taken the worker back within 0.8 s; with
	// OnDisconnectWait only the TTL counts.
	OnDisconnect OnDisconnect
	// Lease is the length of the leases of a server that knows no heartbeats. They
	// are extended at a third of it as long as the handler runs: 1 s–12 h; default
	// 30 s.
	Lease time.Duration
	// Name is the worker's name in histories; default: host:pid.
	Name string
	// DrainTimeout is how long handlers may go on in a drain: after Run's context
	// ended, or the server had the worker drain; default 30 s.
	DrainTimeout time.Duration
	// IdleTimeout, if set, ends Run when nothing was to do for so long.
	IdleTimeout time.Duration
	// MaxMessages, if set, ends Run when so many were taken and settled; one that
	// comes again counts again.
	MaxMessages int
	// Logger gets what happens to the worker and to its settlements; default:
	// nothing is logged.
	Logger *slog.Logger
}

// Run works until ctx ends, or somebody has the worker drain ('comanda worker drain').
// Then it takes nothing new, gives back what it did not begin, lets handlers finish,
// and returns nil when everything is settled. When the server goes away Run connects
// again and handlers go on meanwhile. It returns an error when the server refuses the worker (as for an
// unknown queue), when nothing was to do for IdleTimeout because no server
// answered, or when the last settlements could not be delivered.
//
// Run leaves signals to the program, which may have other work to end. The usual way to
// run a worker in a main is RunUntilSignal.
func (w *Worker) Run(ctx context.Context) error {
	filled, err := w.filled()
	if err != nil {
		return err
	}
	return newShift(ctx, filled).run(ctx)
}

// RunUntilSignal is Run for a program's main: SIGTERM and Ctrl-C drain the worker as the
// end of ctx does, and no attempt is counted. A second signal ends the program.
func (w *Worker) RunUntilSignal(ctx context.Context) error {
	ctx, drain := context.WithCancel(ctx)
	defer drain()
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	defer close(done)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			drain()
		case <-done:
		}
		signal.Stop(signals) // the second signal has its usual effect
	}()
	return w.Run(ctx)
}

// filled is a copy of w with its defaults.
func (w *Worker) filled() (*Worker, error) {
	f := *w
	if f.Concurrency == 0 {
		f.Concurrency = runtime.GOMAXPROCS(0)
	}
	if f.Lease == 0 {
		f.Lease = defaultLease
	}
	if f.DrainTimeout == 0 {
		f.DrainTimeout = defaultDrain
	}
	if f.Name == "" {
		f.Name = hostPID()
	}
	if f.Logger == nil {
		f.Logger = slog.New(slog.DiscardHandler)
	}
	invalid := func(format string, args ...any) (*Worker, error) {
		return nil, &Error{Code: CodeInvalidArgument, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case f.Client == nil || f.Handler == nil || f.Queue == "":
		return invalid("a worker needs Client, Queue and Handler")
	case f.Concurrency < 0 || f.Concurrency > maxConcurrency:
		return invalid("concurrency is %d: want 1 to %d", f.Concurrency, maxConcurrency)
	case f.Lease < minLease || f.Lease > maxLease:
		return invalid("the lease is %s: want %s to %s", f.Lease, minLease, maxLease)
	case f.TTL != 0 && (f.TTL < minTTL || f.TTL > maxTTL):
		return invalid("the TTL is %s: want %s to %s", f.TTL, minTTL, maxTTL)
	case f.DrainTimeout < 0 || f.IdleTimeout < 0 || f.MaxMessages < 0:
		return invalid("a timeout or a number of messages is negative")
	}
	f.Handler = around(f.Handler, f.Middleware)
	return &f, nil
}

// hostPID is a worker's name when it gives none.
func hostPID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + ":" + strconv.Itoa(os.Getpid())
}
