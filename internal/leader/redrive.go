package leader

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Revive takes a step of a redrive in one cell of a group, wherever it is led: it
// asks which messages the operation has not come to, and revives those. What others
// do in between, also for the same operation, makes its step do nothing. more: there
// may be others behind them. to is the queue that they are to live in; none: where
// they are.
func Revive(ctx context.Context, at interface {
	Propose(ctx context.Context, c queue.Command) (any, error)
	Read(ctx context.Context, q *queue.Query, within time.Duration) (queue.Answer, message.Freshness, error)
}, ask queue.DeadQuery, reset bool, to queue.Target,
) (p queue.Progress, more bool, err error) {
	a, _, err := at.Read(ctx, &queue.Query{Dead: &ask}, 0)
	switch {
	case err != nil:
		return p, false, err
	case a.Dead == nil:
		return p, false, message.Errorf(message.WrongShard, "cell %d of queue number %d was given away", ask.Cell, ask.Queue)
	case a.Dead.Through == 0:
		return a.Dead.Progress, false, nil
	}
	c := queue.RedriveSome{
		Queue: ask.Queue, Cell: ask.Cell, Operation: ask.Operation, After: a.Dead.Progress.After, Through: a.Dead.Through,
		ResetAttempts: reset, To: to, Messages: a.Dead.Messages,
	}
	result, err := at.Propose(ctx, c.Command())
	if err != nil {
		return p, false, err
	}
	p, ok := result.(queue.Progress)
	switch {
	case !ok:
		return p, false, errWire
	case p.Err != nil:
		return p, false, p.Err
	}
	return p, a.Dead.More, nil
}
