package main

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// leader finds a group where it is led.
func (p *process) leader(id uint64) (gateway.Group, error) {
	if g, ok := p.group(id); ok && g.Leading() {
		return local{g, p.elsewhere.Group(id), p}, nil
	}
	return p.elsewhere.Group(id), nil
}

// reader finds a replica to read from.
func (p *process) reader(id uint64) (gateway.Reader, error) {
	if g, ok := p.group(id); ok {
		if p.node.w.hook.staleRead {
			return staleReader{p, id}, nil
		}
		return local{g, p.elsewhere.Group(id), p}, nil
	}
	return p.elsewhere.Group(id), nil
}

// local is a group that is led here. Who waits for it goes on in an instant of
// his own; receivers wait as if they were on another node.
type local struct {
	*leader.Group
	remote *leader.Remote
	p      *process
}

func (l local) Propose(ctx context.Context, c queue.Command) (any, error) {
	defer l.p.takeTurn(ctx)
	return l.Group.Propose(ctx, c)
}

func (l local) Read(ctx context.Context, q *queue.Query, within time.Duration) (queue.Answer, message.Freshness, error) {
	defer l.p.takeTurn(ctx)
	a, f, err := l.Group.Read(ctx, q, within)
	if l.p.node.w.hook.hideAge {
		f.Age = 0
	}
	return a, f, err
}

func (l local) Wait(c *leader.Call) { l.remote.Wait(c) }

// caller asks other nodes for the rooms that know none; also this one.
type caller struct{ p *process }

func (c caller) Call(ctx context.Context, to uint64, request []byte, hurry <-chan struct{}) ([]byte, error) {
	b, err := c.p.call(ctx, to, request, hurry, func(ctx context.Context, q *process) ([]byte, error) {
		return q.service.Answer(ctx, request), nil
	})
	if err == nil && c.p.node.w.net.drops(request[0]) {
		return nil, errLost
	}
	return b, err
}

// holders lists the nodes that have a voter of a group, its leader alone if it is
// known.
func (p *process) holders(group uint64) (nodes []uint64) {
	if lead := p.leads(group); lead != 0 {
		return []uint64{lead}
	}
	v := p.view.Load()
	if v == nil { // as a node that joins was told
		for _, n := range p.node.w.nodes {
			if n.member.Load() && n != p.node {
				nodes = append(nodes, n.number)
			}
		}
		return nodes
	}
	if g, ok := v.Group(group); ok {
		for _, r := range g.Replicas {
			if r.Role == catalog.Voter {
				nodes = append(nodes, r.Node)
			}
		}
	}
	return nodes
}

// leads is the node that leads a group, as far as the replica here knows.
func (p *process) leads(group uint64) uint64 {
	g, ok := p.host.Group(group)
	if !ok {
		return 0
	}
	st := g.Status()
	switch {
	case st.Leader == 0:
		return 0
	case st.Leading:
		return p.node.number
	}
	return p.nodeOf(group, st.Leader)
}

// nodeOf is where a replica is; 0: not known.
func (p *process) nodeOf(group, id uint64) uint64 {
	p.mu.Lock()
	node := p.seen[place{group, id}]
	p.mu.Unlock()
	if v := p.places(); node == 0 && v != nil {
		if g, ok := v.Group(group); ok {
			for _, r := range g.Replicas {
				if r.ID == id {
					return r.Node
				}
			}
		}
	}
	return node
}

// places is the catalog by which replicas are found: before any can be trusted,
// the one that the replica here has.
func (p *process) places() *catalog.View {
	if v := p.view.Load(); v != nil {
		return v
	}
	if m := p.meta.Load(); m != nil {
		return m.Newest()
	}
	return nil
}

// saw notes where a replica wrote from.
func (p *process) saw(group, id, node uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[place{group, id}] = node
}

// ask tells of a group what its replica here knows or, without one, another's.
func (p *process) ask(ctx context.Context, id uint64) (replica.Status, bool) {
	if g, ok := p.host.Group(id); ok {
		return g.Status(), true
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := p.elsewhere.Group(id).Status(ctx)
	return st, err == nil
}
