package catalog

import (
	"fmt"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// groups are the groups beyond those of the founding.
func (w *town) groups() (ids []uint64) {
	for _, g := range w.m.View().Groups() {
		if g.Origin != nil {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

// A group that a shard spins off into is made once for each of its epochs, and new
// queues keep out of it.
func TestAddGroup(t *testing.T) {
	w := towns(3)
	q := w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 1}}).Queue
	g := w.do(w.own(q, "0", 1)).Group
	if g == nil || g.ID != 6 || fmt.Sprint(g.Replicas) != "[{1 3 voter} {2 1 voter} {3 2 voter}]" || g.MinNext(9) != 4 || !g.Unborn() {
		t.Fatalf("%+v", g)
	}
	if again := w.do(w.own(q, "0", 1)); again.Created || again.Group != g {
		t.Fatalf("again: %+v", again)
	}
	w.refuse(t, message.Conflict, w.own(q, "0", 2))
	w.refuse(t, message.NotFound, w.own(q, "0.1", 1))
	w.refuse(t, message.QueueNotFound, w.own(&Queue{Number: 99}, "0", 1))
	other := w.do(Command{CreateQueue: &CreateQueue{Name: "other", Shards: 1}}).Queue
	seatless := w.own(other, "0", 1)
	seatless.AddGroup.Seats = nil
	w.refuse(t, message.InvalidArgument, seatless)
	for i := range 10 {
		for _, s := range w.do(Command{CreateQueue: &CreateQueue{Name: fmt.Sprint("q", i), Shards: 1}}).Queue.Shards {
			if s.Group == g.ID {
				t.Fatal("a new queue lies in a group of a shard's own")
			}
		}
	}
}

// A group of a shard's own goes when nothing is in it and nothing can come any more:
// its shard has spun off again or was deleted, or took another way than into it. One
// that may still be made stays.
func TestEmptyGroupsGo(t *testing.T) {
	w := towns(3)
	q := w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 1}}).Queue
	say := func(what string, want ...uint64) {
		t.Helper()
		if got := w.groups(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s: groups %v, want %v", what, got, want)
		}
	}
	add := func(path string, epoch uint64) uint64 {
		t.Helper()
		r := w.do(w.own(q, path, epoch))
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r.Group.ID
	}
	move := func(path string, epoch, to uint64) {
		t.Helper()
		if r := w.do(Command{MoveShard: &MoveShard{Queue: q.Number, Path: path, Epoch: epoch, Group: to}}); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	first := add("0", 1)
	say("a group is to be made", 6)
	w.do(Command{CreateQueue: &CreateQueue{Name: "other", Shards: 1}})
	w.do(Command{PauseQueue: &PauseQueue{Name: "q", Paused: true}})
	w.do(Command{DeleteQueue: &DeleteQueue{Name: "other"}})
	say("it may still be made", 6)
	move("0", 1, first)
	second := add("0", 2)
	say("another is to be made", 6, 7)
	move("0", 2, second)
	say("the shard spun off again", 7)
	add("0", 3)
	say("a third is to be made", 7, 8)
	w.do(Command{SplitShard: &SplitShard{Queue: q.Number, Path: "0", Epoch: 3, At: 8}})
	say("the shard was split instead", 7)
	half := add("0.1", 4)
	w.do(Command{SplitShard: &SplitShard{Queue: q.Number, Path: "0.0", Epoch: 4, At: 4}})
	say("the other half was split", 7, 9)
	move("0.1", 4, half)
	say("half of it spun off", 7, 9)
	add("0.0.1", 5)
	say("and a quarter is to", 7, 9, 10)
	w.do(Command{DeleteQueue: &DeleteQueue{Name: "q"}})
	say("the queue was deleted")
	if len(w.m.View().Groups()) != 5 {
		t.Fatal("groups of the founding went as well")
	}
	if id := w.m.View().Cluster.NextGroup; id != 11 {
		t.Fatalf("the next group is %d: numbers are never used again", id)
	}
}

// A group that is still to be made keeps no node and no cluster waiting.
func TestUnbornGroupsKeepNobody(t *testing.T) {
	w := towns(3)
	q := w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 1}}).Queue
	one := w.own(q, "0", 1)
	one.AddGroup.Seats = []Seat{{Node: 3}}
	w.do(one)
	if r := w.do(Command{SetNodeState: &SetNodeState{ID: 3, State: Removed}}); r.Err != nil {
		t.Errorf("a node with a replica of a group that is not there can't be removed: %v", r.Err)
	}
}

// An operator's pin stays while its node votes, whatever else changes, and goes with
// the seat.
func TestPin(t *testing.T) {
	w := towns(4)
	three := []Seat{{Node: 1}, {Node: 2}, {Node: 3}}
	want := func(epoch, pin uint64, seats ...Seat) Command {
		c := w.want(epoch, seats...)
		c.SetReplicas.Pin = &pin
		return c
	}
	say := func(what string, pin uint64) {
		t.Helper()
		if g, _ := w.m.View().Group(2); g.Pin != pin {
			t.Fatalf("%s: the pin is at %d, want %d", what, g.Pin, pin)
		}
	}
	w.refuse(t, message.InvalidArgument, want(1, 4, three...))
	w.refuse(t, message.InvalidArgument, want(1, 4, append(three, Seat{Node: 4, Role: Learner})...))
	w.do(want(1, 3, three...))
	say("pinned", 3)
	w.do(want(2, 2, three...))
	say("the same seats, another pin", 2)
	w.do(w.want(3, Seat{Node: 4}, Seat{Node: 2}, Seat{Node: 3}))
	say("another seat changed", 2)
	before := w.m.View()
	if w.do(want(4, 2, Seat{Node: 4}, Seat{Node: 2}, Seat{Node: 3})); w.m.View() != before {
		t.Error("the same again made a new version")
	}
	w.do(w.want(4, Seat{Node: 4}, Seat{Node: 1}, Seat{Node: 3}))
	say("its seat went", 0)
	w.do(want(5, 3, Seat{Node: 4}, Seat{Node: 1}, Seat{Node: 3}))
	w.do(want(6, 0, Seat{Node: 4}, Seat{Node: 1}, Seat{Node: 3}))
	say("taken back", 0)
}
