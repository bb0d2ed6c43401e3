package leader

import (
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
	ready  chan struct{}

	mu      sync.Mutex
	at      []*Group // where it waits
	room    int
	pending int // reserved by leases that are proposed
	got     []queue.Leased
	err     *message.Error
	closed  bool // takes nothing new
}

// answerBytes is how much one call is given at the most, unless a single message
// is larger: gRPC clients take 4 MiB unless they are told otherwise.
const answerBytes = 3 << 20

// NewCall makes a call that will wait at so many groups.
func NewCall(queueNumber uint32, o message.ReceiveOptions, groups int) *Call {
	return &Call{
		Queue: queueNumber, Worker: o.Worker, room: o.Max, ready: make(chan struct{}, 1),
		Lease: queue.Lease{Queue: queueNumber, Worker: o.Worker, Length: o.Lease, MaxBytes: answerBytes / groups},
	}
}

// Ready has a value when something came, or something went wrong.
func (c *Call) Ready() <-chan struct{} { return c.ready }

// Close ends the call: it takes nothing new. Ready has a value once more when
// nothing of it is on its way; only then Take has all.
func (c *Call) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.pending == 0 {
		c.signal()
	}
}

// Settled says that nothing is on its way to the call.
func (c *Call) Settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending == 0
}

// Take returns what came, and what went wrong.
func (c *Call) Take() ([]queue.Leased, *message.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got, c.err
}

// reserve takes up to n of the room.
func (c *Call) reserve(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.got) > 0 {
		return 0
	}
	n = min(n, c.room)
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

// waits notes that the call waits at a group.
func (c *Call) waits(g *Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.at, g) {
		c.at = append(c.at, g)
	}
}

// groups are where the call waits.
func (c *Call) groups() []*Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.at)
}

// deliver ends a reservation of n with what became of it.
func (c *Call) deliver(n int, got []queue.Leased, err *message.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending -= n
	c.room += n - len(got)
	c.got = append(slices.Clip(c.got), got...)
	if err != nil {
		c.err = err
	}
	if len(c.got) > 0 || c.err != nil || c.closed {
		c.signal()
	}
}

func (c *Call) signal() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}
