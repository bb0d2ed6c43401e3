package leader

import (
	"context"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Meta is the meta group's state machine: the catalog.
type Meta struct {
	raft    *replica.Group
	machine *catalog.Machine
	learn   func(*catalog.View, []catalog.Change)
	leading bool // the apply worker's
}

// NewMeta makes the machine of a replica of the meta group. learn hears of each
// new View, with what it did to queues; the first time with nil.
func NewMeta(g *replica.Group, learn func(*catalog.View, []catalog.Change)) *Meta {
	return &Meta{raft: g, machine: catalog.New(), learn: learn}
}

// Join joins commands to an entry.
func (m *Meta) Join(buf []byte, cmds []replica.Command) []byte { return catalog.AppendEntry(buf, cmds) }

// Apply applies an entry.
func (m *Meta) Apply(rows replica.Rows, index uint64, entry []byte) []any {
	return m.machine.Apply(rows, index, entry)
}

// Applied passes a new View on. Not before this replica leads: while the log is
// replayed after a start, views would be older than what was seen before.
func (m *Meta) Applied() {
	if changes := m.machine.Changes(); m.leading {
		m.learn(m.machine.View(), append([]catalog.Change{}, changes...))
	}
}

// Lead passes the View on that holds everything confirmed so far.
func (m *Meta) Lead(uint64) {
	view := m.raft.View()
	if view == nil {
		return // the host ends
	}
	defer view.Close()
	m.machine.Load(view)
	m.leading = true
	m.learn(m.machine.View(), nil)
}

// Follow is told that this replica leads no more.
func (m *Meta) Follow() { m.leading = false }

// Propose puts a change into the log and returns its result when it is applied.
func (m *Meta) Propose(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	type outcome struct {
		result any
		err    error
	}
	done := make(chan outcome, 1)
	m.raft.Propose(replica.Command{Head: c.Encode()}, func(result any, err error) { done <- outcome{result, err} })
	select {
	case o := <-done:
		r, _ := o.result.(catalog.Result)
		return r, o.err
	case <-ctx.Done():
		return catalog.Result{}, message.Errorf(message.UnknownOutcome, "the call ended before the catalog answered: %v", context.Cause(ctx))
	}
}
