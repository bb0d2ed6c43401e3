package replica

import (
	"cmp"
	"slices"
)

// Step does what Run does in one round, in the caller's goroutine: ticked says
// that the clock has ticked. Then it lets every apply worker do all that it was
// given, and sends a snapshot if one is due. It is for simulations, which want
// one order of things: call it again and again instead of Run, from one
// goroutine, and at the end Close. An error is as Run's.
//
// On a host that is stepped Create, Destroy and ReceiveSnapshot do not wait for
// a step: they write at once. They are called between steps, or by the
// SendSnapshot of another host's transport. Options.Ticks is not used, and
// Options.SnapshotRate should be so high that nothing ever waits.
func (h *Host) Step(ticked bool) error {
	if !h.stepped {
		h.stepped = true
		h.handles.now = h.writeNow
		h.markInOrder(h.startWorker)
	}
	select {
	case <-h.wake:
	default:
	}
	if ticked {
		h.markInOrder(func(*Group) {})
	}
	if err := h.failed(); err != nil {
		return err
	}
	if err := h.turn(ticked); err != nil {
		h.fail(err)
		return err
	}
	h.runInline()
	return h.failed()
}

// Idle says that a step without a tick would find nothing to do.
func (h *Host) Idle() bool { return len(h.wake) == 0 && len(h.again) == 0 }

// markInOrder gives all groups to the loop in the order of their numbers, so that
// each run of a simulation steps them alike.
func (h *Host) markInOrder(before func(*Group)) {
	groups := h.Groups()
	slices.SortFunc(groups, func(a, b *Group) int { return cmp.Compare(a.id, b.id) })
	for _, g := range groups {
		before(g)
		h.mark(g)
	}
}

// Close ends a host that was stepped. It returns what Run returns.
func (h *Host) Close() error { return h.finish(h.failed()) }

// runInline does what would be done beside the loop.
func (h *Host) runInline() {
	kept := h.inline[:0]
	for _, w := range h.inline {
		if w.drain() {
			kept = append(kept, w)
		}
	}
	clear(h.inline[len(kept):])
	h.inline = kept
	later := h.later
	h.later = nil
	for _, f := range later {
		f()
	}
}

// writeNow writes what was asked for, where nobody else does.
func (h *Host) writeNow() {
	if err := guard(h.write); err != nil {
		h.fail(err)
		h.handles.stop()
	}
}
