package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
)

var (
	crashCuts = flag.Int("cuts", defaultCuts, "power cuts of TestCrashClones")
	crashSeed = flag.Uint64("seed", 0, "of TestCrashClones; 0: another one each time")
)

// Before each sync of a working node, of its log and of its rows, the power is
// cut, and 0, 50 or 99 % of what was not synced reaches the disk. What is left
// holds all that was confirmed, and the rows of each group are those that its
// entries make, from nothing and in memory.
func TestCrashClones(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	c := startCutter(t, seed, *crashCuts, nil)
	c.run()
	if c.first != nil {
		t.Fatalf("%v\nonce more, though not entry by entry: go test ./internal/node -run CrashClones -seed %d", c.first, seed)
	}
	if c.taken < *crashCuts || c.syncs["log"] == 0 || c.syncs["rows"] == 0 || c.served == 0 {
		t.Errorf("%d cuts at syncs of %v, %d served: the test shows too little", c.taken, c.syncs, c.served)
	}
	t.Logf("%d cuts, at syncs of %v; %d of them served as whole nodes", c.taken, c.syncs, c.served)
}

// The same with a disk that says that it has synced the log and has not, one
// time in ten: it must be noticed.
func TestCrashClonesNoticeASkippedSync(t *testing.T) {
	n := 0 // the log has one writer
	c := startCutter(t, 1, 500, func(name string) bool {
		if !isLog(name) {
			return false
		}
		n++
		return n%10 == 0
	})
	c.run()
	// What is missing may also show as a hole before later pages that were kept.
	if c.first == nil || !strings.Contains(c.first.Error(), "was confirmed") && !strings.Contains(c.first.Error(), "is damaged") {
		t.Fatalf("after %d cuts: %v", c.taken, c.first)
	}
	t.Log(c.first)
}

// Groups that nobody writes to keep term and vote while another one's entries
// go through all segments again and again.
func TestIdleGroupKeepsItsVote(t *testing.T) {
	disk := newWatchedDisk(func(string) bool { return false })
	n, err := Start(t.Context(), crashConfig(disk))
	if err != nil {
		t.Fatal(err)
	}
	w := &workload{t: t, g: n.Gateway()}
	w.create("busy", 1, message.Settings{})
	look := func() (votes map[uint64]string, boot uint64) {
		id, err := readIdentity(disk, "data")
		if err != nil {
			t.Fatal(err)
		}
		clone := disk.crash(0, nil)
		log, err := raftlog.Open(raftlog.Options{FS: clone, Dir: n.dir.file(logDir), StoreID: id.StoreID, SegmentBytes: n.config.LogSegment})
		if err != nil {
			t.Fatal(err)
		}
		votes, boot = map[uint64]string{}, log.Boot()
		for _, r := range log.Replicas() {
			votes[r.Group] = fmt.Sprint("term ", r.HardState.GetTerm(), ", vote ", r.HardState.GetVote())
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		return votes, boot
	}
	before, boot := look()
	for range 300 {
		w.send(t.Context(), "busy", 10, message.New{Body: make([]byte, 1_000)})
		for _, d := range w.receive(t.Context(), "busy", 10, time.Minute) {
			w.settle(t.Context(), d, message.Settlement{Action: message.Ack})
		}
	}
	after, newBoot := look()
	if len(after) != 1+dataGroups || !maps.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	if newBoot < boot+20 { // each switch of segments raises it, and there are fewer than 10
		t.Errorf("the log switched segments only %d times", newBoot-boot)
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// crashConfig makes segments and memtables so small that they turn over again
// and again while the test runs.
func crashConfig(fs vfs.FS) Config {
	return Config{FS: fs, DataDir: "data", Listen: "127.0.0.1:0", DiskReserve: 1, LogSegment: 64 << 10, LogBudget: 128 << 10, memTable: 64 << 10}
}

// cut is what a power cut left, and what of each group was confirmed before.
type cut struct {
	number    int
	disk      *vfs.MemFS
	keep      int // percent of what was not synced
	name      string
	confirmed map[uint64]uint64 // applied index by group
}

// cutter cuts the power of a node before each of its syncs, and checks what is
// left.
type cutter struct {
	t        *testing.T
	node     *Node
	disk     *watchedDisk
	recorder *recorder
	workload *workload
	want     int
	lie      func(name string) bool
	cutting  atomic.Bool
	cuts     chan cut

	mu                     sync.Mutex
	rng                    *rand.Rand
	taken, checked, served int
	syncs                  map[string]int // by kind of file
	first                  error          // what was found first
	progress               *sync.Cond
}

// startCutter starts a node with a stock of messages. want cuts are made; lie
// says which syncs the disk leaves out.
func startCutter(t *testing.T, seed uint64, want int, lie func(name string) bool) *cutter {
	c := &cutter{
		t: t, recorder: newRecorder(), want: want, lie: lie, cuts: make(chan cut, want),
		rng: rand.New(rand.NewPCG(seed, 1)), syncs: map[string]int{},
	}
	c.progress = sync.NewCond(&c.mu)
	c.disk = newWatchedDisk(c.beforeSync)
	config := crashConfig(c.disk)
	config.watch = c.recorder.watch
	var err error
	if c.node, err = Start(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	c.workload = &workload{t: t, g: c.node.Gateway()}
	c.workload.stockUp()
	return c
}

// beforeSync cuts the power.
func (c *cutter) beforeSync(name string) (lie bool) {
	if !c.cutting.Load() {
		return false
	}
	x := cut{name: name, confirmed: map[uint64]uint64{}}
	for _, g := range c.node.host.Groups() {
		x.confirmed[g.ID()] = g.Status().Applied
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken < c.want {
		x.number, x.keep = c.taken, []int{0, 50, 99}[c.taken%3]
		x.disk = c.disk.crash(x.keep, c.rng)
		c.taken++
		c.syncs[kindOf(name)]++
		c.cuts <- x // has room for all
	}
	return c.lie != nil && c.lie(name)
}

func kindOf(name string) string {
	if isLog(name) {
		return "log"
	}
	return "rows"
}

// run works until all cuts are made and checked, or something was found.
func (c *cutter) run() {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	var clients, checkers sync.WaitGroup
	rngs := make([]*rand.Rand, 6)
	for i := range rngs {
		rngs[i] = rand.New(rand.NewPCG(c.rng.Uint64(), 1))
	}
	c.cutting.Store(true)
	for _, rng := range rngs {
		clients.Go(func() { c.workload.client(ctx, rng, c.goesOn) })
	}
	for range 2 {
		checkers.Go(func() {
			for x := range c.cuts {
				c.report(c.check(ctx, &x))
			}
		})
	}
	clients.Wait()
	c.cutting.Store(false)
	c.mu.Lock()
	close(c.cuts) // nobody is in beforeSync past its look at want
	c.mu.Unlock()
	checkers.Wait()
	if err := c.node.Stop(c.t.Context()); err != nil {
		c.t.Error(err)
	}
}

// maxUnchecked is how many cuts may wait to be checked before the clients wait.
const maxUnchecked = 16

// goesOn says whether the clients go on, and waits until the checkers keep up.
func (c *cutter) goesOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.taken-c.checked > maxUnchecked && c.first == nil {
		c.progress.Wait()
	}
	return c.first == nil && c.taken < c.want
}

func (c *cutter) report(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked++
	if c.first == nil {
		c.first = err
	}
	c.progress.Broadcast()
}

// serveEvery is how many cuts have one that is started as a whole node.
const serveEvery = 50

// check compares what a cut left with what was recorded.
func (c *cutter) check(ctx context.Context, x *cut) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("cut %d, before the sync of %s, %d %% kept: %w", x.number, x.name, x.keep, fmt.Errorf(format, args...))
	}
	left, err := reopen(ctx, x.disk)
	if err != nil {
		return fail("%w", err)
	}
	var sum message.Counts
	for group, confirmed := range x.confirmed {
		l, ok := left[group]
		if !ok || l.index < confirmed {
			return fail("index %d of group %d was confirmed, its log and rows end at %d", confirmed, group, l.index)
		}
		want, err := c.recorder.after(ctx, group, l.index)
		if err != nil {
			return fail("%w", err)
		}
		if l.rows.sum != want.sum {
			return fail("group %d at index %d has other rows than its entries make: %s", group, l.index, c.recorder.replay(group, l.index).firstDifference(l.rows))
		}
		sum.Add(want.counts)
	}
	if sum.Ready+sum.Scheduled+sum.Leased < 100 || sum.Leased == 0 || sum.Scheduled == 0 || sum.Dead == 0 {
		return fail("the cut shows too little: %+v", sum)
	}
	if x.number%serveEvery == 0 {
		if err := c.serve(ctx, x.disk); err != nil {
			return fail("%w", err)
		}
	}
	return nil
}

// serve starts a whole node on what is left.
func (c *cutter) serve(ctx context.Context, disk vfs.FS) error {
	n, err := Start(ctx, crashConfig(disk))
	if err != nil {
		return err
	}
	err = c.workload.lost(ctx, n.Gateway())
	c.mu.Lock()
	c.served++
	c.mu.Unlock()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, n.Stop(stopping))
}
