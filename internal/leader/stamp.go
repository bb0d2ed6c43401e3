package leader

import (
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/clock"
)

// maxStep is how far group time goes between two stamps at the most: what is
// longer was a pause of this leader, and a pause expires nobody. A clock that is
// advanced by hand was meant to go so far.
const maxStep = time.Second

// stamps makes the times of entries: group time grows by this leader's
// monotonic clock, from where the last leader's stood. Before that is known, and
// after this replica has led, it stands still: what a leader stamped into entries
// that were lost has never been.
type stamps struct {
	clock clock.Clock

	mu        sync.Mutex
	led       bool
	groupTime int64 // ms
	at        time.Time
}

// begin goes on where the last leader's time stood.
func (s *stamps) begin(groupTime int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.led, s.groupTime, s.at = true, groupTime, s.clock.Now()
}

// end lets the time stand still: another leader goes on with it.
func (s *stamps) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.led = false
}

// next is the time for the next entry: group time (0: no later than that of the
// entry before) and wall time, ms.
func (s *stamps) next() (groupTime, wall int64) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.led {
		return 0, s.clock.Wall().UnixMilli()
	}
	step := s.step(now)
	s.groupTime += step.Milliseconds()
	if step >= maxStep || now.Before(s.at) {
		s.at = now
	} else {
		s.at = s.at.Add(step.Truncate(time.Millisecond)) // keep what is below 1 ms
	}
	return s.groupTime, s.clock.Wall().UnixMilli()
}

// now is what next would say, without a stamp, and how long ago the last was.
func (s *stamps) now() (groupTime int64, since time.Duration) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groupTime + s.step(now).Milliseconds(), now.Sub(s.at)
}

// step is how far group time goes now. A clock that went back was ahead before:
// nothing waits until it is there again.
func (s *stamps) step(now time.Time) time.Duration {
	d := max(now.Sub(s.at), 0)
	if _, meant := s.clock.(*clock.Manual); meant {
		return d
	}
	return min(d, maxStep)
}
