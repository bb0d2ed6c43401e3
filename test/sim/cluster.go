package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/replica"
)

// What a process does to be a node of the cluster, as internal/node does it: that
// room has real listeners and a directory, and can't be stepped.

const (
	watchFor    = 2 * time.Second
	refreshHere = time.Second
	callWithin  = 5 * time.Second
	stepWithin  = 10 * time.Second
	pauseFor    = 10 * time.Millisecond
	dataGroups  = 2
	// spinOffTicks is how long an empty replica of a group that is about to be spun
	// off takes nothing from other nodes.
	spinOffTicks = 50
)

// enter makes the process a node of the cluster, and begins what it does beside
// its groups.
func (p *process) enter(ctx context.Context) {
	n := p.node
	self := catalog.Node{ID: n.number, Name: n.name(), Peer: n.name(), StoreID: 1_000 + n.number, Boot: p.host.Boot() << catalog.BootBits}
	switch {
	case n.member.Load():
	case n.number == 1:
		n.w.after(0, func() { p.first(catalog.MetaGroup, 1) })
		p.changed(ctx, catalog.Command{Found: &catalog.Found{ClusterID: "sim", Secret: message.Secret{1}, Node: self, Groups: dataGroups}})
	default:
		r := p.changed(ctx, catalog.Command{AddNode: &catalog.AddNode{Node: self}})
		if p.ctx.Err() == nil && (r.Node == nil || r.Node.ID != n.number) {
			n.w.fail("node %d joins as %+v: %v", n.number, r.Node, r.Err)
		}
	}
	for {
		try, cancel := context.WithTimeout(ctx, callWithin)
		err := p.refresh(try)
		cancel()
		if err == nil || !p.pause(ctx, pauseFor) {
			break
		}
	}
	p.changed(ctx, catalog.Command{SetNode: &catalog.SetNode{Node: self}})
	if p.ctx.Err() != nil {
		return
	}
	n.member.Store(true)
	p.served.Store(true)
	n.w.note("node %d is a member", n.number)
	watch, beats := as(p.ctx, n.w.name(n.number, "watches")), as(p.ctx, n.w.name(n.number, "beats"))
	p.spawn(func() { p.watch(watch) })
	p.spawn(func() { p.gateway.Beats(beats, p.beat) })
	p.learn(p.view.Load(), nil)
}

// changed proposes a change of the catalog until it is done or refused.
func (p *process) changed(ctx context.Context, c catalog.Command) (r catalog.Result) {
	for {
		try, cancel := context.WithTimeout(ctx, callWithin)
		r, err := p.change(try, c)
		cancel()
		if err == nil || !p.pause(ctx, pauseFor) {
			return r
		}
	}
}

// change proposes a change of the catalog to its leader, once.
func (p *process) change(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	if m := p.meta.Load(); m != nil {
		r, err := m.Propose(ctx, c)
		p.takeTurn(ctx)
		if message.CodeOf(err) != message.NotLeader {
			return r, err
		}
	}
	return p.elsewhere.Group(catalog.MetaGroup).Catalog(ctx, c)
}

// refresh brings the catalog here up to what was confirmed before the call.
func (p *process) refresh(ctx context.Context) error {
	here, cancel := context.WithTimeout(ctx, refreshHere)
	defer cancel()
	if p.refreshOwn(here) == nil {
		return nil
	}
	return p.watchOnce(ctx, true)
}

// refreshOwn is refresh by the replica here alone.
func (p *process) refreshOwn(ctx context.Context) error {
	g, m, ok := p.catalogHere()
	if !ok {
		return errNotSent
	}
	err := g.ReadIndex(ctx)
	p.takeTurn(ctx)
	if err == nil && !m.Trusted() {
		m.Trust()
	}
	return err
}

// catalogHere is the replica of the catalog here, if it has something and hears from
// a leader.
func (p *process) catalogHere() (*replica.Group, *leader.Meta, bool) {
	g, ok := p.host.Group(catalog.MetaGroup)
	m := p.meta.Load()
	if !ok || m == nil {
		return nil, nil, false
	}
	st := g.Status()
	members := slices.Concat(st.Voters, st.VotersOutgoing, st.Learners)
	return g, m, st.Leader != 0 && slices.Contains(members, st.Replica)
}

func (p *process) beat(ctx context.Context, reports []liveness.Report) ([]liveness.Report, error) {
	b := liveness.Bundle{Node: p.node.number, Boot: p.host.Boot() << catalog.BootBits, Wall: nodeClock{p}.Wall().UnixMilli(), Reports: reports}
	if m := p.meta.Load(); m != nil {
		heard, err := m.Beat(ctx, b)
		p.takeTurn(ctx)
		if message.CodeOf(err) != message.NotLeader {
			return heard, err
		}
	}
	return p.elsewhere.Group(catalog.MetaGroup).Beat(ctx, b)
}

// learn passes a newer catalog on to all who follow it.
func (p *process) learn(v *catalog.View, changes []catalog.Change) {
	p.learning.Lock()
	defer p.learning.Unlock()
	if old := p.view.Load(); old != nil && old.Version > v.Version {
		if changes != nil {
			return
		}
		v = old
	}
	p.view.Store(v)
	p.gateway.Learn(v, changes)
	for _, g := range p.inOrder() {
		g.Learn(v, changes)
	}
	p.mu.Lock()
	close(p.changing)
	p.changing = make(chan struct{})
	p.mu.Unlock()
	p.node.w.after(0, p.reconcile)
}

func (p *process) changedSignal() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changing
}

// reconcile makes the replicas that the catalog wants here and destroys those
// that it has forgotten.
func (p *process) reconcile() {
	if p.dead.Load() || !p.served.Load() {
		return
	}
	v := p.view.Load()
	for _, g := range v.Groups() {
		if p.dead.Load() {
			return // the power was cut
		}
		want, ok := g.On(p.node.number)
		here, is := p.host.Group(g.ID)
		if is && (!ok || want.ID > here.Replica()) {
			p.destroy(here, g.MinNext(p.node.number))
			is = p.dead.Load()
		}
		if ok && !is && want.Role != catalog.Leaving {
			p.create(g, want)
		}
	}
	for _, here := range p.host.Groups() {
		if _, ok := v.Group(here.ID()); !ok && here.ID() < v.Cluster.NextGroup && !p.dead.Load() {
			p.destroy(here, 0) // the catalog has it no more
		}
	}
}

func (p *process) create(g *catalog.Group, r catalog.Replica) {
	if r.ID == 1 && g.Origin == nil && g.Confirmed.Index == 0 {
		p.first(g.ID, r.ID)
		return
	}
	x := replica.NewReplica{Group: g.ID, Replica: r.ID, Conf: &raftpb.ConfState{}}
	if g.Unborn() {
		x.Patience = spinOffTicks
	}
	_, err := p.host.Create(x)
	p.did(err, "node %d creates replica %d of group %d", p.node.number, r.ID, g.ID)
}

func (p *process) first(group, id uint64) {
	_, err := p.host.Create(replica.NewReplica{
		Group: group, Replica: id, Base: raftlog.Position{Index: 1, Term: 1}, Conf: &raftpb.ConfState{Voters: []uint64{id}},
	})
	p.did(err, "node %d founds group %d", p.node.number, group)
}

func (p *process) destroy(r *replica.Group, minNext uint64) {
	p.mu.Lock()
	delete(p.groups, r.ID())
	delete(p.members, r.ID())
	p.mu.Unlock()
	if r.ID() == catalog.MetaGroup {
		p.meta.Store(nil)
	}
	err := p.host.Destroy(r.ID(), max(minNext, r.Replica()+1))
	p.did(err, "node %d destroys replica %d of group %d", p.node.number, r.Replica(), r.ID())
}

// did notes what a process did.
func (p *process) did(err error, format string, args ...any) {
	p.node.w.note(format, args...)
	if err != nil && !p.dead.Load() {
		p.node.w.log.Warn("a replica could not be made or destroyed", "node", p.node.number, "error", err)
	}
}

// watch follows the catalog while there is no replica of it here.
func (p *process) watch(ctx context.Context) {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, watchFor+callWithin)
		err := p.watchNext(try)
		cancel()
		if err != nil {
			p.pause(ctx, 250*time.Millisecond)
		}
	}
}

func (p *process) watchNext(ctx context.Context) error {
	_, m, ok := p.catalogHere()
	switch {
	case !ok:
		return p.watchOnce(ctx, false)
	case m.Trusted():
		p.pause(ctx, watchFor)
		return nil
	default:
		return p.refresh(ctx)
	}
}

// watchOnce asks another node for a newer catalog.
func (p *process) watchOnce(ctx context.Context, fresh bool) (err error) {
	old := p.view.Load()
	var version uint64
	if old != nil {
		version = old.Version
	}
	for _, node := range p.holders(catalog.MetaGroup) {
		if node == p.node.number {
			continue
		}
		var update []byte
		update, err = p.call(ctx, node, fmt.Append(nil, version, fresh), nil, func(ctx context.Context, q *process) ([]byte, error) { return q.tell(ctx, version, fresh) })
		if err != nil {
			continue
		}
		if len(update) == 0 {
			return nil
		}
		newer, changes, err := catalog.Follow(old, update)
		if err == nil {
			p.learn(newer, changes)
		}
		return err
	}
	if err == nil {
		err = errNotSent
	}
	return err
}

// tell gives the catalog to a node that has an older one.
func (p *process) tell(ctx context.Context, version uint64, fresh bool) ([]byte, error) {
	if fresh {
		if err := p.refreshOwn(ctx); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, watchFor)
	defer cancel()
	for {
		changed := p.changedSignal()
		v := p.view.Load()
		if v == nil {
			return nil, errNotSent
		}
		if v.Version > version || fresh {
			return v.Since(version), nil
		}
		select {
		case <-changed:
			p.takeTurn(ctx)
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// stepMembers brings the configurations and leaders of the groups that are led
// here nearer to what is wanted.
func (p *process) stepMembers() {
	v := p.view.Load()
	prefer := placement.Leaders(v)
	groups := p.host.Groups()
	slices.SortFunc(groups, func(a, b *replica.Group) int { return int(a.ID()) - int(b.ID()) })
	for _, g := range groups {
		if !g.Leading() {
			continue
		}
		m := p.membersOf(g)
		p.node.w.after(0, func() { // the time of each ends in an instant of its own
			if p.dead.Load() {
				return
			}
			own := as(p.ctx, p.node.w.name(p.node.number, g.ID()))
			p.spawn(func() {
				ctx, cancel := context.WithTimeout(own, stepWithin)
				defer cancel()
				_ = m.Step(ctx, v, prefer[g.ID()], p.node.Now()) // what fails is tried again
			})
		})
	}
}

func (p *process) membersOf(g *replica.Group) *leader.Members {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.members[g.ID()]
	if m == nil || !m.Of(g) {
		m = leader.NewMembers(g, p.change)
		p.members[g.ID()] = m
	}
	return m
}
