package replica

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
)

const childGroup = 2

func (n *node) child() (*Group, bool) { return n.running().Group(childGroup) }

// seen is what a node has of a counter: in the parent, and in the child, if that
// is there.
func (n *node) seen(name string) (parent, child uint64, there bool) {
	parent = n.peek(name)
	g, there := n.child()
	if there {
		v := g.View()
		defer v.Close()
		child = readCount(v, name)
	}
	return parent, child, there
}

// spin spins the counters off, into a group with as many replicas.
func spinCommand(replicas int) string { return fmt.Sprintf("spin %d %d", childGroup, replicas) }

// inChild repeats until somebody confirms; only what can't have happened is
// repeated.
func (c *cluster) inChild(name string) (result uint64) {
	c.t.Helper()
	until(c.t, "the child confirms", func() bool {
		for _, n := range c.nodes {
			c.mu.Lock()
			cut := c.cut[n.id]
			c.mu.Unlock()
			g, ok := n.child()
			if cut || !ok || !g.Leading() {
				continue
			}
			o := <-propose(g, name)
			if o.err == nil {
				result = o.result.(uint64)
				return true
			}
			if !refused(o.err) {
				c.t.Fatalf("add %s: %v", name, o.err)
			}
		}
		return false
	})
	return result
}

// A power cut at each sync around a spin-off on one node, with any part of what
// was not synced: the counters are the parent's or the child's, whole, and
// nothing is left that no replica reaches (trap 7).
func TestTrap07CrashAtEverySyncOfASpinOff(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	type cut struct {
		disk *disk
		keep int
		want uint64
	}
	var mu sync.Mutex
	var cuts []cut
	var confirmed uint64
	for range 10 {
		confirmed = n.add("a")
	}
	d.before(func(errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		for _, keep := range []int{0, 50, 99} {
			cuts = append(cuts, cut{d.crash(t, keep, uint64(len(cuts))), keep, confirmed})
		}
		return nil
	})
	if o := <-propose(n.group(), spinCommand(1)); o.err != nil {
		t.Fatal(o.err)
	}
	n.add("b") // the parent goes on
	until(t, "the child leads", func() bool { g, ok := n.child(); return ok && g.Leading() })
	for range 3 {
		g, _ := n.child()
		o := <-propose(g, "a")
		if o.err != nil {
			t.Fatal(o.err)
		}
		mu.Lock()
		confirmed = o.result.(uint64)
		mu.Unlock()
	}
	if err := n.host.store.Flush(); err != nil {
		t.Fatal(err)
	}
	d.before(nil)
	if parent, child, _ := n.seen("a"); parent != 0 || child != 13 {
		t.Errorf("the parent has %d, the child %d", parent, child)
	}
	n.clean()
	if err := n.kill(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	before, after := 0, 0
	for i, cut := range cuts {
		n := newNode(t, cut.disk).start()
		if err := n.group().ReadIndex(t.Context()); err != nil {
			t.Fatal(err)
		}
		parent := n.peek("a")
		if parent == 0 {
			until(t, "the child is there", func() bool { g, ok := n.child(); return ok && g.ReadIndex(t.Context()) == nil })
			after++
		} else {
			before++
		}
		parent, child, there := n.seen("a")
		if parent+child < cut.want || parent > 0 && there {
			t.Fatalf("cut %d of %d, %d %% kept: the parent has %d, the child %d (%v), and %d were confirmed", i, len(cuts), cut.keep, parent, child, there, cut.want)
		}
		n.clean()
		if err := n.kill(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d times before, %d times after", before, after)
	if before == 0 || after < 9 {
		t.Errorf("%d cuts before and %d after the spin-off", before, after)
	}
}

// A start between the flush and the record finds the row that leads to the child,
// and makes the record before it sweeps (trap 7).
func TestTrap07StartMakesTheRecord(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	for range 10 {
		n.add("a")
	}
	n.inLoop(func() { n.host.stepped = true }) // keeps what is done beside the worker for later
	if o := <-propose(n.group(), spinCommand(1)); o.err != nil {
		t.Fatal(o.err)
	}
	if err := n.host.store.Flush(); err != nil {
		t.Fatal(err)
	}
	after := newNode(t, d.crash(t, 0, 1)).start()
	g, ok := after.child()
	if !ok {
		t.Fatal("the child is not there")
	}
	if err := g.ReadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if parent, child, _ := after.seen("a"); parent != 0 || child != 10 {
		t.Errorf("the parent has %d, the child %d", parent, child)
	}
	after.clean()
	after.restart()
	if _, child, _ := after.seen("a"); child != 10 {
		t.Errorf("after another start the child has %d", child)
	}
	n.inLoop(func() { n.host.stepped, n.host.later = false, nil })
}

// A child whose replica here was destroyed does not come back by a row that a
// crash has brought back.
func TestTrap07DestroyedChildStaysAway(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	if o := <-propose(n.group(), spinCommand(1)); o.err != nil {
		t.Fatal(o.err)
	}
	until(t, "the child is there", func() bool { _, ok := n.child(); return ok })
	// The row that led to it is deleted, and nothing has made that durable.
	if err := n.host.Destroy(childGroup, 2); err != nil {
		t.Fatal(err)
	}
	after := newNode(t, d.crash(t, 0, 1)).start()
	if _, ok := after.child(); ok {
		t.Error("it is back")
	}
	after.clean()
	// Nor does a row harm whose child's rows have gone.
	rows := after.group().rows
	if err := after.group().ReadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	applied, err := rows.Applied()
	if err != nil {
		t.Fatal(err)
	}
	b := rows.Begin()
	given := b.Give(childGroup, nil, []byte("x"), nil)
	b.Commit(applied)
	if err := after.host.store.Drop(given.Root()); err != nil {
		t.Fatal(err)
	}
	after.restart()
	if given, err := after.host.store.Given(rows.Root()); err != nil || len(given) > 0 {
		t.Errorf("left are %v, %v", given, err)
	}
}

// On three nodes, under load in the parent: the child is elected, has all that
// was confirmed, and each node can be lost. One that was cut off while it was
// spun off comes after.
func TestSpinOffOnThreeNodes(t *testing.T) {
	c := newCluster(t)
	for range 10 {
		c.add("a")
	}
	c.agree()
	late := c.others(c.leader())[0]
	c.isolate(late.id, true)
	if o := <-propose(c.leader().group(), spinCommand(3)); o.err != nil || o.result.(*message.Error) != nil {
		t.Fatal(o)
	}
	if got := c.inChild("a"); got != 11 {
		t.Errorf("the child goes on at %d", got)
	}
	c.add("b")
	c.isolate(late.id, false)
	c.agree()
	until(t, "all have the child", func() bool {
		for _, n := range c.nodes {
			if _, child, _ := n.seen("a"); child != 11 {
				return false
			}
		}
		return true
	})
	for id := range c.nodes {
		c.isolate(id, true)
		c.inChild("a")
		c.isolate(id, false)
	}
	for _, n := range c.nodes {
		if got := n.host.Stats().SnapshotsReceived; got != 0 {
			t.Errorf("node %d took %d snapshots", n.id, got)
		}
		until(t, "nothing is left", func() bool { return len(n.unreached()) == 0 })
	}
}

// Replicas that the catalog has made before, with nothing, get their rows by the
// entry, and no snapshot while they are patient.
func TestSpinOffFillsEmptyReplicas(t *testing.T) {
	c := newCluster(t)
	for range 10 {
		c.add("a")
	}
	c.agree()
	for _, n := range c.nodes {
		if _, err := n.host.Create(NewReplica{Group: childGroup, Replica: n.id, Conf: &raftpb.ConfState{}, Patience: 1 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	if o := <-propose(c.leader().group(), spinCommand(3)); o.err != nil {
		t.Fatal(o.err)
	}
	c.inChild("a")
	until(t, "all have the child", func() bool {
		for _, n := range c.nodes {
			if _, child, _ := n.seen("a"); child != 11 {
				return false
			}
		}
		return true
	})
	for _, n := range c.nodes {
		if got := n.host.Stats().SnapshotsReceived; got != 0 {
			t.Errorf("node %d took %d snapshots", n.id, got)
		}
		until(t, "nothing is left", func() bool { return len(n.unreached()) == 0 })
		n.restart()
	}
	if got := c.inChild("a"); got != 12 {
		t.Errorf("after a restart the child goes on at %d", got)
	}
}

// A node that gets the parent by a snapshot from after the spin-off gets the
// child by one of its own; its row in the old rows leads nowhere.
func TestSpinOffBeyondASnapshot(t *testing.T) {
	c := newCluster(t)
	for range 10 {
		c.add("a")
	}
	c.agree()
	away := c.others(c.leader())[0]
	c.isolate(away.id, true)
	if o := <-propose(c.leader().group(), spinCommand(3)); o.err != nil {
		t.Fatal(o.err)
	}
	for range 5 {
		c.inChild("a")
		c.add("b")
	}
	until(t, "it does not count as active", func() bool { return !active(c.leader(), away.id) })
	c.leader().forget()
	away.join(childGroup, away.id)
	c.isolate(away.id, false)
	until(t, "it has both", func() bool {
		parent, child, _ := away.seen("a")
		return parent == 0 && child == 15
	})
	if away.host.Stats().SnapshotsReceived == 0 {
		t.Error("it took no snapshot")
	}
	until(t, "nothing is left", func() bool { return len(away.unreached()) == 0 })
}

// A spin-off is refused, everywhere alike, when the replicas are not those that
// it was decided for.
func TestSpinOffIsRefused(t *testing.T) {
	c := newGrowing(t, nil)
	c.add("a")
	spin := func(replicas int) *message.Error {
		o := <-propose(c.leader().group(), spinCommand(replicas))
		if o.err != nil {
			t.Fatal(o.err)
		}
		return o.result.(*message.Error)
	}
	for _, replicas := range []int{0, 2, 3} {
		if err := spin(replicas); message.CodeOf(err) != message.Conflict {
			t.Errorf("with %d replicas: %v", replicas, err)
		}
	}
	c.members([]uint64{1}, []uint64{2})
	for _, replicas := range []int{1, 3} {
		if err := spin(replicas); message.CodeOf(err) != message.Conflict {
			t.Errorf("with %d replicas: %v", replicas, err)
		}
	}
	c.agreeOn(1, 2)
	if parent, _, there := c.nodes[2].seen("a"); parent != 1 || there {
		t.Errorf("after refusals the parent has %d, the child is there: %v", parent, there)
	}
	if err := spin(2); err != nil {
		t.Error(err)
	}
	c.inChild("a")
	until(t, "the learner has it", func() bool { _, child, _ := c.nodes[2].seen("a"); return child == 2 })
	g, _ := c.nodes[2].child()
	if s := g.Status(); len(s.Voters) != 1 || len(s.Learners) != 1 {
		t.Errorf("the child has %+v", s)
	}
}

// What is spun off stays off when nothing was flushed but the log: the entry is
// applied again.
func TestSpinOffIsReplayed(t *testing.T) {
	n := single(t, vfs.NewMem())
	n.add("a")
	if o := <-propose(n.group(), spinCommand(1)); o.err != nil {
		t.Fatal(o.err)
	}
	n.restart()
	n.restart()
	until(t, "the child is there", func() bool { g, ok := n.child(); return ok && g.ReadIndex(t.Context()) == nil })
	if parent, child, _ := n.seen("a"); parent != 0 || child != 1 {
		t.Errorf("the parent has %d, the child %d", parent, child)
	}
	n.clean()
}

// While the configuration changes nothing is spun off.
func TestSpinOffIsRefusedInAJointConfiguration(t *testing.T) {
	replicas := map[uint64]uint64{1: 1, 2: 2, 3: 3}
	for _, conf := range []*raftpb.ConfState{
		{Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{1}},
		{Voters: []uint64{1, 2, 3}, LearnersNext: []uint64{3}},
	} {
		rows := applying{worker: &worker{g: &Group{id: testGroup, replica: 1}, conf: appendConf(nil, conf)}}
		if _, err := rows.SpinOff(childGroup, replicas, nil); message.CodeOf(err) != message.Conflict {
			t.Errorf("in %v: %v", conf, err)
		}
	}
}

// A replica that waits for its rows to be spun off here takes nothing from others
// for a while, and then does.
func TestPatientReplicaTakesNothing(t *testing.T) {
	c := newNodes(t, nil)
	c.nodes[1].create(testGroup)
	if _, err := c.nodes[2].host.Create(NewReplica{Group: testGroup, Replica: 2, Conf: &raftpb.ConfState{}, Patience: 200}); err != nil {
		t.Fatal(err)
	}
	patient := c.nodes[2].group()
	var mu sync.Mutex
	sent := 0
	c.watch(func(_ uint64, m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if m.GetTo() == 2 && patient.patience.Load() > 100 {
			sent++
		}
		return true
	})
	c.add("a")
	c.members([]uint64{1}, []uint64{2})
	until(t, "half of its patience is gone", func() bool { return patient.patience.Load() < 100 })
	mu.Lock()
	if s := patient.Status(); sent < 2 || s.Term != 0 {
		t.Errorf("after %d messages it is at %+v", sent, s)
	}
	mu.Unlock()
	snapshot := &raftpb.Message{
		Type: new(raftpb.MsgSnap), To: new(uint64(2)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(1)), ConfState: &raftpb.ConfState{Learners: []uint64{2}}}},
	}
	if err := c.nodes[2].host.ReceiveSnapshot(t.Context(), testGroup, snapshot, nil); message.CodeOf(err) != message.Unavailable {
		t.Errorf("a snapshot: %v", err)
	}
	c.agreeOn(1, 2)
}

// The log keeps the entry that spins a child off until the child has committed
// one of its own: its rows are on a majority then.
func TestLogIsKeptForAChild(t *testing.T) {
	n := single(t, vfs.NewMem())
	n.add("a")
	n.inLoop(func() { n.host.stepped = true }) // keeps what is done beside the worker for later
	if o := <-propose(n.group(), spinCommand(1)); o.err != nil {
		t.Fatal(o.err)
	}
	at := n.group().Status().Applied
	n.add("b")
	for range 2 { // with the second the loop has done with the first
		n.ticks <- n.host.o.Now() // the leader looks how far everybody is
	}
	n.forgetSome()
	if first := n.firstIndex(); first > at {
		t.Errorf("the log begins at %d, and the child was made at %d", first, at)
	}
	var bringUp []func()
	n.inLoop(func() { n.host.stepped, bringUp, n.host.later = false, n.host.later, nil })
	for _, f := range bringUp {
		f()
	}
	until(t, "the child leads", func() bool { g, ok := n.child(); return ok && g.Leading() && g.Status().Commit > at })
	n.add("b") // something to flush
	for range 2 {
		n.ticks <- n.host.o.Now()
	}
	n.forgetSome()
	if first := n.firstIndex(); first <= at {
		t.Errorf("the log still begins at %d, and the child was made at %d", first, at)
	}
}

// The same for each of several children that are young, also after a restart.
func TestLogIsKeptForEachChild(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	n := c.leader()
	// On the others what is done beside the workers is kept for later.
	for _, o := range c.others(n) {
		o.inLoop(func() { o.host.stepped = true })
	}
	var at [2]uint64
	for i, child := range []uint64{childGroup, childGroup + 1} {
		if o := <-propose(n.group(), fmt.Sprintf("spin %d 3", child)); o.err != nil || o.result.(*message.Error) != nil {
			t.Fatal(o)
		}
		at[i] = n.group().Status().Applied
	}
	c.agree()
	var later []func()
	for _, o := range c.others(n) {
		o.inLoop(func() { later, o.host.stepped, o.host.later = append(later, o.host.later[1]), false, o.host.later[:1] })
		o.inLoop(func() {
			for _, f := range o.host.later {
				o.host.spawn(f)
			}
			o.host.later = nil
		})
	}
	kept := func() (upTo uint64) {
		n.inLoop(func() { upTo = n.group().keptForChild(1 << 20) })
		return upTo
	}
	until(t, "the first child has grown", func() bool { g, ok := n.child(); return ok && g.Status().Commit > at[0] })
	if got := kept(); got != at[1]-1 {
		t.Errorf("with the second child alone the log may forget up to %d, and it was made at %d", got, at[1])
	}
	n.restart()
	if got := kept(); got != at[1]-1 {
		t.Errorf("after a restart the log may forget up to %d, and the second child was made at %d", got, at[1])
	}
	for _, f := range later {
		f()
	}
	until(t, "the second child has grown", func() bool { return kept() == 1<<20 })
	until(t, "no row leads to a child", func() bool {
		given, err := n.host.store.Given(n.group().rows.Root())
		return err == nil && len(given) == 0
	})
}
