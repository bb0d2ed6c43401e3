package placement

import (
	"cmp"
	"slices"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// Seat are the seats of a group with a node as one of the voters: in place of a
// voter whose node can hold nothing, else of the one that ranks lowest. If the node
// was a learner, the two change roles.
func Seat(view *catalog.View, g *catalog.Group, node uint64) []catalog.Seat {
	var all []Member
	able := map[uint64]int{}
	for _, n := range view.Nodes() {
		all = append(all, Member{ID: n.ID, Weight: 1})
		if n.Holds() {
			able[n.ID] = 1
		}
	}
	rank := Rank(g.ID, all)
	seats := g.Seats()
	// The voter that gives way is the first.
	slices.SortStableFunc(seats, func(a, b catalog.Seat) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(able[a.Node], able[b.Node]),
			cmp.Compare(slices.Index(rank, b.Node), slices.Index(rank, a.Node)))
	})
	switch i := slices.IndexFunc(seats, func(s catalog.Seat) bool { return s.Node == node }); {
	case i < 0:
		seats[0].Node = node
	case seats[i].Role == catalog.Learner:
		seats[0].Node, seats[i].Node = node, seats[0].Node
	}
	return seats
}
