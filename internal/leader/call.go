package leader

import (
	"context"
	"slices"
	"sync"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Call is one receiver that waits for messages, at the leaders of one or more
// groups. Its room is shared by them: what one has taken of it no other can
// give too.
type Call struct {
	Queue  uint32
	Worker string
	Lease  queue.Lease // template: worker, session and length
	// Arrived is told of each lease when it has come, long before Collect returns if
	// another group lets the call wait; nil: nobody wants to know. It calls nothing of
	// the call.
	Arrived func([]queue.Leased)
	// Served is told when a group here begins to lease something to the call; nil: nobody
	// wants to know. It calls nothing of the call or the group.
	Served func()
	ready  chan struct{}
	// closing is closed when the call is, for those who wait for it elsewhere.
	closing chan struct{}
	alone   bool // it waits at one group only

	mu      sync.Mutex
	at      []place // where it waits
	room    int
	pending int // reserved by leases that are proposed
	got     []queue.Leased
	err     *message.Error
	closed  bool          // takes nothing new
	left    bool          // Collect has returned: what comes now is nobody's
	moved   chan struct{} // closed when room may have come back; nil: nobody waits for that
}

// place is a group, here or elsewhere, that a call waits at.
type place interface {
	Wait(c *Call)
	Leave(c *Call)
}

// answerBytes is how much one call is given at the most, unless a single message
// is larger: gRPC clients take 4 MiB unless they are told otherwise.
const answerBytes = 3 << 20

// NewCall makes a call that will wait at so many groups.
func NewCall(queueNumber uint32, o message.ReceiveOptions, groups int) *Call {
	return &Call{
		Queue: queueNumber, Worker: o.Worker, room: o.Max, ready: make(chan struct{}, 1),
		closing: make(chan struct{}), alone: groups == 1,
		Lease: queue.Lease{Queue: queueNumber, Worker: o.Worker, Length: o.Lease, MaxBytes: answerBytes / groups, PerKey: o.PerKey},
	}
}

// Collect waits until something came, something went wrong, or ctx ends. It ends
// the call, and waits for what is on its way: a lease that is in the log is decided
// soon, if the group has a majority. What comes later than answerWithin is given
// back.
func (c *Call) Collect(ctx context.Context) ([]queue.Leased, *message.Error) {
	select {
	case <-c.ready:
	case <-ctx.Done():
	}
	c.close() // before it leaves: else it might be sent to wait again in between
	for _, at := range c.places() {
		at.Leave(c)
	}
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	for {
		if got, err, ended := c.leave(soon.Err() != nil); ended {
			return got, err
		}
		select {
		case <-c.ready:
		case <-soon.Done():
		}
	}
}

// leave takes what came, if all has come or now.
func (c *Call) leave(now bool) (got []queue.Leased, err *message.Error, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = now || c.pending == 0
	return c.got, c.err, c.left
}

// close lets the call take nothing new. ready has a value once more when
// nothing of it is on its way.
func (c *Call) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.closing)
	}
	if c.pending == 0 {
		c.signal()
	}
}

// reserve takes up to n of the room.
func (c *Call) reserve(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.got) > 0 {
		return 0
	}
	n = min(n, c.room)
	if n > 0 && c.Served != nil {
		c.Served()
	}
	c.room -= n
	c.pending += n
	return n
}

// wants says that the call has room now, or that it is over. One without room
// may get it back, when what was on its way does not come.
func (c *Call) wants() (room, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	over = c.closed || len(c.got) > 0 || c.err != nil
	return !over && c.room > 0, over
}

// lend takes all of the room. moved is closed when some of it may be back.
func (c *Call) lend() (n int, over bool, moved <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.got) > 0 || c.err != nil {
		return 0, true, nil
	}
	n = c.room
	c.room -= n
	c.pending += n
	if n == 0 && c.moved == nil {
		c.moved = make(chan struct{})
	}
	return n, false, c.moved
}

// waits notes that the call waits at a place; false: it did before.
func (c *Call) waits(at place) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.at, at) {
		return false
	}
	c.at = append(c.at, at)
	return true
}

// places are where the call waits.
func (c *Call) places() []place {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.at)
}

// waitOn lets the groups look again that the call waits at, if it still does: they
// may have had something while it had no room.
func (c *Call) waitOn() {
	if room, _ := c.wants(); room {
		for _, at := range c.places() {
			at.Wait(c)
		}
	}
}

// deliver ends a reservation of n with what became of it. taken is false if it
// came too late for anybody to take it.
func (c *Call) deliver(n int, got []queue.Leased, err *message.Error) (taken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending -= n
	if c.left {
		return false
	}
	c.room += n - len(got)
	c.got = append(slices.Clip(c.got), got...)
	if c.Arrived != nil {
		c.Arrived(got)
	}
	if err != nil {
		c.err = err
	}
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
	if len(c.got) > 0 || c.err != nil || c.closed {
		c.signal()
	}
	return true
}

func (c *Call) signal() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}
