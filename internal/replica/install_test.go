package replica

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/message"
)

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
