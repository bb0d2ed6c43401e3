package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/operation"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/state"
)

// node is a machine with a disk. It has a number, which is also the id that the
// catalog gives it, because nodes join one after the other.
type node struct {
	w       *world
	number  uint64
	disk    *disk
	drift   float64      // of its clock
	jumped  atomic.Int64 // how far its time of day is from that of the world
	leapt   atomic.Int64 // how far its monotonic clock is, until it dies
	cut     *vfs.MemFS
	keep    int  // percent of what was not synced that a power cut leaves
	born    bool // it was started
	member  atomic.Bool
	up      atomic.Pointer[process]
	stalled atomic.Int64 // until then nothing moves here
}

// process is one start of a node.
type process struct {
	node *node
	host *replica.Host
	// dead: nothing that it does from now on is seen by anybody.
	dead       atomic.Bool
	ctx        context.Context
	end        context.CancelFunc
	gateway    *gateway.Gateway
	elsewhere  *leader.Elsewhere
	service    leader.Service
	meta       atomic.Pointer[leader.Meta]
	view       atomic.Pointer[catalog.View]
	served     atomic.Bool // it takes clients
	operations *operation.Runner
	turn       int

	mu       sync.Mutex
	asked    []*ask  // of clients, that have no answer yet
	serving  []*call // of other nodes, that have no answer yet
	groups   map[uint64]*leader.Group
	members  map[uint64]*leader.Members
	seen     map[place]uint64 // where replicas wrote from
	changing chan struct{}    // closed at the next change of the catalog
	learning sync.Mutex
}

// place is a replica of a group.
type place struct{ group, replica uint64 }

func (w *world) node(number uint64) *node { return w.nodes[number-1] }

// process is what runs on the node; nil: nothing.
func (n *node) process() *process {
	if p := n.up.Load(); p != nil && !p.dead.Load() {
		return p
	}
	return nil
}

// stall is how long the node still stands still.
func (n *node) stall() time.Duration { return max(time.Duration(n.stalled.Load())-n.w.now(), 0) }

// Now is the node's clock. It drifts.
func (n *node) Now() time.Time {
	return time.Now().Add(time.Duration(float64(n.w.now())*n.drift) + time.Duration(n.leapt.Load()))
}

// nodeClock is a process's clock; its ticks come from the world's events.
type nodeClock struct{ p *process }

func (c nodeClock) Now() time.Time { return c.p.node.Now() }

// Wall does not drift, because something sets it again and again; but it jumps.
func (c nodeClock) Wall() time.Time { return time.Now().Add(time.Duration(c.p.node.jumped.Load())) }

// Tick has no buffer: a tick comes only to one who waits for it. So he never finds
// it together with something else, between which Go would choose at random.
func (c nodeClock) Tick(d time.Duration) (<-chan time.Time, func()) {
	ticks := make(chan time.Time)
	c.p.every(d, func() {
		select {
		case ticks <- c.Now():
		default:
		}
	})
	return ticks, func() {}
}

var _ clock.Clock = nodeClock{}

// every has something happen again and again, while the process lives and moves.
func (p *process) every(d time.Duration, f func()) {
	p.node.w.after(d, func() {
		if p.dead.Load() {
			return
		}
		if p.node.stall() == 0 {
			f()
		}
		p.every(d, f)
	})
}

// spawn runs something that belongs to the process.
func (p *process) spawn(f func()) { p.node.w.spawn(f) }

// takeTurn waits for an event of the caller's own; pause also for some time. The
// dead wait for nothing: their contexts have ended in any order.
func (p *process) takeTurn(ctx context.Context) { p.pause(as(p.ctx, whose(ctx)), 0) }

func (p *process) pause(ctx context.Context, d time.Duration) bool {
	if p.dead.Load() {
		<-p.ctx.Done() // its burial, which is near
		return false
	}
	return p.node.w.pause(ctx, d)
}

// addNode makes a node with an empty disk, which is not started.
func (w *world) addNode() *node {
	n := &node{w: w, number: uint64(len(w.nodes) + 1)}
	r := w.rand(n.name())
	n.drift = (r.Float64() - 0.5) * maxDrift * 2
	d, err := newDisk(nil, w.hook)
	if err != nil {
		w.fail("node %d: %v", n.number, err)
	}
	n.disk = d
	w.nodes = append(w.nodes, n)
	return n
}

// maxDrift is how much a clock goes wrong, as a part of time.
const maxDrift = 0.05

func (n *node) name() string { return fmt.Sprintf("n%d", n.number) }

// start starts the node's process.
func (n *node) start() {
	w := n.w
	if w.over.Load() {
		return
	}
	n.born = true
	p := &process{
		node: n, groups: map[uint64]*leader.Group{}, members: map[uint64]*leader.Members{},
		seen: map[place]uint64{}, changing: make(chan struct{}),
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	n.disk.onCut = func() { p.powerOff() }
	store := 1_000 + n.number
	logger := w.log.With("node", n.number)
	var err error
	p.host, err = replica.New(replica.Options{
		Log:       raftlog.Options{FS: n.disk.FS, Dir: dataDir + "/log", StoreID: store, SegmentBytes: 64 << 10, CacheBytes: 1 << 20, Logger: logger},
		State:     state.Options{FS: n.disk.FS, Dir: dataDir + "/state", StoreID: store, MemTable: 256 << 10, CacheBytes: 1 << 20, Logger: logger},
		LogBudget: 4 * 64 << 10, SnapshotRate: 1 << 50, Machine: p.machine, Transport: p, Now: n.Now, Logger: logger,
	})
	if err != nil {
		w.fail("node %d does not start: %v", n.number, err)
		return
	}
	p.gateway = gateway.New(gateway.Options{
		Node: n.name(), NodeID: func() uint64 { return n.number }, Boot: p.host.Boot(), Auth: auth.AllowAll{}, Clock: nodeClock{p}, Logger: logger,
		Leader: p.leader, Reader: p.reader, Change: p.change, Refresh: p.refresh, Status: p.ask,
		Admit: func() error { return nil }, Server: func() message.ServerInfo { return message.ServerInfo{} },
	})
	p.elsewhere = &leader.Elsewhere{Caller: caller{p}, Self: func() uint64 { return 0 }, Nodes: p.holders, Leads: p.leads}
	p.service = leader.Service{Node: n.name(), Group: p.group, Meta: p.meta.Load, Leads: p.leads}
	p.operations = operation.New(operated{p}, nodeClock{p}, logger)
	n.disk.started.Store(true)
	n.up.Store(p)
	w.note("node %d starts, boot %d", n.number, p.host.Boot())
	p.stepHost(false)
	p.every(replica.TickEvery, func() { p.stepHost(true) })
	p.every(leader.Every, p.tick)
	p.spawn(func() { p.enter(as(p.ctx, w.name(n.number))) })
}

// restart starts the node if nothing runs on it.
func (n *node) restart() {
	if n.up.Load() == nil {
		n.start()
	}
}

// stepHost lets the host do a step, and ends what the power was cut from.
func (p *process) stepHost(ticked bool) {
	if p.dead.Load() {
		return
	}
	if err := p.host.Step(ticked); err != nil && !p.dead.Load() {
		p.node.w.fail("node %d: its host ends: %v", p.node.number, err)
	}
	if p.dead.Load() {
		p.node.bury(p)
	}
}

// step lets the node do what there is to do; false: nothing.
func (n *node) step() bool {
	if p := n.up.Load(); p != nil && p.dead.Load() {
		n.bury(p) // the power was cut outside a step: a snapshot came, or a replica was made
		return true
	}
	p := n.process()
	if p == nil || n.stall() > 0 || p.host.Idle() {
		return false
	}
	p.stepHost(false)
	return true
}

// powerOff cuts the power.
func (p *process) powerOff() {
	n := p.node
	if p.dead.Swap(true) {
		return
	}
	r := n.w.rand(n.name() + " disk")
	var err error
	if n.cut, err = n.disk.cut(n.keep, r.Uint64()); err != nil {
		n.w.fail("node %d: %v", n.number, err)
	}
	n.w.note("node %d dies, %d %% of what was not synced is kept", n.number, n.keep)
}

// die cuts the power between two steps.
func (n *node) die() {
	if p := n.process(); p != nil {
		p.powerOff()
		n.bury(p)
	}
}

// bury ends a dead process; its disk is what the power cut has left.
func (n *node) bury(p *process) {
	// One after the other: a context wakes those who wait for its end in any order.
	for _, a := range p.asked {
		n.w.after(0, func() { close(a.died) })
	}
	for _, c := range p.serving {
		c.lose(silentAfter)
	}
	p.end()
	p.close()
	d, err := newDisk(n.cut, n.w.hook)
	if err != nil {
		n.w.fail("node %d: %v", n.number, err)
	}
	n.disk = d
	n.cut = nil
	n.leapt.Store(0)
	n.up.Store(nil)
}

// close ends the host, whatever becomes of a disk that nobody will see.
func (p *process) close() {
	defer p.node.w.survive()
	_ = p.host.Close()
}

// machine makes the state machine of a replica.
func (p *process) machine(g *replica.Group) replica.StateMachine {
	w := p.node.w
	log := w.log.With("node", p.node.number)
	if g.ID() == catalog.MetaGroup {
		m := leader.NewMeta(g, nodeClock{p}, log, p.learn)
		p.meta.Store(m)
		return &watched{StateMachine: m, p: p, group: g.ID()}
	}
	l := leader.New(g, nodeClock{p}, p.change, log)
	l.Sender = sender{p}
	if v := p.view.Load(); v != nil {
		l.Learn(v, nil)
	}
	p.mu.Lock()
	p.groups[g.ID()] = l
	p.mu.Unlock()
	return &watched{StateMachine: l, p: p, group: g.ID()}
}

// watched tells the world what a replica applies.
type watched struct {
	replica.StateMachine
	p     *process
	group uint64
}

func (m *watched) Apply(rows replica.Rows, index uint64, entry []byte) []any {
	results := m.StateMachine.Apply(rows, index, entry)
	if !m.p.dead.Load() {
		m.p.node.w.logs.applied(m.p.node.number, m.group, index, entry, results)
	}
	return results
}

// tick drives the timers of what is led here, and looks at the configurations.
func (p *process) tick() {
	for _, g := range p.inOrder() {
		g.Tick()
	}
	if m := p.meta.Load(); m != nil {
		m.Tick()
	}
	if p.turn++; p.turn%stepEvery == 0 && p.view.Load() != nil {
		p.stepMembers()
		p.stepOperations()
	}
}

// stepEvery is how many ticks lie between two looks at configurations.
const stepEvery = 4

func (p *process) inOrder() []*leader.Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gs []*leader.Group
	for _, g := range p.groups {
		gs = append(gs, g)
	}
	slices.SortFunc(gs, func(a, b *leader.Group) int { return int(a.ID()) - int(b.ID()) })
	return gs
}

func (p *process) group(id uint64) (*leader.Group, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.groups[id]
	return g, ok
}

// ask is what a client asks a process.
type ask struct{ died chan struct{} }

// reply is what came of it.
type reply[T any] struct {
	value T
	err   error
}

// do does something that a client asks of a process; alive is false if that died,
// and whatever came of it the client does not hear.
func do[T any](p *process, who string, within time.Duration, f func(context.Context) (T, error)) (value T, alive bool, err error) {
	a, done, name := &ask{make(chan struct{})}, make(chan reply[T], 1), p.node.w.name(who)
	p.mu.Lock()
	if p.dead.Load() {
		p.mu.Unlock()
		return value, false, errDied
	}
	p.asked = append(p.asked, a)
	p.mu.Unlock()
	p.spawn(func() {
		ctx, cancel := context.WithTimeout(as(p.ctx, name), within)
		defer cancel()
		value, err := f(ctx)
		if !p.dead.Load() {
			done <- reply[T]{value, err}
		}
	})
	select {
	case r := <-done:
		value, err = r.value, r.err
	case <-a.died:
	}
	p.mu.Lock()
	p.asked = slices.DeleteFunc(p.asked, func(o *ask) bool { return o == a })
	p.mu.Unlock()
	p.node.w.pause(as(context.Background(), name), 0)
	if p.dead.Load() {
		return value, false, errDied
	}
	return value, true, err
}
