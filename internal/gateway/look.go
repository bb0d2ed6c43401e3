package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/slowlog"
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
	slowlog.Of(ctx).Queue(q.Name)
	slowlog.Of(ctx).Wish(wait)
	if wait < 0 || wait > message.MaxWait {
		return message.Shown{}, none, message.Errorf(message.InvalidArgument, "wait is %s: want 0s to %s", wait, message.MaxWait)
	}
	if wait > 0 {
		o.Stale = 0 // an old answer would not have the end that a leader tells of
	}
	until, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(g.draining, cancel)()
	r := g.retry(ctx)
	r.until = r.until.Add(wait) // a group without a leader is no reason to stop waiting
	for {
		unmoved, stop := g.moves.within(until) // before it is looked up
		shown, group, at, fresh, err := g.showOnce(ctx, id, o)
		if err == nil && (shown.State.Ended() || until.Err() != nil) {
			stop()
			return shown, fresh, nil
		}
		if err == nil {
			err = g.awaitOnce(unmoved, group, at)
			slowlog.Of(ctx).Served()
		}
		stop()
		if err != nil && (until.Err() != nil || !repeatable(err) || !r.again()) {
			return message.Shown{}, fresh, err
		}
		g.refresh()
	}
}

// awaitOnce waits at a group's leader until a message has ended.
func (g *Gateway) awaitOnce(ctx context.Context, group uint64, id message.ID) error {
	gr, err := g.o.Leader(group)
	if err == nil {
		err = gr.Await(ctx, id)
	}
	return err
}

// showOnce tells of a message, in which group it is and where it stands there.
func (g *Gateway) showOnce(ctx context.Context, id message.ID, o message.ReadOptions) (out message.Shown, group uint64, at message.ID, fresh message.Freshness, err error) {
	a, line, group, fresh, err := g.find(ctx, id, o)
	var q *catalog.Queue
	if err == nil {
		q, err = g.queueNumber(ctx, line.Queue)
	}
	if err == nil && (a.Message == nil || q == nil) {
		err = message.Errorf(message.MessageNotFound, "message %s is not known: it never was, or it finished too long ago (keep_finished)", id)
	}
	if err == nil && line.Queue != id.Queue() {
		err = g.authorize(ctx, auth.Read, q.Name)
	}
	if err != nil {
		return out, group, id, fresh, g.leaderless(ctx, group, err)
	}
	out = shown(q, a.Message)
	if d := a.Message; d.State == message.Ready && !d.Paused && d.Pause == nil && d.Blocker == nil && d.Limit == "" && o.Stale == 0 && q.Settings.Assign != message.AssignSingle {
		if why := g.unserved(ctx, q, group); why != "" && (!d.InTurn || strings.HasPrefix(why, "no worker")) {
			out.Reason = why
		}
	}
	out.Timeline = g.timeline(ctx, q, a.Message)
	return out, group, a.Message.Place, fresh, nil
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
