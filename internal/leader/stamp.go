package leader

import (
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/clock"
)

// maxStep is how far group time goes between two stamps at the most: what is
// longer was a pause of this leader, and a pause expires nobody.
const maxStep = time.Second

// stamps makes the times of entries: group time grows by this leader's
// monotonic clock, from where the last leader's stood.
type stamps struct {
	clock clock.Clock

	mu        sync.Mutex
	groupTime int64 // ms
	at        time.Time
}

// next is the time for the next entry: group time and wall time, ms.
func (s *stamps) next() (groupTime, wall int64) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	step := s.step(now)
	s.groupTime += step.Milliseconds()
	if s.at.IsZero() || step >= maxStep {
		s.at = now
	} else {
		s.at = s.at.Add(step.Truncate(time.Millisecond)) // keep what is below 1 ms
	}
	return s.groupTime, now.UnixMilli()
}

// now is what next would say, without a stamp, and how long ago the last was.
func (s *stamps) now() (groupTime int64, since time.Duration) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() {
		return s.groupTime, maxStep
	}
	return s.groupTime + s.step(now).Milliseconds(), now.Sub(s.at)
}

func (s *stamps) step(now time.Time) time.Duration {
	if s.at.IsZero() {
		return 0
	}
	return min(now.Sub(s.at), maxStep)
}

// atLeast goes on where the last leader's time stood.
func (s *stamps) atLeast(groupTime int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groupTime = max(s.groupTime, groupTime)
}
