package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// wishes are what a sender asks for one message besides its key and its delay.
type wishes struct {
	unique  string // name that one unfinished message has at the most
	expires bool   // it may end by itself
}

// wish asks for something, or nothing, for each message of a call, and says what.
// With once the call may be repeated: each message has a dedup id.
func (w *world) wish(r *rand.Rand, msgs []message.New) (ws []wishes, once bool) {
	ws = make([]wishes, len(msgs))
	once = r.IntN(4) == 0
	wall := time.Now() // a sender's clock is right
	for i := range msgs {
		m := &msgs[i]
		if once {
			m.DedupID = string(m.Body)
		}
		switch x := r.IntN(40); {
		case x < 10:
			m.Priority = r.IntN(message.MaxPriority + 1)
		case x < 14 && m.Delay == 0:
			m.DeliverAt = wall.Add(time.Duration(r.Int64N(int64(3 * time.Second))))
		case x < 18 && m.Delay == 0:
			m.Expires, ws[i].expires = wall.Add(time.Duration(r.Int64N(int64(6*time.Second)))), true
		case x < 22:
			m.Retry = &message.Retry{MaxAttempts: 1 + r.IntN(3)}
		case x < 30 && m.Key != "" && !once:
			m.UniqueKey, m.OnConflict = fmt.Sprint("u", r.IntN(2)), message.ConflictReject
			if x < 26 {
				m.OnConflict = message.ConflictExisting
			}
			ws[i].unique = m.UniqueKey
		}
	}
	return ws, once
}

// withdraw cancels a message that its sender knows of. One that is leased goes on
// until its worker lets it go.
func (w *world) withdraw(who string, r *rand.Rand, payload string) {
	id, confirmed, _ := w.tally.known(payload)
	p := w.anyNode(r)
	if p == nil || confirmed == 0 {
		return
	}
	w.tally.withdraws(payload)
	results, alive, err := do(p, who, sendWithin, func(ctx context.Context) ([]message.SettleResult, error) {
		return p.gateway.Cancel(ctx, []message.ID{id}, message.CancelOptions{})
	})
	if !alive {
		return
	}
	if err == nil {
		err = errorOf(results[0].Err)
	}
	w.note("cancelled %s: %v", id, message.CodeOf(err))
}
