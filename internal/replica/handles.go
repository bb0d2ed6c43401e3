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
	needed  int    // in a row, by who waits
	stopped bool
	// now reserves at once, on a host that is stepped; nil: the loop will.
	now func()
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
func (h *handles) take() (uint64, error) { return h.takeRun(1) }

// takeRun gives n numbers in a row.
func (h *handles) takeRun(n int) (first uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if h.stopped {
			return 0, errStopped
		}
		free := h.limit - h.next
		if free < max(handleLow, uint64(n)) && !h.asked {
			h.asked, h.needed = true, n
			h.rouse()
		}
		if free >= uint64(n) {
			h.next += uint64(n)
			return h.next - uint64(n), nil
		}
		h.wait()
	}
}

// wait waits until more are reserved.
func (h *handles) wait() {
	if h.now == nil {
		h.more.Wait()
		return
	}
	h.mu.Unlock()
	h.now()
	h.mu.Lock()
}

// wanted says up to where to reserve.
func (h *handles) wanted() (upTo uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.limit + uint64(max(handleBlock, h.needed)), h.asked
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
