package leader

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// postman carries deliveries to the group of a rig, or does not.
type postman struct {
	to *rig

	mu      sync.Mutex
	how     string          // away, deaf (the answer is lost), or well
	carried []queue.Command // each of them may come again
	called  chan struct{}   // a value for each call that is over
}

func (p *postman) be(how string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.how = how
}

func (p *postman) Deliver(ctx context.Context, _ uint32, _ int, c queue.Command) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		select {
		case p.called <- struct{}{}:
		default:
		}
	}()
	if p.how == "away" {
		return nil, message.Errorf(message.Unavailable, "it is away")
	}
	p.carried = append(p.carried, c)
	result, err := p.to.Propose(ctx, c)
	if p.how == "deaf" {
		return nil, message.Errorf(message.UnknownOutcome, "the answer is lost")
	}
	return result, err
}

// The group that dead letters go to has no majority for ten dedup windows, after it
// took some of which no answer came; their leader changes; and calls of the leader
// before come late. There is one copy of each, in order.
func TestOutboxOutlivesAnOutage(t *testing.T) {
	to, from := newRig(t), newRig(t)
	cell := []queue.Bounds{{From: 0, To: 0, Path: "0"}}
	window := time.Minute
	to.propose((&queue.Configure{Queue: 2, Version: 1, Settings: message.Settings{DedupWindow: window}.WithDefaults(), Shards: cell}).Command())
	from.propose((&queue.Configure{Queue: 1, Version: 2, Settings: message.Settings{}.WithDefaults(), Shards: cell, DeadLetter: queue.Target{Queue: 2}}).Command())
	p := &postman{to: to, called: make(chan struct{}, 100)}
	from.Sender = p
	var died []message.ID
	die := func(n int) {
		t.Helper()
		from.send(n, 0)
		for range n {
			got := from.receive(1, time.Hour)
			from.settle(got, message.Reject, 0)
			died = append(died, got[0].ID)
		}
	}
	// called lets time go on until the leader has called again.
	called := func() {
		t.Helper()
		for len(p.called) > 0 {
			<-p.called
		}
		deadline := time.After(30 * time.Second)
		for {
			from.step(maxDeliverAgain)
			select {
			case <-p.called:
				return
			case <-deadline:
				t.Fatal("nothing is sent")
			case <-time.After(time.Millisecond):
			}
		}
	}
	there := func() (ids []message.ID) {
		to.read(func(rows queue.Reader) {
			q, _ := queue.Queue(rows, 2)
			list, _, _, _ := queue.List(rows, &q, &queue.ListQuery{Queue: 2, State: message.Ready, Limit: 100}, 1)
			for _, d := range list {
				ids = append(ids, d.ID)
			}
		})
		return ids
	}
	p.be("deaf")
	die(3)
	called()
	p.be("away")
	die(2)
	to.clock.add(10 * window)
	to.step(time.Second)
	called()
	from.restart()
	from.Sender = p
	p.be("deaf")
	called()
	p.be("well")
	called()
	deadline := time.After(30 * time.Second)
	for left := true; left; {
		from.step(maxDeliverAgain)
		from.read(func(rows queue.Reader) {
			left = len(queue.Lines(rows, 1, 0, nil, 1)) > 0
		})
		select {
		case <-deadline:
			t.Fatal("some do not leave")
		case <-time.After(time.Millisecond):
		}
	}
	for _, late := range p.carried {
		to.propose(late)
	}
	got := there()
	if len(got) != len(died) {
		t.Fatalf("%d died, there are %d", len(died), len(got))
	}
	for i := range got {
		if got[i] != died[i] {
			t.Errorf("message %d is %s, want %s", i, got[i], died[i])
		}
	}
	from.read(func(rows queue.Reader) {
		if q, _ := queue.Queue(rows, 1); q.Counts() != (message.Counts{}) {
			t.Errorf("left where they died: %+v", q.Counts())
		}
	})
}

// A leader sends so many lines at a time and no more, and forgets those that are gone:
// their queue was purged, or their cell given away.
func TestOutboxIsBounded(t *testing.T) {
	to, from := newRig(t), newRig(t)
	p := &postman{to: to, how: "away", called: make(chan struct{}, 100)}
	from.Sender = p
	gone := way{queue.Line{Queue: 1}, queue.Line{Queue: 2}}
	from.mu.Lock()
	from.outbox.cells[gone.from] = true
	from.outbox.lines[gone] = &sending{}
	from.outbox.busy = maxSending
	from.begin(way{queue.Line{Queue: 1}, queue.Line{Queue: 3}})
	begun := len(from.outbox.lines)
	from.mu.Unlock()
	if begun != 1 {
		t.Errorf("%d lines are known, one more than are sent at a time", begun)
	}
	from.sendOutbox()
	from.mu.Lock()
	defer from.mu.Unlock()
	if len(from.outbox.lines) != 0 {
		t.Errorf("%d lines are remembered that are gone", len(from.outbox.lines))
	}
}
