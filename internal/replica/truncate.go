package replica

import "fmt"

// onFlush is called by Pebble when rows have become durable.
func (h *Host) onFlush() {
	h.flushed.Store(true)
	h.rouse()
}

// keepLogShort lets the log forget what the rows durably hold, and has rows
// flushed when the log has grown over its budget.
func (h *Host) keepLogShort(ticked bool) error {
	if h.flushed.Swap(false) {
		h.flushing = false
		if err := h.truncate(); err != nil {
			return err
		}
	}
	if !ticked {
		return nil
	}
	if err := h.forgetForFed(); err != nil {
		return err
	}
	live := h.liveBytes()
	if s := h.sending; s != nil && live > h.snapshotBudget() && s.keepsLog() {
		h.abortSnapshot(s.group, errLogFull(s.group.id, h.o.LogBudget))
	}
	if live <= h.o.LogBudget {
		h.flushAbove = h.o.LogBudget
	}
	if h.flushing || live <= h.flushAbove {
		return nil
	}
	h.flushing = true
	if err := h.store.StartFlush(); err != nil {
		return fmt.Errorf("replica: flush rows to let go of the log: %w", err)
	}
	return nil
}

// keepsLog says that the log would forget more if the snapshot were not under way.
// One that is newer than the durable rows is not why the log is long, and where
// nothing is written any more the log stays as long until the snapshot has arrived.
func (s *sending) keepsLog() bool { return s.index < s.group.durable }

// snapshotBudget is up to where the log may grow for one who needs it after a
// snapshot. It is a few segments at least, because the log grows by whole ones:
// with less no snapshot would ever arrive while there is load.
func (h *Host) snapshotBudget() int64 {
	return max(2*h.o.LogBudget, minSnapshotSegments*h.o.Log.SegmentBytes)
}

const minSnapshotSegments = 8

func (h *Host) liveBytes() int64 {
	live, _ := h.log.Segments()
	return int64(live) * h.o.Log.SegmentBytes
}

// truncate cuts each group's log below what a crash now would leave in its
// rows. Only the rows themselves are evidence of that (A3): a flush that has
// ended may have begun before an entry that was applied since.
func (h *Host) truncate() error {
	live := h.liveBytes()
	for _, g := range *h.groups.Load() {
		row, err := g.rows.Durable()
		if err != nil {
			return err
		}
		if row == nil {
			continue
		}
		at, _, err := decodeApplied(row)
		if err != nil {
			return fmt.Errorf("replica: group %d: %w", g.id, err)
		}
		g.durable = max(g.durable, at.Index)
		if err := g.forget(live); err != nil {
			return err
		}
	}
	live = h.liveBytes()
	// Segments are let go of at the next switch: until then the same flush would
	// only be made again.
	h.flushAbove = max(h.o.LogBudget, live+h.o.LogBudget/4)
	if live <= h.o.LogBudget {
		return nil
	}
	return h.relocateStuck()
}

// forgetForFed cuts what a receiver has got since its snapshot at each tick:
// while it catches up the log may have no room to wait for the next flush.
func (h *Host) forgetForFed() error {
	live := h.liveBytes()
	for _, g := range *h.groups.Load() {
		if g.fed.to == 0 {
			continue
		}
		if err := g.forget(live); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) forget(live int64) error {
	g.cut = g.mayForget(live)
	if err := g.host.log.Truncate(g.id, g.cut); err != nil {
		return fmt.Errorf("replica: group %d: %w", g.id, err)
	}
	return nil
}

// mayForget says up to which index nobody needs the log: what followers that
// are alive have yet to get is kept while the log is within its budget, and
// what comes after a snapshot that is on its way, or whose receiver still
// catches up, to twice that. Who needs more gets a snapshot. A replica that does
// not lead does not know who needs what, and may lead in a moment: within the
// budget it keeps all.
func (g *Group) mayForget(live int64) uint64 {
	h, upTo := g.host, g.durable
	if live <= h.o.LogBudget {
		if r := g.role.Load(); g.lead == 0 && len(r.voters)+len(r.learners) > 1 {
			return g.cut
		}
		for _, p := range g.peers {
			if p.Active {
				upTo = min(upTo, p.Match)
			}
		}
	}
	if live <= h.snapshotBudget() {
		upTo = g.keptForChild(upTo)
		if s := h.sending; s != nil && s.group == g {
			upTo = min(upTo, s.index)
		}
		if p, ok := g.peer(g.fed.to); ok {
			upTo = min(upTo, max(p.Match, g.fed.index))
		}
	}
	return upTo
}

// relocateStuck writes again what holds the oldest segment and can't be
// truncated by any flush: entries that are not committed, for as long as their
// group has no majority.
func (h *Host) relocateStuck() error {
	for _, id := range h.log.Pinned() {
		g, ok := h.Group(id)
		if !ok || g.durable < g.applied.Load() || g.cut < g.durable {
			continue // the next flush helps, or they are kept for others
		}
		if err := h.log.Relocate(id); err != nil {
			return fmt.Errorf("replica: group %d: %w", id, err)
		}
	}
	return nil
}
