package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/peer"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/replica"
)

const (
	// watchFor is how long a question for a newer catalog waits at the other node.
	watchFor = 2 * time.Second
	// stepEvery is how many ticks lie between two looks at configurations.
	stepEvery = 4
	// stepWithin is how long one step of a group's configuration may take.
	stepWithin = 10 * time.Second
)

// meet begins to talk to the other nodes.
func (n *Node) meet(ctx context.Context) error {
	cluster, _ := n.membership.self()
	l, err := n.listenPeers(ctx)
	if err != nil {
		return err
	}
	peers := peer.New(peer.Options{
		Self:     peer.Identity{Cluster: cluster, Node: n.id, Boot: n.boot},
		Listener: l, Dial: n.config.Dial, Address: n.address, Admit: n.admit, Handler: answers{n},
		Clock: n.config.Clock, Logger: n.config.Logger,
	})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.part = stop
	n.beside.Go(func() {
		if err := peers.Run(running); err != nil {
			n.config.Logger.ErrorContext(running, "other nodes can't reach this one any more", "error", err)
		}
	})
	n.transport.peers.Store(peers)
	return nil
}

// listenPeers listens for other nodes.
func (n *Node) listenPeers(ctx context.Context) (net.Listener, error) {
	l := n.config.ClusterListener
	if l == nil {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", n.config.ClusterListen); err != nil {
			return nil, fmt.Errorf("listen on %s for other nodes: %w; is another server running? give this one another --cluster-listen, or another --listen: without it the next port is taken", n.config.ClusterListen, err)
		}
	}
	if n.config.Advertise == "" {
		n.config.Advertise = l.Addr().String()
	}
	return l, nil
}

// address is where a node listens for others; there is no way to a removed one.
func (n *Node) address(node uint64) (string, bool) {
	if v := n.view.Load(); v != nil {
		if x, ok := v.Node(node); ok && x.State == catalog.Removed {
			return "", false
		} else if ok && x.Peer != "" {
			return x.Peer, true
		}
	}
	return n.membership.address(node)
}

// admit says whether this node talks to another process.
func (n *Node) admit(who peer.Identity) error {
	if who.Node == 0 {
		return nil // it wants to join
	}
	if err := n.removed(who.Node); err != nil {
		return err
	}
	return n.membership.admit(who)
}

// removed is the refusal of a node that the catalog has as removed; nil: it has
// not.
func (n *Node) removed(node uint64) error {
	if v := n.view.Load(); v != nil && v.Gone(node) {
		return message.Errorf(message.NodeRemoved, "node %d was removed from the cluster: it comes back as a new node, with an empty --data-dir", node)
	}
	return nil
}

// know waits until the catalog is known as it is now, however long the others
// take to come up.
func (n *Node) know(ctx context.Context) error {
	for began := n.config.Clock.Now(); ; {
		try, cancel := context.WithTimeout(ctx, joinCall)
		err := n.refresh(try)
		cancel()
		if err == nil {
			return nil
		}
		if err := n.outcast(ctx); err != nil {
			return err
		}
		if err := n.pause(ctx, retryRefresh); err != nil {
			return fmt.Errorf("the catalog can't be read: no majority of the nodes that hold it can be reached: %w", err)
		}
		if n.config.Clock.Now().Sub(began) > joinCall {
			began = n.config.Clock.Now()
			n.config.Logger.WarnContext(ctx, "waiting for the other nodes of the cluster", "error", err)
		}
	}
}

const retryRefresh = 10 * time.Millisecond

// changed proposes a change of the catalog until it is done or refused.
func (n *Node) changed(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	for {
		r, err := n.change(ctx, c)
		if code := message.CodeOf(err); code != message.NotLeader && code != message.UnknownOutcome {
			return r, err
		}
		if err := n.pause(ctx, retryRefresh); err != nil {
			return r, err
		}
	}
}

// keepReplicas makes the replicas that the catalog wants here and destroys those
// that it has forgotten, each time that it has changed.
func (n *Node) keepReplicas(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.news:
		}
		if err := n.reconcile(); err != nil && ctx.Err() == nil {
			n.config.Logger.ErrorContext(ctx, "the replicas here are not what the catalog wants", "error", err)
		}
	}
}

// reconcile compares the replicas here with the catalog.
func (n *Node) reconcile() error {
	v := n.view.Load()
	addresses := map[uint64]string{}
	for _, x := range v.Nodes() {
		if x.Peer != "" && x.State != catalog.Removed {
			addresses[x.ID] = x.Peer
		}
	}
	errs := errors.Join(n.membership.note(addresses), n.membership.forget(v))
	for _, g := range v.Groups() {
		want, wanted := g.On(n.id)
		here, is := n.host.Group(g.ID)
		if is && (!wanted || want.ID > here.Replica()) {
			err := n.destroy(here, g.MinNext(n.id))
			errs, is = errors.Join(errs, err), err != nil
		}
		// Also where one was just destroyed: perhaps nothing changes any more until
		// this one is there.
		if wanted && !is && want.Role != catalog.Leaving {
			errs = errors.Join(errs, n.create(g, want))
		}
	}
	for _, here := range n.host.Groups() {
		// The catalog has given this number and has it no more: nothing is in there.
		if _, ok := v.Group(here.ID()); !ok && here.ID() < v.Cluster.NextGroup {
			errs = errors.Join(errs, n.destroy(here, 0))
		}
	}
	return errs
}

// create makes a replica. The first of a group of the founding, which nobody ever
// led, is its first member; any other begins empty, and gets all from the group's
// leader or, when the group is spun off another one, from the replica of that here.
func (n *Node) create(g *catalog.Group, r catalog.Replica) error {
	if r.ID == 1 && g.Origin == nil && g.Confirmed.Index == 0 {
		return n.createFirst(g.ID, r.ID)
	}
	x := replica.NewReplica{Group: g.ID, Replica: r.ID, Conf: &raftpb.ConfState{}}
	if g.Unborn() {
		x.Patience = spinOffTicks
	}
	_, err := n.host.Create(x)
	return err
}

// spinOffTicks is how long an empty replica of a group that is about to be spun
// off takes nothing from other nodes: longer than it takes to come about here.
const spinOffTicks = 50

// mayBeLed says that somebody can lead a group that has a replica here.
func (n *Node) mayBeLed(group uint64) bool {
	g, ok := n.view.Load().Group(group)
	return !ok || !g.Unborn()
}

func (n *Node) createFirst(group, id uint64) error {
	_, err := n.host.Create(replica.NewReplica{
		Group: group, Replica: id, Base: raftlog.Position{Index: 1, Term: 1}, Conf: &raftpb.ConfState{Voters: []uint64{id}},
	})
	return err
}

// destroy ends a replica here; the next one has the id minNext or a higher one.
func (n *Node) destroy(r *replica.Group, minNext uint64) error {
	n.mu.Lock()
	delete(n.group, r.ID())
	delete(n.membersBy, r.ID())
	n.mu.Unlock()
	if r.ID() == catalog.MetaGroup {
		n.meta.Store(nil)
	}
	return n.host.Destroy(r.ID(), max(minNext, r.Replica()+1))
}

// watch follows the catalog while there is no replica of it here.
func (n *Node) watch(ctx context.Context) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, watchFor+joinCall)
		err := n.watchNext(call)
		cancel()
		if err != nil && n.pause(ctx, joinEvery) != nil {
			return
		}
	}
}

// watchNext returns when there may be a newer catalog, and it was learned.
func (n *Node) watchNext(ctx context.Context) error {
	_, m, ok := n.catalogHere()
	switch {
	case !ok:
		return n.watchOnce(ctx, false)
	case m.Trusted():
		return n.pause(ctx, watchFor) // the replica brings it
	default:
		return n.refresh(ctx) // a snapshot has made the replica anew
	}
}

// watchOnce asks another node for a newer catalog: for what was confirmed by now,
// or for whatever comes next.
func (n *Node) watchOnce(ctx context.Context, fresh bool) error {
	err, asked := error(message.Errorf(message.Unavailable, "no node is known that holds the catalog")), n.config.Clock.Now()
	for _, node := range n.catalogNodes() {
		var newer *catalog.View
		var changes []catalog.Change
		newer, changes, err = follow(n.view.Load(), func(version uint64) ([]byte, error) {
			return n.updateOf(ctx, node, watchRequest{Version: version, Fresh: fresh})
		})
		if newer != nil {
			n.learn(newer, changes)
		}
		if err == nil {
			if fresh {
				n.copied.Store(&asked)
			}
			return nil
		}
	}
	return err
}

// updateOf asks a node for what is newer; it has nothing by now if that is nil.
func (n *Node) updateOf(ctx context.Context, node uint64, w watchRequest) ([]byte, error) {
	b, err := (caller{n.transport}).Call(ctx, node, encodeNode(nodeRequest{Watch: &w}), nil)
	if err != nil {
		return nil, err
	}
	a, err := decodeNodeAnswer(b)
	if err != nil || len(a.Update) == 0 {
		return nil, err
	}
	return unpackUpdate(a.Update)
}

// catalogNodes are the nodes that may have the catalog.
func (n *Node) catalogNodes() (nodes []uint64) {
	if v := n.view.Load(); v != nil {
		return n.others(catalog.MetaGroup)
	}
	return n.membership.nodes()
}

// What a node asks another as a node.
const askNode = 0

type nodeRequest struct {
	Join *catalog.Node `json:"join,omitempty"`
	// Assemble are the members that are to found a cluster, as who asks knows them.
	Assemble []string      `json:"assemble,omitempty"`
	Watch    *watchRequest `json:"watch,omitempty"`
	Hello    bool          `json:"hello,omitempty"` // nothing: the handshake was the question
	// Behind asks for the replicas that do not keep up with groups that are led there.
	Behind bool `json:"behind,omitempty"`
}

type watchRequest struct {
	Version uint64 `json:"version"`
	Fresh   bool   `json:"fresh"` // up to what was confirmed by now; else the next change
}

type nodeAnswer struct {
	Node   *catalog.Node `json:"node,omitempty"`
	Update []byte        `json:"update,omitempty"` // packed
	Behind []behind      `json:"behind,omitempty"`
}

func encodeNode(r nodeRequest) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // our own structs always encode
	}
	return append([]byte{askNode}, b...)
}

func decodeNodeAnswer(b []byte) (a nodeAnswer, err error) {
	if json.Unmarshal(b, &a) != nil {
		return a, errRequest
	}
	return a, nil
}

// answerNode answers what a node asks as a node.
func (n *Node) answerNode(ctx context.Context, from uint64, request []byte) ([]byte, error) {
	var r nodeRequest
	if err := json.Unmarshal(request, &r); err != nil {
		return nil, errRequest
	}
	var a nodeAnswer
	var err error
	switch {
	case r.Join != nil:
		a, err = n.letIn(ctx, *r.Join)
	case r.Assemble != nil:
		err = n.sameMembers(r.Assemble)
	case from == 0:
		err = errStranger
	case r.Watch != nil:
		a, err = n.tell(ctx, *r.Watch)
	case r.Hello:
	case r.Behind:
		a.Behind = n.behindHere()
	default:
		err = errRequest
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

func (n *Node) letIn(ctx context.Context, x catalog.Node) (a nodeAnswer, err error) {
	if n.view.Load() == nil {
		return a, message.Errorf(message.Unavailable, "this node is not ready itself")
	}
	r, err := n.change(ctx, catalog.Command{AddNode: &catalog.AddNode{Node: x}})
	if err == nil && r.Err != nil {
		err = r.Err
	}
	a.Node = r.Node
	return a, err
}

// tell gives the catalog to a node that has an older one.
func (n *Node) tell(ctx context.Context, w watchRequest) (a nodeAnswer, err error) {
	if w.Fresh {
		if err := n.refreshOwn(ctx); err != nil { // who asks goes on to the next node by itself
			return a, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, watchFor)
	defer cancel()
	for {
		changed := n.changedSignal()
		v := n.view.Load()
		if v == nil {
			return a, message.Errorf(message.Unavailable, "this node is not ready itself")
		}
		if v.Version > w.Version || w.Fresh {
			a.Update = packUpdate(v.Since(w.Version))
			return a, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return a, nil
		}
	}
}
