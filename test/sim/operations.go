package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/operation"
	"github.com/comanda-mq/comanda/internal/queue"
)

// operated is the cluster as operations see it.
type operated struct{ p *process }

func (o operated) View() *catalog.View { return o.p.view.Load() }

func (o operated) Change(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	return o.p.change(ctx, c)
}

func (o operated) Leader(ctx context.Context, group uint64) uint64 {
	st, _ := o.p.ask(ctx, group)
	return st.Leader
}

func (o operated) SpinOff(ctx context.Context, s operation.SpinOff) error {
	at, err := o.p.leader(s.Parent)
	if err != nil {
		return err
	}
	c := queue.SpinOff{Queue: s.Queue, From: s.Shard.From, To: s.Shard.To, Epoch: s.Shard.Epoch, Group: s.Child}
	for here, there := range s.Replicas {
		c.Replicas = append(c.Replicas, queue.ReplicaPair{Here: here, There: there})
	}
	slices.SortFunc(c.Replicas, func(a, b queue.ReplicaPair) int { return int(a.Here) - int(b.Here) })
	result, err := at.Propose(ctx, c.Command())
	if refusal, ok := result.(*message.Error); ok && refusal != nil {
		err = refusal
	}
	return err
}

func (o operated) RedriveSome(ctx context.Context, s operation.RedriveSome) (operation.RedriveProgress, error) {
	if o.p.node.w.hook.skipRedrive {
		return operation.RedriveProgress{Done: true}, nil
	}
	at, err := o.p.leader(s.Queue.Shard(s.Cell).Group)
	if err != nil {
		return operation.RedriveProgress{}, err
	}
	ask := queue.DeadQuery{Queue: s.Queue.Number, Cell: s.Cell, Operation: s.Operation, Through: s.Through, Limit: s.Limit, Filter: s.Filter}
	var to queue.Target
	if s.Target != nil {
		to = queue.Target{Queue: s.Target.Number, Secret: s.Target.Secret}
	}
	p, more, err := leader.Revive(ctx, at, ask, s.ResetAttempts, to)
	return operation.RedriveProgress{Redriven: p.Redriven, Skipped: p.Skipped, Done: !more}, err
}

// stepOperations goes on with the operations, if the catalog is led here. Each has
// its steps in instants of its own.
func (p *process) stepOperations() {
	if g, ok := p.host.Group(catalog.MetaGroup); ok && g.Leading() {
		p.operations.Tick(as(p.ctx, p.node.w.name(p.node.number, "operations")), func(step func()) {
			p.node.w.after(0, func() { p.spawn(step) })
		})
	}
}

// move has a shard moved to a node, which makes a group of it first.
func (w *world) move(q *catalog.Queue, s *catalog.Shard, to *node) {
	w.note("shard %s/%s moves to node %d", q.Name, s.Path, to.number)
	m := operation.Move{Queue: q.Number, Name: q.Name, Path: s.Path, Node: to.number, NodeName: to.name()}
	begin := m.Begin(fmt.Sprint("move ", w.orders))
	w.administer(func(ctx context.Context, p *process) error {
		r, err := p.change(ctx, catalog.Command{BeginOperation: begin})
		if err == nil && r.Err != nil {
			err = r.Err
		}
		return err
	})
}

// operationsEnded says that no operation is under way, as every node knows.
func (w *world) operationsEnded() bool {
	for _, n := range w.nodes {
		if !n.born {
			continue
		}
		p := n.process()
		if p == nil || p.view.Load() == nil {
			return false // it has just been started
		}
		if slices.ContainsFunc(p.view.Load().Operations(), func(o *catalog.Operation) bool { return !o.Ended() }) {
			return false
		}
	}
	return true
}

// sender carries what leaves a group, by the process's gateway, which comes to be
// after its groups.
type sender struct{ p *process }

func (s sender) Deliver(ctx context.Context, number uint32, cell int, c queue.Command) (any, error) {
	if s.p.node.w.hook.loseLetter {
		return nil, message.NoQueue("nowhere")
	}
	return s.p.gateway.Deliver(ctx, number, cell, c)
}
