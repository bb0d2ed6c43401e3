package catalog

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
)

// anything draws a command, mostly one that can be carried out.
func anything(t *rapid.T, v *View) Command {
	n := func(name string, hi int) int { return rapid.IntRange(0, hi).Draw(t, name) }
	name := fmt.Sprint("x", n("name", 3))
	groups := v.Groups()
	g := groups[n("group", len(groups)-1)]
	group := g.ID
	queue, ok := v.Queue(name)
	if !ok {
		queue = &Queue{Shards: []Shard{{}}}
	}
	shard := queue.Shards[n("shard", len(queue.Shards)-1)]
	sessions := append(v.Sessions(), &Session{})
	session := sessions[n("session", len(sessions)-1)]
	operations := append(v.Operations(), &Operation{})
	operation := operations[n("operation", len(operations)-1)]
	nodes := v.Nodes()
	node := nodes[n("node", len(nodes)-1)]
	switch n("command", 18) {
	case 0:
		return Command{CreateQueue: &CreateQueue{Name: name, Shards: 1 + n("shards", 2)}}
	case 1:
		return Command{DeleteQueue: &DeleteQueue{Name: name}}
	case 2:
		return Command{PauseQueue: &PauseQueue{Name: name, Paused: n("paused", 1) == 1}}
	case 3:
		return Command{SplitShard: &SplitShard{Queue: queue.Number, Path: shard.Path, Epoch: shard.Epoch, At: n("at", 16)}}
	case 4:
		c := MoveShard{Queue: queue.Number, Path: shard.Path, Epoch: shard.Epoch, Group: group}
		if o := g.Origin; o != nil {
			c.Queue, c.Path, c.Epoch = o.Queue, o.Path, o.Epoch
		}
		return Command{MoveShard: &c}
	case 5:
		return Command{AddNode: &AddNode{Node: Node{Name: name, StoreID: 1 + uint64(n("store", 6)), Boot: uint64(n("boot", 2))}}}
	case 6:
		return Command{SetNode: &SetNode{Node: Node{ID: node.ID, Name: name, Boot: uint64(n("boot", 2)), Labels: map[string]string{"zone": name, "rack": "1"}}}}
	case 7:
		return Command{SetNodeState: &SetNodeState{ID: node.ID, State: NodeState(n("state", 3))}}
	case 8:
		return Command{DrainNode: &DrainNode{ID: node.ID, Draining: n("draining", 1) == 1}}
	case 9:
		return Command{AddGroup: &AddGroup{Origin: Origin{Queue: queue.Number, Path: shard.Path, Epoch: shard.Epoch - uint64(n("stale", 1))}, Seats: []Seat{{Node: node.ID}}}}
	case 10:
		c := SetReplicas{Group: group, Epoch: g.Epoch - uint64(n("stale", 1)), AcceptOneDisk: n("one disk", 5) == 0}
		for i := range n("seats", len(nodes)) {
			c.Want = append(c.Want, Seat{Node: nodes[i%len(nodes)].ID, Role: Role(n("role", 1))})
		}
		if n("pin", 3) == 0 {
			c.Pin = new(node.ID)
		}
		return Command{SetReplicas: &c}
	case 11:
		c := Confirm{Group: group, Epoch: g.Epoch, Configuration: Configuration{Term: uint64(n("term", 2)), Index: uint64(n("index", 5))}}
		for _, r := range g.Replicas {
			if n("in", 1) == 1 {
				c.Configuration.Voters = append(c.Configuration.Voters, r.ID)
			}
		}
		return Command{Confirm: &c}
	case 12:
		return Command{OpenSession: &OpenSession{Worker: name, Incarnation: 1 + uint64(n("incarnation", 4)), Node: 1, Replace: n("replace", 1) == 1}}
	case 13:
		return Command{EndSession: &EndSession{ID: session.ID, Incarnation: session.Incarnation, Why: "silent"}}
	case 14:
		return Command{ForgetSessions: &ForgetSessions{UpTo: v.Version - uint64(n("back", 3))}}
	case 15:
		return Command{BeginOperation: &BeginOperation{Key: name, Kind: "split"}}
	case 16:
		return Command{AdvanceOperation: &AdvanceOperation{ID: operation.ID, Step: operation.Step, Next: name}}
	case 17:
		return Command{DrainWorker: &DrainWorker{Worker: name}}
	default:
		return Command{FinishOperation: &FinishOperation{ID: operation.ID, Step: operation.Step, State: Done}}
	}
}

// Whatever happens, at every version: who follows by updates, from whichever
// version and in whichever steps, has the same catalog as the machine, as a
// machine that is loaded from the rows, and as one that gets all rows; a View
// that somebody holds stays as it is; numbers are never used twice; voters become
// fewer only where that was accepted.
func TestFollowersSeeTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTown()
		follower, _, err := Follow(nil, w.m.View().Since(0))
		if err != nil {
			t.Fatal(err)
		}
		held, heldRows := w.m.View(), w.m.View().all()
		seen := history{}
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			var entry []Command
			for range rapid.IntRange(1, 3).Draw(t, "commands") {
				entry = append(entry, anything(t, w.m.View()))
			}
			before := w.m.View()
			w.apply(entry...)
			v := w.m.View()
			seen.check(t, before, v, entry)
			again := New()
			again.Load(w.rows)
			if !bytes.Equal(again.View().all(), v.all()) {
				t.Fatalf("loaded %q, want %q", again.View().all(), v.all())
			}
			if rapid.Bool().Draw(t, "follow") {
				follower = followTo(t, follower, v)
			}
			if !bytes.Equal(held.all(), heldRows) {
				t.Fatal("a View changed")
			}
			if rapid.Bool().Draw(t, "hold") {
				held, heldRows = v, v.all()
			}
		}
		whole, changes, err := Follow(follower, w.m.View().all())
		if err != nil || changes != nil || !bytes.Equal(whole.all(), w.m.View().all()) {
			t.Fatalf("all rows: %v", err)
		}
	})
}

func followTo(t *rapid.T, from, to *View) *View {
	update := to.Since(from.Version)
	if update == nil {
		if from.Version != to.Version {
			t.Fatalf("nothing leads from %d to %d", from.Version, to.Version)
		}
		return from
	}
	fromRows := from.all()
	next, changes, err := Follow(from, update)
	if err != nil || changes == nil || !bytes.Equal(next.all(), to.all()) {
		t.Fatalf("from %d to %d: %v %d changes\n%q\nwant\n%q", from.Version, to.Version, err, len(changes), next.all(), to.all())
	}
	if !bytes.Equal(from.all(), fromRows) {
		t.Fatal("following changed the View that it began from")
	}
	if ended := len(next.Sessions()) < len(from.Sessions()); ended && !slices.ContainsFunc(changes, func(c Change) bool { return c.Session != nil && c.Deleted }) {
		t.Fatal("a session that was forgotten is not among the changes")
	}
	return next
}

// history holds what there was at any version.
type history map[string]uint64

func (h history) check(t *rapid.T, before, v *View, entry []Command) {
	once := func(what string, is uint64) {
		if was, ok := h[what]; ok && was != is {
			t.Fatalf("%s was used for %d and %d", what, was, is)
		}
		h[what] = is
	}
	for _, g := range v.Groups() {
		was, ok := before.Group(g.ID)
		accepted := slices.ContainsFunc(entry, func(c Command) bool { return c.SetReplicas != nil && c.SetReplicas.AcceptOneDisk })
		if n := g.Voters(); ok && n < was.Voters() && !accepted || n != 1 && n != 3 && n != 5 {
			t.Fatalf("group %d has %d voters, had %v", g.ID, n, was)
		}
		for _, r := range g.Replicas {
			once(fmt.Sprintf("replica %d of group %d", r.ID, g.ID), r.Node)
			if r.ID >= g.nextReplica() {
				t.Fatalf("replica %d will be given again", r.ID)
			}
		}
	}
	for _, n := range v.Nodes() {
		once(fmt.Sprint("node ", n.ID), n.StoreID)
	}
	workers := map[string][]*Session{}
	for _, s := range v.Sessions() {
		once(fmt.Sprint("session ", s.ID), s.Incarnation)
		workers[s.Worker] = append(workers[s.Worker], s)
	}
	for name, sessions := range workers {
		slices.SortFunc(sessions, func(a, b *Session) int { return cmp.Compare(a.Incarnation, b.Incarnation) })
		if !slices.Equal(v.Worker(name), sessions) {
			t.Fatalf("worker %s has the sessions %v, want %v", name, v.Worker(name), sessions)
		}
	}
	for _, q := range v.Queues("", v.Len()) {
		next := 0
		for _, s := range q.Shards {
			if s.From != next || s.To < s.From {
				t.Fatalf("shards %v", q.Shards)
			}
			next = s.To + 1
		}
		if next != message.Cells {
			t.Fatalf("shards %v", q.Shards)
		}
	}
}

// What is remembered of how a View came about is limited; who is further behind
// gets all rows.
func TestTailIsLimited(t *testing.T) {
	w := newTown()
	old := w.m.View()
	drain := true
	change := func() {
		w.do(Command{DrainNode: &DrainNode{ID: 1, Draining: drain}})
		drain = !drain
	}
	for range maxSteps {
		change()
	}
	v := w.m.View()
	if got := v.Since(old.Version); got == nil || got[1] != 0 {
		t.Fatal("the last steps are not remembered")
	}
	change()
	if got := w.m.View().Since(old.Version); got == nil || got[1] != 1 || len(w.m.View().tail.steps) != maxSteps {
		t.Fatal("more is remembered than allowed")
	}
	for i := range 100 {
		big := Command{BeginOperation: &BeginOperation{Key: fmt.Sprint(i), Kind: "k", Args: []byte(`"` + strings.Repeat("x", MaxOperationBytes-2) + `"`)}}
		if r := w.do(big); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if tail := w.m.View().tail; tail.bytes > maxStepBytes || len(tail.steps) < 50 {
		t.Fatalf("%d bytes in %d steps", tail.bytes, len(tail.steps))
	}
}

// A node that had a replica of the meta group and follows now does not pass on
// what it did not see.
func TestFollowerForgetsHow(t *testing.T) {
	w := newTown()
	first := w.m.View()
	w.do(open("kitchen", 1))
	second := w.m.View()
	w.do(open("kitchen", 2))
	next, _, err := Follow(second, w.m.View().Since(second.Version))
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := Follow(first, next.Since(first.Version)); err != nil || !bytes.Equal(again.all(), next.all()) {
		t.Fatalf("passed on %q, have %q: %v", again.all(), next.all(), err)
	}
}

// An update that does not fit or is torn is refused, and never a panic.
func FuzzFollow(f *testing.F) {
	w := newTown()
	base := w.m.View()
	w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 2}})
	w.do(open("kitchen", 1))
	w.do(Command{DeleteQueue: &DeleteQueue{Name: "q"}})
	f.Add(base.Since(0))
	f.Add(w.m.View().Since(base.Version))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, update []byte) {
		rows := base.all()
		if next, _, err := Follow(base, update); err == nil {
			next.all()
		}
		if !bytes.Equal(base.all(), rows) {
			t.Fatal("the View changed")
		}
	})
}

func TestTornUpdates(t *testing.T) {
	w := newTown()
	base := w.m.View()
	w.do(open("kitchen", 1))
	update := w.m.View().Since(base.Version)
	for n := range update {
		if next, _, err := Follow(base, update[:n]); err == nil && n > headerBytes && bytes.Equal(next.all(), w.m.View().all()) {
			t.Fatalf("%d of %d bytes are enough", n, len(update))
		}
	}
	if _, _, err := Follow(w.m.View(), update); err == nil {
		t.Fatal("an update fits a View that it does not begin from")
	}
	newer := bytes.Clone(update)
	newer[0]++
	if _, _, err := Follow(base, newer); err == nil {
		t.Fatal("an update of a newer version was taken")
	}
}
