package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

func someTenant(r *rand.Rand) string { return fmt.Sprint("t", r.IntN(3)) }

// wishes are what a sender asks for one message besides its key and its delay.
type wishes struct {
	unique  string    // name that one unfinished message has at the most
	shared  bool      // who has the name stands for it
	expires time.Time // when it is no use any more; zero: never
}

// wishAll asks for something, or nothing, for each message of a call, and says what.
// With once the call may be repeated: each message has a dedup id.
func wishAll(r *rand.Rand, msgs []message.New) (ws []wishes, once bool) {
	ws = make([]wishes, len(msgs))
	once = r.IntN(4) == 0
	for i := range msgs {
		m := &msgs[i]
		ws[i] = wish(r, m)
		switch {
		case once:
			m.DedupID = string(m.Body)
		case m.Key != "" && r.IntN(4) == 0:
			m.UniqueKey, m.OnConflict = fmt.Sprint("u", r.IntN(2)), message.ConflictReject
			if r.IntN(2) == 0 {
				m.OnConflict, ws[i].shared = message.ConflictExisting, true
			}
			ws[i].unique = m.UniqueKey
		}
	}
	return ws, once
}

// wish asks for something that each message may have, also one that is sent with an ack.
func wish(r *rand.Rand, m *message.New) (ws wishes) {
	if r.IntN(8) == 0 {
		m.Delay = time.Duration(r.Int64N(int64(2 * time.Second)))
	}
	if r.IntN(3) == 0 {
		m.Tenant = someTenant(r)
	}
	wall := time.Now() // a sender's clock is right
	switch x := r.IntN(40); {
	case x < 10:
		m.Priority = r.IntN(message.MaxPriority + 1)
	case x < 14 && m.Delay == 0:
		m.DeliverAt = wall.Add(time.Duration(r.Int64N(int64(3 * time.Second))))
	case x < 18 && m.Delay == 0:
		m.Expires = wall.Add(time.Duration(r.Int64N(int64(6 * time.Second))))
		ws.expires = m.Expires
	case x < 22:
		m.Retry = &message.Retry{MaxAttempts: 1 + r.IntN(3)}
	}
	return ws
}

// withdraw cancels a message that its sender knows of. One that is leased goes on
// until its worker lets it go, by force until some time has passed. None goes out again.
func (w *world) withdraw(who string, r *rand.Rand, payload string) {
	s, _ := w.tally.known(payload)
	p := w.anyNode(r)
	if p == nil || s.confirmed == 0 {
		return
	}
	o := message.CancelOptions{Force: r.IntN(2) == 0}
	if o.Force {
		o.Grace = time.Duration(r.Int64N(int64(time.Second)))
	}
	w.tally.withdraws(payload, o.Force)
	results, alive, err := do(p, who, sendWithin, func(ctx context.Context) ([]message.SettleResult, error) {
		return p.gateway.Cancel(ctx, []message.ID{s.id}, o)
	})
	if !alive {
		return
	}
	if err == nil {
		err = errorOf(results[0].Err)
	}
	w.note("cancelled %s: %v", s.id, message.CodeOf(err))
	if err != nil {
		return
	}
	w.logs.cancelled(s.id)
	if o.Force && results[0].State == message.Leased {
		w.tally.count("forced")
	}
}
