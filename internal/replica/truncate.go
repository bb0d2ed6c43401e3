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
	live, _ := h.log.Segments()
	if int64(live)*h.segmentBytes() <= h.o.LogBudget {
		return nil
	}
	h.flushing = true
	if err := h.store.StartFlush(); err != nil {
		return fmt.Errorf("replica: flush rows to let go of the log: %w", err)
	}
	return nil
}

func (h *Host) segmentBytes() int64 {
	if n := h.o.Log.SegmentBytes; n > 0 {
		return n
	}
	return 32 << 20
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
		if at.Index > g.durable {
			g.durable = at.Index
			h.log.Truncate(g.id, at.Index)
		}
	}
	return nil
}
