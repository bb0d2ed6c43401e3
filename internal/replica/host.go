package replica

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/state"
)

// TickEvery is the time between two ticks of Options.Ticks. A follower that
// hears nothing campaigns after 10 to 20 of them.
const TickEvery = 100 * time.Millisecond

// Options of a Host.
type Options struct {
	Log   raftlog.Options
	State state.Options // OnFlush and OnBackground are the host's
	// LogBudget is how many bytes of segments may be in use before rows are
	// flushed to let go of them; 0: 256 MiB.
	LogBudget int64
	// SnapshotRate is how many bytes of a snapshot are sent in a second, a tenth
	// of it each tick; 0: 64 MiB.
	SnapshotRate int64
	// Machine makes the state machine of a replica, before any of its entries is
	// applied: at the start, when it is created, and when it begins anew from a
	// snapshot. The one before may then still be at its last entries; nothing is
	// applied by the new one until that has ended.
	Machine func(*Group) StateMachine
	// Transport sends messages to other nodes; nil on a node that is alone.
	Transport Transport
	// Ticks is Raft's clock: a value each TickEvery.
	Ticks <-chan time.Time
	// Now is a monotonic clock, for the durations in Stats.
	Now    func() time.Time
	Logger *slog.Logger
}

// Host runs the replicas of one node.
type Host struct {
	o     Options
	log   *raftlog.Log
	store *state.Store
	boot  uint64

	wake    chan struct{} // one slot: the loop has something to do
	flushed atomic.Bool   // rows became durable since the loop last looked
	handles handles
	stats   counters
	groups  atomic.Pointer[map[uint64]*Group] // replaced, never changed, by the loop

	mu       sync.Mutex
	marked   []*Group  // have something for the loop, each at most once
	requests []request // changes of the set of replicas
	calls    []func(error)
	failure  error // the first; ends the loop
	stopped  bool  // nothing is taken any more

	// The loop's own.
	work       []*Group // of this round
	again      []*Group // of the next one, whatever wakes it
	batch      raftlog.Batch
	mustSync   bool
	flushing   bool  // a flush that was asked for has not ended
	flushAbove int64 // bytes of segments in use that ask for a flush
	outgoing   []Outgoing
	joined     []byte    // the entry being made; raft copies it
	commands   []Command // of that entry
	workers    sync.WaitGroup
	sending    *sending // at most one at a time
	pace       float64  // see setPace
	receiving  atomic.Bool
	attempts   uint64 // to learn a read index, of all groups: replicas begin anew

	// Of a host that is stepped.
	stepped bool
	inline  []*worker
	later   []func()
}

// New opens the log and the rows, deletes rows that no replica reaches, and
// puts the replicas together. It starts no goroutine of its own; a Host that it
// returned must be Run, if only with a context that has ended, to be closed.
// An error here is a damaged or foreign directory, or a disk that fails.
func New(o Options) (_ *Host, err error) {
	if o.LogBudget == 0 {
		o.LogBudget = 256 << 20
	}
	if o.SnapshotRate == 0 {
		o.SnapshotRate = 64 << 20
	}
	if o.Log.SegmentBytes == 0 {
		o.Log.SegmentBytes = 32 << 20
	}
	h := &Host{o: o, wake: make(chan struct{}, 1), flushAbove: o.LogBudget, pace: 1}
	h.handles.init(h.rouse)
	h.groups.Store(&map[uint64]*Group{})
	h.flushed.Store(true) // the log has yet to hear what the last flush made durable
	h.o.State.OnFlush = h.onFlush
	h.o.State.OnBackground = h.fail
	if h.log, err = raftlog.Open(h.o.Log); err != nil {
		return nil, err
	}
	if h.store, err = state.Open(h.o.State); err != nil {
		return nil, errors.Join(err, h.log.Close())
	}
	if err := h.start(); err != nil {
		return nil, errors.Join(err, h.store.Close(), h.log.Close())
	}
	return h, nil
}

// Run runs the replicas until ctx ends or the host fails, and closes the log
// and the rows. Every proposal is answered before it returns. It returns nil
// when ctx ended. An error means that the process must end: a write, a sync or a
// read of the disk failed, and nothing was confirmed after it (invariant A4).
// It may be called once.
func (h *Host) Run(ctx context.Context) error {
	h.begin()
	return h.finish(h.loop(ctx))
}

func (h *Host) begin() {
	for _, g := range *h.groups.Load() {
		h.startWorker(g)
		h.mark(g)
	}
}

// finish ends everything, after the loop has ended with err.
func (h *Host) finish(err error) error {
	h.stop(err)
	h.workers.Wait()
	h.runInline()
	for _, g := range *h.groups.Load() {
		g.answerAll()
	}
	h.mu.Lock()
	err = errors.Join(err, h.failureAfter(err))
	h.mu.Unlock()
	if err == nil {
		err = h.store.Flush() // so that the next start has little to apply again
	}
	return errors.Join(err, h.store.Close(), h.log.Close())
}

// failureAfter is what a worker reported while the loop was already ending.
func (h *Host) failureAfter(err error) error {
	if errors.Is(err, h.failure) {
		return nil
	}
	return h.failure
}

// stop turns away all callers and tells the workers to end.
func (h *Host) stop(err error) {
	h.mu.Lock()
	h.stopped = true
	requests, calls := h.requests, h.calls
	h.requests, h.calls = nil, nil
	h.mu.Unlock()
	for _, r := range requests {
		r.reply(errStopped)
	}
	for _, f := range calls {
		f(errStopped)
	}
	h.abortSnapshot(nil, errStopped)
	h.handles.stop()
	if err != nil {
		h.o.Logger.Error("the replica host stops", "error", err)
	}
	for _, g := range *h.groups.Load() {
		g.shut(errStopped)
		g.queue.close()
	}
}

// fail ends the loop with err, from any goroutine. The first one counts.
func (h *Host) fail(err error) {
	h.mu.Lock()
	if h.failure == nil {
		h.failure = err
	}
	h.mu.Unlock()
	h.rouse()
}

func (h *Host) failed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failure
}

// mark gives a group to the loop.
func (h *Host) mark(g *Group) {
	if g.marked.Swap(true) {
		return // the loop has yet to look at it
	}
	h.mu.Lock()
	h.marked = append(h.marked, g)
	h.mu.Unlock()
	h.rouse()
}

func (h *Host) rouse() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// loop is the node's one writer of the log.
func (h *Host) loop(ctx context.Context) error {
	for {
		ticked, err := h.wait(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if err := h.turn(ticked); err != nil {
			return err
		}
	}
}

// turn is one turn of the loop.
func (h *Host) turn(ticked bool) error {
	return guard(func() error {
		if err := h.keepLogShort(ticked); err != nil {
			return err
		}
		// Whoever is about to propose goes along: a settlement and the lease that
		// its worker asks for at the same time become one entry.
		runtime.Gosched()
		h.gather(ticked)
		return h.round()
	})
}

// wait returns when there may be something to do. With groups that are not
// finished it only looks.
func (h *Host) wait(ctx context.Context) (ticked bool, err error) {
	if len(h.again) > 0 {
		select {
		case <-ctx.Done():
		case <-h.o.Ticks:
			ticked = true
		default:
		}
	} else {
		select {
		case <-ctx.Done():
		case <-h.o.Ticks:
			ticked = true
		case <-h.wake:
		}
	}
	return ticked, h.failed()
}

// gather finds the groups of this round and gives them what came in.
func (h *Host) gather(ticked bool) {
	h.work = append(h.work[:0], h.again...)
	clear(h.again)
	h.again = h.again[:0]
	for _, g := range h.work {
		g.inRound = true
	}
	h.mu.Lock()
	for i, g := range h.marked {
		// Before its boxes are emptied: what comes later marks it again.
		g.marked.Store(false)
		h.addToRound(g)
		h.marked[i] = nil
	}
	h.marked = h.marked[:0]
	h.mu.Unlock()
	if ticked {
		if h.sending != nil {
			h.sending.tick()
		}
		h.setPace()
		for _, g := range *h.groups.Load() {
			h.addToRound(g)
		}
	}
	h.runCalls() // raft is between two Readys, and commands come after
	for _, g := range h.work {
		g.inRound = false
		if !g.gone {
			g.takeIn(ticked)
		}
	}
}

func (h *Host) addToRound(g *Group) {
	if !g.inRound {
		g.inRound = true
		h.work = append(h.work, g)
	}
}

// Group finds a group that has a replica here.
func (h *Host) Group(id uint64) (*Group, bool) {
	g, ok := (*h.groups.Load())[id]
	return g, ok
}

// Groups returns the groups that have a replica here, in no order.
func (h *Host) Groups() []*Group {
	var gs []*Group
	for _, g := range *h.groups.Load() {
		gs = append(gs, g)
	}
	return gs
}

// Boot is the boot number of the data directory: it grows at each start and
// each switch of segments, and is durable before it is seen. Peers refuse a
// node whose number at a start is not higher than the highest that they saw
// (trap 15).
func (h *Host) Boot() uint64 { return h.boot }

// setGroup puts a group into the table, or takes it out when g is nil.
func (h *Host) setGroup(id uint64, g *Group) {
	m := maps.Clone(*h.groups.Load())
	if g == nil {
		delete(m, id)
	} else {
		m[id] = g
	}
	h.groups.Store(&m)
}

// Receive takes a message of another replica of the group. It never blocks: a
// message for a replica that is not here, or for which there is no room, is
// lost, as Raft expects of networks, and so is a MsgSnap: see ReceiveSnapshot. m
// must not change afterwards.
func (h *Host) Receive(group uint64, m *raftpb.Message) {
	g, ok := h.Group(group)
	if !ok || m.GetTo() != g.replica || m.GetType() == raftpb.MsgSnap || g.patience.Load() > 0 {
		return // an older replica's id (trap 6), or one that is not created yet
	}
	g.receive(m)
}

// guard makes the failures that f panics with its error.
func guard(f func() error) (err error) {
	defer func() {
		if f := recovered(recover()); f != nil {
			err = f
		}
	}()
	return f()
}

// recovered tells the failures that end a host from panics of ours.
func recovered(r any) error {
	if r == nil {
		return nil
	}
	if err, ok := r.(error); ok {
		var s *state.Failure
		var l *logFailure
		if errors.As(err, &s) || errors.As(err, &l) {
			return err
		}
	}
	panic(r)
}
