package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// worker receives messages and settles them, with deadlines or with a session.
type worker struct {
	w           *world
	name        string
	r           *rand.Rand
	batch       int
	sent        int // messages with its acks
	incarnation uint64
	session     *session // nil: its leases have deadlines
}

// work lets a worker work until ctx ends. One in two has sessions.
func (w *world) work(ctx context.Context, number int) {
	k := &worker{w: w, name: fmt.Sprintf("worker%d", number), r: w.rand(fmt.Sprintf("worker %d", number))}
	if number%2 == 1 {
		k.session = &session{k: k}
		w.spawn(func() { k.session.heart(ctx) })
		w.mu.Lock()
		w.sessions = append(w.sessions, k.session)
		w.mu.Unlock()
	}
	for w.pause(ctx, time.Duration(k.r.Int64N(int64(50*time.Millisecond)))) {
		p := w.anyNode(k.r)
		if p == nil {
			continue
		}
		var own *life
		if k.session != nil {
			if p, own = k.session.keep(p); p == nil {
				continue
			}
		}
		k.receive(p, own, queues[k.r.IntN(len(queues))].name)
	}
}

// leapCounts is how much time a leap of a clock is for a group: as much as any pause.
const leapCounts = time.Second

// trust is how long a worker counts on a lease: for as long as no clock in the
// cluster can have ended it.
func (k *worker) trust(length time.Duration) time.Duration {
	return time.Duration(float64(length) * (1 - 2*maxDrift))
}

func (k *worker) receive(p *process, own *life, queue string) {
	o := message.ReceiveOptions{Max: 1 + k.r.IntN(4), Wait: time.Duration(k.r.Int64N(int64(2 * time.Second))), Worker: k.name, PerKey: k.r.IntN(6)}
	if own != nil {
		o.Session = own.ref
	} else {
		o.Lease = 2*time.Second + time.Duration(k.r.Int64N(int64(3*time.Second)))
	}
	asked, wallsRight := time.Now(), k.w.watchWalls()
	end, leaps := k.w.now()+k.trust(o.Lease), k.w.leaps.Load() // it can't have begun before
	until := func() time.Duration { return end - time.Duration(k.w.leaps.Load()-leaps)*leapCounts }
	var stream [2]uint64
	if own != nil {
		until, stream = own.trusts, k.session.stream()
	}
	got, alive, err := do(p, k.name, 10*time.Second, func(ctx context.Context) ([]message.Delivery, error) { return p.gateway.Receive(ctx, queue, o) })
	if !alive {
		return
	}
	k.w.note("%s received %d: %v", k.name, len(got), message.CodeOf(err))
	if err != nil || k.r.IntN(50) == 0 {
		return // lost on the way to the worker, if there was anything
	}
	if own != nil && k.session.stream() != stream {
		return // it came by a stream that has ended
	}
	k.batch++
	hold := make([]*holding, len(got))
	for i := range got {
		token, err := p.gateway.OpenToken(got[i].Token)
		if err != nil {
			k.w.fail("the token of message %s can't be read: %v", got[i].ID, err)
		}
		if wallsRight() {
			k.w.tally.inTime(&got[i], asked)
		}
		hold[i] = k.w.tally.hand(k, &got[i], token, k.batch, until)
	}
	if k.w.hook.doubleLease && len(got) > 0 {
		k.w.tally.hand(&worker{name: "a second worker"}, &got[0], hold[0].token, 0, until)
	}
	k.handle(hold)
}

// handle handles what came, and settles each. One that fails gives back all later
// ones of its key.
func (k *worker) handle(hold []*holding) {
	lines := map[string]bool{} // given back
	slow := 15                 // one in so many takes long
	if k.w.hook.skipFence {
		slow = 3 // only those whose leases have ended show the bug
	}
	for i, h := range hold {
		spend := time.Duration(k.r.Int64N(int64(100 * time.Millisecond)))
		if k.r.IntN(slow) == 0 {
			spend = time.Duration(k.r.Int64N(int64(6 * time.Second)))
		}
		k.spend(spend)
		action := message.Ack
		switch x := k.r.IntN(30); {
		case x < 4:
			action = message.Nack
		case x == 4:
			action = message.Release
		case x < 8:
			action = message.Reject
		}
		if lines[h.line] {
			k.w.tally.drop(h)
			continue
		}
		if k.session == nil && k.r.IntN(30) == 0 {
			lines[h.line] = h.line != ""
			k.w.tally.drop(h)
			continue // forgotten: the lease ends by itself, and so do those behind it
		}
		if action != message.Ack && h.line != "" {
			lines[h.line] = true
			for _, later := range hold[i+1:] {
				if later.line == h.line {
					k.w.tally.drop(later)
				}
			}
		}
		k.settle(h, action)
	}
}

// spend lets time pass, and more while the worker is frozen.
func (k *worker) spend(d time.Duration) {
	k.w.pause(context.Background(), d)
	if s := k.session; s != nil {
		s.mu.Lock()
		rest := s.frozen - k.w.now()
		s.mu.Unlock()
		if rest > 0 {
			k.w.pause(context.Background(), rest)
		}
	}
}

// settle settles one lease, and repeats it while the outcome is not known.
func (k *worker) settle(h *holding, action message.Action) {
	s := message.Settlement{Token: h.token, Action: action, Error: "burnt"}
	if action == message.Ack {
		s.FollowUps = k.followUps()
		k.w.tally.tries(h.token.ID)
	}
	r := message.SettleResult{Err: message.Errorf(message.Unavailable, "there was no node")}
	believes := k.w.tally.settles(h)
	believed := believes()
	defer k.w.tally.drop(h)
	repeated := false
	defer func() {
		k.w.tally.followed(s.FollowUps, r, repeated)
		for i := range s.FollowUps {
			if k.r.IntN(4) == 0 {
				k.w.look(k.name, k.r, string(s.FollowUps[i].Body), time.Duration(k.r.IntN(2000))*time.Millisecond)
			}
		}
	}()
	for range 5 {
		p := k.w.anyNode(k.r)
		if p == nil {
			k.spend(100 * time.Millisecond)
			continue
		}
		r = k.try(p, s)
		k.w.note("%s settles %s %d by %d: %v", k.name, h.token.ID, h.token.Fence, action, message.CodeOf(errorOf(r.Err)))
		k.w.tally.settled(h, action, r, repeated, believed && believes())
		switch message.CodeOf(errorOf(r.Err)) {
		case message.UnknownOutcome:
			repeated = true
		case message.Unavailable, message.NotLeader, message.ResourceExhausted:
		default:
			return
		}
		k.spend(50 * time.Millisecond)
	}
}

// followUps are messages to send with an ack, at times, while there are clients.
func (k *worker) followUps() (fs []message.FollowUp) {
	if k.w.ctx.Err() != nil || k.r.IntN(6) > 0 {
		return nil
	}
	var call []*sending
	for range 1 + k.r.IntN(2) {
		k.sent++
		q := queues[k.r.IntN(len(queues))]
		f := message.FollowUp{Queue: q.name, New: message.New{Body: fmt.Appendf(nil, "%s.%d", k.name, k.sent)}}
		if k.r.IntN(3) > 0 {
			f.Key = someKey(k.r, k.r.IntN(producers))
		}
		s := newSending(q, &f.New, wish(k.r, &f.New))
		s.follows = true
		fs, call = append(fs, f), append(call, s)
	}
	k.w.tally.begin(call, true)
	return fs
}

func (k *worker) try(p *process, s message.Settlement) message.SettleResult {
	w := k.w
	if w.hook.dropAck && s.Action == message.Ack && len(s.FollowUps) == 0 {
		return message.SettleResult{State: message.Finished}
	}
	if w.hook.skipFence {
		newest, _ := w.logs.newest(s.Token.ID)
		s.Token.Fence, s.Token.Place = newest.Fence, newest.Place
	}
	results, _, err := do(p, k.name, sendWithin, func(ctx context.Context) ([]message.SettleResult, error) {
		if w.hook.tearAck {
			return tornAck(ctx, p, s)
		}
		return p.gateway.Settle(ctx, []message.Settlement{s})
	})
	if err != nil {
		return message.SettleResult{Err: message.Errorf(message.CodeOf(err), "%v", err)}
	}
	return results[0]
}
