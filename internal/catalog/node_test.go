package catalog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// join adds the node with that store, and a name of it.
func (w *town) join(store uint64) *Node {
	return w.do(Command{AddNode: &AddNode{Node: Node{Name: fmt.Sprint("n", store), StoreID: store, Boot: 1}}}).Node
}

// towns founds a cluster of n nodes, whose ids are 1 to n.
func towns(n int) *town {
	w := newTown()
	for i := 2; i <= n; i++ {
		w.join(uint64(i))
	}
	return w
}

// A store joins once: who asks again, because the answer was lost or after a
// start, gets the same id; a removed one never comes back, and its id neither.
func TestJoin(t *testing.T) {
	w := newTown()
	b := w.join(7)
	if b == nil || b.ID != 2 || b.State != Alive {
		t.Fatalf("joined as %+v", b)
	}
	again := w.do(Command{AddNode: &AddNode{Node: Node{Name: "n7", StoreID: 7, Boot: 2, Peer: "10.0.0.7:7401"}}})
	if again.Created || again.Node.ID != 2 || again.Node.Boot != 2 || again.Node.Peer != "10.0.0.7:7401" {
		t.Fatalf("again: %+v", again.Node)
	}
	w.refuse(t, message.Conflict, Command{AddNode: &AddNode{Node: Node{Name: "n7", StoreID: 8}}})                 // its name is taken
	w.refuse(t, message.Conflict, Command{AddNode: &AddNode{Node: Node{Name: "n7", StoreID: 7}}})                 // an old copy of the directory
	w.refuse(t, message.InvalidArgument, Command{AddNode: &AddNode{Node: Node{Name: "c"}}})                       // no store
	w.refuse(t, message.NotFound, Command{SetNode: &SetNode{Node: Node{ID: 9, Name: "c", StoreID: 9}}})           // never joined
	w.refuse(t, message.Conflict, Command{SetNode: &SetNode{Node: Node{ID: 2, Name: "n7", StoreID: 9, Boot: 3}}}) // another directory with its id
	w.refuse(t, message.Conflict, Command{SetNode: &SetNode{Node: Node{ID: 2, Name: "a", Boot: 3}}})              // another one's name

	// Whoever reaches the port may ask to join.
	w.refuse(t, message.InvalidArgument, Command{AddNode: &AddNode{Node: Node{Name: "n 9", StoreID: 9}}})
	w.refuse(t, message.InvalidArgument, Command{AddNode: &AddNode{Node: Node{Name: strings.Repeat("n", message.MaxQueueName+1), StoreID: 9}}})
	w.refuse(t, message.InvalidArgument, Command{AddNode: &AddNode{Node: Node{Name: "n9", StoreID: 9, Labels: map[string]string{"l": strings.Repeat("x", MaxNodeBytes)}}}})
	w.refuse(t, message.InvalidArgument, Command{SetNode: &SetNode{Node: Node{ID: 2, Name: "n7", Boot: 3, Peer: strings.Repeat("x", MaxNodeBytes)}}})

	w.do(Command{SetNodeState: &SetNodeState{ID: 2, State: Removed}})
	w.refuse(t, message.NodeRemoved, Command{AddNode: &AddNode{Node: Node{Name: "n7", StoreID: 7, Boot: 3}}})
	w.refuse(t, message.NodeRemoved, Command{SetNodeState: &SetNodeState{ID: 2, State: Alive}})
	if r := w.do(Command{SetNodeState: &SetNodeState{ID: 2, State: Removed}}); r.Err != nil || len(w.m.Changes()) != 0 {
		t.Fatalf("removed twice: %v", r.Err)
	}
	if c := w.do(Command{AddNode: &AddNode{Node: Node{Name: "n7", StoreID: 8}}}).Node; c == nil || c.ID != 3 {
		t.Fatalf("the name is free again, the id is not: %+v", c)
	}
}

// What a node says of itself leaves alone what the monitor and the operator say
// of it.
func TestSetNodeKeepsVerdicts(t *testing.T) {
	w := towns(2)
	w.do(Command{SetNodeState: &SetNodeState{ID: 2, State: Suspect}})
	w.do(Command{DrainNode: &DrainNode{ID: 2, Draining: true}})
	w.do(Command{SetNodeClock: &SetNodeClock{ID: 2, Off: true}})
	n := w.do(Command{SetNode: &SetNode{Node: Node{ID: 2, Name: "n2", Boot: 5, Labels: map[string]string{"zone": "b"}}}}).Node
	if n.State != Suspect || !n.Draining || !n.ClockOff || n.Boot != 5 || n.StoreID != 2 || n.Labels["zone"] != "b" || n.Holds() {
		t.Fatalf("%+v", n)
	}
	before := w.m.View()
	w.do(Command{SetNode: &SetNode{Node: *n}})
	if w.m.View() != before {
		t.Fatal("the same again made a new version")
	}
}

// No removal leaves a group without a majority on nodes that are there.
func TestRemovalKeepsMajorities(t *testing.T) {
	w := towns(4)
	remove := func(id uint64) Command { return Command{SetNodeState: &SetNodeState{ID: id, State: Removed}} }
	w.refuse(t, message.Conflict, remove(1)) // has the only copy of everything
	for g := uint64(1); g <= 5; g++ {
		w.do(Command{SetReplicas: &SetReplicas{Group: g, Epoch: 1, Want: []Seat{{Node: 1}, {Node: 2}, {Node: 3}}}})
	}
	if r := w.do(remove(1)); r.Err != nil {
		t.Fatal(r.Err)
	}
	w.refuse(t, message.Conflict, remove(2))
	if r := w.do(remove(4)); r.Err != nil { // holds nothing
		t.Fatal(r.Err)
	}
}
