package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/peer"
)

const (
	// joinEvery is the pause between two attempts to reach a cluster.
	joinEvery = 250 * time.Millisecond
	// joinCall is how long one attempt may take.
	joinCall = 5 * time.Second
)

// enter makes this process a node of a cluster: of the one that its directory
// belongs to, of the one that it is told to join, of one that the initial members
// found together, or of a new one of its own.
func (n *Node) enter(ctx context.Context) error {
	_, id := n.membership.self()
	switch {
	case id != 0:
		n.id = id
	case len(n.config.Join) > 0:
		if err := n.join(ctx); err != nil {
			return err
		}
	case len(n.config.InitialMembers) > 0:
		if err := n.assemble(ctx); err != nil {
			return err
		}
	default:
		if err := n.found(ctx); err != nil {
			return err
		}
	}
	if err := n.meet(ctx); err != nil {
		return err
	}
	if err := n.know(ctx); err != nil {
		return err
	}
	r, err := n.changed(ctx, catalog.Command{SetNode: &catalog.SetNode{Node: n.describe()}})
	if err != nil {
		return fmt.Errorf("enter the node into the catalog: %w", err)
	}
	if r.Err != nil {
		return r.Err
	}
	return nil
}

// describe is what a node says of itself.
func (n *Node) describe() catalog.Node {
	c := n.config
	return catalog.Node{
		ID: n.id, Name: c.NodeName, Listen: c.Listen, Peer: c.Advertise, StoreID: n.dir.StoreID,
		Boot: n.boot, Labels: c.Labels, Version: c.Version,
	}
}

// found founds a cluster of one. After a crash in the middle it goes on.
func (n *Node) found(ctx context.Context) error {
	n.id = 1
	if _, ok := n.host.Group(catalog.MetaGroup); !ok {
		if err := n.createFirst(catalog.MetaGroup, 1); err != nil {
			return err
		}
	}
	r, err := n.changed(ctx, catalog.Command{Found: &catalog.Found{
		ClusterID: newID(), Secret: newSecret(), Node: n.describe(), Groups: dataGroups, Voters: len(n.config.InitialMembers),
	}})
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	if r.Err != nil {
		return r.Err
	}
	meta, _ := n.host.Group(catalog.MetaGroup)
	if err := meta.ReadIndex(ctx); err != nil {
		return err
	}
	return n.membership.become(n.view.Load().Cluster.ID, n.id)
}

// visit talks to other processes while this one is of no cluster, and answers them
// at l (nil: it does not), which is closed in the end.
func (n *Node) visit(ctx context.Context, l net.Listener, talk func(*peer.Peers) error) error {
	guest := peer.New(peer.Options{
		Self: peer.Identity{Boot: n.boot}, Listener: l, Dial: n.config.Dial, Clock: n.config.Clock, Logger: n.config.Logger,
		Address: func(uint64) (string, bool) { return "", false },
		Admit:   func(peer.Identity) error { return nil },
		Handler: answers{n},
	})
	running, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := guest.Run(running); err != nil {
			n.config.Logger.ErrorContext(ctx, "other nodes can't reach this one any more", "error", err)
		}
	})
	defer serving.Wait()
	defer stop()
	return talk(guest)
}

// join asks the nodes that it was told of, one after the other, until one lets
// it in.
func (n *Node) join(ctx context.Context) error {
	return n.visit(ctx, nil, func(guest *peer.Peers) error { return n.joinAt(ctx, guest, n.config.Join) })
}

func (n *Node) joinAt(ctx context.Context, guest *peer.Peers, addrs []string) error {
	request := encodeNode(nodeRequest{Join: new(n.describe())})
	var said nag
	for {
		var last error
		for _, addr := range addrs {
			call, cancel := context.WithTimeout(ctx, joinCall)
			b, who, err := guest.CallAddress(call, addr, request)
			cancel()
			var a nodeAnswer
			if err == nil {
				a, err = decodeNodeAnswer(b)
			}
			if err == nil && a.Node == nil {
				err = errRequest
			}
			if err == nil {
				n.id = a.Node.ID
				n.seed(who, addr)
				return n.membership.become(who.Cluster, n.id)
			}
			last = fmt.Errorf("%s: %w", addr, err)
			if !passing(err) {
				return fmt.Errorf("join the cluster at %w", last)
			}
		}
		if said.due(n.config.Clock.Now(), last) {
			n.config.Logger.WarnContext(ctx, "no node of the cluster lets this one in yet; trying again", "error", last)
		}
		if err := n.pause(ctx, joinEvery); err != nil {
			return fmt.Errorf("join the cluster at %w; this server was stopped meanwhile: %w", last, err)
		}
	}
}

// nag decides when to say again why something does not succeed: at once when it is
// something else, the same only now and then.
type nag struct {
	words string
	at    time.Time
	pause time.Duration
}

const (
	nagFirst = 5 * time.Second
	nagMost  = time.Minute
)

func (g *nag) due(now time.Time, why error) bool {
	switch words := why.Error(); {
	case words != g.words:
		g.words, g.pause = words, nagFirst
	case now.Sub(g.at) < g.pause:
		return false
	default:
		g.pause = min(2*g.pause, nagMost)
	}
	g.at = now
	return true
}

// passing says that a node may answer otherwise a moment later.
func passing(err error) bool {
	code := message.CodeOf(err)
	return code == message.Unavailable || code == message.UnknownOutcome || code == message.NotLeader
}

// seed remembers where the node is that let this one in: the catalog is asked
// for there first.
func (n *Node) seed(who peer.Identity, addr string) {
	if err := n.membership.note(map[uint64]string{who.Node: addr}); err != nil {
		n.config.Logger.Warn("the address of a node can't be kept", "error", err)
	}
}

// assemble founds a cluster with the other initial members: the first of them by
// address does, once each of the others has said that it is of no cluster; the
// others join it. A member that is of a cluster already is joined: so there is
// never a second one.
func (n *Node) assemble(ctx context.Context) error {
	first := slices.Min(n.config.InitialMembers) == n.config.Advertise
	if _, begun := n.host.Group(catalog.MetaGroup); begun && first {
		return n.found(ctx) // it was all asked before a crash
	} else if begun {
		return message.Errorf(message.Conflict, "the data directory %s began to found a cluster of its own: give this server an empty --data-dir, or leave out --initial-members", n.config.DataDir)
	}
	l, err := n.listenPeers(ctx)
	if err != nil {
		return err
	}
	found := false
	others := slices.DeleteFunc(slices.Clone(n.config.InitialMembers), func(addr string) bool { return addr == n.config.Advertise })
	err = n.visit(ctx, l, func(guest *peer.Peers) (err error) {
		if first {
			if found, err = n.gather(ctx, guest, others); err != nil || found {
				return err
			}
		}
		return n.joinAt(ctx, guest, others)
	})
	if err == nil && found {
		err = n.found(ctx)
	}
	return err
}

// gather asks the other initial members until all of them are of no cluster, or one
// is of one. alone: there is no cluster.
func (n *Node) gather(ctx context.Context, guest *peer.Peers, others []string) (alone bool, err error) {
	request := encodeNode(nodeRequest{Assemble: n.config.InitialMembers})
	var said nag
	for {
		var absent error
		for _, addr := range others {
			call, cancel := context.WithTimeout(ctx, joinCall)
			_, who, err := guest.CallAddress(call, addr, request)
			cancel()
			switch {
			case who.Cluster != "":
				return false, nil
			case err != nil && !passing(err):
				return false, fmt.Errorf("found a cluster with %s: %w", addr, err)
			case err != nil:
				absent = fmt.Errorf("%s: %w", addr, err)
			}
		}
		if absent == nil {
			return true, nil
		}
		if said.due(n.config.Clock.Now(), absent) {
			n.config.Logger.WarnContext(ctx, "not all initial members are there yet; trying again", "error", absent)
		}
		if err := n.pause(ctx, joinEvery); err != nil {
			return false, fmt.Errorf("wait for the initial member %w; this server was stopped meanwhile: %w", absent, err)
		}
	}
}

// sameMembers answers one who is about to found a cluster with this node.
func (n *Node) sameMembers(members []string) error {
	mine := n.config.InitialMembers
	if len(mine) != len(members) || slices.ContainsFunc(members, func(m string) bool { return !slices.Contains(mine, m) }) {
		return message.Errorf(message.Conflict, "the node at %s has the initial members %v, not %v: give all of them the same --initial-members", n.config.Advertise, mine, members)
	}
	return nil
}
