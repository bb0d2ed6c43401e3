package placement

import (
	"fmt"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/catalog"
)

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
}

// town is a cluster whose nodes and leaders do at once what the catalog says.
type town struct {
	t       failer
	rows    rows
	machine *catalog.Machine
	index   uint64
	seats   int // that were given to nodes
}

// newTown founds a cluster of one node with that many data groups.
func newTown(t failer, groups int) *town {
	w := &town{t: t, rows: rows{}, machine: catalog.New()}
	w.do(catalog.Command{Found: &catalog.Found{ClusterID: "c", Node: catalog.Node{ID: 1, Name: "n1", StoreID: 1}, Groups: groups}})
	w.confirm()
	return w
}

func (w *town) view() *catalog.View { return w.machine.View() }

func (w *town) do(c catalog.Command) catalog.Result {
	w.t.Helper()
	type command struct {
		Head   []byte
		Bodies [][]byte
	}
	w.index++
	r := w.machine.Apply(w.rows, w.index, catalog.AppendEntry(nil, []command{{Head: c.Encode()}}))[0].(catalog.Result)
	if r.Err != nil {
		w.t.Fatalf("%s: %v", c.Encode(), r.Err)
	}
	return r
}

func (w *town) join() uint64 {
	id := w.view().Cluster.NextNode
	return w.do(catalog.Command{AddNode: &catalog.AddNode{Node: catalog.Node{Name: fmt.Sprint("n", id), StoreID: id}}}).Node.ID
}

func (w *town) state(node uint64, s catalog.NodeState) {
	w.t.Helper()
	w.do(catalog.Command{SetNodeState: &catalog.SetNodeState{ID: node, State: s}})
}

func (w *town) drain(node uint64) {
	w.do(catalog.Command{DrainNode: &catalog.DrainNode{ID: node, Draining: true}})
}

// confirm lets every group's leader reach what is wanted, and report it.
func (w *town) confirm() {
	for _, g := range w.view().Groups() {
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
}

// step carries out one plan, and says whether there was one. It checks what
// holds for every plan.
func (w *town) step() bool {
	w.t.Helper()
	plan, again := Plan(w.view()), Plan(w.view())
	if len(plan) > maxBusy {
		w.t.Fatalf("%d groups change at a time", len(plan))
	}
	groups := map[uint64]bool{}
	for i, c := range plan {
		if string(c.Encode()) != string(again[i].Encode()) {
			w.t.Fatalf("two plans for one view: %s and %s", c.Encode(), again[i].Encode())
		}
		if groups[c.SetReplicas.Group] {
			w.t.Fatalf("group %d changes twice at a time", c.SetReplicas.Group)
		}
		groups[c.SetReplicas.Group] = true
		before, _ := w.view().Group(c.SetReplicas.Group)
		w.do(c)
		after, _ := w.view().Group(c.SetReplicas.Group)
		w.seats += int(after.MinNext(0) - before.MinNext(0))
	}
	return len(plan) > 0
}

// settle carries plans out until there is nothing left to do, and returns how
// many seats were given.
func (w *town) settle() int {
	w.t.Helper()
	before := w.seats
	for range 1_000 {
		if !w.step() {
			return w.seats - before
		}
		w.confirm()
	}
	w.t.Fatalf("plans without an end; the next is %s", Plan(w.view())[0].Encode())
	return 0
}

// load is how many seats each node has, and how many there are.
func (w *town) load() (load map[uint64]int, total int) {
	load = map[uint64]int{}
	for _, g := range w.view().Groups() {
		for _, s := range g.Seats() {
			load[s.Node]++
			total++
		}
	}
	return load, total
}

// shape says how many voters and learners groups have, if all have the same.
func (w *town) shape() string {
	shapes := map[string]bool{}
	for _, g := range w.view().Groups() {
		shapes[fmt.Sprint(g.Voters(), "+", len(g.Seats())-g.Voters())] = true
	}
	return fmt.Sprint(slices.Sorted(maps.Keys(shapes)))
}
