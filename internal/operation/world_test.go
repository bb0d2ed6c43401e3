package operation

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rows are the meta group's rows in a map.
type rows map[string]string

func (r rows) Get(_ uint64, key []byte) ([]byte, bool) {
	v, ok := r[string(key)]
	return []byte(v), ok
}

func (r rows) Scan(_ uint64, lo, hi []byte, visit func(key, value []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(r)) {
		if k >= string(lo) && k < string(hi) && !visit([]byte(k), []byte(r[k])) {
			return
		}
	}
}

func (r rows) Set(_ uint64, key, value []byte) { r[string(key)] = string(value) }
func (r rows) Delete(_ uint64, key []byte)     { delete(r, string(key)) }

// failer is a test of either kind.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// world is a cluster of four nodes whose catalog is the real one, with one queue. Its
// groups do what the catalog wants when they are told to, and the catalog hears of it.
type world struct {
	t       failer
	rows    rows
	machine *catalog.Machine
	index   uint64
	queue   uint32
	shards  []catalog.Shard   // as the groups have them
	leaders map[uint64]uint64 // group → replica
	// Of the next calls of a runner: how many go well, and whether the one after
	// them, which ends it, has its effect.
	well   int
	effect bool
	// Of a redrive: the operation, where it is in each cell, and how often it came to
	// each message.
	redriving uint64
	at        [message.Cells]uint64
	revived   map[string]int
}

func newWorld(t failer) *world {
	w := &world{t: t, rows: rows{}, machine: catalog.New(), leaders: map[uint64]uint64{}, revived: map[string]int{}, well: -1}
	w.do(catalog.Command{Found: &catalog.Found{ClusterID: "c", Node: catalog.Node{ID: 1, Name: "n1", StoreID: 1}, Groups: 2}})
	for id := uint64(2); id <= 4; id++ {
		w.do(catalog.Command{AddNode: &catalog.AddNode{Node: catalog.Node{Name: fmt.Sprint("n", id), StoreID: id}}})
	}
	w.queue = w.do(catalog.Command{CreateQueue: &catalog.CreateQueue{Name: "orders", Shards: 1}}).Queue.Number
	w.shards = slices.Clone(w.catalogQueue().Shards)
	w.tell()
	for placed := false; !placed; {
		plan := placement.Plan(w.View())
		for _, c := range plan {
			w.do(c)
		}
		w.tell()
		placed = len(plan) == 0
	}
	return w
}

func (w *world) do(c catalog.Command) catalog.Result {
	w.t.Helper()
	r := w.apply(c)
	if r.Err != nil {
		w.t.Fatalf("%s: %v", c.Encode(), r.Err)
	}
	return r
}

func (w *world) apply(c catalog.Command) catalog.Result {
	type command struct {
		Head   []byte
		Bodies [][]byte
	}
	w.index++
	return w.machine.Apply(w.rows, w.index, catalog.AppendEntry(nil, []command{{Head: c.Encode()}}))[0].(catalog.Result)
}

func (w *world) catalogQueue() *catalog.Queue {
	q, _ := w.View().QueueNumber(w.queue)
	return q
}

// View is Cluster.View.
func (w *world) View() *catalog.View { return w.machine.View() }

// Change is Cluster.Change.
func (w *world) Change(_ context.Context, c catalog.Command) (r catalog.Result, err error) {
	err = w.call(func() error {
		r = w.apply(c)
		return nil
	})
	return r, err
}

// Leader is Cluster.Leader.
func (w *world) Leader(_ context.Context, group uint64) uint64 { return w.leaders[group] }

// SpinOff is Cluster.SpinOff: as the shard's group does it.
func (w *world) SpinOff(_ context.Context, s SpinOff) error {
	return w.call(func() error {
		parent, _ := w.View().Group(s.Parent)
		i := slices.IndexFunc(w.shards, func(x catalog.Shard) bool { return x.Group == s.Parent && x.Path == s.Shard.Path })
		if i < 0 {
			return message.Errorf(message.WrongShard, "it is not there")
		}
		if w.shards[i].Epoch != s.Shard.Epoch || len(s.Replicas) != len(parent.Replicas) {
			return message.Errorf(message.Conflict, "it is otherwise")
		}
		child, ok := w.View().Group(s.Child)
		for _, r := range parent.Replicas {
			there, seated := catalog.Replica{}, false
			if ok {
				there, seated = child.On(r.Node)
			}
			if !seated || s.Replicas[r.ID] != there.ID {
				w.t.Errorf("group %d is made with the replicas %v, the catalog has %+v", s.Child, s.Replicas, child)
			}
		}
		w.shards[i].Group, w.shards[i].Epoch = s.Child, s.Shard.Epoch+1
		return nil
	})
}

// call is a call of a runner, which may be its last.
func (w *world) call(effect func() error) error {
	dies := w.well == 0
	w.well--
	switch {
	case !dies:
		return effect()
	case w.effect:
		_ = effect()
	}
	return message.Errorf(message.UnknownOutcome, "the runner died")
}

// split splits a shard in its group.
func (w *world) split(path string) {
	i := slices.IndexFunc(w.shards, func(x catalog.Shard) bool { return x.Path == path })
	low, high := w.shards[i], w.shards[i]
	half := (low.From + low.To + 1) / 2
	low.Path, low.To, low.Epoch = path+".0", half-1, low.Epoch+1
	high.Path, high.From, high.Epoch = path+".1", half, high.Epoch+1
	w.shards = slices.Concat(w.shards[:i], []catalog.Shard{low, high}, w.shards[i+1:])
}

// tell lets the catalog hear what became of shards and groups, and groups be led as
// it wants.
func (w *world) tell() {
	for w.record() {
	}
	for _, g := range w.View().Groups() {
		if g.Origin != nil && !slices.ContainsFunc(w.shards, func(s catalog.Shard) bool { return s.Group == g.ID }) {
			continue // nobody has made it
		}
		now := catalog.Configuration{Term: 1, Index: w.index}
		for _, r := range g.Replicas {
			switch r.Role {
			case catalog.Voter:
				now.Voters = append(now.Voters, r.ID)
			case catalog.Learner:
				now.Learners = append(now.Learners, r.ID)
			case catalog.Leaving:
			}
		}
		w.do(catalog.Command{Confirm: &catalog.Confirm{Group: g.ID, Epoch: g.Epoch, Configuration: now}})
	}
	maps.Copy(w.leaders, placement.Leaders(w.View()))
}

// record lets the catalog hear the first thing that it has not heard of a shard.
func (w *world) record() bool {
	q := w.catalogQueue()
	if q == nil {
		return false
	}
	for _, known := range q.Shards {
		for _, is := range w.shards {
			switch {
			case is.Path != known.Path && !strings.HasPrefix(is.Path, known.Path+".") || is.Epoch <= known.Epoch:
			case is.Group != known.Group:
				w.do(catalog.Command{MoveShard: &catalog.MoveShard{Queue: w.queue, Path: known.Path, Epoch: known.Epoch, Group: is.Group}})
				return true
			case is.Path == known.Path+".1":
				w.do(catalog.Command{SplitShard: &catalog.SplitShard{Queue: w.queue, Path: known.Path, Epoch: known.Epoch, At: is.From}})
				return true
			}
		}
	}
	return false
}

// node tells a node of the cluster, which leads the queue's shard or does not hold
// it.
func (w *world) node(leads bool) *catalog.Node {
	g, _ := w.View().Group(w.catalogQueue().Shards[0].Group)
	for _, n := range w.View().Nodes() {
		r, ok := g.On(n.ID)
		if leads && ok && r.ID == w.leaders[g.ID] || !leads && !ok {
			return n
		}
	}
	w.t.Fatalf("no such node for %+v", g)
	return nil
}

// elect gives the lead of a group to another of its nodes.
func (w *world) elect(group uint64) *catalog.Node {
	g, _ := w.View().Group(group)
	at := slices.IndexFunc(g.Replicas, func(r catalog.Replica) bool { return r.ID != w.leaders[group] })
	w.leaders[group] = g.Replicas[at].ID
	n, _ := w.View().Node(g.Replicas[at].Node)
	return n
}

// move begins to move the queue's shard.
func (w *world) move(to *catalog.Node, key string) uint64 {
	m := Move{Queue: w.queue, Name: "orders", Path: "0", Node: to.ID, NodeName: to.Name}
	return w.do(catalog.Command{BeginOperation: m.Begin(key)}).Operation.ID
}

func (w *world) operation(id uint64) *catalog.Operation {
	o, _ := w.View().Operation(id)
	return o
}

// runner is one on a node that knows this cluster.
func runner(c Cluster) *Runner { return New(c, clock.System(), slog.New(slog.DiscardHandler)) }

// run goes on until an operation has ended, the groups and the catalog keeping up.
func (w *world) run(id uint64) *catalog.Operation {
	w.t.Helper()
	for range 100 {
		if o := w.operation(id); o.Ended() {
			return o
		}
		_ = runner(w).Step(context.Background(), id) // what fails is tried again
		w.tell()
	}
	w.t.Fatalf("it does not end: %+v", w.operation(id))
	return nil
}

// check holds what is there against what must be there.
func (w *world) check() {
	w.t.Helper()
	q := w.catalogQueue()
	if q != nil && !slices.Equal(q.Shards, w.shards) {
		w.t.Errorf("the catalog has the shards %+v, there are %+v", q.Shards, w.shards)
	}
	for _, g := range w.View().Groups() {
		if g.Origin != nil && q == nil {
			w.t.Errorf("group %+v is left of a deleted queue", g)
		}
	}
}

// moved checks that a shard is where it was to go.
func (w *world) moved(o *catalog.Operation, to uint64) {
	w.t.Helper()
	w.check()
	s := w.catalogQueue().Shards[0]
	g, _ := w.View().Group(s.Group)
	r, ok := g.On(to)
	if o.State != catalog.Done || !ok || r.Role != catalog.Voter || g.Voters() != 3 || len(g.Replicas) != 3 || w.leaders[g.ID] != r.ID {
		w.t.Errorf("%s: group %+v, led by %d", o.State, g, w.leaders[g.ID])
	}
	if plan := placement.Plan(w.View()); slices.ContainsFunc(plan, func(c catalog.Command) bool { return c.SetReplicas.Group == g.ID }) {
		w.t.Errorf("placement takes it back: %s", plan[0].Encode())
	}
}
