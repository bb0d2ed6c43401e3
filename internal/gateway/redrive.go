package gateway

import (
	"context"
	"crypto/rand"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/operation"
	"github.com/comanda-mq/comanda/internal/queue"
)

// RedriveQueue counts the dead messages of a queue that a filter chooses and, unless
// it is a dry run, begins the operation that revives them.
func (g *Gateway) RedriveQueue(ctx context.Context, name string, r message.Redrive, by string, dryRun bool) (message.RedrivePlan, error) {
	if err := g.authorize(ctx, auth.Redrive, name); err != nil {
		return message.RedrivePlan{}, err
	}
	if err := r.Check(); err != nil {
		return message.RedrivePlan{}, err
	}
	q, err := g.queue(ctx, name)
	if err != nil {
		return message.RedrivePlan{}, err
	}
	o := operation.Redrive{Queue: q.Number, Name: q.Name, Redrive: r}
	if r.To != "" {
		if err := g.authorize(ctx, auth.Send, r.To); err != nil {
			return message.RedrivePlan{}, err
		}
		to, err := g.queue(ctx, r.To)
		if err != nil {
			return message.RedrivePlan{}, err
		}
		if to.Number != q.Number {
			o.Target = to.Number
		}
	}
	for cell := range message.Cells {
		n, last, err := g.countDead(ctx, q, cell, r.Filter)
		if err != nil {
			return message.RedrivePlan{}, err
		}
		o.Count += n
		if n > 0 {
			o.Through[cell] = last
		}
	}
	if dryRun || o.Count == 0 {
		return message.RedrivePlan{Count: o.Count}, nil
	}
	info, err := g.begin(ctx, o.Begin(rand.Text()), by)
	if err != nil {
		return message.RedrivePlan{}, err
	}
	return message.RedrivePlan{Count: o.Count, Operation: &info}, nil
}

// countDead counts the dead messages of a cell that a filter chooses; last is the
// number of the last one that was looked at.
func (g *Gateway) countDead(ctx context.Context, q *catalog.Queue, cell int, f message.DeadFilter) (n int, last uint64, err error) {
	for more := true; more; {
		var a queue.Answer
		err := g.routed(ctx, func() error {
			now, err := g.queueNumber(ctx, q.Number)
			if err != nil {
				return err
			}
			if now == nil {
				return message.NoQueue(q.Name)
			}
			ask := queue.Query{Dead: &queue.DeadQuery{Queue: q.Number, Cell: cell, After: last, Filter: f}}
			a, _, err = g.read(ctx, now.Shard(cell).Group, ask, 0)
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		n, last, more = n+a.Dead.Count, max(last, a.Dead.Through), a.Dead.More
	}
	return n, last, nil
}
