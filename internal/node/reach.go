package node

import (
	"context"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
	"github.com/comanda-mq/comanda/internal/replica"
)

// leads finds a group where it is led: here, or at the node that is thought to.
func (n *Node) leads(id uint64) (gateway.Group, error) {
	if g, ok := n.dataGroup(id); ok && g.Leading() {
		return g, nil
	}
	return n.elsewhere.Group(id), nil
}

// reads finds a replica to read from: the one here, if there is one.
func (n *Node) reads(id uint64) (gateway.Reader, error) {
	if g, ok := n.dataGroup(id); ok {
		return g, nil
	}
	return n.elsewhere.Group(id), nil
}

// others lists the other nodes that have a replica of a group, its leader first.
func (n *Node) others(group uint64) []uint64 {
	v := n.view.Load()
	if v == nil {
		return nil
	}
	g, ok := v.Group(group)
	if !ok {
		return nil
	}
	lead := n.leaderNode(group)
	var nodes []uint64
	if lead != 0 && lead != n.id {
		return []uint64{lead}
	}
	for _, r := range g.Replicas {
		if r.Node != n.id && r.Role == catalog.Voter {
			nodes = append(nodes, r.Node)
		}
	}
	return nodes
}

// leaderNode is the node that leads a group, as far as the replica here knows;
// 0: not known.
func (n *Node) leaderNode(group uint64) uint64 {
	st, ok := n.status(group)
	if !ok || st.Leader == 0 {
		return 0
	}
	if st.Leading {
		return n.id
	}
	return n.transport.nodeOf(group, st.Leader)
}

// askWithin is how long another node may take to tell of a group.
const askWithin = time.Second

// ask tells of a group what its replica here knows or, without one, another's.
func (n *Node) ask(ctx context.Context, group uint64) (replica.Status, bool) {
	if st, ok := n.status(group); ok {
		return st, true
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	st, err := n.elsewhere.Group(group).Status(ctx)
	return st, err == nil
}

// change proposes a change of the catalog to its leader, once.
func (n *Node) change(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	if m := n.meta.Load(); m != nil {
		r, err := m.Propose(ctx, c)
		if message.CodeOf(err) != message.NotLeader {
			return r, err
		}
	}
	return n.elsewhere.Group(catalog.MetaGroup).Catalog(ctx, c)
}

// admitSend refuses sends while disk or memory is short, and while the cluster is
// not yet what its founders said it would be.
func (n *Node) admitSend() error {
	if v := n.view.Load(); v != nil && v.Cluster.Founding > 0 {
		return message.Errorf(message.Unavailable, "the cluster is being founded: sends are taken once each group has %d voters, see 'comanda doctor'; nothing was stored: try again", v.Cluster.Founding)
	}
	return n.resources.admit()
}

// refreshHere is how long the replica here may take to bring the catalog up to date
// before another node is asked.
const refreshHere = time.Second

// refresh brings the catalog here up to what was confirmed before the call.
func (n *Node) refresh(ctx context.Context) error {
	here, cancel := context.WithTimeout(ctx, refreshHere)
	defer cancel()
	err := n.refreshOwn(here)
	if err == nil || len(n.others(catalog.MetaGroup)) == 0 && n.view.Load() != nil {
		return err
	}
	return n.watchOnce(ctx, true)
}

// refreshOwn is refresh by the replica here alone.
func (n *Node) refreshOwn(ctx context.Context) error {
	g, m, ok := n.catalogHere()
	if !ok {
		return message.Errorf(message.Unavailable, "no replica of the catalog here hears from its leader")
	}
	if err := g.ReadIndex(ctx); err != nil {
		return err
	}
	if !m.Trusted() {
		m.Trust()
	}
	return nil // what the replica has applied by now was learned
}

// catalogHere is the replica of the catalog here, if it has something and hears what
// is new.
func (n *Node) catalogHere() (*replica.Group, *leader.Meta, bool) {
	g, ok := n.host.Group(catalog.MetaGroup)
	m := n.meta.Load()
	if !ok || m == nil {
		return nil, nil, false
	}
	return g, m, hears(g.Status())
}

// hears says whether a replica hears what is new in its group. One that was taken
// out either does not learn of it, and loses its leader, or it does, and then keeps
// the leader that it had.
func hears(st replica.Status) bool {
	members := slices.Concat(st.Voters, st.VotersOutgoing, st.Learners)
	return st.Leader != 0 && slices.Contains(members, st.Replica)
}

// stepMembers brings the configurations and the leaders of the groups that are
// led here nearer to what is wanted.
func (n *Node) stepMembers(ctx context.Context) {
	v := n.view.Load()
	prefer := placement.Leaders(v)
	for _, g := range n.host.Groups() {
		if !g.Leading() {
			continue
		}
		m := n.membersOf(g)
		n.beside.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, stepWithin)
			defer cancel()
			if err := m.Step(ctx, v, prefer[g.ID()], n.config.Clock.Now()); err != nil && ctx.Err() == nil {
				n.config.Logger.DebugContext(ctx, "a group's configuration is not yet what is wanted", "group", g.ID(), "error", err)
			}
		})
	}
}

// handOver lets other nodes lead what is led here, because this one stops. What
// they do not take within a moment they elect a leader for when it has gone.
func (n *Node) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOverWithin)
	defer cancel()
	for _, g := range n.host.Groups() {
		if len(g.Status().Voters) > 1 {
			n.membersOf(g).HandOver()
		}
	}
	for _, g := range n.host.Groups() {
		for g.Leading() && len(g.Status().Voters) > 1 {
			if n.pause(ctx, retryRefresh) != nil {
				return
			}
		}
	}
}

// handOverWithin is how long a node that stops waits for others to lead.
const handOverWithin = 2 * time.Second

func (n *Node) membersOf(g *replica.Group) *leader.Members {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.membersBy[g.ID()]
	if m == nil || !m.Of(g) { // a snapshot has made it anew
		m = leader.NewMembers(g, n.change)
		n.membersBy[g.ID()] = m
	}
	return m
}

// heard asks the leader of the catalog when sessions were heard.
func (n *Node) heard(ctx context.Context, sessions []uint64) (map[uint64]liveness.Heard, error) {
	if m := n.meta.Load(); m != nil {
		heard, err := m.Heard(ctx, sessions)
		if message.CodeOf(err) != message.NotLeader {
			return heard, err
		}
	}
	return n.elsewhere.Group(catalog.MetaGroup).Heard(ctx, sessions)
}

// beat carries what the gateway has heard from its workers to the leader of the
// catalog, with this node's own beat.
func (n *Node) beat(ctx context.Context, reports []liveness.Report) ([]liveness.Report, error) {
	b := liveness.Bundle{Node: n.id, Boot: n.boot, Wall: n.config.Clock.Wall().UnixMilli(), Reports: reports}
	if m := n.meta.Load(); m != nil {
		heard, err := m.Beat(ctx, b)
		if message.CodeOf(err) != message.NotLeader {
			return heard, err
		}
	}
	return n.elsewhere.Group(catalog.MetaGroup).Beat(ctx, b)
}
