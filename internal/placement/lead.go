package placement

import (
	"slices"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// Leaders names for each group the replica that should lead it: a voter that its
// leader has confirmed, on a node that is alive, not draining, and whose wall clock is
// right: the one that the group is pinned to, else so that every node leads about as
// many groups. A group without such a voter is missing.
func Leaders(view *catalog.View) map[uint64]uint64 {
	var able []Member
	for _, n := range view.Nodes() {
		if n.Leads() {
			able = append(able, Member{ID: n.ID, Weight: 1})
		}
	}
	groups := view.Groups()
	share := (len(groups) + len(able) - 1) / max(len(able), 1)
	load, leaders := map[uint64]int{}, map[uint64]uint64{}
	for _, g := range groups {
		if n, ok := view.Node(g.Pin); ok && n.Leads() {
			if r, ok := votes(g, g.Pin); ok {
				load[g.Pin]++
				leaders[g.ID] = r.ID
			}
		}
	}
	for _, g := range groups {
		if leaders[g.ID] != 0 {
			continue
		}
		best := catalog.Replica{}
		for _, node := range Rank(mix(g.ID), able) {
			r, ok := votes(g, node)
			if !ok {
				continue
			}
			if load[node] < share {
				best = r
				break
			}
			if best.ID == 0 || load[node] < load[best.Node] {
				best = r
			}
		}
		if best.ID != 0 {
			load[best.Node]++
			leaders[g.ID] = best.ID
		}
	}
	return leaders
}

// votes finds the group's replica on a node if it is a confirmed voter.
func votes(g *catalog.Group, node uint64) (catalog.Replica, bool) {
	r, ok := g.On(node)
	return r, ok && r.Role == catalog.Voter && slices.Contains(g.Confirmed.Voters, r.ID)
}
