package gateway

import (
	"context"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/slowlog"
)

// Settle ends or changes leases and answers for each, in order.
func (g *Gateway) Settle(ctx context.Context, ss []message.Settlement) ([]message.SettleResult, error) {
	if len(ss) == 0 || len(ss) > message.MaxBatch {
		return nil, message.Errorf(message.InvalidArgument, "%d settlements in one call: want 1 to %d", len(ss), message.MaxBatch)
	}
	// One queue is asked for once, however many of its leases are settled.
	names := map[uint32]string{}
	for i := range ss {
		n := ss[i].Token.At().Queue()
		if _, ok := names[n]; ok {
			continue
		}
		name := ""
		if q, err := g.queueNumber(ctx, n); err != nil {
			return nil, err
		} else if q != nil {
			name = q.Name
		}
		if err := g.authorize(ctx, auth.Receive, name); err != nil {
			return nil, err
		}
		slowlog.Of(ctx).Queue(name)
		names[n] = name
	}
	results := g.settle(ctx, ss)
	g.sessions.settled(ss, results)
	g.explain(ss, results)
	for i := range ss {
		if results[i].Err == nil {
			g.o.Metrics.Queue(names[ss[i].Token.At().Queue()]).Settled(ss[i].Action.String())
			if !results[i].AlreadyDone {
				g.countFollowUps(&ss[i])
			}
		}
	}
	return results, nil
}

func (g *Gateway) settle(ctx context.Context, ss []message.Settlement) []message.SettleResult {
	results := make([]message.SettleResult, len(ss))
	left := make([]int, 0, len(ss))
	var full error // those with follow-ups are refused for it; the others make room
	if size := followUpBytes(ss); size > 0 {
		done, err := g.admit(size)
		if err == nil {
			defer done()
		}
		full = err
	}
	followUps, to := map[int][]queue.FollowUp{}, lookups{}
	var refused []int
	for i := range ss {
		if err := ss[i].Check(); err != nil {
			results[i].Err = asError(err)
			continue
		}
		if len(ss[i].FollowUps) > 0 {
			err := full
			if err == nil {
				followUps[i], err = g.placeFollowUps(ctx, &ss[i], to)
			}
			if err != nil {
				results[i].Err = asError(err)
				refused = append(refused, i)
				continue
			}
		}
		left = append(left, i)
	}
	for len(left) > 0 {
		n := fit(ss, left)
		g.carrySettlements(ctx, ss, followUps, left[:n:n], results)
		left = left[n:]
	}
	// They are looked for when the others are done, which they must not keep.
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	for _, i := range refused {
		results[i] = g.refuseAck(ctx, &ss[i], results[i].Err)
	}
	return results
}

// fit is how many of the settlements go into an entry with what is sent with them: all
// of them if nothing is, and one at least.
func fit(ss []message.Settlement, left []int) (n int) {
	bytes := 0
	for n < len(left) && (n == 0 || bytes+ss[left[n]].FollowUpBytes() <= message.MaxEntryBytes/2) {
		bytes += ss[left[n]].FollowUpBytes()
		n++
	}
	return n
}

func (g *Gateway) carrySettlements(ctx context.Context, ss []message.Settlement, followUps map[int][]queue.FollowUp, left []int, results []message.SettleResult) {
	g.resolve(ctx, left, func(i int) message.ID { return ss[i].Token.At() },
		func(is []int) queue.Command {
			c := queue.Settle{Settlements: make([]message.Settlement, len(is))}
			if len(followUps) > 0 {
				c.FollowUps = make([][]queue.FollowUp, len(is))
			}
			for n, i := range is {
				c.Settlements[n] = ss[i]
				if len(followUps) > 0 {
					c.FollowUps[n] = followUps[i]
				}
			}
			return c.Command()
		},
		func(result any, n, i int) *message.Error {
			results[i] = result.([]message.SettleResult)[n]
			return results[i].Err
		},
		func(i int, err *message.Error) {
			if err.Code == message.QueueNotFound {
				err = message.Errorf(message.Gone, "the message's queue was deleted")
			}
			results[i] = message.SettleResult{Err: err}
		})
}

// Cancel ends messages that nobody wants done any more and answers for each, in
// order.
func (g *Gateway) Cancel(ctx context.Context, ids []message.ID, o message.CancelOptions) ([]message.SettleResult, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if err := g.mayAll(ctx, ids, auth.Manage); err != nil {
		return nil, err
	}
	results := g.cancel(ctx, ids, o)
	for i, at := range g.follow(ctx, ids, auth.Manage, func(i int) *message.Error { return results[i].Err }) {
		results[i] = g.cancel(ctx, []message.ID{at}, o)[0]
	}
	return results, nil
}

func (g *Gateway) cancel(ctx context.Context, ids []message.ID, o message.CancelOptions) []message.SettleResult {
	results := make([]message.SettleResult, len(ids))
	left := make([]int, len(ids))
	for i := range ids {
		left[i] = i
	}
	g.resolve(ctx, left, func(i int) message.ID { return ids[i] },
		func(is []int) queue.Command {
			c := queue.Cancel{Force: o.Force, Grace: o.Grace}
			for _, i := range is {
				c.IDs = append(c.IDs, ids[i])
			}
			return c.Command()
		},
		func(result any, n, i int) *message.Error {
			results[i] = result.([]message.SettleResult)[n]
			return results[i].Err
		},
		func(i int, err *message.Error) { results[i] = message.SettleResult{Err: err} })
	return results
}

// mayAll refuses a call about messages that the caller may not do this to.
func (g *Gateway) mayAll(ctx context.Context, ids []message.ID, a auth.Action) error {
	if len(ids) == 0 || len(ids) > message.MaxBatch {
		return message.Errorf(message.InvalidArgument, "%d messages in one call: want 1 to %d", len(ids), message.MaxBatch)
	}
	for i := range ids {
		name := ""
		if q, err := g.queueNumber(ctx, ids[i].Queue()); err != nil {
			return err
		} else if q != nil {
			name = q.Name
		}
		if err := g.authorize(ctx, a, name); err != nil {
			return err
		}
		slowlog.Of(ctx).Queue(name)
	}
	return nil
}

// Redrive revives dead messages where they are and answers for each, in order.
func (g *Gateway) Redrive(ctx context.Context, ids []message.ID, reset bool) ([]*message.Error, error) {
	if err := g.mayAll(ctx, ids, auth.Redrive); err != nil {
		return nil, err
	}
	results := g.redrive(ctx, ids, reset)
	for i, at := range g.follow(ctx, ids, auth.Redrive, func(i int) *message.Error { return results[i] }) {
		results[i] = g.redrive(ctx, []message.ID{at}, reset)[0]
	}
	return results, nil
}

func (g *Gateway) redrive(ctx context.Context, ids []message.ID, reset bool) []*message.Error {
	results := make([]*message.Error, len(ids))
	left := make([]int, len(ids))
	for i := range ids {
		left[i] = i
	}
	g.resolve(ctx, left, func(i int) message.ID { return ids[i] },
		func(is []int) queue.Command {
			c := queue.Redrive{ResetAttempts: reset}
			for _, i := range is {
				c.IDs = append(c.IDs, ids[i])
			}
			return c.Command()
		},
		func(result any, n, i int) *message.Error {
			results[i] = result.([]queue.RedriveResult)[n]
			return results[i]
		},
		func(i int, err *message.Error) { results[i] = err })
	return results
}

// resolve carries items that name messages to the groups that have them, a
// command a group, until each has an answer. take notes the answer of the n-th
// item of a command; what it says WRONG_SHARD to is carried again by a newer
// route. refuse answers an item that can't be carried.
func (g *Gateway) resolve(ctx context.Context, left []int, id func(int) message.ID,
	command func([]int) queue.Command, take func(result any, n, i int) *message.Error, refuse func(int, *message.Error),
) {
	r := g.retry(ctx)
	for len(left) > 0 {
		parts := g.partition(ctx, left, id, refuse)
		each(parts, func(p *route) { p.carry(ctx, g, command) })
		left = left[:0]
		var last *message.Error
		for i := range parts {
			p := &parts[i]
			for n, i := range p.items {
				var err *message.Error
				if p.err == nil {
					err = take(p.result, n, i)
				} else if err = asError(p.err); !movable(err) {
					refuse(i, err)
				}
				if err != nil && movable(err) {
					left, last = append(left, i), err
				}
			}
		}
		if len(left) == 0 {
			return
		}
		if !r.again() {
			for _, i := range left {
				refuse(i, stuck(last))
			}
			return
		}
		g.refresh()
	}
}

// route is what goes to one group, and what came back.
type route struct {
	group  uint64
	items  []int
	result any
	err    error
}

func (p *route) carry(ctx context.Context, g *Gateway, command func([]int) queue.Command) {
	p.result, p.err = g.propose(ctx, p.group, command(p.items))
}

func (g *Gateway) partition(ctx context.Context, left []int, id func(int) message.ID, refuse func(int, *message.Error)) (parts []route) {
	for _, i := range left {
		q, err := g.queueNumber(ctx, id(i).Queue())
		if err != nil {
			refuse(i, asError(err))
			continue
		}
		if q == nil {
			refuse(i, message.Errorf(message.QueueNotFound, "message %s is of a queue that does not exist", id(i)))
			continue
		}
		group := q.Shard(id(i).Point().Cell()).Group
		n := 0
		for n < len(parts) && parts[n].group != group {
			n++
		}
		if n == len(parts) {
			parts = append(parts, route{group: group})
		}
		parts[n].items = append(parts[n].items, i)
	}
	return parts
}
