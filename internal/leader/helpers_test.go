package leader

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// hand is a clock that goes on when it is told.
type hand struct {
	mu    sync.Mutex
	now   time.Time
	ahead time.Duration // the time of day is, of now
}

func newHand() *hand { return &hand{now: time.Unix(1_000_000, 0)} }

func (h *hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hand) Wall() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now.Add(h.ahead)
}

// jump lets the time of day jump, and nothing else.
func (h *hand) jump(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead += d
}

func (h *hand) Tick(time.Duration) (<-chan time.Time, func()) { return nil, func() {} }

func (h *hand) add(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// smallSegment is the size of a file of the log, and of a table of rows in memory. A
// file of the log is filled with zeros before it is used: in memory, with the race
// detector, that took most of the time of most tests.
const smallSegment = 256 << 10

// rig is one group with queue 1, of one cell, on a disk in memory. Time stands
// unless step is called.
type rig struct {
	*Group
	t     testing.TB
	fs    vfs.FS
	clock *hand
	stop  func()
	spun  chan *Group // off the group
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, fs: vfs.NewMem(), clock: newHand(), spun: make(chan *Group, 1)}
	r.start()
	r.propose((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{From: 0, To: 0, Path: "0"}}}).Command())
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) start() {
	r.t.Helper()
	o := replica.Options{
		Machine: func(g *replica.Group) replica.StateMachine {
			m := New(g, r.clock, nil, slog.New(slog.DiscardHandler))
			if g.ID() == 2 {
				r.Group = m
			} else {
				r.spun <- m
			}
			return m
		},
		Now: r.clock.Now, Logger: slog.New(slog.DiscardHandler),
	}
	o.Log.FS, o.Log.Dir, o.Log.StoreID, o.Log.SegmentBytes = r.fs, "log", 1, smallSegment
	o.State.FS, o.State.Dir, o.State.StoreID, o.State.MemTable = r.fs, "state", 1, smallSegment
	host, err := replica.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- host.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	})
	if len(host.Groups()) == 0 {
		n := replica.NewReplica{Group: 2, Replica: 1, Conf: &raftpb.ConfState{Voters: []uint64{1}}}
		n.Base.Index, n.Base.Term = 1, 1
		if _, err := host.Create(n); err != nil {
			r.t.Fatal(err)
		}
	}
	r.lead()
}

// lead waits until the group leads: who can read finds a machine that was told.
func (r *rig) lead() {
	r.t.Helper()
	if err := r.raft.ReadIndex(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.leading {
		r.t.Fatal("a read was let go before the machine was told that it leads")
	}
}

func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

func (r *rig) propose(c queue.Command) any {
	r.t.Helper()
	result, err := r.Propose(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

// step lets time go on, and what is due happen.
func (r *rig) step(d time.Duration) {
	r.t.Helper()
	r.clock.add(d)
	r.Tick()
	r.propose(queue.Tick()) // behind what Tick has proposed
}

func (r *rig) send(n int, delay time.Duration) {
	r.t.Helper()
	c := queue.Send{Queue: 1, Messages: make([]queue.Sent, n)}
	for i := range c.Messages {
		c.Messages[i].Delay = delay
	}
	for _, res := range r.propose(c.Command()).([]message.SendResult) {
		if res.Err != nil {
			r.t.Fatal(res.Err)
		}
	}
}

func (r *rig) receive(n int, lease time.Duration) []queue.Leased {
	r.t.Helper()
	c := NewCall(1, message.ReceiveOptions{Max: n, Lease: lease, Worker: "w"}, 1)
	r.Wait(c)
	got, err := c.Collect(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) settle(got []queue.Leased, a message.Action, lease time.Duration) {
	r.t.Helper()
	c := queue.Settle{Settlements: make([]message.Settlement, len(got))}
	for i := range got {
		c.Settlements[i] = message.Settlement{Token: message.Token{ID: got[i].ID, Fence: got[i].Fence}, Action: a, Lease: lease, HasDelay: true}
	}
	for _, res := range r.propose(c.Command()).([]message.SettleResult) {
		if res.Err != nil {
			r.t.Fatal(res.Err)
		}
	}
}

func (r *rig) read(f func(rows queue.Reader)) {
	r.t.Helper()
	if err := r.raft.ReadIndex(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	view := r.raft.View()
	defer view.Close()
	f(view)
}

// want compares the queue's counts.
func (r *rig) want(when string, ready, scheduled, leased int64) {
	r.t.Helper()
	r.read(func(rows queue.Reader) {
		q, _ := queue.Queue(rows, 1)
		if c := q.Counts(); c.Ready != ready || c.Scheduled != scheduled || c.Leased != leased {
			r.t.Fatalf("%s: %+v", when, c)
		}
	})
}
