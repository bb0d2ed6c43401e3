package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// 1 → 2 → 3 → 4 → 3 nodes: one voter, one voter with a learner, three voters,
// and never another number.
func TestClusterGrowsAndShrinks(t *testing.T) {
	w := newTown(t, 4)
	expect := func(what, shape string) {
		t.Helper()
		w.settle()
		if got := w.shape(); got != shape {
			t.Errorf("%s: voters + learners %s, want %s", what, got, shape)
		}
	}
	expect("one node", "[1+0]")
	w.join()
	expect("two", "[1+1]")
	w.join()
	expect("three", "[3+0]")
	four := w.join()
	expect("four", "[3+0]")
	if load, total := w.load(); load[four] == 0 || load[four] > bound(total, 1.0/4) {
		t.Errorf("the fourth node has %d of %d seats", load[four], total)
	}
	w.drain(1)
	expect("one drained", "[3+0]")
	if load, _ := w.load(); load[1] != 0 {
		t.Errorf("the drained node has %d seats", load[1])
	}
	w.state(1, catalog.Removed)
	expect("and removed", "[3+0]")
	w.drain(2)
	expect("one of three drained", "[3+0]")
	if load, total := w.load(); load[2] != total/3 {
		t.Errorf("without a spare node it keeps what it has, not %d of %d", load[2], total)
	}
}

// A dead voter keeps its seat until its node is removed and another can take it.
func TestDeadNodesAreReplaced(t *testing.T) {
	w := newTown(t, 4)
	w.join()
	w.join()
	w.settle()
	w.state(3, catalog.Down)
	if w.step() {
		t.Fatal("a node that is down lost its seats")
	}
	w.state(3, catalog.Removed)
	if w.step() {
		t.Fatal("a removed node lost its seats without a spare node")
	}
	spare := w.join()
	w.settle()
	if load, total := w.load(); load[spare] != total/3 || load[3] != 0 {
		t.Errorf("the spare node has %d of %d seats, the removed one %d", load[spare], total, load[3])
	}
}

// A node that is not alive gets nothing new, and what it has stays.
func TestSuspectNodesGetNothing(t *testing.T) {
	w := newTown(t, 4)
	w.join()
	w.join()
	w.state(3, catalog.Suspect)
	w.settle()
	if load, _ := w.load(); load[3] != 0 || w.shape() != "[1+1]" {
		t.Errorf("%d seats for a suspect node, voters + learners %s", load[3], w.shape())
	}
}

// A group that is changing is left alone, and few change at a time; but one whose
// new replica's node is removed meanwhile gets another.
func TestFewChangeAtATime(t *testing.T) {
	w := newTown(t, 9)
	w.join()
	w.join()
	w.join()
	if w.step(); len(Plan(w.view())) != 0 {
		t.Fatal("more than four groups change at a time")
	}
	changing := 0
	for _, g := range w.view().Groups() {
		if !Settled(g) {
			changing++
		}
	}
	if changing != maxBusy {
		t.Fatalf("%d groups change", changing)
	}
	lost := uint64(0)
	for _, g := range w.view().Groups() {
		for _, s := range g.Seats() {
			if lost == 0 && s.Node != 1 {
				lost = s.Node
			}
		}
	}
	w.state(lost, catalog.Removed)
	if !w.step() {
		t.Fatal("who waits for a removed node waits for ever")
	}
	if load, _ := w.load(); load[lost] != 0 {
		t.Errorf("the removed node has %d seats", load[lost])
	}
}

// Adding a node moves about its share of the seats; afterwards nobody has more
// than 1.25 of its share. The log has the table.
func TestAddedNodeTakesItsShare(t *testing.T) {
	const groups = 60
	w := newTown(t, groups-1)
	for range 2 {
		w.join()
	}
	w.settle()
	t.Logf("%8s %10s %8s %8s", "nodes", "max/mean", "moves", "share")
	for nodes := 4; nodes <= 12; nodes++ {
		w.join()
		given := w.settle()
		load, total := w.load()
		most, share := 0, 1/float64(nodes)
		for _, n := range load {
			most = max(most, n)
		}
		moves := float64(given) / float64(total)
		t.Logf("%8d %10.3f %7.1f%% %7.1f%%", nodes, float64(most)*float64(nodes)/float64(total), 100*moves, 100*share)
		if most > bound(total, share) {
			t.Errorf("%d nodes: one has %d of %d seats", nodes, most, total)
		}
		if moves > share+0.1 || moves < share/2 {
			t.Errorf("%d nodes: %.1f %% of the seats moved, its share is %.1f %%", nodes, 100*moves, 100*share)
		}
	}
}

// A drained node's seats go to the others, and little else moves.
func TestDrainMovesLittleElse(t *testing.T) {
	w := newTown(t, 59)
	for range 5 {
		w.join()
	}
	w.settle()
	load, total := w.load()
	w.drain(4)
	if given := w.settle(); given > load[4]+total/20 {
		t.Errorf("%d of %d seats moved, the node had %d", given, total, load[4])
	} else {
		t.Logf("%d of %d seats moved, the node had %d", given, total, load[4])
	}
}

// Nodes come, go, drain, fall silent and come back while plans are carried out.
// No plan lowers voters or is refused by the catalog; when all is calm the plans
// end, with nobody above the bound and nothing on those who left.
func TestPlansEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTown(t, rapid.IntRange(0, 8).Draw(t, "groups"))
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			v := w.view()
			nodes := v.Nodes()
			n := nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "node")]
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				w.join()
			case 2:
				if n.State != catalog.Removed {
					w.drain(n.ID)
				}
			case 3:
				if load, _ := w.load(); n.State != catalog.Removed && load[n.ID] == 0 && n.ID != 1 {
					w.state(n.ID, catalog.Removed)
				}
			case 4:
				if n.State != catalog.Removed {
					w.state(n.ID, catalog.NodeState(rapid.IntRange(0, 2).Draw(t, "state")))
				}
			case 5:
				w.confirm()
			case 6:
				w.step()
			}
		}
		stay := 0
		for _, n := range w.view().Nodes() {
			if n.State != catalog.Removed {
				w.state(n.ID, catalog.Alive)
				if !n.Draining {
					stay++
				}
			}
		}
		w.confirm()
		w.settle()
		load, total := w.load()
		for _, n := range w.view().Nodes() {
			gone := n.State == catalog.Removed || n.Draining
			if gone && stay >= 3 && load[n.ID] > 0 {
				t.Fatalf("node %d left and has %d seats", n.ID, load[n.ID])
			}
			if most := bound(total, 1/float64(stay)); stay >= 3 && load[n.ID] > most {
				t.Fatalf("node %d has %d of %d seats, at most %d", n.ID, load[n.ID], total, most)
			}
		}
		if stay >= 3 && w.shape() != "[3+0]" {
			t.Fatalf("%d nodes, voters + learners %s", stay, w.shape())
		}
	})
}

// Leaders are spread evenly over the nodes that may lead, each among its group's
// voters, and a node that is not well leads nothing.
func TestLeadersAreSpread(t *testing.T) {
	w := newTown(t, 11)
	for range 3 {
		w.join()
	}
	w.settle()
	check := func(able ...uint64) {
		t.Helper()
		leads := map[uint64]int{}
		for group, replica := range Leaders(w.view()) {
			g, _ := w.view().Group(group)
			i := slices.IndexFunc(g.Replicas, func(r catalog.Replica) bool { return r.ID == replica })
			if i < 0 || g.Replicas[i].Role != catalog.Voter {
				t.Fatalf("group %d is to be led by replica %d of %v", group, replica, g.Replicas)
			}
			leads[g.Replicas[i].Node]++
		}
		for _, n := range able {
			if share := 12 / len(able); leads[n] < share-1 || leads[n] > share+1 {
				t.Errorf("leaders a node: %v", leads)
			}
		}
		if len(able) > 0 && len(leads) != len(able) {
			t.Errorf("leaders a node: %v, able are %v", leads, able)
		}
	}
	check(1, 2, 3, 4)
	w.join()
	for w.step() { // those who leave lead no more, those who come do not yet
		check()
		w.confirm()
	}
	check(1, 2, 3, 4, 5)
	w.drain(5)
	w.settle()
	w.state(2, catalog.Suspect)
	check(1, 3, 4)
	w.do(catalog.Command{SetNodeClock: &catalog.SetNodeClock{ID: 1, Off: true}})
	check(3, 4)
	w.do(catalog.Command{SetNodeClock: &catalog.SetNodeClock{ID: 1}})
	check(1, 3, 4)
	w.drain(3)
	leads := Leaders(w.view())
	for _, g := range w.view().Groups() {
		r, _ := g.On(3)
		if leads[g.ID] == r.ID {
			t.Errorf("a draining node is to lead group %d: %s", g.ID, fmt.Sprint(g.Replicas))
		}
	}
}
