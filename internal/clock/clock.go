// Package clock is where time comes from, so that a simulation can bring its
// own.
package clock

import (
	"sync"
	"time"
)

// Clock tells and measures time.
type Clock interface {
	// Now is for durations: it has a monotonic reading.
	Now() time.Time
	// Wall is the time of day. It may jump, forwards and backwards.
	Wall() time.Time
	// Tick sends the time each d until stop is called; a slow reader loses some.
	Tick(d time.Duration) (ticks <-chan time.Time, stop func())
}

// System is the machine's clock.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time  { return time.Now() }
func (system) Wall() time.Time { return time.Now() }

func (system) Tick(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// Manual is a clock that stands still until it is told to go on, at once and however
// far. Its ticks are the machine's: who waits for one does not wait for ever.
type Manual struct {
	system
	mu  sync.Mutex
	now time.Time
}

// NewManual makes a clock that shows the machine's time of now.
func NewManual() *Manual { return &Manual{now: time.Now()} }

// Now is the time that the clock shows.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Wall is the same.
func (m *Manual) Wall() time.Time { return m.Now() }

// Advance makes the clock go on by d, which is not below 0.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}
