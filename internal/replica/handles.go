package replica

import "sync"

const (
	handleBlock = 1_000           // reserved at a time
	handleLow   = handleBlock / 2 // with fewer left the next block is asked for
)

// handles gives out numbers that were never used on this node. Each is reserved
// by a synced log record before it is given out.
type handles struct {
	rouse func() // the loop

	mu      sync.Mutex
	more    sync.Cond
	next    uint64 // given out next
	limit   uint64 // first that is not reserved
	asked   bool   // the loop is to reserve a block
	stopped bool
}

func (h *handles) init(rouse func()) {
	h.rouse = rouse
	h.more.L = &h.mu
}

// start begins with the first number that is not reserved: of the last block
// some may have been used.
func (h *handles) start(first uint64) { h.next, h.limit = first, first }

// take gives a number. It waits only when a whole block was used while the log
// synced once, and fails when the host has stopped.
func (h *handles) take() (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if h.stopped {
			return 0, errStopped
		}
		if h.limit-h.next < handleLow && !h.asked {
			h.asked = true
			h.rouse()
		}
		if h.next < h.limit {
			h.next++
			return h.next - 1, nil
		}
		h.more.Wait()
	}
}

// wanted says up to where to reserve.
func (h *handles) wanted() (upTo uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.limit + handleBlock, h.asked
}

// reserved is called when the record is durable.
func (h *handles) reserved(upTo uint64) {
	h.mu.Lock()
	h.limit, h.asked = upTo, false
	h.mu.Unlock()
	h.more.Broadcast()
}

func (h *handles) stop() {
	h.mu.Lock()
	h.stopped = true
	h.mu.Unlock()
	h.more.Broadcast()
}
