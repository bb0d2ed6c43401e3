package gateway

import (
	"context"
	"iter"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Deliver carries what leaves a group to the cell of another queue. The receiving
// group tells copies apart by itself, so the command has no number of its own.
func (g *Gateway) Deliver(ctx context.Context, number uint32, cell int, c queue.Command) (any, error) {
	q, err := g.queueNumber(ctx, number)
	if err != nil {
		return nil, err
	}
	if q == nil {
		return nil, message.Errorf(message.QueueNotFound, "queue number %d does not exist", number)
	}
	if err := g.o.Admit(); err != nil {
		return nil, err
	}
	result, err := g.proposeOnce(ctx, q.Shard(cell).Group, c)
	if refusal, ok := result.(*message.Error); ok && refusal != nil {
		err = refusal
	}
	if err != nil {
		g.refresh() // who asks comes again
		return nil, err
	}
	return result, nil
}

// maxHops is how often a message is followed from one queue to the next.
const maxHops = 8

// find reads a message where it stands by now. q is the queue that it is in.
func (g *Gateway) find(ctx context.Context, id message.ID, o message.ReadOptions) (a queue.Answer, at queue.Line, group uint64, fresh message.Freshness, err error) {
	at = queue.Line{Queue: id.Queue(), Cell: id.Point().Cell()}
	for range maxHops {
		ask := queue.Query{Show: &id}
		if at != (queue.Line{Queue: id.Queue(), Cell: id.Point().Cell()}) {
			ask.At = &at
		}
		a = queue.Answer{}
		err = g.routed(ctx, func() (err error) {
			q, err := g.queueNumber(ctx, at.Queue)
			if err == nil && q != nil {
				group = q.Shard(at.Cell).Group
				var f message.Freshness
				a, f, err = g.read(ctx, group, ask, o.Stale)
				fresh = older(fresh, f)
			}
			return err
		})
		if err != nil || a.On == nil {
			return a, at, group, fresh, err
		}
		at = *a.On
	}
	return a, at, group, fresh, nil
}

// follow visits the messages that are not known where they were sent to and stand
// elsewhere by now, where the caller may do this to them.
func (g *Gateway) follow(ctx context.Context, ids []message.ID, a auth.Action, failed func(int) *message.Error) iter.Seq2[int, message.ID] {
	return func(yield func(int, message.ID) bool) {
		for i, id := range ids {
			if err := failed(i); err == nil || err.Code != message.MessageNotFound {
				continue
			}
			found, at, _, _, err := g.find(ctx, id, message.ReadOptions{})
			if err != nil || found.Message == nil || found.Message.Place == id {
				continue
			}
			q, err := g.queueNumber(ctx, at.Queue)
			if err != nil || q == nil || g.authorize(ctx, a, q.Name) != nil {
				continue
			}
			if !yield(i, found.Message.Place) {
				return
			}
		}
	}
}
