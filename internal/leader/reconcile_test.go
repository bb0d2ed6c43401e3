package leader

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/queue"
)

// someNodes are the rows of a catalog that has given the ids below 9 to nodes.
type someNodes struct {
	t     *testing.T
	nodes []catalog.Node
}

func (someNodes) Get(uint64, []byte) ([]byte, bool) { return nil, false }

func (s someNodes) Scan(_ uint64, lo, _ []byte, visit func(k, v []byte) bool) {
	row := func(key []byte, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			s.t.Fatal(err)
		}
		visit(key, b)
	}
	switch lo[0] {
	case 'c':
		row(lo, catalog.Cluster{NextNode: 9})
	case 'n':
		for _, n := range s.nodes {
			row(binary.BigEndian.AppendUint64(slices.Clone(lo), n.ID), n)
		}
	}
}

// What a group keeps for the retries of a node goes when the node was removed, also
// if that was heard while nobody led, or while the group took nothing.
func TestRemovedNodesAreForgotten(t *testing.T) {
	r := newRig(t)
	seq := uint64(0)
	for _, node := range []uint64{2, 3, 4, 10} {
		seq++
		r.propose(queue.Tick().WithLane(queue.Lane{Node: node, Boot: 1, Seq: seq}))
	}
	want := func(when string, nodes ...uint64) {
		t.Helper()
		r.step(0)
		r.read(func(rows queue.Reader) {
			if got := queue.Senders(rows); !slices.Equal(got, nodes) {
				t.Errorf("%s: answers are kept for %v, want %v", when, got, nodes)
			}
		})
	}
	view := func(nodes ...catalog.Node) *catalog.View {
		m := catalog.New()
		m.Load(someNodes{t, nodes})
		return m.View()
	}
	two, three := catalog.Node{ID: 2}, catalog.Node{ID: 3}
	r.Learn(view(two, three), nil)
	want("node 4 is no more", 2, 3, 10)
	drain := r.flood()
	three.State = catalog.Removed
	r.Learn(view(two, three), []catalog.Change{{Node: &three}})
	drain()
	want("removed while the group was full", 2, 10)
	two.State = catalog.Removed
	r.Learn(view(two, three), nil)
	want("removed in a catalog that came as a whole", 10)
}
