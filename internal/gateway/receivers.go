package gateway

import (
	"context"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// receivers asks the leaders of the queue's groups who receives from it.
func (g *Gateway) receivers(ctx context.Context, q *catalog.Queue) (all message.Receivers, err error) {
	r := g.retry(ctx)
	for _, id := range groupsOf(q) {
		here, err := g.receiversOnce(ctx, id, q.Number)
		for err != nil && movable(err) && r.again() {
			here, err = g.receiversOnce(ctx, id, q.Number)
		}
		if err != nil {
			return all, err
		}
		all.Waiting = max(all.Waiting, here.Waiting) // each waits at all of them
		if here.Last.After(all.Last) {
			all.Last = here.Last
		}
	}
	return all, nil
}

func (g *Gateway) receiversOnce(ctx context.Context, group uint64, number uint32) (message.Receivers, error) {
	gr, err := g.o.Leader(group)
	if err != nil {
		return message.Receivers{}, err
	}
	return gr.Receivers(ctx, number)
}
