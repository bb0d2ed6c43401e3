package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// faults are what happens to the world, one after the other, from the seed.
func (w *world) faults(end time.Duration) {
	r := w.rand("faults")
	for w.now() < end && w.failed() == nil {
		w.runFor(time.Duration(r.Int64N(int64(1500 * time.Millisecond))))
		w.tally.count("faults")
		n := w.nodes[r.IntN(len(w.nodes))]
		keep := []int{0, 0, 1, 50, 99}[r.IntN(5)]
		lasts := 200*time.Millisecond + time.Duration(r.Int64N(int64(4*time.Second)))
		switch x := r.IntN(25); {
		case x >= 23:
			w.jump(r, n, keep, lasts)
		case x >= 20:
			w.happen(func() { w.change(r, lasts) })
		case x < 4:
			w.crash(n, keep, lasts)
		case x < 7: // at a sync of the log
			w.crashAtSync(n, keep, 1+r.Int64N(20), lasts)
		case x == 7: // all at once
			for _, n := range w.nodes {
				w.crash(n, keep, lasts)
			}
		case x < 10:
			w.isolate(n, lasts)
		case x < 12: // one direction
			w.cut(link{n.number, w.other(n).number}, lasts)
		case x == 12: // a bridge: each reaches only its neighbours
			o := w.other(n)
			w.cut(link{n.number, o.number}, lasts)
			w.cut(link{o.number, n.number}, lasts)
		case x < 15:
			w.note("node %d stands still for %v", n.number, lasts)
			n.stalled.Store(int64(w.now() + lasts))
		case x < 17:
			rough := roughness{loss: r.Float64() * 0.3, double: r.Float64() * 0.2, late: r.Float64() * 0.3, reset: r.Float64() * 0.1, delay: 30 * time.Millisecond}
			w.roughen(rough, lasts)
		default:
			w.happen(func() { w.trouble(r.IntN(1000), lasts) })
		}
	}
}

// crash cuts a node's power and starts it again.
func (w *world) crash(n *node, keep int, after time.Duration) {
	if n.process() == nil {
		return
	}
	n.keep = keep
	w.happen(n.die)
	w.restart(n, after)
}

// crashAtSync cuts a node's power in the middle of a step.
func (w *world) crashAtSync(n *node, keep int, syncs int64, after time.Duration) {
	p := n.process()
	if p == nil {
		return
	}
	n.keep = keep
	n.disk.cutAfter.Store(syncs)
	w.runUntil(func() bool { return n.up.Load() != p }, 3*time.Second)
	if n.up.Load() == p { // it had nothing to sync
		n.disk.cutAfter.Store(0)
		return
	}
	w.restart(n, after)
}

func (w *world) restart(n *node, after time.Duration) {
	w.tally.count("crashes")
	w.after(after, n.restart)
}

func (w *world) other(n *node) *node { return w.nodes[int(n.number)%len(w.nodes)] }

// cut loses what goes one way, for a while.
func (w *world) cut(l link, lasts time.Duration) {
	w.note("nothing comes from node %d to %d for %v", l.from, l.to, lasts)
	w.net.set(l, true)
	w.after(lasts, func() { w.net.set(l, false) })
}

// jump lets a node's wall clock jump; after a while it is right again, or the node
// dies and comes back with one that is. The monotonic clock goes along at times: that
// goes on, and never back, so the node dies.
func (w *world) jump(r *rand.Rand, n *node, keep int, lasts time.Duration) {
	by := time.Duration(1+r.Int64N(48)) * 30 * time.Minute
	if r.IntN(2) == 0 {
		by = -by
	}
	dies := r.IntN(2) == 0
	if p := n.process(); r.IntN(3) == 0 && p != nil {
		w.note("all of node %d's clock leaps", n.number)
		w.leaps.Add(1)
		n.leapt.Add(int64(max(by, -by)))
		dies = true
	}
	w.note("node %d's wall clock jumps by %v for %v", n.number, by, lasts)
	w.tally.count("jumps")
	w.jumps.Add(1)
	n.jumped.Store(int64(by))
	w.after(lasts, func() {
		n.jumped.Store(0)
		if dies && n.process() != nil {
			n.keep = keep
			n.die()
			w.restart(n, lasts)
		}
	})
}

// watchWalls begins to watch the wall clocks; right says that all have been so since.
func (w *world) watchWalls() (right func() bool) {
	jumps := w.jumps.Load()
	wrong := slices.ContainsFunc(w.nodes, func(n *node) bool { return n.jumped.Load() != 0 })
	return func() bool { return !wrong && w.jumps.Load() == jumps }
}

// isolate cuts a node off from all others.
func (w *world) isolate(n *node, lasts time.Duration) {
	for _, o := range w.nodes {
		if o != n {
			w.cut(link{n.number, o.number}, lasts)
			w.cut(link{o.number, n.number}, lasts)
		}
	}
}

func (w *world) roughen(r roughness, lasts time.Duration) {
	w.note("the network is rough for %v: %+v", lasts, r)
	w.net.setRoughness(r)
	w.after(lasts, func() { w.net.setRoughness(calm) })
}

// trouble strikes a worker with a session.
func (w *world) trouble(which int, lasts time.Duration) {
	w.mu.Lock()
	var s *session
	if len(w.sessions) > 0 {
		s = w.sessions[which%len(w.sessions)]
	}
	w.mu.Unlock()
	switch {
	case s == nil:
	case which%2 == 0:
		s.kill()
	default:
		s.freeze(lasts * 4) // up to 3 TTL
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.note("all faults end")
	w.net.heal()
	for _, n := range w.nodes {
		n.stalled.Store(0)
		n.jumped.Store(0)
		n.disk.cutAfter.Store(0)
		if n.born {
			w.happen(n.restart)
		}
	}
	w.happen(w.undoDrain)
}
