package leader

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Meta is the meta group's state machine: the catalog. While this node leads it,
// it also watches who is alive, and plans where replicas are.
type Meta struct {
	raft    *replica.Group
	clock   clock.Clock
	log     *slog.Logger
	machine *catalog.Machine // the apply worker's
	learn   func(*catalog.View, []catalog.Change)
	trusted atomic.Bool
	view    atomic.Pointer[catalog.View] // the newest, once trusted
	applied atomic.Pointer[catalog.View] // what the rows here hold, trusted or not

	mu      sync.Mutex
	monitor *liveness.Monitor // while this node leads
	planned time.Time         // when the last plan was made
	under   int               // commands of the monitor and the plan that are under way
	refused refusals          // of them
}

// refusals are what was refused since the last plan, and between that and the one
// before: a step that is refused again and again is told of once.
type refusals struct{ now, before map[string]bool }

func (r *refusals) next() { r.before, r.now = r.now, nil }

// news notes a refusal, and says that it is a new one.
func (r *refusals) news(err error) bool {
	text := err.Error()
	known := r.now[text] || r.before[text]
	if r.now == nil {
		r.now = map[string]bool{}
	}
	r.now[text] = true
	return !known
}

// NewMeta makes the machine of a replica of the meta group. learn hears of each
// new View, with what it changed; with nil, anything may have changed.
func NewMeta(g *replica.Group, c clock.Clock, log *slog.Logger, learn func(*catalog.View, []catalog.Change)) *Meta {
	return &Meta{raft: g, clock: c, log: log, machine: catalog.New(), learn: learn}
}

// Join joins commands to an entry.
func (m *Meta) Join(buf []byte, cmds []replica.Command) []byte { return catalog.AppendEntry(buf, cmds) }

// Apply applies an entry.
func (m *Meta) Apply(rows replica.Rows, index uint64, entry []byte) []any {
	return m.machine.Apply(rows, index, entry)
}

// Applied passes a new View on, if this replica is trusted.
func (m *Meta) Applied() {
	m.applied.Store(m.machine.View())
	if changes := m.machine.Changes(); m.trusted.Load() {
		m.pass(m.machine.View(), append([]catalog.Change{}, changes...))
	}
}

// pass passes a View on, to the monitor first.
func (m *Meta) pass(v *catalog.View, changes []catalog.Change) {
	m.mu.Lock()
	m.view.Store(v)
	if m.monitor != nil {
		m.monitor.Learn(changes, m.clock.Now())
	}
	m.mu.Unlock()
	m.learn(v, changes)
}

// Lead passes the View on that holds everything confirmed so far, and begins to
// watch all who are in it.
func (m *Meta) Lead(uint64) {
	m.Trust()
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.view.Load(); v != nil {
		m.monitor = liveness.Lead(v, m.clock.Now())
		m.planned = m.clock.Now()
	}
}

// Follow is told that this replica leads no more. It goes on to pass Views on.
func (m *Meta) Follow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.monitor = nil
}

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
	m.mu.Lock()
	if v := m.view.Load(); v == nil || v.Version < now.View().Version {
		m.view.Store(now.View())
	}
	m.mu.Unlock()
	m.learn(now.View(), nil)
}

// Newest is what this replica knows of the catalog, however old; nil: the host
// ends. It tells where replicas were, so that those of a cluster that starts as a
// whole find one another before any of them can be trusted.
func (m *Meta) Newest() *catalog.View {
	if v := m.applied.Load(); v != nil {
		return v
	}
	view := m.raft.View()
	if view == nil {
		return nil
	}
	defer view.Close()
	now := catalog.New() // the machine is the apply worker's
	now.Load(view)
	m.applied.CompareAndSwap(nil, now.View()) // an entry may have been applied since
	return m.applied.Load()
}

// Trusted says that Views are passed on.
func (m *Meta) Trusted() bool { return m.trusted.Load() }

// Beat takes in what a node tells of itself and its workers, and returns the
// workers' beats that may be answered. Before it does it makes sure that this
// replica still leads.
func (m *Meta) Beat(ctx context.Context, b liveness.Bundle) ([]liveness.Report, error) {
	m.mu.Lock()
	monitor := m.monitor
	var heard []liveness.Report
	if monitor != nil {
		heard = monitor.Beat(b, m.clock.Now())
		monitor.Compare(b, m.clock.Wall())
	}
	m.mu.Unlock()
	if monitor == nil {
		return nil, message.Errorf(message.NotLeader, "the catalog is not led here")
	}
	if len(heard) == 0 {
		return nil, nil // nobody is told anything
	}
	if err := m.raft.ReadIndex(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.monitor != monitor {
		return nil, message.Errorf(message.NotLeader, "the catalog is no longer led here")
	}
	return monitor.Answer(m.view.Load(), heard), nil
}

// planEvery is how often the places of replicas are looked at.
const planEvery = time.Second

// Tick proposes what the monitor has found, and what the plan wants next. It is
// called each Every.
func (m *Meta) Tick() {
	now := m.clock.Now()
	m.mu.Lock()
	var commands []catalog.Command
	if m.monitor != nil && m.under == 0 { // what is proposed once is proposed again only seconds later
		commands = m.monitor.Tick(now)
		if now.Sub(m.planned) >= planEvery {
			m.planned = now
			m.refused.next()
			commands = append(commands, placement.Plan(m.view.Load())...)
		}
	}
	m.under += len(commands)
	m.mu.Unlock()
	for _, c := range commands {
		if x := c.SetNodeClock; x != nil && x.Off {
			m.log.Warn("a node's wall clock is more than 500 ms from the median of the nodes': it leads nothing until it is right; look at its time service", "node", x.ID)
		}
		m.raft.Propose(replica.Command{Head: c.Encode()}, func(result any, err error) {
			r, _ := result.(catalog.Result)
			if err == nil && r.Err != nil {
				err = r.Err
			}
			m.mu.Lock()
			m.under--
			news := err != nil && m.refused.news(err)
			m.mu.Unlock()
			if x := r.Session; err == nil && x != nil && x.Why != "goodbye" {
				m.log.Info("a worker's session has ended: what it held goes to others", "session", x.ID, "worker", x.Worker, "why", x.Why)
			}
			if news {
				m.log.Warn("a change of the catalog was refused; it is looked at again each second", "error", err)
			}
		})
	}
}

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
