package client

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Limits of one call (the server's), and of what may wait for the next one.
const (
	maxCallItems    = 1_000
	maxCallBytes    = 16 << 20
	maxWaitingItems = 16 * maxCallItems
	maxWaitingBytes = 4 * maxCallBytes
)

// entry is one caller's part of a shared call: In goes out, Out comes back.
type entry[In, Out any] struct {
	in   In
	size int // bytes that it counts for
	out  chan outcome[Out]

	flight *flight // the call that carries it, under the coalescer's lock; nil while it waits
}

type outcome[Out any] struct {
	value Out
	err   error
}

func newEntry[In, Out any]() *entry[In, Out] {
	return &entry[In, Out]{out: make(chan outcome[Out], 1)}
}

// answer ends the wait for e. Each entry of a call is answered once.
func (e *entry[In, Out]) answer(value Out, err error) { e.out <- outcome[Out]{value, err} }

// flight is a call under way.
type flight struct {
	cancel context.CancelFunc
	left   atomic.Int64 // callers who still want the answer
}

// coalescer turns the entries of many goroutines into few calls, without a
// timer: one call is under way at a time, and what comes meanwhile goes out
// together as the next. So entries go out in the order in which they came.
type coalescer[In, Out any] struct {
	ctx context.Context // ends when the client is closed
	// begin encodes entries and returns what makes the call and answers each of
	// them, or none and an error. The lock is held while it encodes: a caller
	// who gives up needs the lock, so it gets its memory back unread or read,
	// never while it is being read.
	begin func([]*entry[In, Out]) func(context.Context) error

	mu      sync.Mutex
	waiting []*entry[In, Out]
	bytes   int
	flying  bool
	room    chan struct{} // closed when waiting shrinks; nil while nobody waits for that
}

// do puts an entry in line and waits for its outcome. answered is false when
// ctx ended first: the entry may then still be in use.
func (c *coalescer[In, Out]) do(ctx context.Context, e *entry[In, Out]) (value Out, answered bool, err error) {
	if err := c.add(ctx, e); err != nil {
		return value, false, err
	}
	return c.wait(ctx, e)
}

// add puts an entry in line. It blocks, until ctx ends, while too much waits.
func (c *coalescer[In, Out]) add(ctx context.Context, e *entry[In, Out]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	for len(c.waiting) >= maxWaitingItems || (len(c.waiting) > 0 && c.bytes+e.size > maxWaitingBytes) {
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
		c.mu.Lock()
	}
	c.waiting = append(c.waiting, e)
	c.bytes += e.size
	if !c.flying {
		c.flying = true
		go c.fly()
	}
	c.mu.Unlock()
	return nil
}

func (c *coalescer[In, Out]) wait(ctx context.Context, e *entry[In, Out]) (value Out, answered bool, err error) {
	select {
	case o := <-e.out:
		return o.value, true, o.err
	case <-ctx.Done():
	}
	wentOut := c.leave(e)
	select {
	case o := <-e.out: // it was answered in the same moment
		return o.value, true, o.err
	default:
		return value, false, ended(ctx.Err(), wentOut)
	}
}

// leave takes back an entry whose caller gave up and says whether it had gone
// out already. The last one to leave a call ends it.
func (c *coalescer[In, Out]) leave(e *entry[In, Out]) (wentOut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := e.flight; f != nil {
		if f.left.Add(-1) == 0 {
			f.cancel()
		}
		return true
	}
	for i := range c.waiting {
		if c.waiting[i] == e {
			c.drop(i, i+1)
			break
		}
	}
	return false
}

// drop takes waiting[from:to] out of the line. The lock is held.
func (c *coalescer[In, Out]) drop(from, to int) {
	for _, e := range c.waiting[from:to] {
		c.bytes -= e.size
	}
	n := copy(c.waiting[from:], c.waiting[to:])
	clear(c.waiting[from+n:])
	c.waiting = c.waiting[:from+n]
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// fly makes one call after the other until nothing waits.
func (c *coalescer[In, Out]) fly() {
	var carried []*entry[In, Out]
	for {
		// Those whose answers have just come are about to put their next entries in
		// line: without this, calls of one and of all the others would take turns.
		runtime.Gosched()
		ctx, cancel := context.WithCancel(c.ctx)
		var call func(context.Context) error
		carried, call = c.take(carried[:0], &flight{cancel: cancel})
		if call == nil {
			cancel()
			return
		}
		if err := call(ctx); err != nil {
			for _, e := range carried {
				var none Out
				e.answer(none, err)
			}
		}
		cancel()
		clear(carried)
	}
}

// take moves what fits in one call from the line into carried, and encodes it.
func (c *coalescer[In, Out]) take(carried []*entry[In, Out], f *flight) ([]*entry[In, Out], func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(c.waiting), maxCallItems) && (n == 0 || bytes+c.waiting[n].size <= maxCallBytes) {
		bytes += c.waiting[n].size
		c.waiting[n].flight = f
		n++
	}
	if n == 0 {
		c.flying = false
		return carried, nil
	}
	f.left.Store(int64(n))
	carried = append(carried, c.waiting[:n]...)
	c.drop(0, n)
	return carried, c.begin(carried)
}

// quiet says that nothing waits and nothing is under way.
func (c *coalescer[In, Out]) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.flying
}
