package liveness

import (
	"slices"
	"time"
)

const (
	// maxApart is how far a node's wall clock may be from the median of all, and
	// still lead; one that was further must come to half of it.
	maxApart = 500 * time.Millisecond
	// clockBeats is how many beats in a row must speak against what the catalog has:
	// one that was late on its way shows a clock that is behind.
	clockBeats = 3
	// minClocks is how many clocks must be known: of two nobody knows which is wrong.
	minClocks = 3
)

// wallClock is what is known of a node's.
type wallClock struct {
	known    bool
	ahead    time.Duration // of the monitor's own
	off      bool          // as the catalog has it
	against  int           // beats in a row that speak against that
	proposed verdict
}

// learn takes in what the catalog has.
func (c *wallClock) learn(off bool) {
	if c.off != off {
		c.off, c.against, c.proposed = off, 0, verdict{}
	}
}

// Compare compares a node's wall clock, as its beat shows it, with those of the
// nodes that beat; wall is the monitor's own, which is of no weight: it is there to
// compare the others by. The way of a beat counts as if the clock was behind.
//
// The clocks of all nodes judge, not those of one group's voters: there are more of
// them, and a node is judged once.
func (m *Monitor) Compare(b Bundle, wall time.Time) {
	n, ok := m.nodes[b.Node]
	if !ok || b.Boot < n.boot || b.Wall == 0 {
		return
	}
	n.clock.known, n.clock.ahead = true, time.UnixMilli(b.Wall).Sub(wall)
	var all []time.Duration
	for _, o := range m.nodes {
		if o.clock.known && m.now-o.seen < suspectAfter {
			all = append(all, o.clock.ahead)
		}
	}
	switch off, sure := judgeClock(n.clock.ahead, all, n.clock.off); {
	case !sure:
	case off == n.clock.off:
		n.clock.against = 0
	default:
		n.clock.against++
	}
}

// judgeClock says whether a clock is off, by the median of all; of an even number,
// by the nearer of the two in the middle, so that it takes a majority to call one
// wrong. sure: there are enough to say so.
func judgeClock(clock time.Duration, all []time.Duration, was bool) (off, sure bool) {
	if len(all) < minClocks {
		return was, false
	}
	slices.Sort(all)
	apart := max(all[(len(all)-1)/2]-clock, clock-all[len(all)/2])
	if was {
		return apart > maxApart/2, true
	}
	return apart > maxApart, true
}
