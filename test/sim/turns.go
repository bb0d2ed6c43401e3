package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// takeTurns has tenants send to a queue when all else has come to rest, one of them many
// messages before the others, and a worker take one after the other.
func (w *world) takeTurns(q queueSpec) {
	var over atomic.Bool
	w.spawn(func() {
		t := &turns{w: w, k: &worker{w: w, name: "last worker", r: w.rand("turns")}, q: q, of: map[string]string{}, waiting: map[string]int{}, passed: map[[2]string]int{}}
		t.send("a", 12)
		for _, tenant := range []string{"b", "", "c"} {
			t.send(tenant, 4)
		}
		for w.tally.waits() && !w.over.Load() {
			t.take()
		}
		over.Store(true)
	})
	w.expect("all tenants have had their turns", over.Load, 60*time.Second)
}

// turns are those of the tenants of a queue with one leader and one worker.
type turns struct {
	w       *world
	k       *worker
	q       queueSpec
	of      map[string]string // tenant, by message
	waiting map[string]int    // messages, by tenant
	passed  map[[2]string]int // how often a tenant that waits was passed by which other one
}

// send sends messages of a tenant.
func (t *turns) send(tenant string, n int) {
	p := t.w.anyNode(t.k.r)
	if p == nil {
		return
	}
	c := sendCall{who: t.k.name, queue: t.q.name}
	var call []*sending
	for range n {
		payload := fmt.Sprintf("turns.%d", len(t.of))
		t.of[payload] = tenant
		m := message.New{Body: []byte(payload), Tenant: tenant}
		if t.w.hook.dropTenant {
			m.Tenant = ""
		}
		c.payloads, c.msgs, call = append(c.payloads, payload), append(c.msgs, m), append(call, newSending(t.q, &m, wishes{}))
	}
	t.w.tally.begin(call, false)
	t.w.send(p, &c, 0, false)
	for _, payload := range c.payloads {
		if s, _ := t.w.tally.known(payload); s.outcome == "confirmed" {
			t.waiting[tenant]++
		}
	}
}

// take takes a message and acks it.
func (t *turns) take() {
	k := t.k
	p := t.w.anyNode(k.r)
	if p == nil {
		return
	}
	o := message.ReceiveOptions{Max: 1, Wait: time.Second, Lease: 2 * time.Second, Worker: k.name}
	end := t.w.now() + k.trust(o.Lease)
	got, alive, err := do(p, k.name, sendWithin, func(ctx context.Context) ([]message.Delivery, error) { return p.gateway.Receive(ctx, t.q.name, o) })
	if !alive || err != nil || len(got) == 0 {
		// The leader may have changed after it made a lease that nobody got.
		t.w.pause(context.Background(), 2*o.Lease)
		clear(t.passed)
		return
	}
	token, err := p.gateway.OpenToken(got[0].Token)
	if err != nil {
		t.w.fail("the token of message %s can't be read: %v", got[0].ID, err)
		return
	}
	t.served(t.of[string(got[0].Body)])
	k.settle(t.w.tally.hand(k, &got[0], token, 0, func() time.Duration { return end }), message.Ack)
}

// served checks that no tenant that waits is passed by the one that was served more than
// once, and once more where the leader has changed.
func (t *turns) served(tenant string) {
	t.waiting[tenant]--
	for other, n := range t.waiting {
		delete(t.passed, [2]string{tenant, other})
		if n <= 0 || other == tenant {
			continue
		}
		at := [2]string{other, tenant}
		if t.passed[at]++; t.passed[at] > 2 {
			t.w.fail("tenant %q has %d messages waiting, and %q had %d turns before it", other, n, tenant, t.passed[at])
		}
	}
	t.w.tally.count("turns")
}
