package gateway

import (
	"context"
	"crypto/rand"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/operation"
)

// MoveShard begins to move a shard of a queue to a node, and returns the operation
// that does it.
func (g *Gateway) MoveShard(ctx context.Context, name, path, node, by string) (message.OperationInfo, error) {
	if err := g.authorize(ctx, auth.Manage, name); err != nil {
		return message.OperationInfo{}, err
	}
	to, err := g.node(ctx, node) // brings the catalog up to date
	if err != nil {
		return message.OperationInfo{}, err
	}
	g.refresh()
	q, _, err := g.shard(ctx, name, path)
	if err != nil {
		return message.OperationInfo{}, err
	}
	if bound := operation.Bound(q); bound != nil {
		return message.OperationInfo{}, bound
	}
	if unfit := operation.Unfit(to); unfit != nil {
		return message.OperationInfo{}, unfit
	}
	m := operation.Move{Queue: q.Number, Name: q.Name, Path: path, Node: to.ID, NodeName: to.Name}
	return g.begin(ctx, m.Begin(rand.Text()), by)
}

// begin has the catalog begin an operation.
func (g *Gateway) begin(ctx context.Context, c *catalog.BeginOperation, by string) (message.OperationInfo, error) {
	if err := message.CheckBy(by); err != nil {
		return message.OperationInfo{}, err
	}
	c.By, c.At = by, g.o.Clock.Now()
	return g.operate(ctx, catalog.Command{BeginOperation: c})
}

// operate has the catalog change an operation.
func (g *Gateway) operate(ctx context.Context, c catalog.Command) (message.OperationInfo, error) {
	r, err := g.propagate(ctx, c)
	if err != nil {
		return message.OperationInfo{}, err
	}
	return operationInfo(r.Operation), nil
}

// CancelOperation asks that an operation stops between two steps. Once more changes
// nothing; one that is done or has failed is refused with ENDED.
func (g *Gateway) CancelOperation(ctx context.Context, id uint64, by string) (message.OperationInfo, error) {
	if err := g.authorize(ctx, auth.Manage, ""); err != nil {
		return message.OperationInfo{}, err
	}
	if err := message.CheckBy(by); err != nil {
		return message.OperationInfo{}, err
	}
	return g.operate(ctx, catalog.Command{CancelOperation: &catalog.CancelOperation{ID: id, By: by, At: g.o.Clock.Now()}})
}

// PauseOperation stops an operation between two steps, or lets it go on. Once more
// changes nothing; one that is being cancelled or has ended is refused with ENDED.
func (g *Gateway) PauseOperation(ctx context.Context, id uint64, paused bool, by string) (message.OperationInfo, error) {
	if err := g.authorize(ctx, auth.Manage, ""); err != nil {
		return message.OperationInfo{}, err
	}
	if err := message.CheckBy(by); err != nil {
		return message.OperationInfo{}, err
	}
	return g.operate(ctx, catalog.Command{PauseOperation: &catalog.PauseOperation{ID: id, Paused: paused, By: by, At: g.o.Clock.Now()}})
}

// Operation tells of an operation.
func (g *Gateway) Operation(ctx context.Context, id uint64) (message.OperationInfo, error) {
	if err := g.authorize(ctx, auth.Observe, ""); err != nil {
		return message.OperationInfo{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	if err := g.o.Refresh(ctx); err != nil {
		return message.OperationInfo{}, err
	}
	o, ok := g.newest.Load().Operation(id)
	if !ok {
		return message.OperationInfo{}, message.Errorf(message.NotFound, "there is no operation %d, or it ended long ago: see 'comanda operation list'", id)
	}
	return operationInfo(o), nil
}

// Operations lists the operations that are under way and the last that have ended,
// the newest first: up to limit from page on, and the next page.
func (g *Gateway) Operations(ctx context.Context, limit int, page string) ([]message.OperationInfo, string, error) {
	below, v, err := g.newestFirst(ctx, limit, page)
	if err != nil {
		return nil, "", err
	}
	os, next := newestBelow(v.Operations(), below, limit, func(o *catalog.Operation) uint64 { return o.ID })
	out := make([]message.OperationInfo, len(os))
	for i, o := range os {
		out[i] = operationInfo(o)
	}
	return out, next, nil
}

func operationInfo(o *catalog.Operation) message.OperationInfo {
	info := message.OperationInfo{
		ID: o.ID, Kind: o.Kind, Title: o.Title, State: o.State.String(), Step: o.Step, Waits: o.Waits, Err: o.Error,
		CreatedAt: o.CreatedAt, ChangedAt: o.ChangedAt, By: o.By, ChangedBy: o.ChangedBy,
	}
	operation.Tell(o, &info)
	return info
}
