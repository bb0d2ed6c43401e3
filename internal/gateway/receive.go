package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/slowlog"
)

// releaseWithin is how long giving back may take what a receiver that has gone
// was about to get.
const releaseWithin = 5 * time.Second

// Receive leases up to o.Max messages, and waits up to o.Wait for the first.
// When ctx ends it hands out nothing: what was on its way is given back.
func (g *Gateway) Receive(ctx context.Context, name string, o message.ReceiveOptions) ([]message.Delivery, error) {
	if err := g.authorize(ctx, auth.Receive, name); err != nil {
		return nil, err
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	slowlog.Of(ctx).Wish(o.Wait)
	wait, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	defer context.AfterFunc(g.draining, cancel)()
	r := g.retry(ctx)
	r.until = r.until.Add(o.Wait) // a group without a leader is no reason to stop waiting at the others
	a := g.sessions.attached(o.Session.ID)
	for {
		var got []queue.Leased
		var refusal *message.Error
		trust, done, trusted := a.within(wait)
		unmoved, stop := g.moves.within(trust) // before the queue is looked up
		q, err := g.queue(ctx, name)
		if trusted && err == nil {
			got, refusal = g.receive(unmoved, q, o, a)
		}
		moved := unmoved.Err() != nil && wait.Err() == nil
		stop()
		done()
		if err != nil {
			return nil, err
		}
		switch {
		case ctx.Err() != nil:
			a.give(got)
			g.giveBack(ctx, o.Session.ID, got)
			return nil, ctx.Err()
		case len(got) == 0 && g.draining.Err() != nil:
			return nil, message.Errorf(message.Unavailable, "the server stops: receive from another one, or again in a moment")
		case len(got) == 0 && refusal == nil && moved:
			// it waits on, where the shards are now, or until its worker is heard again
		case len(got) > 0 || refusal == nil:
			fit := fitting(got)
			a.give(got[fit:])
			g.giveBack(ctx, o.Session.ID, got[fit:])
			a.give(got[:fit])
			return g.deliveries(q, o, got[:fit]), nil
		case !movable(refusal) && (o.Session.ID == 0 || refusal.Code != message.Unavailable):
			return nil, refusal // a session may have been looked up in a catalog that was too old
		case !r.again():
			return nil, stuck(refusal)
		}
		g.refresh()
	}
}

// fitting is how many of the messages fit into one answer: each group gives a
// first one whatever its size.
func fitting(got []queue.Leased) int {
	size := 0
	for i := range got {
		if size += len(got[i].Body); size > message.MaxBody && i > 0 {
			return i
		}
	}
	return len(got)
}

// receive waits once at the leaders of all the queue's groups that have one. a is
// the stream of the receiver's session; nil: it has none here.
func (g *Gateway) receive(wait context.Context, q *catalog.Queue, o message.ReceiveOptions, a *attachment) ([]queue.Leased, *message.Error) {
	ids := g.inTurn(q)
	groups := make([]Group, 0, len(ids))
	var last error
	for _, id := range ids {
		if gr, err := g.o.Leader(id); err != nil {
			last = err
		} else {
			groups = append(groups, gr)
		}
	}
	if len(groups) == 0 {
		return nil, asError(last)
	}
	if a != nil {
		a.waits(ids)
	}
	if o.Wait > 0 {
		return g.receiveAt(wait, q, o, a, groups)
	}
	// A group at another node would have to tell first that it has something. Who does
	// not wait asks one after the other.
	var refusal *message.Error
	for i := range groups {
		got, err := g.receiveAt(wait, q, o, a, groups[i:i+1])
		if len(got) > 0 {
			return got, nil
		}
		if err != nil {
			refusal = err
		}
	}
	return nil, refusal
}

// receiveAt waits once at some groups.
func (g *Gateway) receiveAt(wait context.Context, q *catalog.Queue, o message.ReceiveOptions, a *attachment, groups []Group) ([]queue.Leased, *message.Error) {
	call := leader.NewCall(q.Number, o, len(groups))
	if o.Session.ID != 0 {
		call.Lease.Session = queue.Session{ID: o.Session.ID, Incarnation: o.Session.Incarnation, CatalogVersion: g.newest.Load().Version}
	}
	if a != nil {
		call.Arrived = a.arrives
	}
	call.Served = slowlog.Of(wait).Served
	for _, gr := range groups {
		gr.Wait(call)
	}
	return call.Collect(wait)
}

// inTurn lists the groups of a queue's shards, each once, beginning with another
// one for each call.
func (g *Gateway) inTurn(q *catalog.Queue) []uint64 {
	if len(q.Shards) == 1 {
		return []uint64{q.Shards[0].Group}
	}
	var ids []uint64
	first := int(g.turn.Add(1))
	for i := range q.Shards {
		if id := q.Shards[(first+i)%len(q.Shards)].Group; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// giveBack releases what nobody is there to take any more.
func (g *Gateway) giveBack(ctx context.Context, session uint64, got []queue.Leased) {
	if len(got) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer cancel()
	for _, r := range g.settle(ctx, leader.Releases(session, got)) {
		if r.Err != nil {
			g.o.Logger.WarnContext(ctx, "a message waits for its lease to end: its receiver had gone, and giving it back failed", "error", r.Err)
		}
	}
}

func (g *Gateway) deliveries(q *catalog.Queue, o message.ReceiveOptions, got []queue.Leased) []message.Delivery {
	secret := g.newest.Load().Cluster.Secret
	out := make([]message.Delivery, len(got))
	for i := range got {
		x := &got[i]
		out[i] = message.Delivery{
			ID: x.ID, Token: message.Token{ID: x.ID, Place: x.Place, Fence: x.Fence, Session: o.Session.ID}.Seal(&secret), Queue: q.Name,
			Key: x.Head.Key, Type: x.Head.Type, Tenant: x.Head.Tenant, Attributes: x.Head.Attributes, Body: x.Body,
			Attempt: x.Attempts + 1, Deliveries: x.Deliveries, Fence: x.Fence,
			SentAt: time.UnixMilli(x.Head.SentAt), Lease: o.Lease,
		}
	}
	g.count(q, out)
	return out
}

// count counts deliveries. Times of sending are by leaders' clocks, so a wait that
// is less than nothing is none.
func (g *Gateway) count(q *catalog.Queue, out []message.Delivery) {
	traffic, now := g.o.Metrics.Queue(q.Name), g.o.Clock.Now()
	for i := range out {
		wait := time.Duration(-1)
		if out[i].Deliveries == 1 {
			wait = max(now.Sub(out[i].SentAt), 0)
		}
		traffic.Delivered(wait)
	}
}
