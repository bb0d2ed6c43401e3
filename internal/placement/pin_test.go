package placement

import (
	"slices"
	"testing"

	"github.com/comanda-mq/comanda/internal/catalog"
)

func (w *town) group(id uint64) *catalog.Group {
	g, _ := w.view().Group(id)
	return g
}

// pin moves a group to a node as an operator does.
func (w *town) pin(id, node uint64) {
	g := w.group(id)
	w.do(catalog.Command{SetReplicas: &catalog.SetReplicas{Group: id, Epoch: g.Epoch, Want: Seat(w.view(), g, node), Pin: &node}})
	w.confirm()
}

// Where a group is pinned to, its seat stays and it is led, whatever its scores
// say, until the node can hold nothing; the leaders of the others make room.
func TestPinnedGroupsStay(t *testing.T) {
	w := newTown(t, 8)
	for range 4 {
		w.join()
	}
	w.settle()
	for _, g := range w.view().Groups()[1:] {
		rank := Rank(g.ID, members(5))
		w.pin(g.ID, rank[len(rank)-1]) // where it wants to be least
	}
	w.settle()
	pins := map[uint64]uint64{}
	for _, g := range w.view().Groups()[1:] {
		rank := Rank(g.ID, members(5))
		pins[g.ID] = rank[len(rank)-1]
		r, ok := g.On(g.Pin)
		if !ok || r.Role != catalog.Voter || g.Pin != pins[g.ID] || g.Voters() != 3 {
			t.Errorf("group %d was moved to node %d, and is %+v", g.ID, pins[g.ID], g)
		}
		if lead := Leaders(w.view())[g.ID]; lead != r.ID {
			t.Errorf("group %d, pinned to node %d, is to be led by replica %d", g.ID, g.Pin, lead)
		}
	}
	away := pins[2]
	w.state(away, catalog.Suspect)
	if w.step() {
		t.Error("a node that is suspect lost its seats")
	}
	for id, lead := range Leaders(w.view()) {
		if r, _ := w.group(id).On(away); r.ID == lead {
			t.Errorf("group %d is to be led by a node that is suspect", id)
		}
	}
	w.state(away, catalog.Alive)
	w.do(catalog.Command{SetNodeClock: &catalog.SetNodeClock{ID: away, Off: true}})
	if w.step() {
		t.Error("a node whose clock is off lost its seats")
	}
	for id, lead := range Leaders(w.view()) {
		if r, _ := w.group(id).On(away); r.ID == lead {
			t.Errorf("group %d is to be led by a node whose clock is off", id)
		}
	}
	w.do(catalog.Command{SetNodeClock: &catalog.SetNodeClock{ID: away}})
	w.drain(away)
	w.settle()
	for id, pin := range pins {
		g := w.group(id)
		if _, there := g.On(away); there {
			t.Errorf("group %d is still on the drained node", id)
		}
		if want := pin; pin == away && g.Pin != 0 || pin != away && g.Pin != want {
			t.Errorf("group %d was pinned to node %d, and is to node %d, after node %d was drained", id, pin, g.Pin, away)
		}
	}
}

// The node gets the seat of one that can hold nothing, else of the one that ranks
// lowest; a learner changes roles with it.
func TestSeat(t *testing.T) {
	w := newTown(t, 1)
	for range 3 {
		w.join()
	}
	w.settle()
	g := w.group(2)
	var outside uint64
	for _, n := range w.view().Nodes() {
		if _, ok := g.On(n.ID); !ok {
			outside = n.ID
		}
	}
	without := func(want []catalog.Seat) (gone uint64) {
		for _, s := range g.Seats() {
			if !holds(want, s.Node) {
				gone = s.Node
			}
		}
		return gone
	}
	rank := slices.DeleteFunc(Rank(g.ID, members(4)), func(id uint64) bool { return id == outside })
	if want := Seat(w.view(), g, outside); len(want) != 3 || !holds(want, outside) || without(want) != rank[2] {
		t.Errorf("seats %v, of %v", want, g.Seats())
	}
	w.drain(rank[0])
	if want := Seat(w.view(), g, outside); len(want) != 3 || without(want) != rank[0] {
		t.Errorf("with node %d drained: seats %v, of %v", rank[0], want, g.Seats())
	}
	if want := Seat(w.view(), g, rank[1]); !same(g, want) {
		t.Errorf("it has a seat: %v, of %v", want, g.Seats())
	}

	two := newTown(t, 1)
	two.join()
	two.settle()
	if want := Seat(two.view(), two.group(2), 2); !slices.Contains(want, catalog.Seat{Node: 2}) || !slices.Contains(want, catalog.Seat{Node: 1, Role: catalog.Learner}) {
		t.Errorf("of two nodes: %v", want)
	}
}

// A group that is still to be made is nobody's load, and nothing is planned for it,
// however long that lasts.
func TestUnbornGroupsAreLeftAlone(t *testing.T) {
	w := newTown(t, 8)
	for range 2 {
		w.join()
	}
	w.settle()
	for i := range maxBusy {
		q := w.do(catalog.Command{CreateQueue: &catalog.CreateQueue{Name: string(rune('a' + i)), Shards: 1}}).Queue
		w.do(catalog.Command{AddGroup: &catalog.AddGroup{
			Origin: catalog.Origin{Queue: q.Number, Path: "0", Epoch: 1}, Seats: []catalog.Seat{{Node: 1}, {Node: 2}, {Node: 3}},
		}})
	}
	if w.step() {
		t.Fatal("a plan for groups that are not there")
	}
	w.join()
	if !w.step() {
		t.Fatal("groups that are not there keep others from moving")
	}
}
