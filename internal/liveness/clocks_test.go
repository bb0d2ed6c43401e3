package liveness

import (
	"slices"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// Which clock is off: the one that is far from the median, if there are enough to
// have one.
func TestWhichClockIsOff(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name  string
		all   []time.Duration
		clock int // of them
		was   bool
		off   bool
		sure  bool
	}{
		{name: "alone", all: []time.Duration{day}},
		{name: "two, a day apart", all: []time.Duration{0, day}, clock: 1},
		{name: "two, and it was off before", all: []time.Duration{0, day}, clock: 1, was: true, off: true},
		{name: "one of three is ahead", all: []time.Duration{0, 3 * ms, day}, clock: 2, off: true, sure: true},
		{name: "one of three is behind", all: []time.Duration{0, 3 * ms, -day}, clock: 2, off: true, sure: true},
		{name: "the other two are right", all: []time.Duration{0, 3 * ms, day}, clock: 0, sure: true},
		{name: "500 ms are allowed", all: []time.Duration{0, 0, 500 * ms}, clock: 2, sure: true},
		{name: "more are not", all: []time.Duration{0, 0, 501 * ms}, clock: 2, off: true, sure: true},
		{name: "once off, 250 ms are allowed", all: []time.Duration{0, 0, 251 * ms}, clock: 2, was: true, off: true, sure: true},
		{name: "and it is right again", all: []time.Duration{0, 0, 250 * ms}, clock: 2, was: true, sure: true},
		{name: "the monitor's own is off", all: []time.Duration{0, -day, -day}, clock: 0, off: true, sure: true},
		{name: "all three disagree: the median is right", all: []time.Duration{0, day, 2 * day}, clock: 1, sure: true},
		{name: "all three disagree: another is off", all: []time.Duration{0, day, 2 * day}, clock: 0, off: true, sure: true},
		{name: "two against two", all: []time.Duration{0, 0, day, day}, clock: 3, sure: true},
		{name: "three against one", all: []time.Duration{0, 0, 0, day}, clock: 3, off: true, sure: true},
		{name: "two of five", all: []time.Duration{0, 0, 0, day, day}, clock: 4, off: true, sure: true},
	} {
		off, sure := judgeClock(c.all[c.clock], slices.Clone(c.all), c.was)
		if off != c.off || sure != c.sure {
			t.Errorf("%s: off %t, sure %t", c.name, off, sure)
		}
	}
}

// A clock that is off is told of after three beats, once, and when it is right
// again; a beat that came late and a clock that nobody can compare say nothing. The
// monitor's own clock is one of them.
func TestClocksAreCompared(t *testing.T) {
	w := newWorld(t)
	w.propose(catalog.Command{AddNode: &catalog.AddNode{Node: catalog.Node{Name: "c", StoreID: 3, Boot: 4}}})
	ahead := map[uint64]time.Duration{1: 0, 2: 100 * ms, 3: -100 * ms} // of the true time; node 1 has the monitor
	silent := map[uint64]bool{}
	wall := func(node uint64) time.Time { return epoch(w.now + ahead[node]) }
	beat := func(node uint64, late time.Duration) {
		b := Bundle{Node: node, Boot: 9, Wall: wall(node).Add(-late).UnixMilli()}
		w.monitor.Beat(b, epoch(w.now))
		w.monitor.Compare(b, wall(1))
	}
	pass := func(what string, d time.Duration, want ...string) {
		t.Helper()
		for end := w.now + d; w.now < end; {
			w.now += tick
			for node := uint64(1); node <= 3 && w.now%NodeBeat == 0; node++ {
				if !silent[node] {
					beat(node, 0)
				}
			}
			w.tick()
		}
		if got := w.take(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	pass("all are right", 10*s)
	ahead[2] = 24 * time.Hour
	pass("one jumps", 10*s, "13s node 2: clock off true")
	ahead[2] = 400 * ms
	pass("it comes near", 10*s)
	ahead[2] = 200 * ms
	pass("it comes nearer", 10*s, "33s node 2: clock off false")
	for range 2 {
		beat(3, 5*s)
		beat(3, 5*s)
		pass("two beats come late", 2*s)
	}
	ahead[1] = -time.Hour
	pass("the monitor's own jumps", 10*s, "48s node 1: clock off true")
	w.lead() // somewhere: what the catalog has stays
	pass("another monitor", 10*s)
	silent[3] = true
	ahead[1] = 0
	pass("two are left", 20*s, "1m7s node 3: suspect", "1m14s node 3: down")
	silent[3] = false
	pass("three again", 5*s, "1m25s node 3: alive", "1m27s node 1: clock off false")
}
