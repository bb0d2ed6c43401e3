package placement

import (
	"slices"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// maxBusy is how many groups change their replicas at a time: each change may
// send a snapshot.
const maxBusy = 4

// voters is how many a group gets when there are nodes for them.
const voters = 3

// Plan says the next changes of groups' replicas. A group has three voters as
// soon as three nodes can hold it, else one; a second node gets a learner. What
// a removed or draining node has moves to others. Then seats move, one of a
// group at a time, to where their score wants them and the bound allows. Voters
// never become fewer. A group that is changing is left alone, unless it waits for
// a node that was removed.
func Plan(view *catalog.View) []catalog.Command {
	p := newPlanner(view)
	busy := 0
	for _, g := range p.groups {
		if !Settled(g) {
			busy++
		}
	}
	var changes []catalog.Command
	for _, g := range p.groups {
		settled := Settled(g)
		if settled && busy >= maxBusy || !settled && !p.waitsForRemoved(g) {
			continue
		}
		want := p.seats(g)
		if same(g, want) {
			continue
		}
		p.account(g, want)
		if settled {
			busy++
		}
		changes = append(changes, catalog.Command{SetReplicas: &catalog.SetReplicas{Group: g.ID, Epoch: g.Epoch, Want: want}})
	}
	return changes
}

// Settled says whether the group's configuration is what is wanted.
func Settled(g *catalog.Group) bool {
	want := map[catalog.Role][]uint64{}
	for _, r := range g.Replicas {
		want[r.Role] = append(want[r.Role], r.ID)
	}
	is := g.Confirmed
	return len(want[catalog.Leaving]) == 0 &&
		equalSets(want[catalog.Voter], is.Voters) && equalSets(want[catalog.Learner], is.Learners)
}

func equalSets(a, b []uint64) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// planner is what Plan knows: the groups, which nodes may stay and which may
// come, and how many seats each node has with what is planned so far.
type planner struct {
	groups []*catalog.Group
	stay   []Member        // nodes that may keep what they have, by id
	come   map[uint64]bool // those of them that may get more
	nodes  map[uint64]*catalog.Node
	load   map[uint64]int
	total  int // seats
}

func newPlanner(view *catalog.View) *planner {
	p := &planner{come: map[uint64]bool{}, nodes: map[uint64]*catalog.Node{}, load: map[uint64]int{}}
	for _, n := range view.Nodes() {
		p.nodes[n.ID] = n
		if n.State != catalog.Removed && !n.Draining {
			p.stay = append(p.stay, Member{ID: n.ID, Weight: 1})
			p.come[n.ID] = n.Holds()
		}
	}
	for _, g := range view.Groups() {
		if g.Unborn() {
			continue // it has the seats of the group that its shard is in
		}
		p.groups = append(p.groups, g)
		for _, s := range g.Seats() {
			p.load[s.Node]++
			p.total++
		}
	}
	return p
}

func same(g *catalog.Group, want []catalog.Seat) bool {
	has := g.Seats()
	return len(has) == len(want) && !slices.ContainsFunc(want, func(s catalog.Seat) bool { return !slices.Contains(has, s) })
}

// account counts a group's seats anew.
func (p *planner) account(g *catalog.Group, want []catalog.Seat) {
	for _, s := range g.Seats() {
		p.load[s.Node]--
	}
	for _, s := range want {
		p.load[s.Node]++
	}
	p.total += len(want) - len(g.Seats())
}

func (p *planner) waitsForRemoved(g *catalog.Group) bool {
	return slices.ContainsFunc(g.Seats(), func(s catalog.Seat) bool {
		n, ok := p.nodes[s.Node]
		return !ok || n.State == catalog.Removed
	})
}

func (p *planner) stays(node uint64) bool {
	_, ok := p.come[node]
	return ok
}

// over is how many seats a node has above its bound; 0: it may get no more.
func (p *planner) over(node uint64) int {
	return p.load[node] - bound(p.total, 1/float64(len(p.stay)))
}

// seats are what the group should have next.
func (p *planner) seats(g *catalog.Group) []catalog.Seat {
	rank := Rank(g.ID, p.stay)
	var keep, lose []catalog.Seat
	for _, s := range g.Seats() {
		if p.stays(s.Node) {
			keep = append(keep, s)
		} else {
			lose = append(lose, s)
		}
	}
	spare := slices.DeleteFunc(slices.Clone(rank), func(id uint64) bool { return !p.come[id] || holds(keep, id) })
	nVoters, n := size(g.Voters(), len(keep)+len(spare))
	if len(keep) == n && len(lose) == 0 && g.Voters() == nVoters {
		return p.improve(keep, g.Pin, rank, spare)
	}
	// The best get the free seats; who has too many then gives some away again.
	for _, id := range spare[:min(max(n-len(keep), 0), len(spare))] {
		keep = append(keep, catalog.Seat{Node: id, Role: catalog.Learner})
	}
	// Without a spare node a voter keeps its seat, whatever became of its node.
	for _, s := range lose {
		if s.Role == catalog.Voter && len(keep) < nVoters {
			keep = append(keep, s)
		}
	}
	return assign(keep, rank, nVoters, n)
}

// size is how many voters and how many seats a group shall have that has that
// many voters, where that many nodes can hold it.
func size(now, nodes int) (v, seats int) {
	switch {
	case now >= voters:
		return now, now
	case nodes >= voters:
		return voters, voters
	}
	return now, max(now, min(nodes, now+1))
}

func holds(seats []catalog.Seat, node uint64) bool {
	return slices.ContainsFunc(seats, func(s catalog.Seat) bool { return s.Node == node })
}

// assign gives the voters' roles: those who vote go on, then the highest ranked.
// Learners beyond n seats go.
func assign(seats []catalog.Seat, rank []uint64, nVoters, n int) []catalog.Seat {
	slices.SortStableFunc(seats, func(a, b catalog.Seat) int {
		if a.Role != b.Role {
			return int(a.Role) - int(b.Role)
		}
		return slices.Index(rank, a.Node) - slices.Index(rank, b.Node)
	})
	seats = seats[:min(n, len(seats))]
	for i := range seats {
		seats[i].Role = catalog.Learner
		if i < nVoters {
			seats[i].Role = catalog.Voter
		}
	}
	return seats
}

// improve moves at most one seat: from a node above its bound to the best that
// has room, else from one that is not among the best to one that is.
func (p *planner) improve(seats []catalog.Seat, pin uint64, rank, spare []uint64) []catalog.Seat {
	spare = slices.DeleteFunc(spare, func(id uint64) bool { return p.over(id) >= 0 })
	for _, id := range slices.Backward(rank) {
		i := slices.IndexFunc(seats, func(s catalog.Seat) bool { return s.Node == id })
		if i < 0 || id == pin || len(spare) == 0 {
			continue
		}
		best := spare[0]
		tooMany := p.over(id) > 0
		better := slices.Index(rank, id) >= len(seats) && slices.Index(rank, best) < len(seats)
		if tooMany || better {
			seats[i].Node = best
			return seats
		}
	}
	return seats
}
