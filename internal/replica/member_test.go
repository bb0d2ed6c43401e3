package replica

import (
	"slices"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
)

// A destroyed replica is gone for good, also after a power cut at once: its id
// may not come back, messages for it are dropped, a later replica of the group
// sees none of its rows, and the next start sweeps what was left (trap 6).
func TestTrap06DestroyedReplicaStaysAway(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	if err := n.host.store.Flush(); err != nil { // its rows are on disk
		t.Fatal(err)
	}
	old := n.group()
	machine := n.machine()
	if err := n.host.Destroy(testGroup, 2); err != nil {
		t.Fatal(err)
	}
	if o := <-propose(old, "a"); o.err == nil {
		t.Error("a destroyed replica took a command")
	}
	machine.mu.Lock()
	if !slices.Equal(machine.leads, []uint64{2, 0}) {
		t.Errorf("Lead and Follow were called as %v", machine.leads)
	}
	machine.mu.Unlock()
	after := newNode(t, d.crash(t, 0, 1)).start()
	if len(after.host.Groups()) != 0 {
		t.Fatal("a power cut brought the replica back")
	}
	var left []uint64
	if err := after.host.store.Handles(func(h uint64, _ int, _ int64) { left = append(left, h) }); err != nil || len(left) > 1 {
		t.Errorf("rows under handles %v are left (%v)", left, err)
	}
	again := NewReplica{Group: testGroup, Replica: 1, Base: raftlog.Position{Index: 1, Term: 1}, Conf: &raftpb.ConfState{Voters: []uint64{1}}}
	if _, err := after.host.Create(again); message.CodeOf(err) != message.InvalidArgument {
		t.Errorf("the same replica came back: %v", err)
	}
	again.Replica, again.Conf = 2, &raftpb.ConfState{Voters: []uint64{2}}
	if _, err := after.host.Create(again); err != nil {
		t.Fatal(err)
	}
	after.host.Receive(testGroup, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(3)), Term: new(uint64(99))})
	if got := after.add("a"); got != 1 {
		t.Errorf("the new replica began with %d", got-1)
	}
	if term := after.group().Status().Term; term > 2 {
		t.Errorf("a message for the old replica brought term %d", term)
	}
}

// A replica is destroyed in the middle of its work: every command has an
// outcome.
func TestDestroyAnswersEverybody(t *testing.T) {
	n := newNode(t, newDisk(t, nil)).start()
	for group := uint64(1); group <= 20; group++ {
		g := n.create(group)
		until(t, "it leads", func() bool { return g.Status().Leading })
		var all sync.WaitGroup
		for range 8 { // proposers that go on until they are refused
			all.Add(1)
			var again func(any, error)
			again = func(_ any, err error) {
				if err != nil {
					all.Done()
					return
				}
				g.Propose(Command{Head: []byte("a")}, again)
			}
			again(nil, nil)
		}
		until(t, "they are at it", func() bool { return g.Status().Applied > 10 })
		if err := n.host.Destroy(group, 2); err != nil {
			t.Fatal(err)
		}
		all.Wait()
	}
}
