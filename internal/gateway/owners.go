package gateway

import (
	"context"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/message"
)

// Owners tells for each shard of a queue which nodes have it and which workers its
// keys prefer.
func (g *Gateway) Owners(ctx context.Context, name string) ([]message.ShardOwners, error) {
	if err := g.authorize(ctx, auth.Read, name); err != nil {
		return nil, err
	}
	q, err := g.queue(ctx, name)
	if err != nil {
		return nil, err
	}
	workers := map[uint64][]message.Preferred{}
	retry := g.retry(ctx)
	for _, id := range groupsOf(q) {
		all, err := g.ownersOnce(ctx, id, q.Number)
		for err != nil && movable(err) && retry.again() {
			all, err = g.ownersOnce(ctx, id, q.Number)
		}
		if err != nil {
			return nil, err
		}
		workers[id] = all
	}
	out := make([]message.ShardOwners, len(q.Shards))
	for i, s := range q.Shards {
		leading, followers := g.members(ctx, s.Group)
		from, to := shardRange(s.From, s.To)
		out[i] = message.ShardOwners{
			ShardInfo: message.ShardInfo{ID: q.Name + "/" + s.Path, Queue: q.Name, From: from, To: to, Group: s.Group, Leader: leading, Followers: followers},
			Workers:   workers[s.Group],
		}
	}
	return out, nil
}

func (g *Gateway) ownersOnce(ctx context.Context, group uint64, number uint32) ([]message.Preferred, error) {
	gr, err := g.o.Leader(group)
	if err != nil {
		return nil, err
	}
	return gr.Owners(ctx, number)
}

// shardRange are the points of a run of cells, both included.
func shardRange(from, to int) (first, last uint64) {
	return uint64(message.CellPoint(from)), uint64(message.CellPoint(to)) + (1<<64/message.Cells - 1)
}
