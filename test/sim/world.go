package main

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// pumpEvery is how long the hosts rest at the most: what a goroutine gave to one
// of them meanwhile is done then.
const pumpEvery = 2 * time.Millisecond

// world is one run: everything in it comes from the seed.
type world struct {
	o     options
	began time.Time
	nodes []*node // by number; index 0 is node 1
	net   *network
	logs  *logs
	tally *tally
	hook  control
	log   *slog.Logger

	mu        sync.Mutex
	events    events
	next      uint64 // number of the last event
	rngs      map[string]*rand.Rand
	history   uint64       // hash of all that happened, in order
	entries   int          // of the history
	lines     []string     // of the history, if they are kept
	violation error        // the first
	sessions  []*session   // of workers
	drained   *node        // nil: none
	orders    int          // that an operator gave
	leaps     atomic.Int64 // of nodes' clocks
	jumps     atomic.Int64 // of their wall clocks
	running   sync.WaitGroup
	over      atomic.Bool     // nothing starts any more
	ctx       context.Context // of clients
	quiet     func()          // ends it
}

// event is something that happens at a time. No two happen at the same instant,
// so that no two timers which begin in them end at the same instant: the Go
// runtime orders those at random. Those that one event has woken ask for their
// turns in an order that depends on Go's scheduler; whose says who comes first.
type event struct {
	at     time.Duration
	whose  uint64
	number uint64
	do     func()
}

type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	a, b := e[i], e[j]
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.whose, b.whose), cmp.Compare(a.number, b.number)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	return x
}

func newWorld(o options, trace io.Writer) *world {
	w := &world{o: o, began: time.Now(), rngs: map[string]*rand.Rand{}}
	w.log = slog.New(slog.DiscardHandler)
	if trace != nil {
		w.log = slog.New(slog.NewTextHandler(trace, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.hook = controls[o.control]
	w.net = newNetwork(w)
	w.logs = newLogs(w)
	w.tally = newTally(w)
	return w
}

// now is the simulated time since the run began.
func (w *world) now() time.Duration { return time.Since(w.began) }

// rand is a source of random numbers for one thing, so that what happens to
// another one changes nothing for it.
func (w *world) rand(of string) *rand.Rand {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rngs[of]
	if r == nil {
		h := fnv.New64a()
		_, _ = io.WriteString(h, of) // it never fails
		r = rand.New(rand.NewPCG(w.o.seed, h.Sum64()))
		w.rngs[of] = r
	}
	return r
}

// after has something happen later.
func (w *world) after(d time.Duration, do func()) { w.afterAs(0, d, do) }

func (w *world) afterAs(whose uint64, d time.Duration, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	heap.Push(&w.events, &event{at: w.now() + d, whose: whose, number: w.next, do: do})
}

// name gives a number to one who may be woken together with others: who he is, and
// now.
func (w *world) name(who ...any) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintln(h, w.now(), who)
	return h.Sum64()
}

type nameKey struct{}

// as has what is done with the context done in someone's name.
func as(ctx context.Context, whose uint64) context.Context {
	return context.WithValue(ctx, nameKey{}, whose)
}

// whose says in whose name something is done.
func whose(ctx context.Context) uint64 {
	name, _ := ctx.Value(nameKey{}).(uint64)
	return name
}

// pause waits in simulated time; false: ctx has ended. Several that one event has
// woken, and that pause for no time, go on in different instants.
func (w *world) pause(ctx context.Context, d time.Duration) bool {
	over := make(chan struct{})
	w.afterAs(whose(ctx), d, func() { close(over) })
	select {
	case <-over:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// note adds to the history.
func (w *world) note(format string, args ...any) {
	h := fnv.New64a()
	line := fmt.Sprintf(format, args...)
	_, _ = fmt.Fprintf(h, "%d %s", w.now(), line)
	w.mu.Lock()
	w.history = w.history*1099511628211 ^ h.Sum64()
	w.entries++
	if w.o.keep {
		w.lines = append(w.lines, fmt.Sprint(w.now(), " ", line))
	}
	w.mu.Unlock()
	w.log.Debug("history", "line", line, "at", w.now())
}

// fail records a violation; the run ends.
func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.violation == nil {
		w.violation = fmt.Errorf("at %v: %s", w.now().Round(time.Microsecond), fmt.Sprintf(format, args...))
	}
}

func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violation
}

// runFor lets time pass.
func (w *world) runFor(d time.Duration) {
	end := w.now() + d
	w.runUntil(func() bool { return w.now() >= end }, d+time.Second)
}

// runUntil lets time pass until something is so; false: it was not in time.
func (w *world) runUntil(is func() bool, within time.Duration) bool {
	end := w.now() + within
	for w.failed() == nil && !is() {
		if w.now() >= end {
			return false
		}
		w.step()
	}
	return w.failed() == nil
}

// step lets the next event happen, or some time pass, and everything that comes
// of it.
func (w *world) step() {
	defer w.survive()
	w.mu.Lock()
	rest, due := pumpEvery, (*event)(nil)
	if len(w.events) > 0 {
		rest = min(rest, w.events[0].at-w.now())
		if rest <= 0 {
			due = heap.Pop(&w.events).(*event)
		}
	}
	w.mu.Unlock()
	if due != nil {
		due.do()
		w.settle()
		rest = time.Nanosecond // the next event has its own instant
	}
	time.Sleep(rest)
	if due == nil {
		w.settle()
	}
}

// happen has something happen now, as an event like any other: what it wakes runs
// when it is over, and has run when happen returns.
func (w *world) happen(do func()) {
	over := false
	w.after(0, func() { do(); over = true })
	w.runUntil(func() bool { return over }, time.Second)
}

// survive makes a panic of the product a violation.
func (w *world) survive() {
	if r := recover(); r != nil {
		w.fail("panic: %v\n%s", r, debug.Stack())
	}
}

// maxSteps is how many steps one event may cause at the most.
const maxSteps = 20_000

// settle steps the hosts until nobody has anything to do.
func (w *world) settle() {
	synctest.Wait()
	for range maxSteps {
		again := false
		for _, n := range w.nodes {
			if n.step() {
				again = true
				synctest.Wait()
			}
		}
		if !again {
			return
		}
	}
	w.fail("the hosts do not come to rest")
}

// spawn runs something beside the world's events.
func (w *world) spawn(f func()) {
	w.running.Go(func() {
		defer w.survive()
		f()
	})
}

var errDied = message.Errorf(message.UnknownOutcome, "the node died")
