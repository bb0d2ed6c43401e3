package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// change is what an operator does while all goes on: a fourth node joins, nodes
// are drained and taken back, shards are split and moved.
func (w *world) change(r *rand.Rand, lasts time.Duration) {
	joiner := w.nodes[len(w.nodes)-1]
	n := w.nodes[r.IntN(len(w.nodes))]
	name := queues[r.IntN(len(queues))].name
	var q *catalog.Queue
	var s *catalog.Shard
	which := r.IntN(1000)
	if p := w.anyNode(r); p != nil {
		if x, ok := p.view.Load().Queue(name); ok {
			q, s = x, &x.Shards[which%len(x.Shards)]
		}
	}
	switch {
	case !joiner.born:
		w.note("node %d joins", joiner.number)
		joiner.start()
	case r.IntN(2) == 0 && joiner.member.Load() && w.drained == nil:
		w.note("node %d is drained", n.number)
		w.drained = n
		w.administer(drain(n, false))
		w.after(3*lasts, func() { w.undoDrain() })
	case s == nil:
	case r.IntN(2) == 0 && n.member.Load():
		w.move(q, s, n)
	default:
		w.note("shard %s/%s is split", name, s.Path)
		w.administer(func(ctx context.Context, p *process) error {
			_, err := p.gateway.SplitShard(ctx, name, s.Path)
			return err
		})
	}
}

// drain asks that a node holds nothing, or takes that back.
func drain(n *node, undo bool) func(context.Context, *process) error {
	return func(ctx context.Context, p *process) error {
		_, err := p.gateway.DrainNode(ctx, n.name(), undo)
		return err
	}
}

func (w *world) undoDrain() {
	if n := w.drained; n != nil {
		w.drained = nil
		w.note("node %d may hold something again", n.number)
		w.administer(drain(n, true))
	}
}

// administer has something done at any node, beside all else.
func (w *world) administer(f func(context.Context, *process) error) {
	w.orders++
	who := fmt.Sprintf("order %d", w.orders)
	w.spawn(func() { _ = w.insist(who, w.rand(who), f) })
}

// insist has something done at any node, again and again until its outcome is known.
func (w *world) insist(who string, r *rand.Rand, f func(context.Context, *process) error) (err error) {
	for !w.over.Load() {
		err = errDied
		if p := w.anyNode(r); p != nil {
			_, _, err = do(p, who, 15*time.Second, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx, p) })
		}
		w.note("%s: %v", who, message.CodeOf(err))
		switch message.CodeOf(err) {
		case message.UnknownOutcome, message.Unavailable, message.NotLeader, message.ResourceExhausted:
		default:
			return err
		}
		w.pause(context.Background(), 100*time.Millisecond)
	}
	return err
}

// operate pauses a queue, or a key or a tenant of it, and resumes it, again and again
// until ctx ends. A call that had no answer may still be done, later than those after
// it: nothing is expected of a pause then, and what is paused in the end is resumed.
func (w *world) operate(name string) {
	who := "operator of " + name
	r := w.rand(who)
	var number uint32
	unsure := map[message.Pause]bool{}
	set := func(of message.Pause, paused bool) {
		tries := 0
		err := w.insist(who, r, func(ctx context.Context, p *process) error {
			tries++
			if q, ok := p.view.Load().Queue(name); ok {
				number = q.Number
			}
			if paused && w.hook.dropPause {
				return nil
			}
			return p.gateway.PauseQueue(ctx, name, paused, of)
		})
		switch unsure[of] = unsure[of] || tries > 1; {
		case err != nil && !w.over.Load():
			w.fail("queue %s can't be paused or resumed: %v", name, err)
		case paused && !unsure[of]:
			w.logs.pause(number, of)
			w.tally.count("pauses")
		}
	}
	for w.pause(w.ctx, time.Duration(r.Int64N(int64(2*time.Second)))) {
		var of message.Pause
		switch r.IntN(3) {
		case 0:
			of.Key = someKey(r, r.IntN(producers))
		case 1:
			of.Tenant = someTenant(r)
		}
		set(of, true)
		w.pause(w.ctx, time.Duration(r.Int64N(int64(2*time.Second))))
		w.logs.resume(number)
		set(of, false)
	}
	for !w.over.Load() {
		w.pause(context.Background(), time.Second)
		p := w.anyNode(r)
		if p == nil {
			continue
		}
		q, _ := p.view.Load().Queue(name)
		if q.Paused {
			set(message.Pause{}, false)
		}
		for _, of := range q.Pauses {
			set(of, false)
		}
	}
}
