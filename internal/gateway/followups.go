package gateway

import (
	"context"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// lookups finds each queue once in a call, however much goes to it: one that is not
// there costs a question to the catalog's leader.
type lookups map[string]lookup

type lookup struct {
	queue *catalog.Queue
	err   error
}

func (l lookups) find(ctx context.Context, g *Gateway, name string) (*catalog.Queue, error) {
	found, known := l[name]
	if !known {
		found.queue, found.err = g.queue(ctx, name)
		l[name] = found
	}
	return found.queue, found.err
}

// placeFollowUps finds the queues and cells of what is sent with an ack.
func (g *Gateway) placeFollowUps(ctx context.Context, s *message.Settlement, to lookups) ([]queue.FollowUp, error) {
	at := s.Token.At()
	from, err := g.queueNumber(ctx, at.Queue())
	if err != nil {
		return nil, err
	}
	var home uint64 // the group of the message that is acked; 0: its queue was deleted
	if from != nil {
		home = from.Shard(at.Point().Cell()).Group
	}
	placed := make([]queue.FollowUp, len(s.FollowUps))
	for i := range s.FollowUps {
		if placed[i], err = g.placeFollowUp(ctx, &s.FollowUps[i], home, to); err != nil {
			return nil, message.Errorf(message.CodeOf(err), "follow-up %d of %d: %s", i+1, len(s.FollowUps), text(err))
		}
	}
	return placed, nil
}

// refuseAck answers an ack whose follow-ups can't be sent: like the first time if it was
// done before, for then nothing is to be sent.
func (g *Gateway) refuseAck(ctx context.Context, s *message.Settlement, why *message.Error) message.SettleResult {
	a, _, _, _, err := g.find(ctx, s.Token.At(), message.ReadOptions{})
	if d := a.Message; err == nil && d != nil && d.State == message.Finished && d.Place == s.Token.At() && d.Fence == s.Token.Fence && len(d.FollowUps) == len(s.FollowUps) {
		return message.SettleResult{AlreadyDone: true, State: d.State, FollowUps: d.FollowUps}
	}
	return message.SettleResult{Err: why}
}

// placeFollowUp finds one's place. What may stand anywhere stands in the group of the
// message that is acked, if its queue has a shard there: then it is there with the ack.
func (g *Gateway) placeFollowUp(ctx context.Context, f *message.FollowUp, home uint64, to lookups) (placed queue.FollowUp, err error) {
	if err := g.authorize(ctx, auth.Send, f.Queue); err != nil {
		return placed, err
	}
	q, err := to.find(ctx, g, f.Queue)
	if err != nil {
		return placed, err
	}
	if err := check(&f.New, q); err != nil {
		return placed, err
	}
	s := sending{g: g, queue: q, turn: g.turn.Add(1)}
	x := s.place(0, f.New)
	for i := range q.Shards {
		if x.free && q.Shards[i].Group == home {
			x.sent.Cell = s.cellIn(&q.Shards[i])
			break
		}
	}
	return queue.FollowUp{To: queue.Target{Queue: q.Number, Secret: q.Secret}, Sent: x.sent}, nil
}

// followUpBytes is about how many bytes settlements send.
func followUpBytes(ss []message.Settlement) (n int64) {
	for i := range ss {
		n += int64(ss[i].FollowUpBytes())
	}
	return n
}

// countFollowUps counts what was sent with an ack.
func (g *Gateway) countFollowUps(s *message.Settlement) {
	for i := range s.FollowUps {
		g.o.Metrics.Queue(s.FollowUps[i].Queue).Sent(1)
	}
}
