// Package clock is where time comes from, so that a simulation can bring its
// own.
package clock

import "time"

// Clock tells and measures time.
type Clock interface {
	// Now has a monotonic reading for durations, and wall time for people.
	Now() time.Time
	// Tick sends the time each d until stop is called; a slow reader loses some.
	Tick(d time.Duration) (ticks <-chan time.Time, stop func())
}

// System is the machine's clock.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time { return time.Now() }

func (system) Tick(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}
