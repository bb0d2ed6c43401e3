package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// Server tells of this server, and of the groups of its cluster.
func (g *Gateway) Server(ctx context.Context) (message.ServerInfo, error) {
	if err := g.authorize(ctx, auth.Observe, ""); err != nil {
		return message.ServerInfo{}, err
	}
	info := g.o.Server()
	v := g.newest.Load()
	info.ClusterID, info.Node = v.Cluster.ID, g.o.Node
	for _, group := range v.Groups() {
		if group.Unborn() {
			continue // nobody is to lead it yet
		}
		leading, _ := g.members(ctx, group.ID)
		gi := message.GroupInfo{
			Group: group.ID, Leader: leading, WantedVoters: group.Voters(), AliveVoters: aliveVoters(v, group, group.Confirmed.Voters),
			Voters: len(group.Confirmed.Voters), Learners: len(group.Confirmed.Learners),
		}
		if st, ok := g.o.Status(ctx, group.ID); ok {
			gi.Term, gi.Applied, gi.Voters, gi.Learners = st.Term, st.Applied, len(st.Voters), len(st.Learners)
			gi.AliveVoters = aliveVoters(v, group, st.Voters)
			if len(st.VotersOutgoing) > 0 { // both have to agree until the change has ended
				gi.AliveVoters = min(gi.AliveVoters, aliveVoters(v, group, st.VotersOutgoing))
			}
		}
		info.Voters = gi.Voters
		info.Groups = append(info.Groups, gi)
	}
	return info, nil
}

// aliveVoters counts the replicas among those that vote now that are on nodes that
// are alive. One that is to take the place of another votes only after it has caught
// up. What the catalog has confirmed is older than what a replica here knows, and
// empty until the group's first leader has reported.
func aliveVoters(v *catalog.View, group *catalog.Group, voters []uint64) (alive int) {
	for _, r := range group.Replicas {
		if n, ok := v.Node(r.Node); ok && slices.Contains(voters, r.ID) && n.State == catalog.Alive {
			alive++
		}
	}
	return alive
}

// members names the nodes of a group: who leads it, and who follows.
func (g *Gateway) members(ctx context.Context, id uint64) (leading string, followers []string) {
	v := g.newest.Load()
	group, ok := v.Group(id)
	if !ok {
		return "", nil
	}
	st, _ := g.o.Status(ctx, id)
	for _, r := range group.Replicas {
		n, ok := v.Node(r.Node)
		switch {
		case !ok:
		case r.ID == st.Leader:
			leading = n.Name
		default:
			followers = append(followers, n.Name)
		}
	}
	return leading, followers
}

// freshWithin is how long a list of nodes waits for the newest catalog.
const freshWithin = 3 * time.Second

// Nodes lists the nodes that are not removed, by id. A node that is cut off from
// the others lists what it knew last.
func (g *Gateway) Nodes(ctx context.Context) ([]message.NodeInfo, error) {
	if err := g.authorize(ctx, auth.Observe, ""); err != nil {
		return nil, err
	}
	nodes := g.nodes(ctx)
	behind := g.o.Behind(ctx)
	for i := range nodes {
		nodes[i].Behind = behind[nodes[i].ID]
	}
	return nodes, nil
}

func (g *Gateway) nodes(ctx context.Context) (out []message.NodeInfo) {
	fresh, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	_ = g.o.Refresh(fresh)
	v := g.newest.Load()
	at := map[uint64]int{}
	for _, n := range v.Nodes() {
		if n.State != catalog.Removed {
			at[n.ID] = len(out)
			out = append(out, nodeInfo(n))
		}
	}
	for _, group := range v.Groups() {
		if group.Unborn() {
			continue // its replicas are still empty
		}
		st, _ := g.o.Status(ctx, group.ID)
		for _, r := range group.Replicas {
			i, ok := at[r.Node]
			if !ok {
				continue
			}
			out[i].Replicas++
			if r.ID == st.Leader {
				out[i].Leads++
			}
		}
	}
	return out
}

func nodeInfo(n *catalog.Node) message.NodeInfo {
	return message.NodeInfo{
		ID: n.ID, Name: n.Name, State: n.State.String(), Draining: n.Draining, ClockOff: n.ClockOff, Boot: n.Boot >> catalog.BootBits,
		Labels: n.Labels, Listen: n.Listen, Advertise: n.Peer, Version: n.Version,
	}
}

// node finds a node by its name, in the catalog as it is now. Of those that had the
// name it is the last: the others were removed.
func (g *Gateway) node(ctx context.Context, name string) (*catalog.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	if err := g.o.Refresh(ctx); err != nil {
		return nil, err
	}
	for _, n := range slices.Backward(g.newest.Load().Nodes()) {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, message.Errorf(message.NotFound, "there is no node %.100q in this cluster: see 'comanda node list'", name)
}

// DrainNode asks that a node holds nothing, or takes that back. The replicas and
// the leaders that it has move to others meanwhile; Nodes tells how far that is.
func (g *Gateway) DrainNode(ctx context.Context, name string, undo bool) (message.NodeInfo, error) {
	if err := g.authorize(ctx, auth.Manage, ""); err != nil {
		return message.NodeInfo{}, err
	}
	n, err := g.node(ctx, name)
	if err != nil {
		return message.NodeInfo{}, err
	}
	r, err := g.propagate(ctx, catalog.Command{DrainNode: &catalog.DrainNode{ID: n.ID, Draining: !undo}})
	if err != nil {
		return message.NodeInfo{}, err
	}
	info := nodeInfo(r.Node)
	for _, now := range g.nodes(ctx) {
		if now.ID == n.ID {
			info.Leads, info.Replicas = now.Leads, now.Replicas
		}
	}
	return info, nil
}

// RemoveNode takes a node out of the cluster for good; a repeat is fine. With acceptOneDisk the
// groups that have no other node for its voter go on with one voter; without, its
// seat there stays empty until another node joins.
func (g *Gateway) RemoveNode(ctx context.Context, name string, acceptOneDisk bool) error {
	if err := g.authorize(ctx, auth.Manage, ""); err != nil {
		return err
	}
	n, err := g.node(ctx, name)
	if err != nil {
		return err
	}
	if _, err := g.propagate(ctx, catalog.Command{SetNodeState: &catalog.SetNodeState{ID: n.ID, State: catalog.Removed}}); err != nil {
		return err
	}
	if !acceptOneDisk {
		return nil
	}
	if err := g.o.Refresh(ctx); err != nil {
		return err
	}
	v := g.newest.Load()
	for _, group := range v.Groups() {
		st, _ := g.o.Status(ctx, group.ID)
		want, fewer := oneVoter(v, group, st.Leader)
		if !fewer {
			continue
		}
		c := catalog.SetReplicas{Group: group.ID, Epoch: group.Epoch, Want: want, AcceptOneDisk: true}
		if _, err := g.propagate(ctx, catalog.Command{SetReplicas: &c}); err != nil {
			return err
		}
	}
	return nil
}

// oneVoter are the seats of a group that has a voter on a removed node and no
// node to replace it: the voter that leads, or else the first on a node that is
// alive, goes on alone, and the others copy.
func oneVoter(v *catalog.View, group *catalog.Group, leader uint64) (want []catalog.Seat, fewer bool) {
	able := 0
	for _, n := range v.Nodes() {
		if n.Holds() {
			able++
		}
	}
	lost, best := false, -1
	for _, r := range group.Replicas {
		n, ok := v.Node(r.Node)
		switch {
		case r.Role == catalog.Leaving:
		case !ok || n.State == catalog.Removed:
			lost = lost || r.Role == catalog.Voter
		default:
			want = append(want, catalog.Seat{Node: r.Node, Role: catalog.Learner})
			if r.Role == catalog.Voter && slices.Contains(group.Confirmed.Voters, r.ID) &&
				(best < 0 || r.ID == leader) && n.State == catalog.Alive {
				best = len(want) - 1
			}
		}
	}
	if !lost || best < 0 || able >= group.Voters() {
		return nil, false
	}
	want[best].Role = catalog.Voter
	return want, true
}
