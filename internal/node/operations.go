package node

import (
	"context"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/operation"
	"github.com/comanda-mq/comanda/internal/queue"
)

// operated is the cluster as operations see it.
type operated struct{ *Node }

// View is the newest catalog that is known here.
func (n operated) View() *catalog.View { return n.view.Load() }

// Change proposes a change of the catalog, once.
func (n operated) Change(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	return n.change(ctx, c)
}

// Leader is the replica that leads a group, as far as is known.
func (n operated) Leader(ctx context.Context, group uint64) uint64 {
	st, _ := n.ask(ctx, group)
	return st.Leader
}

// SpinOff asks a shard's group to make a group of the shard.
func (n operated) SpinOff(ctx context.Context, s operation.SpinOff) error {
	at, err := n.leads(s.Parent)
	if err != nil {
		return err
	}
	c := queue.SpinOff{Queue: s.Queue, From: s.Shard.From, To: s.Shard.To, Epoch: s.Shard.Epoch, Group: s.Child}
	for here, there := range s.Replicas {
		c.Replicas = append(c.Replicas, queue.ReplicaPair{Here: here, There: there})
	}
	result, err := at.Propose(ctx, c.Command())
	if refusal, ok := result.(*message.Error); ok && refusal != nil {
		err = refusal
	}
	return err
}

// RedriveSome goes a step further with a redrive in a cell.
func (n operated) RedriveSome(ctx context.Context, s operation.RedriveSome) (operation.RedriveProgress, error) {
	at, err := n.leads(s.Queue.Shard(s.Cell).Group)
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

// stepOperations goes on with the operations, if the catalog is led here.
func (n *Node) stepOperations(ctx context.Context) {
	if g, ok := n.host.Group(catalog.MetaGroup); ok && g.Leading() {
		n.operations.Tick(ctx, n.beside.Go)
	}
}

// sender carries what leaves a group, by the node's gateway, which comes to be after
// the groups that were here before.
type sender struct{ *Node }

func (s sender) Deliver(ctx context.Context, number uint32, cell int, c queue.Command) (any, error) {
	return s.gateway.Deliver(ctx, number, cell, c)
}
