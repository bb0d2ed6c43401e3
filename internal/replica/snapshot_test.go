package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/message"
)

// members changes the configuration, again while it is refused for now.
func (c *cluster) members(voters, learners []uint64) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("voters %v and learners %v", voters, learners), func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		err := c.leader().group().SetMembers(ctx, voters, learners)
		switch message.CodeOf(err) {
		case "":
			return true
		case message.Unavailable, message.NotLeader, message.UnknownOutcome:
			return false
		default:
			c.t.Fatal(err)
			return false
		}
	})
}

// forget makes a node's rows durable, so that its log can be cut, and waits
// until it is.
func (n *node) forget() {
	n.t.Helper()
	upTo := n.group().Status().Applied
	if err := n.host.store.Flush(); err != nil {
		n.t.Fatal(err)
	}
	until(n.t, "the log is cut", func() bool {
		n.host.onFlush() // the others may have told only now that they have it all
		return n.firstIndex() > upTo
	})
}

// inLoop runs f in the loop.
func (n *node) inLoop(f func()) {
	done := make(chan struct{})
	n.host.call(&Group{gone: true}, func(error) {
		f()
		close(done)
	})
	<-done
}

func (n *node) firstIndex() (index uint64) {
	n.inLoop(func() {
		var err error
		if index, err = n.host.log.FirstIndex(testGroup); err != nil {
			n.t.Error(err)
		}
	})
	return index
}

func (n *node) lastIndex() (index uint64) {
	n.inLoop(func() {
		var err error
		if index, err = n.host.log.LastIndex(testGroup); err != nil {
			n.t.Error(err)
		}
	})
	return index
}

// unreached lists what no replica reaches: handles with rows, and tables of
// snapshots.
func (n *node) unreached() (left []string) {
	n.t.Helper()
	known := map[uint64]bool{0: true}
	n.inLoop(func() {
		for _, r := range n.host.log.Replicas() {
			rows, err := n.host.store.OpenReplica(r.Root, nil)
			if err != nil {
				n.t.Error(err)
				return
			}
			for _, h := range rows.Handles() {
				known[h] = true
			}
		}
	})
	err1 := n.host.store.Handles(func(h uint64, rows int, _ int64) {
		if !known[h] {
			left = append(left, fmt.Sprintf("%d rows under handle %d", rows, h))
		}
	})
	files, err2 := n.fs.List("data/state/incoming")
	if err := errors.Join(err1, err2); err != nil {
		n.t.Error(err)
	}
	return append(left, files...)
}

// clean fails the test if something is left.
func (n *node) clean() {
	n.t.Helper()
	if left := n.unreached(); len(left) > 0 {
		n.t.Errorf("left are %v", left)
	}
}

// A replica that was created with nothing waits for its snapshot, also across
// restarts and power cuts, and keeps what it got.
func TestEmptyReplicaWaitsForItsSnapshot(t *testing.T) {
	c := newGrowing(t, nil)
	for range 20 {
		c.add("a")
	}
	empty := c.nodes[2]
	empty.restart()
	empty.kill()
	empty.fs = empty.fs.(*disk).crash(t, 0, 1)
	empty.start()
	if s := empty.group().Status(); s.Applied != 0 || s.Leader != 0 || s.Term != 0 {
		t.Fatalf("an empty replica is at %+v", s)
	}
	c.members([]uint64{1}, []uint64{2})
	until(t, "it has all", func() bool { return empty.peek("a") == 20 })
	empty.kill()
	empty.fs = empty.fs.(*disk).crash(t, 0, 1) // nothing was flushed
	empty.start()
	if got := empty.peek("a"); got != 20 {
		t.Fatalf("after a power cut there are %d of 20", got)
	}
	c.add("a")
	if got := empty.count("a"); got != 21 {
		t.Errorf("after going on there are %d of 21", got)
	}
}

// peek is count without asking anybody.
func (n *node) peek(name string) uint64 {
	v := n.group().View()
	defer v.Close()
	return readCount(v, name)
}

// One voter becomes three by one joint change while commands go on; all end with
// the same rows, and each of the three can be lost.
func TestGrowFromOneToThreeUnderLoad(t *testing.T) {
	c := newGrowing(t, nil)
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				c.add(fmt.Sprint(i % 100))
			}
		}
	})
	c.nodes[1].forget()
	c.members([]uint64{1}, []uint64{2, 3})
	c.members([]uint64{1, 2, 3}, nil)
	close(stop)
	load.Wait()
	c.agree()
	for id := uint64(1); id <= 3; id++ {
		c.isolate(id, true)
		c.add("one is away")
		c.isolate(id, false)
	}
	c.agree()
	if s := c.nodes[2].group().Status(); len(s.Voters) != 3 || len(s.Learners)+len(s.VotersOutgoing) > 0 {
		t.Errorf("the configuration is %+v", s)
	}
}

// A follower that was away while the log that it needs was cut comes back by a
// snapshot. One that is damaged on its way is refused, and the next one taken;
// that its answer is lost does no harm.
func TestFollowerComesBackBySnapshot(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	away := c.others(c.leader())[0]
	before := away.group()
	c.isolate(away.id, true)
	for range 30 {
		c.add("a")
	}
	until(t, "it does not count as active", func() bool { return !active(c.leader(), away.id) })
	c.leader().forget()
	var mu sync.Mutex
	damaged := 0
	c.watchSnapshots(func(_ Outgoing, body io.Reader) io.Reader {
		mu.Lock()
		defer mu.Unlock()
		if damaged++; damaged > 3 {
			return body
		}
		all, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		all[len(all)/damaged-1] ^= 1
		return bytes.NewReader(all)
	})
	lost := false
	c.watch(func(from uint64, m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if lost || from != away.id || m.GetType() != raftpb.MsgAppResp || m.GetIndex() < 30 || m.GetReject() {
			return true
		}
		lost = true
		return false
	})
	c.isolate(away.id, false)
	until(t, "it has the snapshot", func() bool { return away.host.Stats().SnapshotsReceived == 1 })
	c.add("b")
	c.agree()
	if got := away.count("a"); got != 31 {
		t.Errorf("it has %d of 31", got)
	}
	if s := away.host.Stats(); s.SnapshotsReceived != 1 || damaged < 4 {
		t.Errorf("%d snapshots were installed and %d sent", s.SnapshotsReceived, damaged)
	}
	if o := <-propose(before, "a"); message.CodeOf(o.err) != message.Unavailable {
		t.Errorf("the replica before the snapshot took a command: %v", o)
	}
	until(t, "its old rows are deleted", func() bool { return len(away.unreached()) == 0 })
}

func active(leader *node, id uint64) bool {
	for _, p := range leader.group().Progress() {
		if p.Replica == id {
			return p.Active
		}
	}
	return false
}

// A power cut at each sync while a snapshot is installed, with any part of what
// was not synced: the replica is as before or as the snapshot, and nothing of
// what was on its way is left (trap 5).
func TestTrap05CrashAtEverySyncOfAnInstall(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	away := c.others(c.leader())[0]
	c.isolate(away.id, true)
	if err := away.host.store.Flush(); err != nil {
		t.Fatal(err)
	}
	before := away.hash()
	for i := range 60 {
		c.add(fmt.Sprint(i) + strings.Repeat("x", 2_000))
	}
	until(t, "it does not count as active", func() bool { return !active(c.leader(), away.id) })
	c.leader().forget()
	after := c.leader().hash()
	type cut struct {
		disk *disk
		keep int
	}
	var mu sync.Mutex
	var cuts []cut
	d := away.fs.(*disk)
	d.before(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		for _, keep := range []int{0, 50, 99} {
			cuts = append(cuts, cut{d.crash(t, keep, uint64(len(cuts))), keep})
		}
		return nil
	})
	c.isolate(away.id, false)
	until(t, "the snapshot is installed", func() bool { return away.host.Stats().SnapshotsReceived == 1 })
	d.before(nil)
	c.agree()
	if err := away.kill(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	seen := map[bool]int{}
	for i, cut := range cuts {
		n := newNode(t, cut.disk)
		n.id, n.transport = away.id, &inbox{}
		n.start()
		n.clean()
		hash := n.hash()
		if hash != before && hash != after {
			t.Fatalf("cut %d of %d, %d %% kept: the rows are neither those before nor the snapshot's", i, len(cuts), cut.keep)
		}
		seen[hash == after]++
		if err := n.kill(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d times before, %d times after", seen[false], seen[true])
	if seen[false] == 0 || len(cuts) < 9 {
		t.Errorf("%d cuts, %d before the snapshot", len(cuts), seen[false])
	}
}

// What was installed is the replica's from the log's record on: a power cut
// right after the answer leaves it, although no row was flushed.
func TestTrap05TheAnswerComesAfterTheRecord(t *testing.T) {
	c := newGrowing(t, nil)
	for range 10 {
		c.add("a")
	}
	var mu sync.Mutex
	var cuts []*disk
	d := c.nodes[2].fs.(*disk)
	c.watch(func(from uint64, m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if from == 2 && m.GetType() == raftpb.MsgAppResp && !m.GetReject() && m.GetIndex() > 1 && len(cuts) == 0 {
			cuts = append(cuts, d.crash(t, 0, 1))
		}
		return true
	})
	c.members([]uint64{1}, []uint64{2})
	until(t, "it answers", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(cuts) > 0
	})
	mu.Lock()
	defer mu.Unlock()
	n := newNode(t, cuts[0])
	n.id = 2
	n.start()
	if got := n.peek("a"); got != 10 {
		t.Errorf("it answered for 10, and a power cut left %d", got)
	}
}

// agreeOn waits until some nodes have applied the same, and compares their rows.
func (c *cluster) agreeOn(ids ...uint64) {
	c.t.Helper()
	until(c.t, "they applied the same", func() bool {
		first := c.nodes[ids[0]].group().Status()
		for _, id := range ids {
			if s := c.nodes[id].group().Status(); s.Applied != first.Applied || s.Commit != s.Applied {
				return false
			}
		}
		return true
	})
	for _, id := range ids[1:] {
		if c.nodes[id].hash() != c.nodes[ids[0]].hash() {
			c.t.Fatalf("rows of nodes %d and %d differ", ids[0], id)
		}
	}
}

// A snapshot that comes late to a replica which has its entries by now, and more
// that it has promised to keep, takes nothing away, although it does not know
// yet that they are committed.
func TestTrap05LateSnapshotTakesNothingAway(t *testing.T) {
	c := newGrowing(t, nil)
	c.add("a")
	c.members([]uint64{1}, []uint64{2})
	c.members([]uint64{1, 2}, nil)
	c.agreeOn(1, 2)
	commit := c.nodes[2].group().Status().Commit
	// From now on replica 2 learns nothing about what is committed.
	c.watch(func(_ uint64, m *raftpb.Message) bool {
		if m.GetTo() == 2 && m.GetCommit() > commit {
			m.Commit = &commit
		}
		return true
	})
	c.add("a")
	view := c.nodes[1].group().View()
	defer view.Close()
	at, conf, err := decodeApplied(view.Applied())
	if err != nil {
		t.Fatal(err)
	}
	rows := view.Export()
	defer rows.Close()
	for range 5 {
		c.add("a") // on the disks of both
	}
	term := c.nodes[1].group().Status().Term
	late := &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: &term,
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &at.Index, Term: &at.Term, ConfState: conf}},
	}
	if got := c.nodes[2].group().Status().Commit; got >= at.Index {
		t.Fatalf("it knows that %d are committed", got)
	}
	until(t, "the first one's receipt has ended", func() bool { return !c.nodes[2].host.receiving.Load() })
	err = c.nodes[2].host.ReceiveSnapshot(t.Context(), testGroup, late, rows)
	if message.CodeOf(err) != message.Conflict {
		t.Errorf("it was answered with %v", err)
	}
	if got := c.nodes[2].lastIndex(); got < c.nodes[1].group().Status().Commit {
		t.Fatalf("index %d is confirmed with its promise, and its log ends at %d", c.nodes[1].group().Status().Commit, got)
	}
	c.nodes[2].clean()
	until(t, "the snapshot tells it what is committed", func() bool { return c.nodes[2].group().Status().Commit >= at.Index })
}

// A replica that has voted keeps its vote when a snapshot of that term, or an
// older one, is installed: it may not vote twice.
func TestTrap05InstallKeepsTheVote(t *testing.T) {
	c := newGrowing(t, nil)
	c.add("a")
	n := c.nodes[2]
	n.host.Receive(testGroup, &raftpb.Message{
		Type: raftpb.MsgVote.Enum(), From: new(uint64(3)), To: new(uint64(2)), Term: new(uint64(9)), Index: new(uint64(9)), LogTerm: new(uint64(8)),
	})
	hard := func() (hs *raftpb.HardState) {
		n.inLoop(func() { hs = n.host.log.Replicas()[0].HardState })
		return hs
	}
	until(t, "it has voted", func() bool { return hard().GetVote() == 3 })
	for _, term := range []uint64{2, 9} {
		c.add("a")
		view := c.nodes[1].group().View()
		rows := view.Export()
		at, conf, err := decodeApplied(view.Applied())
		if err != nil {
			t.Fatal(err)
		}
		conf.Learners = []uint64{2}
		err = n.host.ReceiveSnapshot(t.Context(), testGroup, &raftpb.Message{
			Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: &term,
			Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &at.Index, Term: &at.Term, ConfState: conf}},
		}, rows)
		if err != nil {
			t.Fatal(err)
		}
		if hs := hard(); hs.GetTerm() != 9 || hs.GetVote() != 3 || hs.GetCommit() != at.Index {
			t.Errorf("after a snapshot of term %d its hard state is %v", term, hs)
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
		view.Close()
	}
}

// A snapshot for an older replica of the node changes nothing.
func TestTrap06SnapshotForAnOlderReplica(t *testing.T) {
	c := newGrowing(t, nil)
	c.add("a")
	if err := c.nodes[2].host.Destroy(testGroup, 3); err != nil {
		t.Fatal(err)
	}
	c.nodes[2].join(testGroup, 5)
	view := c.nodes[1].group().View()
	defer view.Close()
	rows := view.Export()
	defer rows.Close()
	at, _, err := decodeApplied(view.Applied())
	if err != nil {
		t.Fatal(err)
	}
	old := &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(9)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &at.Index, Term: &at.Term, ConfState: &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}}},
	}
	if err := c.nodes[2].host.ReceiveSnapshot(t.Context(), testGroup, old, rows); message.CodeOf(err) != message.NotFound {
		t.Errorf("it was answered with %v", err)
	}
	c.nodes[2].host.Receive(testGroup, proto.Clone(old).(*raftpb.Message))
	// One that comes without its rows is lost as well.
	bare := proto.Clone(old).(*raftpb.Message)
	bare.To, bare.Snapshot.Metadata.ConfState = new(uint64(5)), &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{5}}
	c.nodes[2].host.Receive(testGroup, bare)
	c.nodes[2].lastIndex() // the loop has looked
	c.nodes[2].lastIndex()
	if s := c.nodes[2].group().Status(); s.Applied != 0 || s.Term != 0 {
		t.Errorf("the replica is at %+v", s)
	}
}

// A replica is removed and comes back on the same node under a new id, with
// power cuts between the steps: its rows are the leader's, and those of its
// former life are gone.
func TestRecreatedReplicaSeesNothingOld(t *testing.T) {
	c := newGrowing(t, nil)
	c.add("a")
	c.members([]uint64{1}, []uint64{2})
	c.agreeOn(1, 2)
	n := c.nodes[2]
	crash := func() {
		n.kill()
		n.fs = n.fs.(*disk).crash(t, 50, 7)
		n.start()
		n.clean()
	}
	for life := uint64(12); life < 15; life++ {
		id := life - 1
		if life == 12 {
			id = 2
		}
		if err := n.host.store.Flush(); err != nil { // rows of this life are on disk
			t.Fatal(err)
		}
		c.members([]uint64{1}, nil)
		if err := n.host.Destroy(testGroup, id+1); err != nil {
			t.Fatal(err)
		}
		c.add("a")
		if life == 13 {
			crash()
		}
		c.mu.Lock()
		delete(c.nodes, id)
		c.nodes[life] = n
		c.mu.Unlock()
		n.join(testGroup, life)
		if life == 14 {
			crash()
		}
		c.nodes[1].forget()
		c.members([]uint64{1}, []uint64{life})
		c.agreeOn(1, life)
		crash()
		c.add("a")
		c.agreeOn(1, life)
	}
}

// The log is kept for a follower that is alive and slow, while it is within its
// budget.
func TestLogIsKeptForFollowers(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	slow := c.others(c.leader())[0]
	behind := slow.group().Status().Commit
	c.watch(func(_ uint64, m *raftpb.Message) bool { // it hears its leader, and gets no entries
		return m.GetTo() != slow.id || m.GetType() != raftpb.MsgApp
	})
	for range 50 {
		c.add("a")
	}
	leader := c.leader()
	leader.forgetSome()
	if first := leader.firstIndex(); first > behind+1 {
		t.Errorf("the log begins at %d, and a follower that is alive needs %d", first, behind+1)
	}
	c.watch(nil)
	c.agree()
	if got := slow.host.Stats().SnapshotsReceived; got != 0 {
		t.Errorf("it got %d snapshots", got)
	}
}

// forgetSome lets the log be cut as far as it may.
func (n *node) forgetSome() {
	n.t.Helper()
	if err := n.host.store.Flush(); err != nil {
		n.t.Fatal(err)
	}
	until(n.t, "the loop has looked", func() bool { return !n.host.flushed.Load() })
	n.firstIndex()
}

// A replica that begins anew from a snapshot applies nothing before the worker of
// its former life has ended, so that a machine never meets two at once.
func TestNewLifeWaitsForTheOld(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	stuck := c.others(c.leader())[0]
	old, gate := stuck.machine(), make(chan struct{})
	old.mu.Lock()
	old.gate = gate
	old.mu.Unlock()
	c.add("a")
	until(t, "its worker is stuck", func() bool { return stuck.group().behind() })
	c.isolate(stuck.id, true)
	for range 20 {
		c.add("a")
	}
	until(t, "it does not count as active", func() bool { return !active(c.leader(), stuck.id) })
	c.leader().forget()
	c.isolate(stuck.id, false)
	until(t, "it has the snapshot", func() bool { return stuck.host.Stats().SnapshotsReceived == 1 })
	c.add("a")
	until(t, "it knows of it", func() bool { return stuck.group().behind() })
	now := stuck.machine()
	now.mu.Lock()
	if now == old || len(now.seen) > 0 {
		t.Errorf("it saw %v", now.seen)
	}
	now.mu.Unlock()
	close(gate)
	c.agree()
	if got := stuck.count("a"); got != 23 {
		t.Errorf("%d of 23 are there", got)
	}
}

// While a snapshot is on its way the log from its index on is kept, also over
// the budget, so that its receiver needs no second one.
func TestLogIsKeptForASnapshot(t *testing.T) {
	c := newGrowing(t, func(o *Options) {
		o.Log.SegmentBytes, o.LogBudget = 512<<10, 1<<20
	})
	c.add("a")
	began, gate := make(chan uint64, 1), make(chan struct{})
	c.watchSnapshots(func(o Outgoing, body io.Reader) io.Reader {
		began <- o.Message.GetSnapshot().GetMetadata().GetIndex()
		<-gate
		return body
	})
	c.members([]uint64{1}, []uint64{2})
	index := <-began
	leader := c.nodes[1]
	live := func() (bytes int64) {
		leader.inLoop(func() { bytes = leader.host.liveBytes() })
		return bytes
	}
	for i := 0; live() <= leader.host.o.LogBudget; i++ {
		c.add(fmt.Sprint(i%10) + strings.Repeat("x", 20_000))
	}
	leader.forgetSome()
	if first := leader.firstIndex(); first > index+1 {
		t.Errorf("the log begins at %d while a snapshot at %d is on its way", first, index)
	}
	close(gate)
	c.agreeOn(1, 2)
	if got := c.nodes[2].host.Stats().SnapshotsReceived; got != 1 {
		t.Errorf("it took %d snapshots", got)
	}
}

// A snapshot that does not get on while the log grows is given up at twice the
// log's budget, with words that say so, and the log is cut.
func TestSnapshotEndsWhenTheLogGrowsTooMuch(t *testing.T) {
	c := newGrowing(t, func(o *Options) {
		o.Log.SegmentBytes, o.LogBudget = 512<<10, 1<<20
	})
	c.add("a")
	failed := make(chan error, 1)
	c.watchSnapshots(func(_ Outgoing, body io.Reader) io.Reader {
		return readerFunc(func(p []byte) (int, error) { // the network stands still
			ticker := time.NewTicker(time.Millisecond)
			defer ticker.Stop()
			for {
				<-ticker.C
				if _, err := body.Read(p[:0]); err != nil {
					select {
					case failed <- err:
					default:
					}
					return 0, err
				}
			}
		})
	})
	c.members([]uint64{1}, []uint64{2})
	body := strings.Repeat("x", 20_000)
	var reason error
	for i := range 2_000 {
		c.add(fmt.Sprint(i%10) + body)
		select {
		case reason = <-failed:
		default:
			continue
		}
		break
	}
	if message.CodeOf(reason) != message.ResourceExhausted {
		t.Fatalf("the snapshot ended with %v", reason)
	}
	c.watchSnapshots(nil)
	c.agreeOn(1, 2)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
