package replica

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testGroup = 1

// node is a host that runs on a file system of its own.
type node struct {
	t         testing.TB
	id        uint64
	fs        vfs.FS
	host      *Host
	transport Transport
	ticks     chan time.Time
	stop      context.CancelFunc
	ended     chan error

	mu       sync.Mutex
	machines map[uint64]*counterMachine
	onOpen   func(*counterMachine)
	tune     func(*Options)
	opened   func() // between New and Run
}

// small segments, so that tests see many of them; a large memtable, so that
// rows become durable only when a test flushes.
func (n *node) options() Options {
	o := Options{
		Log:   raftlog.Options{FS: n.fs, Dir: "data/log", StoreID: n.id, SegmentBytes: 64 << 10, Logger: slog.New(slog.DiscardHandler)},
		State: state.Options{FS: n.fs, Dir: "data/state", CacheBytes: 1 << 20, MemTable: 1 << 20, Logger: slog.New(slog.DiscardHandler)},
		Machine: func(g *Group) StateMachine {
			m := &counterMachine{group: g}
			n.mu.Lock()
			defer n.mu.Unlock()
			n.machines[g.ID()] = m
			if n.onOpen != nil {
				n.onOpen(m)
			}
			return m
		},
		Transport: n.transport,
		Ticks:     n.ticks,
		Now:       time.Now,
		Logger:    slog.New(slog.DiscardHandler),
	}
	if n.tune != nil {
		n.tune(&o)
	}
	return o
}

func testContext() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

func newNode(t testing.TB, fs vfs.FS) *node {
	if err := fs.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	return &node{t: t, id: 1, fs: fs, ticks: make(chan time.Time), machines: map[uint64]*counterMachine{}}
}

func (n *node) start() *node {
	n.t.Helper()
	host, err := New(n.options())
	if err != nil {
		n.t.Fatalf("the host does not start: %v", err)
	}
	if n.opened != nil {
		n.opened()
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	n.mu.Lock()
	n.host, n.stop, n.ended = host, stop, ended
	n.mu.Unlock()
	go func() { ended <- host.Run(ctx) }()
	n.t.Cleanup(func() { n.kill() })
	return n
}

// kill ends the host and returns Run's error; twice is fine.
func (n *node) kill() error {
	if n.stop == nil {
		return nil
	}
	n.stop()
	n.stop = nil
	return <-n.ended
}

func (n *node) restart() {
	n.t.Helper()
	if err := n.kill(); err != nil {
		n.t.Fatalf("the host ended with %v", err)
	}
	n.start()
}

// single starts a group of one voter.
func single(t testing.TB, fs vfs.FS) *node {
	n := newNode(t, fs).start()
	n.create(testGroup)
	return n
}

func (n *node) create(group uint64) *Group {
	n.t.Helper()
	g, err := n.host.Create(NewReplica{Group: group, Replica: 1, Base: raftlog.Position{Index: 1, Term: 1}, Conf: &raftpb.ConfState{Voters: []uint64{1}}})
	if err != nil {
		n.t.Fatalf("create group %d: %v", group, err)
	}
	return g
}

// running is the host, also for goroutines beside the test's.
func (n *node) running() *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.host
}

func (n *node) group() *Group {
	n.t.Helper()
	g, ok := n.running().Group(testGroup)
	if !ok {
		n.t.Fatal("the group is not there")
	}
	return g
}

func (n *node) machine() *counterMachine {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machines[testGroup]
}

type outcome struct {
	result any
	err    error
}

func propose(g *Group, name string) <-chan outcome {
	c := make(chan outcome, 2) // a second call of done is seen by tests, not blocked
	g.Propose(Command{Head: []byte(name)}, func(r any, err error) { c <- outcome{r, err} })
	return c
}

func (n *node) add(name string) uint64 {
	n.t.Helper()
	o := <-propose(n.group(), name)
	if o.err != nil {
		n.t.Fatalf("add %s: %v", name, o.err)
	}
	return o.result.(uint64)
}

func (n *node) count(name string) uint64 {
	n.t.Helper()
	if err := n.group().ReadIndex(n.t.Context()); err != nil {
		n.t.Fatalf("read: %v", err)
	}
	v := n.group().View()
	defer v.Close()
	return readCount(v, name)
}

func (n *node) hash() uint64 {
	v := n.group().View()
	defer v.Close()
	return hashRows(v)
}

// What a group of one confirms is there after a clean restart and after a crash,
// in order, without any flush of the rows.
func TestSingleKeepsWhatItConfirmed(t *testing.T) {
	n := single(t, vfs.NewMem())
	for i := range 100 {
		if got := n.add("a"); got != uint64(i+1) {
			t.Fatalf("add %d gave %d", i+1, got)
		}
	}
	before := n.hash()
	n.restart()
	if got := n.count("a"); got != 100 {
		t.Fatalf("after a restart there are %d of 100", got)
	}
	if got := n.hash(); got != before {
		t.Fatalf("rows differ after a restart: %x, not %x", got, before)
	}
}

// Commands that wait together become one entry, and their results come in the
// order in which they were proposed.
func TestCommandsThatWaitShareAnEntry(t *testing.T) {
	n := single(t, vfs.NewMem())
	n.add("first") // it leads
	var mu sync.Mutex
	var order []string
	var done sync.WaitGroup
	for i := range 2000 {
		name := fmt.Sprint(i)
		done.Add(1)
		n.group().Propose(Command{Head: []byte(name)}, func(_ any, err error) {
			defer done.Done()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			order = append(order, name)
		})
	}
	done.Wait()
	for i, name := range order {
		if name != fmt.Sprint(i) {
			t.Fatalf("result %d is of command %s", i, name)
		}
	}
	if s := n.host.Stats(); s.Commands != 2001 || s.Entries >= s.Commands {
		t.Fatalf("%d commands in %d entries", s.Commands, s.Entries)
	}
}
