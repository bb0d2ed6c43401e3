package replica

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
)

// One voter becomes three in one joint change, so that there are never two or
// four (trap 8).
func TestTrap08OneJointChange(t *testing.T) {
	c := newGrowing(t, nil)
	c.add("a")
	c.members([]uint64{1}, []uint64{2, 3})
	c.members([]uint64{1, 2, 3}, nil)
	c.agree()
	var changes []int
	for _, e := range c.nodes[1].entries() {
		if e.GetType() == raftpb.EntryConfChangeV2 {
			changes = append(changes, len(decodeConfChange(e).AsV2().GetChanges()))
		}
	}
	// Two learners, and leave; two voters, and leave.
	if len(changes) != 4 || changes[0] != 2 || changes[1] != 0 || changes[2] != 2 || changes[3] != 0 {
		t.Errorf("the log has changes of %v replicas", changes)
	}
}

// entries are those in the log, asked of the loop.
func (n *node) entries() (es []*raftpb.Entry) {
	n.inLoop(func() {
		first, err1 := n.host.log.FirstIndex(testGroup)
		last, err2 := n.host.log.LastIndex(testGroup)
		all, err3 := n.host.log.Entries(testGroup, first, last+1, 1<<30)
		if err := errors.Join(err1, err2, err3); err != nil {
			n.t.Error(err)
		}
		es = all
	})
	return es
}

// Who lacks entries does not vote yet, and neither does who was no learner.
func TestTrap08LearnerThatIsBehindDoesNotVote(t *testing.T) {
	c := newGrowing(t, nil)
	c.members([]uint64{1}, []uint64{2})
	c.agreeOn(1, 2)
	g := c.nodes[1].group()
	if err := g.SetMembers(t.Context(), []uint64{1, 3}, []uint64{2}); message.CodeOf(err) != message.InvalidArgument {
		t.Errorf("a vote for a replica that is not in the group: %v", err)
	}
	c.isolate(2, true)
	for range maxBehind + 2 {
		c.add("a")
	}
	if err := g.SetMembers(t.Context(), []uint64{1, 2}, nil); message.CodeOf(err) != message.Unavailable {
		t.Errorf("a vote for a replica that lacks %d entries: %v", maxBehind+2, err)
	}
	c.isolate(2, false)
	c.members([]uint64{1, 2}, nil)
	c.agreeOn(1, 2)
}

// Who holds nothing yet does not vote, however short the log is: its vote would
// count before the replica is there, and without it nothing could be committed.
func TestTrap08LearnerThatHoldsNothingDoesNotVote(t *testing.T) {
	c := newGrowing(t, nil)
	c.isolate(2, true)
	c.isolate(3, true)
	c.members([]uint64{1}, []uint64{2, 3})
	if err := c.nodes[1].group().SetMembers(t.Context(), []uint64{1, 2, 3}, nil); message.CodeOf(err) != message.Unavailable {
		t.Fatalf("votes for replicas that hold nothing: %v", err)
	}
	c.isolate(2, false)
	c.isolate(3, false)
	c.members([]uint64{1, 2, 3}, nil)
	c.agree()
}

// A second change waits for the first, and only the leader changes anything.
func TestOneChangeAtATime(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	leader := c.leader()
	follower := c.others(leader)[0]
	if err := follower.group().SetMembers(t.Context(), []uint64{leader.id}, nil); message.CodeOf(err) != message.NotLeader {
		t.Errorf("a follower answered %v", err)
	}
	for _, wrong := range [][2][]uint64{{nil, {1}}, {{1, 1}, nil}, {{1}, {1}}, {{0}, nil}} {
		if err := leader.group().SetMembers(t.Context(), wrong[0], wrong[1]); message.CodeOf(err) != message.InvalidArgument {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	// Nobody gets entries, so that the first change stays under way.
	c.watch(func(_ uint64, m *raftpb.Message) bool { return m.GetType() != raftpb.MsgApp })
	last := leader.lastIndex()
	first := make(chan error, 1)
	go func() { first <- leader.group().SetMembers(t.Context(), []uint64{1, 2, 3}, []uint64{4}) }()
	until(t, "it is in the log", func() bool { return leader.lastIndex() > last })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := leader.group().SetMembers(ctx, []uint64{1, 2, 3}, []uint64{5}); message.CodeOf(err) != message.Unavailable {
		t.Fatalf("a second change got %v", err)
	}
	c.watch(nil)
	if err := <-first; err != nil {
		t.Errorf("the first change got %v", err)
	}
	if err := leader.group().SetMembers(t.Context(), []uint64{1, 2, 3}, []uint64{4}); err != nil {
		t.Errorf("what is so already: %v", err)
	}
}

// A leader that is not to be a member any more leaves, and another one goes on.
func TestLeaderLeaves(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	old := c.leader()
	others := c.others(old)
	if err := old.group().SetMembers(t.Context(), []uint64{others[0].id, others[1].id}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "it leads no more", func() bool { return !old.group().Status().Leading })
	c.add("b")
	c.agreeOn(others[0].id, others[1].id)
	if old.group().Progress() != nil {
		t.Error("it still knows how far the others are")
	}
}

// While the leadership is handed over, commands wait; those that the old leader
// did not propose are refused as not applied.
func TestTransferLeader(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	old := c.leader()
	next := c.others(old)[1]
	reached, letGo := next.fs.(*disk).hold() // next does not answer for a while
	old.group().TransferLeader(next.id)
	<-reached
	var waiting []<-chan outcome
	for range 20 {
		waiting = append(waiting, propose(old.group(), "b"))
	}
	letGo()
	until(t, "the other one leads", func() bool {
		old.group().TransferLeader(next.id) // should the first have taken too long
		return next.group().Status().Leading
	})
	applied := uint64(0)
	for _, w := range waiting {
		switch o := <-w; {
		case o.err == nil:
			applied++
		case !refused(o.err):
			t.Errorf("a command in between got %v", o.err)
		}
	}
	if got := next.count("b"); got != applied {
		t.Errorf("%d were confirmed, %d are there", applied, got)
	}
	old.group().TransferLeader(old.id) // does not lead: no effect
	c.add("c")
}

// A replica whose worker is behind does not take the lead although it is asked
// to: a change that is committed might not be applied (trap 8).
func TestTrap08WhoIsBehindDoesNotTakeTheLead(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	old := c.leader()
	next := c.others(old)[0]
	gate := make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(gate) }) }
	defer open()
	m := next.machine()
	m.mu.Lock()
	m.gate = gate
	m.mu.Unlock()
	c.add("b")
	until(t, "it knows of it", func() bool { return next.group().behind() })
	term := old.group().Status().Term
	asked := make(chan struct{})
	var askedOnce sync.Once
	c.watch(func(_ uint64, m *raftpb.Message) bool {
		if m.GetType() == raftpb.MsgTimeoutNow {
			askedOnce.Do(func() { close(asked) })
		}
		return true
	})
	old.group().TransferLeader(next.id)
	<-asked
	c.watch(nil)
	// The old leader goes on when the time is over.
	if o := <-propose(old.group(), "c"); o.err != nil {
		t.Errorf("only a replica that is behind was asked, and the leader gave up: %v", o.err)
	}
	if s := old.group().Status(); s.Term != term {
		t.Errorf("then term %d came", s.Term)
	}
	open()
	c.agree()
}
