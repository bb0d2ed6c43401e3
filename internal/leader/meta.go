package leader

import (
	"context"
	"sync/atomic"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Meta is the meta group's state machine: the catalog.
type Meta struct {
	raft    *replica.Group
	machine *catalog.Machine // the apply worker's
	learn   func(*catalog.View, []catalog.Change)
	trusted atomic.Bool
}

// NewMeta makes the machine of a replica of the meta group. learn hears of each
// new View, with what it did to queues; with nil, anything may have changed.
func NewMeta(g *replica.Group, learn func(*catalog.View, []catalog.Change)) *Meta {
	return &Meta{raft: g, machine: catalog.New(), learn: learn}
}

// Join joins commands to an entry.
func (m *Meta) Join(buf []byte, cmds []replica.Command) []byte { return catalog.AppendEntry(buf, cmds) }

// Apply applies an entry.
func (m *Meta) Apply(rows replica.Rows, index uint64, entry []byte) []any {
	return m.machine.Apply(rows, index, entry)
}

// Applied passes a new View on, if this replica is trusted.
func (m *Meta) Applied() {
	if changes := m.machine.Changes(); m.trusted.Load() {
		m.learn(m.machine.View(), append([]catalog.Change{}, changes...))
	}
}

// Lead passes the View on that holds everything confirmed so far.
func (m *Meta) Lead(uint64) { m.Trust() }

// Follow is told that this replica leads no more. It goes on to pass Views on.
func (m *Meta) Follow() {}

// Trust has Views passed on from now on, first the one that is here. It is called
// when the rows here hold all that was confirmed at some moment after the start:
// while the log is replayed, they are older than what was seen before.
func (m *Meta) Trust() {
	view := m.raft.View()
	if view == nil {
		return // the host ends
	}
	defer view.Close()
	m.trusted.Store(true)
	now := catalog.New() // the machine is the apply worker's
	now.Load(view)
	m.learn(now.View(), nil)
}

// Trusted says that Views are passed on.
func (m *Meta) Trusted() bool { return m.trusted.Load() }

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
