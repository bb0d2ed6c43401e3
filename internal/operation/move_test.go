package operation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// A shard moves to a node that has nothing of it, on from there, and back to where
// it was before; a group of its own is made once.
func TestMove(t *testing.T) {
	w := newWorld(t)
	groups := len(w.View().Groups())
	for i := range 4 {
		to := w.node(false)
		w.moved(w.run(w.move(to, fmt.Sprint(i))), to.ID)
		if n := len(w.View().Groups()); n != groups+1 {
			t.Fatalf("after move %d there are %d groups, %d before the first", i+1, n, groups)
		}
	}
}

// One that is where it shall be has moved: nothing is changed for it.
func TestMoveToWhereItIs(t *testing.T) {
	w := newWorld(t)
	before := w.View().Groups()
	id := w.move(w.node(true), "k")
	if err := runner(w).Step(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if o := w.operation(id); o.State != catalog.Done || !slices.Equal(before, w.View().Groups()) {
		t.Fatalf("%s at step %q, groups %+v", o.State, o.Step, w.View().Groups())
	}
}

// A node that leads the shard only since the last election gets it like any other: the
// lead would not stay there.
func TestMoveIsNotDoneByAnElection(t *testing.T) {
	w := newWorld(t)
	to := w.elect(w.catalogQueue().Shards[0].Group)
	w.moved(w.run(w.move(to, "k")), to.ID)
}

// A runner that does not know yet that a move has ended changes nothing for it.
func TestLateRunnerChangesNothing(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		w := newWorld(t)
		id := w.move(w.node(false), "k")
		for w.operation(id).Step != seat {
			_ = runner(w).Step(t.Context(), id)
			w.tell()
		}
		late := stale{w, w.View()}
		w.do(catalog.Command{CancelOperation: &catalog.CancelOperation{ID: id}})
		w.run(id)
		before := w.View().Groups()
		_ = runner(late).Step(t.Context(), id)
		if now := w.View().Groups(); !slices.Equal(before, now) {
			t.Errorf("%s, and the groups are %+v", w.operation(id).State, now)
		}
	})
	t.Run("done", func(t *testing.T) {
		w := newWorld(t)
		id := w.move(w.node(true), "k")
		late := stale{w, w.View()}
		w.run(id)
		w.elect(w.catalogQueue().Shards[0].Group)
		before := w.View().Groups()
		_ = runner(late).Step(t.Context(), id)
		if now := w.View().Groups(); !slices.Equal(before, now) {
			t.Errorf("%s, and the groups are %+v", w.operation(id).State, now)
		}
	})
}

// A runner that does not know yet that the shard has left the group of its node does not
// take the move for done.
func TestLateRunnerEndsNothing(t *testing.T) {
	w := newWorld(t)
	to := w.node(true)
	id := w.move(to, "k")
	late := stale{w, w.View()}
	parent := w.catalogQueue().Shards[0].Group
	leader := w.leaders[parent]
	w.elect(parent)
	for w.catalogQueue().Shards[0].Group == parent {
		_ = runner(w).Step(t.Context(), id)
		w.tell()
	}
	w.leaders[parent] = leader
	_ = runner(late).Step(t.Context(), id)
	if o := w.operation(id); o.Ended() {
		t.Fatalf("it is %s", o.State)
	}
	w.moved(w.run(id), to.ID)
}

// A runner that dies before or after any of its calls has its effect leaves all to
// the next, which ends the move.
func TestRunnerDiesAtEachStep(t *testing.T) {
	calls := 0
	for well, last := 0, false; !last; well++ {
		for _, effect := range []bool{false, true} {
			w := newWorld(t)
			to := w.node(false)
			id := w.move(to, "k")
			w.well, w.effect = well, effect
			o := w.run(id)
			w.moved(o, to.ID)
			last = w.well >= 0
			calls = max(calls, well)
		}
	}
	if calls < 8 {
		t.Fatalf("a move took %d calls", calls)
	}
}

// stale is the cluster as a runner knows it that hears of nothing for a while.
type stale struct {
	*world
	view *catalog.View
}

func (s stale) View() *catalog.View { return s.view }

// Two runners, of which one knows old catalogs, die and go on while others split the
// shard, drain, stop and start nodes, cancel, or delete the queue. The move ends,
// as what has become of it says, and nothing is left half done.
func TestRunnersAmongOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		to := w.node(rapid.IntRange(0, 4).Draw(t, "leads") == 0)
		id := w.move(to, "k")
		views := []*catalog.View{w.View()}
		var did []string
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			what := rapid.SampledFrom([]string{"run", "run", "run", "old", "tell", "tell", "die", "split", "cancel", "delete", "drain", "down", "up"}).Draw(t, "what")
			switch what {
			case "run":
				_ = runner(w).Step(t.Context(), id)
			case "old":
				_ = runner(stale{w, views[rapid.IntRange(0, len(views)-1).Draw(t, "view")]}).Step(t.Context(), id)
			case "tell":
				w.tell()
			case "die":
				w.well, w.effect = rapid.IntRange(0, 3).Draw(t, "well"), rapid.Bool().Draw(t, "effect")
			case "split":
				if len(w.shards) == 1 && w.catalogQueue() != nil && rapid.IntRange(0, 3).Draw(t, "split") == 0 {
					w.split("0")
				}
			case "cancel":
				if rapid.IntRange(0, 3).Draw(t, "cancel") == 0 && !w.operation(id).Ended() {
					w.do(catalog.Command{CancelOperation: &catalog.CancelOperation{ID: id}})
				}
			case "delete":
				if w.catalogQueue() != nil && rapid.IntRange(0, 5).Draw(t, "delete") == 0 {
					w.do(catalog.Command{DeleteQueue: &catalog.DeleteQueue{Name: "orders"}})
				}
			case "drain":
				if rapid.IntRange(0, 5).Draw(t, "drain") == 0 {
					w.do(catalog.Command{DrainNode: &catalog.DrainNode{ID: to.ID, Draining: true}})
				}
			case "down", "up":
				w.do(catalog.Command{SetNodeState: &catalog.SetNodeState{ID: to.ID, State: map[string]catalog.NodeState{"down": catalog.Down, "up": catalog.Alive}[what]}})
			}
			did = append(did, what)
			views = append(views, w.View())
		}
		w.do(catalog.Command{SetNodeState: &catalog.SetNodeState{ID: to.ID, State: catalog.Alive}})
		w.well = -1
		o := w.run(id)
		w.tell()
		w.check()
		q := w.catalogQueue()
		switch {
		case o.State == catalog.Done && q != nil && len(q.Shards) == 1 && !slices.Contains(did, "drain"):
			g, _ := w.View().Group(q.Shards[0].Group)
			if r, ok := g.On(to.ID); !ok || g.Origin != nil && (g.Pin != to.ID || w.leaders[g.ID] != r.ID) {
				t.Fatalf("done: %+v, led by %d", g, w.leaders[g.ID])
			}
		case o.State == catalog.Failed && o.Error == nil:
			t.Fatalf("it failed without words: %+v", o)
		case o.State == catalog.Failed || o.State == catalog.Cancelled:
			for _, g := range w.View().Groups() {
				if g.Pin != 0 {
					t.Fatalf("%s, and group %+v is pinned", o.State, g)
				}
			}
		}
	})
}

// What keeps a move from going on, and what ends it, is told in words.
func TestMoveTellsWhy(t *testing.T) {
	for _, c := range []struct {
		what   string
		happen func(w *world, to *catalog.Node)
		state  catalog.OperationState
		code   message.Code
		words  string
	}{
		{"deleted", func(w *world, _ *catalog.Node) {
			w.do(catalog.Command{DeleteQueue: &catalog.DeleteQueue{Name: "orders"}})
		}, catalog.Failed, message.QueueNotFound, "queue orders was deleted meanwhile"},
		{"split", func(w *world, _ *catalog.Node) {
			w.split("0")
			w.tell()
		}, catalog.Failed, message.Conflict, "shard orders/0 was split meanwhile"},
		{"drained", func(w *world, to *catalog.Node) {
			w.do(catalog.Command{DrainNode: &catalog.DrainNode{ID: to.ID, Draining: true}})
		}, catalog.Failed, message.Conflict, "is draining"},
		{"removed", func(w *world, to *catalog.Node) {
			w.do(catalog.Command{SetNodeState: &catalog.SetNodeState{ID: to.ID, State: catalog.Removed}})
		}, catalog.Failed, message.NodeRemoved, "was removed"},
		{"down", func(w *world, to *catalog.Node) {
			w.do(catalog.Command{SetNodeState: &catalog.SetNodeState{ID: to.ID, State: catalog.Down}})
		}, catalog.Running, "", "for node n%d, which is down"},
		{"changing", func(w *world, to *catalog.Node) {
			g, _ := w.View().Group(w.shards[0].Group)
			want := g.Seats()
			want[0].Node = to.ID
			w.do(catalog.Command{SetReplicas: &catalog.SetReplicas{Group: g.ID, Epoch: g.Epoch, Want: want}})
		}, catalog.Running, "", "for the replicas of group %d, which are being changed"},
		{"cancelled", func(w *world, _ *catalog.Node) {
			w.do(catalog.Command{CancelOperation: &catalog.CancelOperation{ID: 1}})
		}, catalog.Cancelled, "", ""},
	} {
		w := newWorld(t)
		to := w.node(false)
		id := w.move(to, "k")
		c.happen(w, to)
		if err := runner(w).Step(t.Context(), id); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		o := w.operation(id)
		var code message.Code
		said := o.Waits
		if o.Error != nil {
			code, said = o.Error.Code, o.Error.Text
		}
		if strings.Contains(c.words, "%d") {
			c.words = fmt.Sprintf(c.words, map[string]uint64{"down": to.ID, "changing": w.shards[0].Group}[c.what])
		}
		if o.State != c.state || code != c.code || !strings.Contains(said, c.words) {
			t.Errorf("%s: %s, %s %q", c.what, o.State, code, said)
		}
	}
}

// A queue gets a limit that counts over all its messages while one of its shards is about
// to move out of their group: the move ends, in words.
func TestMoveOfABoundShard(t *testing.T) {
	w := newWorld(t)
	w.split("0")
	w.tell()
	to := w.node(false)
	m := Move{Queue: w.queue, Name: "orders", Path: "0.1", Node: to.ID, NodeName: to.Name}
	id := w.do(catalog.Command{BeginOperation: m.Begin("k")}).Operation.ID
	w.do(catalog.Command{UpdateQueue: &catalog.UpdateQueue{Name: "orders", Settings: message.Settings{MaxInFlight: 1}}})
	if err := runner(w).Step(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if o := w.operation(id); o.State != catalog.Failed || o.Error == nil || o.Error.Code != message.InvalidArgument || !strings.Contains(o.Error.Text, "max_in_flight") {
		t.Errorf("%s at step %q, waits %q: %v", o.State, o.Step, o.Waits, o.Error)
	}
}

// Cancelled when the node has its seat but does not lead yet, a move takes back that
// placement is to leave the seat there; the shard keeps its group.
func TestCancelledMoveStands(t *testing.T) {
	w := newWorld(t)
	to := w.node(false)
	id := w.move(to, "k")
	for w.operation(id).Step != lead {
		if err := runner(w).Step(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.tell()
	}
	w.leaders = map[uint64]uint64{}
	if err := runner(w).Step(t.Context(), id); err != nil || !strings.Contains(w.operation(id).Waits, "to lead group") {
		t.Fatalf("%v, %+v", err, w.operation(id))
	}
	w.do(catalog.Command{CancelOperation: &catalog.CancelOperation{ID: id}})
	o := w.run(id)
	g, _ := w.View().Group(w.catalogQueue().Shards[0].Group)
	if _, ok := g.On(to.ID); o.State != catalog.Cancelled || !ok || g.Origin == nil || g.Pin != 0 {
		t.Fatalf("%+v, %+v", o, g)
	}
	w.check()
}

// A group that was named and not made gets the replicas of its shard's group as they
// are when it is made.
func TestNamedGroupFollowsItsParent(t *testing.T) {
	w := newWorld(t)
	to := w.node(false)
	id := w.move(to, "k")
	w.well = 2 // the group is added, and its parent does not hear of it
	_ = runner(w).Step(t.Context(), id)
	if len(w.View().Groups()) != 4 || w.shards[0].Epoch != 1 {
		t.Fatalf("groups %+v, shard %+v", w.View().Groups(), w.shards[0])
	}
	g, _ := w.View().Group(w.shards[0].Group)
	want := g.Seats()
	want[0].Node = to.ID
	w.do(catalog.Command{SetReplicas: &catalog.SetReplicas{Group: g.ID, Epoch: g.Epoch, Want: want}})
	w.tell()
	w.moved(w.run(id), to.ID)
}

// Where the catalog is led, every operation has its turn, however many there are
// and however long the steps of some take; no more than maxBusy at a time.
func TestEveryOperationHasItsTurn(t *testing.T) {
	w := newWorld(t)
	to := w.node(false)
	w.do(catalog.Command{SetNodeState: &catalog.SetNodeState{ID: to.ID, State: catalog.Down}})
	const many = 3*maxBusy + 1
	for i := range many {
		b := (&Move{Queue: w.queue, Name: "orders", Path: "0", Node: to.ID, NodeName: to.Name}).Begin(fmt.Sprint(i))
		b.Subject = fmt.Sprint(i)
		w.do(catalog.Command{BeginOperation: b})
	}
	w.do(catalog.Command{BeginOperation: &catalog.BeginOperation{Key: "other", Kind: "dance", Title: "dance"}})
	r := runner(w)
	var mu sync.Mutex
	var steps []func()
	stuck := 0
	for range many {
		r.Tick(context.Background(), func(step func()) { steps = append(steps, step) })
		mu.Lock()
		if len(steps) > maxBusy {
			t.Fatalf("%d at a time", len(steps))
		}
		for _, step := range steps[min(stuck, len(steps)):] { // some never return
			step()
		}
		steps = steps[:min(stuck, len(steps))]
		stuck = maxBusy - 1
		mu.Unlock()
	}
	waiting := 0
	for _, o := range w.View().Operations() {
		if strings.Contains(o.Waits, "down") || strings.Contains(o.Waits, `the kind "dance"`) {
			waiting++
		}
	}
	if waiting < many+1-stuck {
		t.Errorf("%d of %d had their turn", waiting, many+1)
	}
}
