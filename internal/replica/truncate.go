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
	if !ticked || h.flushing {
		return nil
	}
	live := h.liveBytes()
	if live <= h.o.LogBudget {
		h.flushAbove = h.o.LogBudget
	}
	if live <= h.flushAbove {
		return nil
	}
	h.flushing = true
	if err := h.store.StartFlush(); err != nil {
		return fmt.Errorf("replica: flush rows to let go of the log: %w", err)
	}
	return nil
}

func (h *Host) liveBytes() int64 {
	live, _ := h.log.Segments()
	return int64(live) * h.o.Log.SegmentBytes
}

// truncate cuts each group's log below what a crash now would leave in its
// rows. Only the rows themselves are evidence of that (A3): a flush that has
// ended may have begun before an entry that was applied since.
func (h *Host) truncate() error {
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
		if err := h.log.Truncate(g.id, at.Index); err != nil {
			return fmt.Errorf("replica: group %d: %w", g.id, err)
		}
	}
	live := h.liveBytes()
	// Segments are let go of at the next switch: until then the same flush would
	// only be made again.
	h.flushAbove = max(h.o.LogBudget, live+h.o.LogBudget/4)
	if live <= h.o.LogBudget {
		return nil
	}
	return h.relocateStuck()
}

// relocateStuck writes again what holds the oldest segment and can't be
// truncated by any flush: entries that are not committed, for as long as their
// group has no majority.
func (h *Host) relocateStuck() error {
	for _, id := range h.log.Pinned() {
		if g, ok := h.Group(id); !ok || g.durable < g.applied.Load() {
			continue // the next flush helps
		}
		if err := h.log.Relocate(id); err != nil {
			return fmt.Errorf("replica: group %d: %w", id, err)
		}
	}
	return nil
}
