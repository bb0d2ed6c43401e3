package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// queueSpec is a queue of the workload. One is there before the dead of another go to it.
type queueSpec struct {
	name     string
	shards   int
	settings message.Settings
}

var queues = []queueSpec{
	{"orders", 2, message.Settings{MaxAttempts: 6, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: 300 * time.Millisecond}}},
	{"mails", 1, message.Settings{MaxAttempts: 1, Backoff: message.Backoff{Kind: message.BackoffExponential, Initial: 100 * time.Millisecond}, DeadLetterTo: "orders"}},
	{"calls", 1, message.Settings{MaxAttempts: 3, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: time.Second}, MaxInFlight: 3, OnFailure: message.SkipKey}},
	{"texts", 1, message.Settings{MaxAttempts: 3, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: 100 * time.Millisecond}, Rate: message.Rate{Count: 20, Per: time.Second}, RatePerKey: message.Rate{Count: 4, Per: time.Second}}},
	{"prints", 1, message.Settings{MaxAttempts: 3, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: 100 * time.Millisecond}, Assign: message.AssignSingle}},
}

// anyNode picks a node that takes clients; nil: there is none.
func (w *world) anyNode(r *rand.Rand) *process {
	first := r.IntN(len(w.nodes))
	for i := range w.nodes {
		if p := w.nodes[(first+i)%len(w.nodes)].process(); p != nil && p.served.Load() {
			return p
		}
	}
	return nil
}

// someKey is one of a producer's keys.
func someKey(r *rand.Rand, producer int) string { return fmt.Sprintf("p%d.%d", producer, r.IntN(3)) }

// sendCall is one call of a sender.
type sendCall struct {
	who, queue string
	atomic     bool
	msgs       []message.New
	payloads   []string
}

// produce sends messages, one call after the other, until ctx ends.
func (w *world) produce(number int) {
	who := fmt.Sprintf("producer %d", number)
	r := w.rand(who)
	for n := 0; w.pause(w.ctx, time.Duration(r.Int64N(int64(w.o.pace)))); {
		p := w.anyNode(r)
		if p == nil {
			continue
		}
		q := queues[r.IntN(len(queues))]
		c := sendCall{who: who, queue: q.name, msgs: make([]message.New, 1+r.IntN(3))}
		c.atomic = r.IntN(3) == 0
		key := ""
		if r.IntN(3) > 0 {
			key = someKey(r, number)
		}
		for i := range c.msgs {
			if c.atomic && key != "" && r.IntN(4) == 0 {
				key = someKey(r, number) // it is in another shard, or will be
			}
			n++
			c.payloads = append(c.payloads, fmt.Sprintf("%d.%d", number, n))
			c.msgs[i] = message.New{Key: key, Body: []byte(c.payloads[i])}
		}
		ws, once := wishAll(r, c.msgs)
		call := make([]*sending, len(c.msgs))
		for i := range call {
			call[i] = newSending(q, &c.msgs[i], ws[i])
			if w.hook.dropExpiry {
				c.msgs[i].Expires = time.Time{}
			}
		}
		w.tally.begin(call, c.atomic)
		for tries := 0; !w.send(p, &c, tries, once && tries < 5 && w.ctx.Err() == nil); tries++ {
			w.pause(w.ctx, 100*time.Millisecond)
			if other := w.anyNode(r); other != nil {
				p = other
			}
		}
		if r.IntN(10) == 0 { // one of those before
			w.withdraw(who, r, fmt.Sprintf("%d.%d", number, max(n-r.IntN(5), 1)))
		}
		if w.hook.staleRead || r.IntN(4) == 0 {
			w.look(who, r, c.payloads[len(c.payloads)-1], 0)
		}
		if r.IntN(4) == 0 { // one of those before
			w.look(who, r, fmt.Sprintf("%d.%d", number, max(n-r.IntN(20), 1)), time.Duration(1+r.IntN(2000))*time.Millisecond)
		}
	}
}

const sendWithin = 8 * time.Second

// send sends one call, which was sent so often before, and notes what came of it.
// With again it is false if that is not known and the call can be repeated.
func (w *world) send(p *process, c *sendCall, before int, again bool) bool {
	send := p.gateway.Send
	if c.atomic && !w.hook.tearBatch {
		send = p.gateway.SendAtomic
	}
	results, _, err := do(p, c.who, sendWithin, func(ctx context.Context) ([]message.SendResult, error) { return send(ctx, c.queue, c.msgs) })
	if err == nil && w.hook.reorder && len(results) > 1 && results[0].Err == nil && results[1].Err == nil {
		results[0], results[1] = results[1], results[0]
		c.payloads[0], c.payloads[1] = c.payloads[1], c.payloads[0]
	}
	if again && unknown(results, err) {
		w.note("sends %s again", c.payloads[0])
		return false
	}
	stored := 0
	for i, payload := range c.payloads {
		id, err, existing := message.ID{}, err, false
		if err == nil {
			id, err, existing = results[i].ID, errorOf(results[i].Err), results[i].Existing
		}
		w.note("sent %s: %s %v", payload, id, message.CodeOf(err))
		if err == nil {
			stored++
		}
		if before > 0 && err != nil {
			err = errDied // what was refused now may have been stored before
		}
		w.tally.outcome(payload, id, existing && c.msgs[i].UniqueKey != "", err)
	}
	if c.atomic && len(c.msgs) > 1 {
		switch stored {
		case 0:
		case len(c.msgs):
			w.tally.count("batches")
		default:
			w.fail("%d of %d messages of an atomic batch, with %q, were confirmed", stored, len(c.msgs), c.payloads[0])
		}
	}
	return true
}

// unknown says that it is not known of some message whether it was stored.
func unknown(results []message.SendResult, err error) bool {
	return message.CodeOf(err) == message.UnknownOutcome || slices.ContainsFunc(results, func(r message.SendResult) bool { return r.Err != nil && r.Err.Code == message.UnknownOutcome })
}

// look reads a message that its sender knows of, at some node. What was confirmed
// before is seen or, where a read may be old, what was confirmed its age before. The
// queue in which a message died may say so until it hears that the message has arrived
// elsewhere.
func (w *world) look(who string, r *rand.Rand, payload string, stale time.Duration) {
	s, acked := w.tally.known(payload)
	p := w.anyNode(r)
	if p == nil || s.confirmed == 0 {
		return
	}
	began := w.now()
	var fresh message.Freshness
	x, alive, err := do(p, who, sendWithin, func(ctx context.Context) (x message.Shown, err error) {
		x, fresh, err = p.gateway.Show(ctx, s.id, message.ReadOptions{Stale: stale}, 0)
		return x, err
	})
	if now, _ := w.tally.known(payload); !alive || now.purged || w.logs.wasPurged(s.id) {
		return
	}
	if fresh.Age > stale {
		w.fail("a read at node %d that may be %v old is %v old", p.node.number, stale, fresh.Age)
	}
	since := began - time.Duration(float64(fresh.Age)*(1+2*maxDrift))
	switch code := message.CodeOf(err); {
	case code == message.MessageNotFound && s.confirmed <= since:
		w.fail("message %s was confirmed at %v, and a read at node %d, begun at %v and %v old, does not know it", s.id, s.confirmed, p.node.number, began, fresh.Age)
	case err == nil && s.forwarded && x.State == message.Dead:
	case err == nil && acked > 0 && acked <= since && x.State != message.Finished:
		w.fail("the ack of message %s was confirmed at %v, and a read at node %d, begun at %v and %v old, shows it %s", s.id, acked, p.node.number, began, fresh.Age, x.State)
	}
	if fresh.Role == "follower" && fresh.Age > 0 {
		w.tally.count("stale")
	}
	w.note("looked at %s: %v %v", s.id, x.State, message.CodeOf(err))
}
