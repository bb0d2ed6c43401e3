package load

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	pageWords = 1 << 15
	perWord   = 32 // messages
	pageSize  = pageWords * perWord
	maxPages  = 1 << 10 // a run of more than 2^30 messages panics

	// minBody has room for a message's number and time.
	minBody = 16
)

// ledger numbers the messages of a run, counts those that were confirmed, and
// remembers which have arrived.
type ledger struct {
	began  time.Time
	filler []byte

	next       atomic.Uint64
	confirmed  atomic.Int64
	arrived    atomic.Int64 // each message once
	duplicates atomic.Int64
	foreign    atomic.Int64
	pages      [maxPages]atomic.Pointer[[pageWords]atomic.Uint32] // a bit for each message that arrived
}

// newLedger makes a ledger. Its bodies hold noise that does not repeat within
// the reach of a storage engine's compression: a system that compresses gets no
// present.
func newLedger() *ledger {
	l := &ledger{began: time.Now(), filler: make([]byte, 2<<20)}
	noise := rand.NewChaCha8([32]byte{1})
	_, _ = noise.Read(l.filler) // never fails
	return l
}

// fill gives body a new number, the present time and noise.
func (l *ledger) fill(body []byte) {
	n := l.next.Add(1) - 1
	copy(body[minBody:], l.filler[n*1031%uint64(len(l.filler)-len(body)):])
	binary.BigEndian.PutUint64(body, n)
	stamp(body, time.Since(l.began))
}

// stamp sets the time in body, counted from the beginning of the run.
func stamp(body []byte, at time.Duration) {
	binary.BigEndian.PutUint64(body[8:], uint64(at))
}

// arrive notes a message that a handler got and returns how long it took.
func (l *ledger) arrive(body []byte) time.Duration {
	if len(body) < minBody {
		l.foreign.Add(1)
		return 0
	}
	n := binary.BigEndian.Uint64(body)
	if n >= l.next.Load() {
		l.foreign.Add(1)
		return 0
	}
	if l.mark(n) {
		l.duplicates.Add(1)
	} else {
		l.arrived.Add(1)
	}
	return time.Since(l.began) - time.Duration(binary.BigEndian.Uint64(body[8:]))
}

// mark notes that message n has arrived and says whether it had before.
func (l *ledger) mark(n uint64) bool {
	p := &l.pages[n/pageSize]
	page := p.Load()
	if page == nil {
		p.CompareAndSwap(nil, new([pageWords]atomic.Uint32))
		page = p.Load()
	}
	bit := uint32(1) << (n % perWord)
	return page[n%pageSize/perWord].Or(bit)&bit != 0
}
