package catalog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

func (t *ShardTree) String() string {
	var b strings.Builder
	b.WriteString(t.Path)
	if t.Shard != nil {
		fmt.Fprintf(&b, "[%d-%d g%d e%d]", t.Shard.From, t.Shard.To, t.Shard.Group, t.Shard.Epoch)
	}
	for _, c := range t.Children {
		fmt.Fprintf(&b, " (%s)", c)
	}
	return b.String()
}

// own makes a group for a shard of a queue.
func (w *town) own(q *Queue, path string, epoch uint64) Command {
	return Command{AddGroup: &AddGroup{Origin: Origin{Queue: q.Number, Path: path, Epoch: epoch}, Seats: []Seat{{Node: 3}, {Node: 1}, {Node: 2}}}}
}

// Splits and moves are recorded once each, in order; a shard's path is its place
// in the tree.
func TestShardsSplitAndMove(t *testing.T) {
	w := towns(3)
	q := w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 1}}).Queue
	home := q.Shards[0].Group
	split := func(path string, epoch uint64, at int) Command {
		return Command{SplitShard: &SplitShard{Queue: q.Number, Path: path, Epoch: epoch, At: at}}
	}
	move := func(path string, epoch, to uint64) Command {
		return Command{MoveShard: &MoveShard{Queue: q.Number, Path: path, Epoch: epoch, Group: to}}
	}
	say := func(want string) {
		t.Helper()
		now, _ := w.m.View().Queue("q")
		if got := now.Tree().String(); got != fmt.Sprintf(strings.ReplaceAll(want, "gH", "g%[1]d"), home) {
			t.Fatalf("tree %s, want %s with H = %d", got, want, home)
		}
	}
	w.refuse(t, message.Conflict, split("0", 2, 8))
	w.refuse(t, message.InvalidArgument, split("0", 1, 0))
	w.refuse(t, message.InvalidArgument, split("0", 1, 16))
	w.refuse(t, message.NotFound, split("0.0", 2, 4))
	w.refuse(t, message.QueueNotFound, Command{SplitShard: &SplitShard{Queue: 99, Path: "0"}})
	if r := w.do(split("0", 1, 6)); r.Err != nil || r.Queue.Version <= q.Version {
		t.Fatalf("%+v", r)
	}
	say("0 (0.0[0-5 gH e2]) (0.1[6-15 gH e2])")
	before := w.m.View()
	if r := w.do(split("0", 1, 6)); r.Err != nil || w.m.View() != before {
		t.Fatalf("the same split again: %v", r.Err)
	}
	w.do(split("0.1", 2, 15))
	say("0 (0.0[0-5 gH e2]) (0.1 (0.1.0[6-14 gH e3]) (0.1.1[15-15 gH e3]))")
	w.refuse(t, message.InvalidArgument, split("0.1.1", 3, 15)) // one cell

	own := w.do(w.own(q, "0.0", 2)).Group.ID
	w.refuse(t, message.Conflict, move("0.0", 1, own))
	w.refuse(t, message.NotFound, move("0.0", 2, 99))
	w.refuse(t, message.Conflict, move("0.0", 2, MetaGroup))
	w.refuse(t, message.Conflict, move("0.1.0", 3, own))
	w.refuse(t, message.NotFound, move("0", 2, own))
	w.do(move("0.0", 2, own))
	before = w.m.View()
	if r := w.do(move("0.0", 2, own)); r.Err != nil || w.m.View() != before {
		t.Fatalf("the same move again: %v", r.Err)
	}
	say("0 (0.0[0-5 g6 e3]) (0.1 (0.1.0[6-14 gH e3]) (0.1.1[15-15 gH e3]))")
}

// A queue that one leader must see as a whole has its shards in one group.
func TestShardsThatStayTogether(t *testing.T) {
	w := towns(3)
	for name, c := range map[string]struct {
		settings message.Settings
		groups   int
	}{
		"apart":  {message.Settings{}, 4},
		"flight": {message.Settings{MaxInFlight: 1}, 1},
		"rate":   {message.Settings{Rate: message.Rate{Count: 1}}, 1},
	} {
		r := w.do(Command{CreateQueue: &CreateQueue{Name: name, Settings: c.settings, Shards: 8}})
		groups := map[uint64]bool{}
		for _, s := range r.Queue.Shards {
			groups[s.Group] = true
		}
		if r.Err != nil || len(groups) != c.groups {
			t.Errorf("queue %s is in groups %v, want %d: %v", name, groups, c.groups, r.Err)
		}
	}
	for _, s := range []message.Settings{{MaxInFlight: 1}, {Rate: message.Rate{Count: 1}}, {Assign: message.AssignSingle}} {
		w.refuse(t, message.InvalidArgument, Command{UpdateQueue: &UpdateQueue{Name: "apart", Settings: s}})
	}
	w.refuse(t, message.InvalidArgument, Command{CreateQueue: &CreateQueue{Name: "single", Settings: message.Settings{Assign: message.AssignSingle}, Shards: 2}})
}
