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
func (g *Gateway) MoveShard(ctx context.Context, name, path, node string) (message.OperationInfo, error) {
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
	begin := m.Begin(rand.Text())
	begin.At = g.o.Clock.Now()
	return g.operate(ctx, catalog.Command{BeginOperation: begin})
}

// operate has the catalog change an operation.
func (g *Gateway) operate(ctx context.Context, c catalog.Command) (message.OperationInfo, error) {
	r, err := g.propagate(ctx, c)
	if err != nil {
		return message.OperationInfo{}, err
	}
	return operationInfo(r.Operation), nil
}

// CancelOperation asks that an operation stops between two steps. One that has
// ended stays as it is.
func (g *Gateway) CancelOperation(ctx context.Context, id uint64) (message.OperationInfo, error) {
	if err := g.authorize(ctx, auth.Manage, ""); err != nil {
		return message.OperationInfo{}, err
	}
	return g.operate(ctx, catalog.Command{CancelOperation: &catalog.CancelOperation{ID: id, At: g.o.Clock.Now()}})
}

// PauseOperation stops an operation between two steps, or lets it go on.
func (g *Gateway) PauseOperation(ctx context.Context, id uint64, paused bool) (message.OperationInfo, error) {
	if err := g.authorize(ctx, auth.Manage, ""); err != nil {
		return message.OperationInfo{}, err
	}
	return g.operate(ctx, catalog.Command{PauseOperation: &catalog.PauseOperation{ID: id, Paused: paused, At: g.o.Clock.Now()}})
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
	if err := g.authorize(ctx, auth.Observe, ""); err != nil {
		return nil, "", err
	}
	if err := checkLimit(limit); err != nil {
		return nil, "", err
	}
	below, err := pageBelow(page)
	if err != nil {
		return nil, "", err
	}
	fresh, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	_ = g.o.Refresh(fresh) // a node that is cut off lists what it knew last
	os, next := newestBelow(g.newest.Load().Operations(), below, limit, func(o *catalog.Operation) uint64 { return o.ID })
	out := make([]message.OperationInfo, len(os))
	for i, o := range os {
		out[i] = operationInfo(o)
	}
	return out, next, nil
}

func operationInfo(o *catalog.Operation) message.OperationInfo {
	info := message.OperationInfo{
		ID: o.ID, Kind: o.Kind, Title: o.Title, State: o.State.String(), Step: o.Step, Waits: o.Waits, Err: o.Error,
		CreatedAt: o.CreatedAt, ChangedAt: o.ChangedAt, By: o.By,
	}
	chosen, redriven, skipped := operation.Done(o)
	info.Chosen, info.Redriven, info.Skipped = int64(chosen), int64(redriven), int64(skipped)
	return info
}
