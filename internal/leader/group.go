package leader

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/metrics"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/slowlog"
)

// Group is a data group's state machine and, while this node leads it, its
// leader's mind. The apply worker calls Apply, Applied, Lead and Follow, the host's loop
// calls Join; everything else may be called by any goroutine.
type Group struct {
	raft    *replica.Group
	log     *slog.Logger
	clock   clock.Clock
	change  Change
	machine *queue.Machine // the apply worker's
	// Sender carries what leaves for other groups; it is set before the group is used,
	// and nil sends nothing.
	Sender Sender
	// Metrics counts what happens to messages; it is set before the group is used, and nil
	// counts nothing.
	Metrics *metrics.Metrics
	stamps  stamps

	mu       sync.Mutex
	leading  bool
	term     uint64
	queues   map[uint32]*line
	leases   leases
	sessions sessions
	timed    map[*timers]bool // those with something to wake
	view     *catalog.View
	// proposed is what was proposed of the catalog's settings: a version, or
	// ^0 for a drop.
	proposed  map[uint32]uint64
	again     bool   // a proposal of what the catalog says was lost: compare anew
	resharded bool   // the catalog may lack what became of a shard here
	recording bool   // it is being told
	awaits    awaits // who waits for the end of a message
	outbox    outbox
	postponed []*line // see postpone
	beckons   []*line // see beckonAgain
	leasing   int     // messages in leases that are proposed
	limit     int     // of messages that are leased or leasing
	// recordAt is when the catalog may be told again that could not record it all,
	// recordPause how long it is left alone.
	recordAt    time.Time
	recordPause time.Duration
}

// line is a queue as its leader sees it: what may go out, and who waits for it.
type line struct {
	number  uint32
	version uint64
	paused  bool
	shards  []queue.ShardInfo // those in this group
	cells   []*cell           // those in this group
	pauses  pauses            // of keys and tenants
	order   turnOrder         // of the tenants
	hungry  []*window         // of turns: they want rows
	workers workers           // who receives from it
	peeks   []chan struct{}   // of other nodes: closed when there is something to take

	asked     time.Time        // when a receiver last waited or went; zero: none did
	limits    message.Settings // of the queue: max_in_flight, rate, rate_per_key, assign
	next      int64            // by its rate: when one more message is due to go out; group time, ns
	leasing   int              // messages of it in leases that are proposed
	active    *worker          // assign single: the one that gets them
	granting  bool             // somebody proposes leases of it; see dispatch
	postponed bool             // nothing of it goes out until the next Tick; see postpone
	beckons   bool             // others are told with the next Tick; see beckonAgain
	traffic   *metrics.Traffic // where its messages are counted; nil until one is
}

type cell struct {
	queue  uint32
	number int
	window *window // of messages without a tenant
	turns  *turns
	timers [queue.TimerKinds]timers
}

func newCell(number uint32, n int) *cell {
	c := &cell{queue: number, number: n, window: &window{}, turns: newTurns()}
	for kind := range c.timers {
		c.timers[kind] = timers{cell: c, kind: queue.TimerKind(kind)}
	}
	c.timers[queue.TimerPace].far = true // perhaps, by settings of before
	return c
}

// Change proposes a change of the catalog to its leader, wherever that is.
type Change func(context.Context, catalog.Command) (catalog.Result, error)

// New makes the machine of one replica.
func New(g *replica.Group, c clock.Clock, change Change, log *slog.Logger) *Group {
	l := &Group{raft: g, clock: c, change: change, log: log.With("group", g.ID()), machine: queue.New(), limit: maxLeases}
	l.stamps.clock = c
	l.forget()
	return l
}

func (g *Group) forget() {
	g.queues = map[uint32]*line{}
	g.leases = leases{by: map[leaseKey]*deadline{}}
	g.sessions = sessions{by: map[uint64]*bound{}, ending: map[uint64]*bound{}}
	g.timed = map[*timers]bool{}
	g.outbox = newOutbox()
	g.proposed = map[uint32]uint64{}
	g.awaits.wakeQueue(0)
	g.awaits = awaits{by: map[leaseKey][]chan struct{}{}}
	g.postponed, g.beckons = nil, nil
	g.recordAt, g.recordPause = time.Time{}, 0
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
	g.stamps.begin(g.machine.GroupTime())
	g.mu.Lock()
	g.build(view, term)
	settings, ends := g.reconcileAll(), g.expireSessions(nil)
	g.mu.Unlock()
	g.proposeAll(settings)
	g.proposeEnds(ends)
}

// build reads the group's rows into the leader's mind.
func (g *Group) build(view queue.Reader, term uint64) {
	g.leading, g.term = true, term
	for _, s := range queue.Sessions(view) {
		if s.Ended {
			g.sessions.end(s.ID, s.Incarnation)
		} else {
			g.sessions.attach(s.Session)
		}
	}
	infos := queue.Queues(view)
	for i := range infos {
		l := g.configure(&infos[i])
		l.next = infos[i].Next
		for _, c := range l.cells {
			for _, d := range queue.Deadlines(view, l.number, c.number) {
				key := leaseKey{l.number, d.Cell, d.Seq}
				if d.Ended {
					g.sessions.end(d.Session, d.Incarnation)
				}
				set := g.leases.set(key, d.Fence, d.At)
				set.cancelling = d.Cancelling
				g.bind(set, d.Session, d.Incarnation)
				g.hold(key, l.workers.get(d.Worker, g.clock.Now()))
			}
			if from := (queue.Line{Queue: l.number, Cell: c.number}); len(queue.Lines(view, from.Queue, from.Cell, nil, 1)) > 0 {
				g.outbox.add(from)
			}
			for kind := range c.timers {
				if first := queue.Timers(view, l.number, c.number, queue.TimerKind(kind), nil, 1); len(first) > 0 {
					g.schedule(c, queue.TimerKind(kind), first[0].Due)
				}
			}
		}
	}
}

// Follow forgets everything, and turns those away who wait.
func (g *Group) Follow() {
	g.stamps.end()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leading = false
	for _, l := range inOrder(g.queues) {
		for _, c := range l.workers.all() {
			c.deliver(0, nil, message.Errorf(message.NotLeader, "group %d is no longer led here", g.raft.ID()))
		}
		l.beckon(len(l.peeks))
	}
	g.forget()
}

// configure brings a line up to date with what the group knows of its queue.
func (g *Group) configure(info *queue.Info) *line {
	l := g.queues[info.Number]
	if l == nil {
		l = &line{number: info.Number, workers: newWorkers()}
		g.queues[info.Number] = l
		for _, s := range info.Shards {
			for n := s.From; n <= s.To; n++ {
				l.cells = append(l.cells, newCell(info.Number, n))
			}
		}
	}
	if info.Settings.RatePerKey != l.limits.RatePerKey {
		for _, c := range l.cells {
			c.timers[queue.TimerPace].far = true
		}
	}
	l.version, l.paused, l.shards, l.limits = info.Version, info.Paused, info.Shards, info.Settings
	l.pause(info)
	g.letGo(l)
	g.resharded = true // perhaps
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
	var ends []queue.ExpireSession
	for i := range effects {
		e := &effects[i]
		if l := g.learnOne(e); l != nil && l.wanted() && (len(touched) == 0 || touched[len(touched)-1] != l) {
			touched = append(touched, l)
		}
		if e.Kind == queue.Configured {
			// The catalog may have gone on while this was on its way.
			settings = g.reconcile(settings, e.Queue)
		}
		if b := g.sessions.by[e.Session]; e.Kind == queue.SessionAttached && b != nil && g.view != nil {
			ends = g.expireSession(ends, b) // it may have ended while its lease was on its way
		}
	}
	ended := g.sessions.sweep()
	g.mu.Unlock()
	g.proposeAll(settings)
	g.proposeEnds(ends)
	for _, ds := range ended {
		g.expire(ds)
	}
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
	if c == nil && ofCell(e.Kind) {
		return nil // the cell was spun off later in the same entry
	}
	switch e.Kind {
	case queue.Configured:
		g.awaits.wakeQueue(e.Queue) // its cells may be elsewhere
		info, ok := g.machine.Info(e.Queue)
		if !ok {
			return nil // dropped by the same entry
		}
		l = g.configure(&info)
		return l
	case queue.Dropped:
		g.awaits.wakeQueue(e.Queue)
		g.drop(e.Queue)
	case queue.LeaseSet:
		d := g.leases.set(key, e.Fence, e.At)
		d.cancelling = e.Cancelling
		g.bind(d, e.Session, e.Incarnation)
	case queue.Withheld:
		g.awaits.wake(key)
	case queue.LeaseEnded:
		g.awaits.wake(key)
		g.endLease(key, e.Fence)
		g.processed(l, e)
		if l != nil && l.active != nil {
			l.active.seen = g.clock.Now()
		}
		if l != nil && l.limits.MaxInFlight > 0 {
			return l // there is room for another one
		}
	case queue.Outgoing:
		g.outbox.add(queue.Line{Queue: e.Queue, Cell: e.Ref.Cell})
	case queue.Paced:
		if l != nil {
			l.next = e.At
		}
	case queue.Purged:
		g.awaits.wakeQueue(e.Queue)
		g.purge(e.Queue)
	case queue.SessionAttached:
		g.sessions.attach(queue.Session{ID: e.Session, Incarnation: e.Incarnation, CatalogVersion: e.Catalog})
	case queue.SessionEnded:
		g.sessions.end(e.Session, e.Incarnation)
	case queue.Offered:
		l.offer(c, queue.Offer{Ref: e.Ref, Key: e.Key, Tenant: e.Tenant})
		return l
	case queue.Withdrawn:
		l.withdraw(c, queue.Offer{Ref: e.Ref, Tenant: e.Tenant})
	case queue.Due:
		g.schedule(c, e.Timer, e.At)
	case queue.CountRetried:
		g.traffic(l).Retried()
	case queue.CountDead:
		g.traffic(l).Dead()
	case queue.CountExpired:
		g.traffic(l).Expired()
	case queue.CountRedriven:
		g.traffic(l).Redriven()
	}
	return nil
}

// processed counts how long a worker had a message that it settled.
func (g *Group) processed(l *line, e *queue.Effect) {
	switch e.Outcome {
	case queue.Acked, queue.Nacked, queue.Rejected:
		g.traffic(l).Processed(e.Held)
	default: // it was not processed, or nobody knows how long
	}
}

// traffic is where what happens to messages of a queue is counted; nil if that is not
// known. It is counted as it happens, and not in rows: a counter of Prometheus belongs to
// a process and only grows, and one that came and went with the lead, or with a shard,
// would be taken for growth, or for a restart. What is applied before a new leader
// leads, nobody counts.
func (g *Group) traffic(l *line) *metrics.Traffic {
	if l == nil || g.view == nil {
		return nil
	}
	if l.traffic == nil {
		q, ok := g.view.QueueNumber(l.number)
		if !ok {
			return nil
		}
		l.traffic = g.Metrics.Queue(q.Name)
	}
	return l.traffic
}

func (g *Group) drop(number uint32) {
	if l := g.queues[number]; l != nil {
		for _, c := range l.workers.all() {
			c.deliver(0, nil, message.Errorf(message.QueueNotFound, "the queue was deleted"))
		}
		l.beckon(len(l.peeks))
		for _, c := range l.cells {
			g.unschedule(c)
		}
		delete(g.queues, number)
	}
	delete(g.proposed, number)
	g.endLeases(number)
}

// purge forgets what a queue had. What is being read of it for a window is gone,
// too: so its cells begin anew.
func (g *Group) purge(number uint32) {
	l := g.queues[number]
	if l == nil {
		return
	}
	for i, c := range l.cells {
		g.unschedule(c)
		l.forgetTurns(c)
		l.cells[i] = newCell(number, c.number)
	}
	g.endLeases(number)
}

func (g *Group) endLeases(number uint32) {
	for _, d := range g.leases.of(number) {
		g.endLease(d.key, d.fence)
	}
}

// bind binds a lease to the session that it names, if it does.
func (g *Group) bind(d *deadline, session, incarnation uint64) {
	if session != 0 {
		d.session, d.incarnation = session, incarnation
		g.sessions.hold(d)
	}
}

// endLease forgets a lease.
func (g *Group) endLease(key leaseKey, fence uint64) {
	d := g.leases.end(key, fence)
	if d == nil {
		return
	}
	if d.worker != nil {
		d.worker.take(-1)
	}
	if d.session != 0 {
		g.sessions.free(d)
	}
}

// hold counts a lease for the worker that holds it.
func (g *Group) hold(key leaseKey, w *worker) {
	if d := g.leases.by[key]; d != nil && d.worker == nil {
		d.worker = w
		w.take(1)
	}
}

// ID is the group's number.
func (g *Group) ID() uint64 { return g.raft.ID() }

// Leading says whether this replica leads, as far as it knows.
func (g *Group) Leading() bool { return g.raft.Leading() }

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
	op := slowlog.Of(ctx)
	began := op.Now()
	var stages *replica.Stages
	if op != nil {
		stages = &replica.Stages{}
	}
	g.raft.ProposeTimed(replica.Command(c), stages, func(result any, err error) { done <- outcome{result, err} })
	select {
	case o := <-done:
		if op != nil {
			op.Proposed(g.raft.ID(), began, slowlog.Stages{Wait: stages.Wait, Commit: stages.Commit, Apply: stages.Apply})
		}
		return o.result, o.err
	case <-ctx.Done():
		op.Proposed(g.raft.ID(), began, slowlog.Stages{})
		return nil, message.Errorf(message.UnknownOutcome, "the call ended before group %d answered: %v", g.raft.ID(), context.Cause(ctx))
	}
}

// Read answers a query with all that was confirmed before the call or, with
// within > 0, with rows that are no older than that; any replica can.
func (g *Group) Read(ctx context.Context, q *queue.Query, within time.Duration) (a queue.Answer, f message.Freshness, err error) {
	f.Role = "follower"
	if g.raft.Status().Leading {
		f.Role = "leader"
	}
	if within > 0 {
		f.Age, err = g.raft.ReadWithin(ctx, within)
	} else {
		err = g.raft.ReadIndex(ctx)
	}
	if err != nil {
		return a, f, err
	}
	view := g.raft.View()
	if view == nil {
		return a, f, message.Errorf(message.Unavailable, "the server stops: read from another one, or again in a moment")
	}
	defer view.Close()
	return q.Run(view), f, nil
}

// Every is how often Tick wants to be called: timers are as exact as that.
const Every = 50 * time.Millisecond
