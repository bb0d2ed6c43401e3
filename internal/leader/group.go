package leader

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Group is a data group's state machine and, while this node leads it, its
// leader's mind. The apply worker calls Apply, Applied, Lead and Follow, the host's loop
// calls Join; everything else may be called by any goroutine.
type Group struct {
	raft    *replica.Group
	log     *slog.Logger
	clock   clock.Clock
	machine *queue.Machine // the apply worker's
	stamps  stamps

	mu      sync.Mutex
	leading bool
	term    uint64
	queues  map[uint32]*line
	leases  leases
	loads   map[string]int // messages that a worker holds here
	timed   map[*cell]bool // cells with something scheduled
	view    *catalog.View
	// proposed is what was proposed of the catalog's settings: a version, or
	// ^0 for a drop.
	proposed map[uint32]uint64
	again    bool          // a proposal of settings was lost: compare anew
	changed  chan struct{} // closed and replaced when a queue was configured or dropped
}

// line is a queue as its leader sees it: what may go out, and who waits for it.
type line struct {
	number  uint32
	version uint64
	paused  bool
	cells   []*cell // those in this group
	calls   []*Call // in the order of waiting
}

type cell struct {
	queue  uint32
	number int
	window window
	timers timers
}

// New makes the machine of one replica.
func New(g *replica.Group, c clock.Clock, log *slog.Logger) *Group {
	l := &Group{raft: g, clock: c, log: log.With("group", g.ID()), machine: queue.New(), changed: make(chan struct{})}
	l.stamps.clock = c
	l.forget()
	return l
}

func (g *Group) forget() {
	g.queues = map[uint32]*line{}
	g.leases = leases{by: map[leaseKey]*deadline{}}
	g.loads = map[string]int{}
	g.timed = map[*cell]bool{}
	g.proposed = map[uint32]uint64{}
}

// Join joins commands to an entry and stamps the time.
func (g *Group) Join(buf []byte, cmds []replica.Command) []byte {
	groupTime, wall := g.stamps.next()
	return queue.AppendEntry(buf, groupTime, wall, cmds)
}

// Apply applies an entry.
func (g *Group) Apply(rows replica.Rows, index uint64, entry []byte) []any {
	return g.machine.Apply(rows, index, entry)
}

// Applied learns what the entry changed: now that its rows can be read, a read
// of rows and this news can't both miss a message.
func (g *Group) Applied() {
	if effects := g.machine.Effects(); len(effects) > 0 {
		g.learn(effects)
	}
}

// Lead builds the leader's mind from the rows.
func (g *Group) Lead(term uint64) {
	view := g.raft.View()
	if view == nil {
		return // the host ends
	}
	defer view.Close()
	g.machine.Load(view)
	g.stamps.atLeast(g.machine.GroupTime())
	g.mu.Lock()
	g.build(view, term)
	settings := g.reconcileAll()
	g.mu.Unlock()
	g.proposeAll(settings)
}

// build reads the group's rows into the leader's mind.
func (g *Group) build(view queue.Reader, term uint64) {
	g.leading, g.term = true, term
	infos := queue.Queues(view)
	for i := range infos {
		l := g.configure(&infos[i])
		for _, c := range l.cells {
			for _, d := range queue.Deadlines(view, l.number, c.number) {
				g.leases.set(leaseKey{l.number, d.Cell, d.Seq}, d.Fence, d.At)
				g.hold(leaseKey{l.number, d.Cell, d.Seq}, d.Worker)
			}
			if first := queue.Timers(view, l.number, c.number, nil, 1); len(first) > 0 {
				g.schedule(c, first[0].Due)
			}
		}
	}
}

// Follow forgets everything, and turns those away who wait.
func (g *Group) Follow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leading = false
	for _, l := range g.queues {
		for _, c := range l.calls {
			c.deliver(0, nil, message.Errorf(message.NotLeader, "group %d is no longer led here", g.raft.ID()))
		}
	}
	g.forget()
	g.announce()
}

// configure brings a line up to date with what the group knows of its queue.
func (g *Group) configure(info *queue.Info) *line {
	l := g.queues[info.Number]
	if l == nil {
		l = &line{number: info.Number}
		g.queues[info.Number] = l
		for _, s := range info.Shards {
			for n := s.From; n <= s.To; n++ {
				l.cells = append(l.cells, &cell{queue: info.Number, number: n})
			}
		}
	}
	l.version, l.paused = info.Version, info.Paused
	return l
}

func (l *line) cell(n int) *cell {
	for _, c := range l.cells {
		if c.number == n {
			return c
		}
	}
	return nil
}

// learn takes in what an entry changed, and hands out what it made available.
func (g *Group) learn(effects []queue.Effect) {
	g.mu.Lock()
	if !g.leading {
		g.mu.Unlock()
		return
	}
	var touched []*line
	var settings []setting
	for i := range effects {
		e := &effects[i]
		if l := g.learnOne(e); l != nil && len(l.calls) > 0 && (len(touched) == 0 || touched[len(touched)-1] != l) {
			touched = append(touched, l)
		}
		if e.Kind == queue.Configured {
			// The catalog may have gone on while this was on its way.
			settings = g.reconcile(settings, e.Queue)
		}
	}
	g.mu.Unlock()
	g.proposeAll(settings)
	for _, l := range touched {
		g.dispatch(l)
	}
}

// learnOne returns the line to which something may have become available.
func (g *Group) learnOne(e *queue.Effect) *line {
	l := g.queues[e.Queue]
	var c *cell
	if l != nil {
		c = l.cell(e.Ref.Cell)
	}
	key := leaseKey{e.Queue, e.Ref.Cell, e.Ref.Seq}
	switch e.Kind {
	case queue.Configured:
		info, ok := g.machine.Info(e.Queue)
		if !ok {
			return nil // dropped by the same entry
		}
		l = g.configure(&info)
		g.announce()
		return l
	case queue.Dropped:
		g.drop(e.Queue)
	case queue.LeaseSet:
		g.leases.set(key, e.Fence, e.At)
	case queue.LeaseEnded:
		if d := g.leases.end(key, e.Fence); d != nil && d.worker != "" {
			g.unload(d.worker)
		}
	case queue.Offered:
		c.window.offer(e.Ref)
		return l
	case queue.Withdrawn:
		c.window.withdraw(e.Ref)
	case queue.Due:
		g.schedule(c, e.At)
	}
	return nil
}

func (g *Group) drop(number uint32) {
	if l := g.queues[number]; l != nil {
		for _, c := range l.calls {
			c.deliver(0, nil, message.Errorf(message.QueueNotFound, "the queue was deleted"))
		}
		for _, c := range l.cells {
			delete(g.timed, c)
		}
		delete(g.queues, number)
	}
	delete(g.proposed, number)
	g.leases.drop(number, g.unload)
	g.announce()
}

func (g *Group) announce() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// hold counts a lease for the worker that holds it.
func (g *Group) hold(key leaseKey, worker string) {
	if d := g.leases.by[key]; d != nil && d.worker == "" && worker != "" {
		d.worker = worker
		g.loads[worker]++
	}
}

func (g *Group) unload(worker string) {
	if g.loads[worker]--; g.loads[worker] <= 0 {
		delete(g.loads, worker)
	}
}

// ID is the group's number.
func (g *Group) ID() uint64 { return g.raft.ID() }

// Status is the replica's.
func (g *Group) Status() replica.Status { return g.raft.Status() }

// Propose puts a command into the log and returns its result when it is
// applied. When ctx ends first, the outcome is not known.
func (g *Group) Propose(ctx context.Context, c queue.Command) (any, error) {
	type outcome struct {
		result any
		err    error
	}
	done := make(chan outcome, 1)
	g.raft.Propose(replica.Command(c), func(result any, err error) { done <- outcome{result, err} })
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		return nil, message.Errorf(message.UnknownOutcome, "the call ended before group %d answered: %v", g.raft.ID(), context.Cause(ctx))
	}
}

// Read calls f with rows that hold all that was confirmed before the call.
func (g *Group) Read(ctx context.Context, f func(rows queue.Reader) error) error {
	if err := g.raft.ReadIndex(ctx); err != nil {
		return err
	}
	view := g.raft.View()
	if view == nil {
		return message.Errorf(message.Unavailable, "the server stops: read from another one, or again in a moment")
	}
	defer view.Close()
	return f(view)
}

// Configured waits until the group has the queue at a version or a later one.
func (g *Group) Configured(ctx context.Context, number uint32, version uint64) error {
	for {
		g.mu.Lock()
		l, changed := g.queues[number], g.changed
		done := g.leading && l != nil && l.version >= version
		g.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return message.Errorf(message.Unavailable, "group %d has not taken over the queue's settings yet; it will: %v", g.raft.ID(), context.Cause(ctx))
		}
	}
}

// Every is how often Tick wants to be called: timers are as exact as that.
const Every = 50 * time.Millisecond
