package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

// workload does everything that can be done to messages, at random, over a
// stock that stays: some of every state, whatever the rest does.
type workload struct {
	t     *testing.T
	g     *gateway.Gateway
	stock []stocked
}

// stocked is a message that nobody touches any more, with the state in which it
// must be found.
type stocked struct {
	id    message.ID
	state message.State
}

var workloadQueues = []struct {
	name     string
	shards   int
	settings message.Settings
}{
	{"orders", 4, message.Settings{KeepFinished: 50}},
	{"mail", 2, message.Settings{KeepFinished: 10, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: 50 * time.Millisecond}}},
	{"flaky", 1, message.Settings{MaxAttempts: 2, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: time.Millisecond}}},
}

const stockQueue = "stock"

// stockUp makes 160 unsettled messages of which 40 are leased, 40 scheduled and
// 40 dead.
func (w *workload) stockUp() {
	ctx := w.t.Context()
	w.create(stockQueue, 4, message.Settings{})
	for _, q := range workloadQueues {
		w.create(q.name, q.shards, q.settings)
	}
	w.keep(message.Scheduled, w.send(ctx, stockQueue, 40, message.New{Delay: message.MaxDelay}))
	w.send(ctx, stockQueue, 80, message.New{})
	for i, d := range w.receive(ctx, stockQueue, 80, message.MaxLease) {
		state := message.Leased
		if i%2 == 0 {
			state = message.Dead
			w.settle(ctx, d, message.Settlement{Action: message.Reject, Error: "no"})
		}
		w.keep(state, []message.ID{d.ID})
	}
	w.keep(message.Ready, w.send(ctx, stockQueue, 40, message.New{}))
	if len(w.stock) != 160 {
		w.t.Fatalf("%d messages in stock", len(w.stock))
	}
}

func (w *workload) create(name string, shards int, s message.Settings) {
	if _, _, err := w.g.CreateQueue(w.t.Context(), name, s, shards); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workload) keep(s message.State, ids []message.ID) {
	for _, id := range ids {
		w.stock = append(w.stock, stocked{id, s})
	}
}

// client works until ctx ends; room is asked before each step.
func (w *workload) client(ctx context.Context, rng *rand.Rand, room func() bool) {
	for ctx.Err() == nil && room() {
		q := workloadQueues[rng.IntN(len(workloadQueues))].name
		switch rng.IntN(10) {
		case 0, 1, 2, 3:
			m := message.New{Type: "t", Attributes: []message.Attribute{{Name: "n", Kind: message.AttributeNumber, Value: []byte("1")}}}
			if rng.IntN(2) == 0 {
				m.Key = fmt.Sprint("k", rng.IntN(20))
			}
			if rng.IntN(4) == 0 {
				m.Delay = time.Duration(rng.IntN(500)) * time.Millisecond
			}
			m.Body = make([]byte, rng.IntN(1_000))
			w.send(ctx, q, 1+rng.IntN(6), m)
		case 4:
			w.redrive(ctx, q)
			if rng.IntN(5) == 0 {
				w.pass(ctx, fmt.Sprint("passing-", rng.Uint32()))
			}
		default:
			w.work(ctx, rng, q)
		}
	}
}

// work leases some messages and does with each what a worker may do with it,
// which is also to forget it.
func (w *workload) work(ctx context.Context, rng *rand.Rand, q string) {
	for _, d := range w.receive(ctx, q, 1+rng.IntN(8), message.MinLease) {
		s := message.Settlement{Action: message.Ack, Error: "no"}
		switch rng.IntN(12) {
		case 0:
			continue
		case 1, 2:
			s.Action = message.Nack
		case 3:
			s.Action = message.Reject
		case 4:
			s.Action = message.Release
		case 5:
			s.Action, s.Lease = message.Extend, message.MinLease
		default:
		}
		w.settle(ctx, d, s)
	}
}

// pass creates a queue that is soon deleted with what is in it.
func (w *workload) pass(ctx context.Context, name string) {
	if _, _, err := w.g.CreateQueue(ctx, name, message.Settings{}, 2); w.ended(ctx, err) {
		return
	}
	w.send(ctx, name, 5, message.New{Body: []byte("in vain")})
	w.ended(ctx, w.g.DeleteQueue(ctx, name))
}

func (w *workload) send(ctx context.Context, q string, n int, m message.New) []message.ID {
	msgs := make([]message.New, n)
	for i := range msgs {
		msgs[i] = m
	}
	rs, err := w.g.Send(ctx, q, msgs)
	if w.ended(ctx, err) {
		return nil
	}
	ids := make([]message.ID, n)
	for i, r := range rs {
		if r.Err != nil {
			w.t.Error(r.Err)
		}
		ids[i] = r.ID
	}
	return ids
}

func (w *workload) receive(ctx context.Context, q string, n int, lease time.Duration) []message.Delivery {
	ds, err := w.g.Receive(ctx, q, message.ReceiveOptions{Max: n, Wait: time.Millisecond, Lease: lease, Worker: "w"})
	w.ended(ctx, err)
	return ds
}

// settle does not mind that the lease has run out meanwhile.
func (w *workload) settle(ctx context.Context, d message.Delivery, s message.Settlement) {
	var err error
	if s.Token, err = w.g.OpenToken(d.Token); err != nil {
		w.t.Error(err)
	}
	_, err = w.g.Settle(ctx, []message.Settlement{s})
	w.ended(ctx, err)
}

func (w *workload) redrive(ctx context.Context, q string) {
	dead, err := w.g.List(ctx, q, message.ListOptions{State: message.Dead, Max: 20})
	if w.ended(ctx, err) || len(dead.Messages) == 0 {
		return
	}
	var ids []message.ID
	for i := range dead.Messages {
		ids = append(ids, dead.Messages[i].ID)
	}
	_, err = w.g.Redrive(ctx, ids, true)
	w.ended(ctx, err)
}

// ended says that the call did not come to its end, and reports why, unless the
// workload was told to end.
func (w *workload) ended(ctx context.Context, err error) bool {
	if err != nil && ctx.Err() == nil {
		w.t.Error(err)
	}
	return err != nil
}

// lost names a message of the stock that a node does not have as it must.
func (w *workload) lost(ctx context.Context, g *gateway.Gateway) error {
	for _, s := range w.stock {
		shown, _, err := g.Show(ctx, s.id, message.ReadOptions{}, 0)
		if err != nil || shown.State != s.state {
			return fmt.Errorf("message %s must be %v: %v, %w", s.id, s.state, shown.State, err)
		}
	}
	return nil
}
