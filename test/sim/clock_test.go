//go:build !race

package main

import (
	"testing"
	"time"
)

// A node whose wall clock jumps gives up the lead of all its groups within some
// seconds, also of the catalog's, and leads nothing while the clock is off; then
// leaders are spread over all nodes again.
func TestNodeWithAWrongClockLeadsNothing(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, -time.Hour, time.Second} {
		for number := uint64(1); number <= founders; number++ {
			out := play(t, quick(number, ""), nil, func(w *world) (stop func()) {
				stop, ok := w.rise()
				if !ok {
					return stop
				}
				n := w.node(number)
				leads := func(of int) func() bool { return func() bool { return w.leads(n) >= of } }
				nothing := func() bool { return w.leads(n) == 0 }
				w.expect("each node leads a group", leads(1), 30*time.Second)
				n.jumped.Store(int64(by))
				w.expect("it leads nothing", nothing, 15*time.Second)
				for end := w.now() + 20*time.Second; w.now() < end && w.failed() == nil; w.step() {
					if !nothing() {
						w.fail("node %d leads again, by a clock that is %v ahead", number, by)
					}
				}
				n.jumped.Store(0)
				w.expect("it leads again", leads(1), 30*time.Second)
				return stop
			})
			if out.violation != nil {
				t.Errorf("node %d by %v: %v", number, by, out.violation)
			}
		}
	}
}

// leads counts the groups that a node leads.
func (w *world) leads(n *node) (count int) {
	if p := n.process(); p != nil {
		for _, g := range p.host.Groups() {
			if g.Leading() {
				count++
			}
		}
	}
	return count
}
