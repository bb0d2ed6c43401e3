package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Show tells all that is known of a message.
func (g *Gateway) Show(ctx context.Context, id message.ID, o message.ReadOptions, wait time.Duration) (message.Shown, message.Freshness, error) {
	var none message.Freshness
	q, err := g.queueNumber(ctx, id.Queue())
	if q == nil {
		if err := g.authorize(ctx, auth.Read, ""); err != nil {
			return message.Shown{}, none, err
		}
		if err == nil {
			err = message.Errorf(message.MessageNotFound, "message %s is of a queue that does not exist here", id)
		}
		return message.Shown{}, none, err
	}
	if err := g.authorize(ctx, auth.Read, q.Name); err != nil {
		return message.Shown{}, none, err
	}
	if wait > 0 {
		return message.Shown{}, none, message.Errorf(message.Unimplemented, "waiting for a message's end is not built yet: ask without wait")
	}
	var a queue.Answer
	var fresh message.Freshness
	err = g.routed(ctx, func() (err error) {
		if q, err = g.queueNumber(ctx, id.Queue()); err == nil && q != nil {
			a, fresh, err = g.read(ctx, q.Shard(id.Point().Cell()).Group, queue.Query{Show: &id}, o.Stale)
		}
		return err
	})
	if err != nil {
		return message.Shown{}, fresh, err
	}
	if a.Message == nil {
		return message.Shown{}, fresh, message.Errorf(message.MessageNotFound, "message %s is not known: it never was, or it finished too long ago (keep_finished)", id)
	}
	out := shown(q, a.Message)
	out.Timeline = timeline(a.Message)
	return out, fresh, nil
}

// older is how fresh an answer is that was made of two.
func older(a, b message.Freshness) message.Freshness {
	if a.ServedBy == "" || b.Age > a.Age || (b.Age == a.Age && b.Role == "follower") {
		return b
	}
	return a
}

func groupsOf(q *catalog.Queue) (ids []uint64) {
	for i := range q.Shards {
		if id := q.Shards[i].Group; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// cellsIn are the cells of a queue in a group, a bit each.
func cellsIn(q *catalog.Queue, group uint64) (cells uint32) {
	for i := range q.Shards {
		if s := &q.Shards[i]; s.Group == group {
			for n := s.From; n <= s.To; n++ {
				cells |= 1 << n
			}
		}
	}
	return cells
}
