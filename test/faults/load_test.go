//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

const (
	queue   = "orders"
	workers = 4
	// backlog is how many messages of a key wait before its producer does.
	backlog = 400
	// lease is short, so that what a crash left leased comes back in a round.
	lease = time.Second
)

// createQueue makes the queue of the tests. Its messages never die, because a
// crash can end many a lease.
func createQueue(t *testing.T, c *client.Client) {
	t.Helper()
	_, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{Shards: 4, Settings: &client.QueueSettings{
		MaxAttempts: 1000,
		Backoff:     &comandav1.Backoff{Kind: comandav1.BackoffKind_BACKOFF_KIND_FIXED, Initial: durationpb.New(10 * time.Millisecond)},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// load is producers and workers at work on one server.
type load struct {
	client *client.Client
	record *record
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// startLoad lets a producer for each key, and workers, loose on a server. They
// go on until the load is stopped or the server is gone.
func startLoad(t *testing.T, p *process, r *record) *load { return startPart(t, p.dial(t), r, 0, 1) }

// startPart starts one of several parts of a load: it has every parts-th key,
// from the first on, and workers of its own.
func startPart(t *testing.T, c *client.Client, r *record, first, parts int) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{client: c, record: r, cancel: cancel}
	for key := first; key < keys; key += parts {
		l.done.Go(func() { l.produce(ctx, key) })
	}
	for range workers {
		l.done.Go(func() { l.work(ctx) })
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
	l.client.Close()
}

// produce sends a key's messages one after the other, sometimes several in a
// call, and never sends one again. It ends when it does not know what became of
// one: it might still come, after the next.
func (l *load) produce(ctx context.Context, key int) {
	for ctx.Err() == nil {
		if l.record.open(key) > backlog {
			pause(ctx)
			continue
		}
		n := max(1, rand.IntN(8)-3)
		from := l.record.begin(key, n)
		batch := make([]client.Message, n)
		for i := range batch {
			batch[i] = client.Message{Key: fmt.Sprint("key-", key), Body: body(key, from+i)}
		}
		results, _ := l.client.SendBatch(ctx, queue, batch)
		full := false
		for i, s := range results {
			switch {
			case s.Err == nil:
				l.record.confirm(key, from+i, s.ID)
			case errors.Is(s.Err, client.ErrUnknownOutcome):
				return
			case errors.Is(s.Err, client.ErrResourceExhausted):
				full = true
				l.record.refuse(key, from+i, s.Err)
			default:
				full = true
				l.record.refuse(key, from+i, s.Err)
			}
		}
		if full {
			pause(ctx)
		}
	}
}

// work receives and settles: it acks nearly everything, and gives some back.
func (l *load) work(ctx context.Context) {
	for ctx.Err() == nil {
		began := l.record.now()
		ds, err := l.client.Receive(ctx, queue, client.ReceiveOptions{Max: 8, Wait: 500 * time.Millisecond, Lease: lease, Worker: "faults"})
		if err != nil {
			pause(ctx)
			continue
		}
		l.settle(ctx, began, ds)
	}
}

func (l *load) settle(ctx context.Context, began uint64, ds []*client.Delivery) {
	type place struct{ key, n int }
	var places []place
	var settlements []client.Settlement
	for _, d := range ds {
		key, n, ok := l.record.deliver(began, d.ID(), d.Body())
		if !ok {
			continue
		}
		s := client.Settlement{Token: d.Token(), Action: client.ActionAck}
		switch rand.IntN(32) {
		case 0:
			s.Action, s.Error, s.Delay = client.ActionNack, "not today", time.Millisecond
		case 1:
			s.Action = client.ActionRelease
		default:
			l.record.ack(key, n)
		}
		places = append(places, place{key, n})
		settlements = append(settlements, s)
	}
	results, _ := l.client.Settle(ctx, settlements) // the errors are in the results
	for i, s := range results {
		if s.Err == nil && settlements[i].Action == client.ActionAck {
			l.record.acked(places[i].key, places[i].n)
		}
	}
}

func pause(ctx context.Context) {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
	}
}

// check holds the record against what a server has, while no load runs on it.
func check(t *testing.T, p *process, r *record) []string {
	t.Helper()
	return r.compare(unfinished(t, p.dial(t)))
}

// unfinished are the ids of all messages that wait, are leased or are dead. The
// states are asked in the order in which time alone moves a message, so that
// none slips through.
func unfinished(t *testing.T, c *client.Client) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, state := range []string{"leased", "scheduled", "ready", "dead"} {
		for page := ""; ; {
			l, err := c.List(t.Context(), queue, client.ListOptions{State: state, Max: 1000, Page: page})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range l.GetMessages() {
				ids[m.GetId()] = true
			}
			if page = l.GetNextPage(); page == "" {
				break
			}
		}
	}
	return ids
}

// drain works everything off that a server has, and checks that it was all that
// was confirmed.
func drain(t *testing.T, p *process, r *record) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{client: p.dial(t), record: r, cancel: cancel}
	defer l.stop()
	for range workers {
		l.done.Go(func() { l.work(ctx) })
	}
	eventually(t, "the queue to be empty", func() error {
		q, err := l.client.Queue(t.Context(), queue)
		if err != nil {
			return err
		}
		if c := q.GetQueue().GetCounts(); c.GetReady()+c.GetScheduled()+c.GetLeased()+c.GetDead() > 0 {
			return fmt.Errorf("it has %v", c)
		}
		return nil
	})
	fail(t, r.drained())
	t.Log(r.summary())
}

// fail ends the test if something was found wrong.
func fail(t *testing.T, wrong []string) {
	t.Helper()
	if len(wrong) > 0 {
		t.Fatalf("found wrong:\n%s", strings.Join(wrong, "\n"))
	}
}
