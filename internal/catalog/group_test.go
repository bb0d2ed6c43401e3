package catalog

import (
	"fmt"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

func (w *town) want(epoch uint64, seats ...Seat) Command {
	return Command{SetReplicas: &SetReplicas{Group: 2, Epoch: epoch, Want: seats}}
}

func (w *town) confirm(epoch, index uint64, voters ...uint64) Command {
	return Command{Confirm: &Confirm{Group: 2, Epoch: epoch, Configuration: Configuration{Term: 3, Index: index, Voters: voters}}}
}

func (w *town) replicas() string {
	g, _ := w.m.View().Group(2)
	return fmt.Sprint(g.Replicas)
}

// A replica moves: the new one gets an id that nobody had, the old one leaves,
// and it is forgotten when a leader that knew it reports a configuration without
// it. A node that is wanted again before keeps its replica, after gets a new one.
func TestReplicaMoves(t *testing.T) {
	w := towns(4)
	say := func(want string) {
		t.Helper()
		if got := w.replicas(); got != want {
			t.Fatalf("replicas %s, want %s", got, want)
		}
	}
	w.do(w.want(1, Seat{Node: 1}, Seat{Node: 2}, Seat{Node: 3}))
	say("[{1 1 voter} {2 2 voter} {3 3 voter}]")
	w.do(w.confirm(2, 10, 1, 2, 3))
	w.do(w.want(2, Seat{Node: 4}, Seat{Node: 2}, Seat{Node: 3}))
	say("[{1 1 leaving} {2 2 voter} {3 3 voter} {4 4 voter}]")
	w.do(w.confirm(2, 11, 2, 3, 4)) // of a leader that knows the wish before
	say("[{1 1 leaving} {2 2 voter} {3 3 voter} {4 4 voter}]")
	w.do(w.want(3, Seat{Node: 1}, Seat{Node: 2}, Seat{Node: 3}))
	say("[{1 1 voter} {2 2 voter} {3 3 voter} {4 4 leaving}]")
	w.do(w.want(4, Seat{Node: 4}, Seat{Node: 2}, Seat{Node: 3}))
	w.do(w.confirm(5, 9, 2, 3)) // late: older than the newest report
	say("[{1 1 leaving} {2 2 voter} {3 3 voter} {4 4 voter}]")
	w.do(w.confirm(5, 20, 2, 3, 4))
	say("[{2 2 voter} {3 3 voter} {4 4 voter}]")
	w.do(w.want(5, Seat{Node: 1}, Seat{Node: 2}, Seat{Node: 3}))
	say("[{2 2 voter} {3 3 voter} {4 4 leaving} {5 1 voter}]")
	if g, _ := w.m.View().Group(2); g.MinNext(1) != 5 || g.MinNext(9) != 6 || g.Epoch != 6 || g.Confirmed.Index != 20 {
		t.Fatalf("%+v", g)
	}
}

func TestReplicasRefused(t *testing.T) {
	w := towns(6)
	w.do(w.want(1, Seat{Node: 1}, Seat{Node: 2}, Seat{Node: 3}))
	w.do(Command{SetNodeState: &SetNodeState{ID: 6, State: Removed}})
	three := []Seat{{Node: 1}, {Node: 2}, {Node: 3}}
	w.refuse(t, message.Conflict, w.want(1, Seat{Node: 4}, Seat{Node: 2}, Seat{Node: 3}))
	w.refuse(t, message.InvalidArgument, w.want(2, Seat{Node: 1}))                   // fewer voters
	w.refuse(t, message.InvalidArgument, w.want(2, Seat{Node: 1}, Seat{Node: 2}))    // two
	w.refuse(t, message.InvalidArgument, w.want(2, append(three, Seat{Node: 4})...)) // four
	w.refuse(t, message.InvalidArgument, w.want(2, append(three, Seat{Node: 3})...)) // one twice
	w.refuse(t, message.InvalidArgument, w.want(2, append(three, Seat{Node: 4, Role: Leaving})...))
	w.refuse(t, message.NotFound, w.want(2, append(three, Seat{Node: 9, Role: Learner})...))
	w.refuse(t, message.NodeRemoved, w.want(2, append(three, Seat{Node: 6, Role: Learner})...))
	before := w.m.View()
	if w.do(w.want(2, three...)); w.m.View() != before {
		t.Error("the same replicas made a new version")
	}

	w.do(Command{SetNodeState: &SetNodeState{ID: 3, State: Removed}})
	if r := w.do(w.want(2, append(three, Seat{Node: 4, Role: Learner})...)); r.Err != nil {
		t.Errorf("a removed node does not keep its seat: %v", r.Err)
	}
	one := w.want(3, Seat{Node: 2})
	one.SetReplicas.AcceptOneDisk = true
	if r := w.do(one); r.Err != nil || r.Group.Voters() != 1 {
		t.Errorf("one disk is accepted: %v", r.Err)
	}
}

// A cluster that is founded by several nodes is founding until each group has had
// as many voters; fewer later change nothing.
func TestFounding(t *testing.T) {
	w := &town{m: New(), rows: rows{}}
	c := found("x")
	c.Found.Voters = 3
	w.do(c)
	confirm := func(group, index uint64, voters ...uint64) {
		w.do(Command{Confirm: &Confirm{Group: group, Epoch: 1, Configuration: Configuration{Term: 1, Index: index, Voters: voters}}})
	}
	for group := uint64(1); group <= 5; group++ {
		confirm(group, 1, 1)
		if n := w.m.View().Cluster.Founding; n != 3 {
			t.Fatalf("group %d has one voter: founding %d", group, n)
		}
	}
	for group := uint64(1); group <= 5; group++ {
		if n := w.m.View().Cluster.Founding; n != 3 {
			t.Fatalf("group %d lacks voters: founding %d", group, n)
		}
		confirm(group, 2, 1, 2, 3)
	}
	if n := w.m.View().Cluster.Founding; n != 0 {
		t.Fatalf("all have three voters: founding %d", n)
	}
	confirm(2, 3, 1)
	if n := w.m.View().Cluster.Founding; n != 0 {
		t.Fatalf("one has fewer again: founding %d", n)
	}
}
