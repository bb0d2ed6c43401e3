package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/metrics"
	"github.com/comanda-mq/comanda/internal/operation"
	"github.com/comanda-mq/comanda/internal/protocol/native"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/slowlog"
	"github.com/comanda-mq/comanda/internal/state"
)

// Node is one server process.
type Node struct {
	config     Config
	dir        *directory
	membership *membership
	id         uint64 // of the node in its cluster
	boot       uint64 // as others are told it
	host       *replica.Host
	transport  *transport
	elsewhere  *leader.Elsewhere
	service    *leader.Service
	gateway    *gateway.Gateway
	operations *operation.Runner
	port       *port
	resources  *resources
	drains     drains // of scrapes
	metrics    *metrics.Metrics
	started    time.Time

	meta atomic.Pointer[leader.Meta]
	view atomic.Pointer[catalog.View]
	// copied is when another node was last asked for all that is new in the catalog,
	// and gave it.
	copied atomic.Pointer[time.Time]
	news   chan struct{} // one slot: the catalog has changed
	mu     sync.Mutex
	group  map[uint64]*leader.Group
	// membersBy are the groups whose configuration was looked at here.
	membersBy map[uint64]*leader.Members
	changing  chan struct{} // closed and replaced at each change of the catalog
	learning  sync.Mutex    // catalogs are learned one after the other

	stop   context.CancelFunc // of what runs beside the host
	part   context.CancelFunc // of the talk with other nodes
	beside sync.WaitGroup
	halt   context.CancelFunc // of the host
	// failure is why the server ended by itself, if the host did not fail.
	failure atomic.Pointer[error]
	ended   chan struct{} // closed when the host has ended
	err     error         // with which; set before ended is closed
}

// ledWithin is how long a start waits until the groups here are led.
const ledWithin = 10 * time.Second

// Start opens the data directory, starts everything and returns when clients
// are served. The server ends by Stop, or by itself (Ended).
func Start(ctx context.Context, c Config) (_ *Node, err error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	n := &Node{
		config: c, started: c.Clock.Now(), group: map[uint64]*leader.Group{}, membersBy: map[uint64]*leader.Members{},
		news: make(chan struct{}, 1), changing: make(chan struct{}), ended: make(chan struct{}),
	}
	n.transport = &transport{view: n.places}
	n.elsewhere = &leader.Elsewhere{Caller: caller{n.transport}, Self: func() uint64 { return n.id }, Nodes: n.others, Leads: n.leaderNode}
	n.operations = operation.New(operated{n}, c.Clock, c.Logger)
	n.service = &leader.Service{Node: c.NodeName, Group: n.dataGroup, Meta: n.meta.Load, Leads: n.leaderNode}
	if n.dir, err = openDirectory(c.FS, c.DataDir); err != nil {
		return nil, err
	}
	if n.membership, err = n.dir.membership(); err != nil {
		return nil, errors.Join(err, n.dir.close())
	}
	n.resources = &resources{fs: c.FS, dir: c.DataDir, diskReserve: c.DiskReserve, memoryLimit: c.MemoryLimit}
	n.resources.look()
	n.metrics = metrics.New(c.Clock, n.report)
	ticks, stopTicks := c.Clock.Tick(replica.TickEvery)
	n.host, err = replica.New(replica.Options{
		Log:       raftlog.Options{FS: c.FS, Dir: n.dir.file(logDir), StoreID: n.dir.StoreID, SegmentBytes: c.LogSegment, CacheBytes: c.cacheBytes(), Logger: c.Logger},
		State:     state.Options{FS: c.FS, Dir: n.dir.file(stateDir), StoreID: n.dir.StoreID, MemTable: c.memTable, CacheBytes: c.cacheBytes(), Logger: c.Logger},
		LogBudget: c.LogBudget, Machine: n.machine, Transport: n.transport, Ticks: ticks, Now: c.Clock.Now, Logger: c.Logger,
	})
	if err != nil {
		stopTicks()
		return nil, errors.Join(n.explain(err), n.dir.close())
	}
	n.boot = newBoot(n.host.Boot())
	n.gateway = gateway.New(gateway.Options{
		Node: c.NodeName, NodeID: func() uint64 { return n.id }, Boot: n.host.Boot(), Auth: c.Auth, Clock: c.Clock, Logger: c.Logger,
		Leader: n.leads, Reader: n.reads, Change: n.change, Heard: n.heard, Refresh: n.refresh, Freshen: n.freshen, Status: n.ask, Behind: n.behind,
		Admit: n.admitSend, Server: n.info, Metrics: n.metrics,
	})
	// From here on everything ends with the host.
	running, halt := context.WithCancel(context.WithoutCancel(ctx))
	n.halt = halt
	go func() {
		err := n.host.Run(running)
		stopTicks()
		if f := n.failure.Load(); f != nil {
			err = errors.Join(*f, err)
		}
		n.err = errors.Join(err, n.dir.close())
		close(n.ended)
	}()
	err = n.dir.settle()
	if err == nil {
		err = n.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.Stop(ctx))
	}
	return n, nil
}

// explain adds what to do to an error of opening the log or the rows.
func (n *Node) explain(err error) error {
	if errors.Is(err, raftlog.ErrDamaged) || errors.Is(err, raftlog.ErrOtherStore) || errors.Is(err, state.ErrOtherStore) {
		return fmt.Errorf("the data directory %s is not whole, so the server does not start on it: put back what belongs here, or look with 'comanda data inspect %s': %w", n.config.DataDir, n.config.DataDir, err)
	}
	return fmt.Errorf("open the data directory %s: %w", n.config.DataDir, err)
}

// machine makes the state machine of a replica.
func (n *Node) machine(g *replica.Group) replica.StateMachine {
	if g.ID() == catalog.MetaGroup {
		m := leader.NewMeta(g, n.config.Clock, n.config.Logger, n.learn)
		n.meta.Store(m)
		return n.config.watch(g, m)
	}
	l := leader.New(g, n.config.GroupClock, n.change, n.config.Logger)
	l.Sender = sender{n}
	l.Metrics = n.metrics
	if v := n.view.Load(); v != nil {
		l.Learn(v, nil)
	}
	n.mu.Lock()
	n.group[g.ID()] = l
	n.mu.Unlock()
	return n.config.watch(g, l)
}

// places is the catalog by which replicas are found: before any can be trusted, the
// one that the replica here has.
func (n *Node) places() *catalog.View {
	if v := n.view.Load(); v != nil {
		return v
	}
	if m := n.meta.Load(); m != nil {
		return m.Newest()
	}
	return nil
}

// learn passes a newer catalog on to all who follow it. It may come from the
// replica here and from another node at the same time: an older one is passed
// over.
func (n *Node) learn(v *catalog.View, changes []catalog.Change) {
	n.learning.Lock()
	defer n.learning.Unlock()
	if old := n.view.Load(); old != nil && old.Version > v.Version {
		if changes != nil {
			return
		}
		v = old // it is compared anew with all that is here
	}
	n.view.Store(v)
	n.gateway.Learn(v, changes)
	for _, g := range n.groups() {
		g.Learn(v, changes)
	}
	n.mu.Lock()
	close(n.changing)
	n.changing = make(chan struct{})
	n.mu.Unlock()
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// changedSignal is closed at the next change of the catalog.
func (n *Node) changedSignal() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changing
}

func (n *Node) groups() []*leader.Group {
	n.mu.Lock()
	defer n.mu.Unlock()
	gs := make([]*leader.Group, 0, len(n.group))
	for _, g := range n.group {
		gs = append(gs, g)
	}
	return gs
}

func (n *Node) dataGroup(id uint64) (*leader.Group, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	g, ok := n.group[id]
	return g, ok
}

func (n *Node) status(id uint64) (replica.Status, bool) {
	g, ok := n.host.Group(id)
	if !ok {
		return replica.Status{}, false
	}
	return g.Status(), true
}

// begin brings the node from a running host to served clients, in this order:
// the cluster and its catalog, the groups that it names, what runs beside them,
// the listener.
func (n *Node) begin(ctx context.Context) error {
	c := n.config
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	if err := n.enter(ctx); err != nil {
		return err
	}
	if err := n.reconcile(); err != nil {
		return err
	}
	v := n.view.Load()
	for _, g := range n.groups() {
		g.Learn(v, nil)
	}
	n.beside.Go(func() { n.keepReplicas(beside) })
	n.beside.Go(func() { n.watch(beside) })
	n.beside.Go(func() {
		ticks, end := c.Clock.Tick(lookEvery)
		defer end()
		n.resources.watch(beside, ticks)
	})
	n.beside.Go(func() { n.tick(beside) })
	n.beside.Go(func() { n.gateway.Beats(beside, n.beat) })
	n.beside.Go(func() { n.greet(beside) })
	if err := n.led(ctx); err != nil {
		return err
	}
	return n.listen(ctx)
}

// tick drives the leaders' timers.
func (n *Node) tick(ctx context.Context) {
	ticks, end := n.config.Clock.Tick(leader.Every)
	defer end()
	turn := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
			for _, g := range n.groups() {
				g.Tick()
			}
			if m := n.meta.Load(); m != nil {
				m.Tick()
			}
			if turn++; turn%stepEvery == 0 {
				n.stepMembers(ctx)
				n.stepOperations(ctx)
			}
		}
	}
}

func (n *Node) listen(ctx context.Context) (err error) {
	c := n.config
	l := c.Listener
	if l == nil {
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen); err != nil {
			return fmt.Errorf("listen on %s: %w; is another server running? give this one another --listen", c.Listen, err)
		}
	}
	allowed := native.AllowHosts(append([]string{c.Listen, l.Addr().String()}, c.AllowedHosts...)...)
	s := native.New(native.Options{Verbs: n.gateway, Allowed: allowed, Metrics: n.metrics, Slow: slowlog.New(c.Clock, c.Logger, c.LogSlow), Logger: c.Logger})
	n.port = newPort(l, s.GRPC(), s.Drain, n.routes(s, allowed))
	n.port.start()
	return nil
}

// led waits until the groups here are led and have applied what was confirmed.
// One that has no majority just now is served as soon as it has.
func (n *Node) led(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledWithin)
	defer cancel()
	for _, g := range n.host.Groups() {
		if !n.mayBeLed(g.ID()) {
			continue
		}
		if err := g.ReadIndex(ctx); err != nil {
			if len(g.Status().Voters) == 1 {
				return fmt.Errorf("group %d has no leader: %w", g.ID(), err)
			}
			n.config.Logger.WarnContext(ctx, "a group has no leader yet", "group", g.ID(), "error", err)
		}
	}
	return nil
}

// CatchUp waits until all has happened here whose time has come.
func (n *Node) CatchUp(ctx context.Context) error {
	ticks, end := n.config.Clock.Tick(leader.Every)
	defer end()
	for slices.ContainsFunc(n.groups(), (*leader.Group).Overdue) {
		select {
		case <-ticks:
		case <-n.ended:
			return errors.Join(errors.New("the replica host has ended"), n.err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (n *Node) pause(ctx context.Context, d time.Duration) error {
	pause, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-pause.Done()
	select {
	case <-n.ended:
		return errors.Join(errors.New("the replica host has ended"), n.err)
	default:
		return ctx.Err()
	}
}

// Addr is where clients reach the node.
func (n *Node) Addr() net.Addr { return n.port.listener.Addr() }

// ClusterAddr is where other nodes reach this one.
func (n *Node) ClusterAddr() string { return n.config.Advertise }

// MemoryLimit is how many bytes the process may use before sends are refused.
func (n *Node) MemoryLimit() uint64 { return n.config.MemoryLimit }

// ClusterID is the id of the node's cluster.
func (n *Node) ClusterID() string { return n.view.Load().Cluster.ID }

// Gateway carries verbs without a network.
func (n *Node) Gateway() *gateway.Gateway { return n.gateway }

// Ended is closed when the server has ended, by Stop or by itself: a disk that
// fails ends it, because nothing may be confirmed any more.
func (n *Node) Ended() <-chan struct{} { return n.ended }

// Err is the error with which the server ended.
func (n *Node) Err() error {
	<-n.ended
	return n.err
}

// Stop ends the server in the reverse order of its start: it takes no new
// calls, lets those in flight end until ctx does, and closes log and rows.
func (n *Node) Stop(ctx context.Context) error {
	n.gateway.Drain()
	n.handOver(ctx)
	if n.port != nil {
		n.port.stop(ctx)
	}
	if n.stop != nil {
		n.stop()
	}
	if n.part != nil {
		n.part()
	}
	n.beside.Wait()
	n.halt()
	return n.Err()
}

// info is what the process tells of itself.
func (n *Node) info() message.ServerInfo {
	r, stats := n.resources, n.host.Stats()
	return message.ServerInfo{
		Version: n.config.Version, Listen: n.Addr().String(), DataDir: n.config.DataDir,
		StartedAt: n.started, Now: n.config.Clock.Now(),
		DiskFree: r.diskFree.Load(), DiskTotal: r.diskTotal.Load(), DiskReserve: r.reserve.Load(),
		BelowReserve: r.diskFree.Load() < r.reserve.Load(),
		FsyncP50:     stats.SyncP50, FsyncP99: stats.SyncP99,
		MemoryLimit: r.memoryLimit, MemoryUsed: r.memoryUsed.Load(),
	}
}

// Version tells this binary's version and how it was built.
func Version(v string) string {
	return v + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
