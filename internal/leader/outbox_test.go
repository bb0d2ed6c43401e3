package leader

import (
	"context"
	"slices"
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

// wait lets time go on until the leader has called again.
func (p *postman) wait(from *rig) {
	from.t.Helper()
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
			from.t.Fatal("nothing is sent")
		case <-time.After(time.Millisecond):
		}
	}
}

// wantThere lets time go on until all has left, has every call come once more, and wants
// these messages in queue 2, in order.
func (p *postman) wantThere(from *rig, ids []message.ID) {
	from.t.Helper()
	deadline := time.After(30 * time.Second)
	for left := true; left; {
		from.step(maxDeliverAgain)
		from.read(func(rows queue.Reader) {
			left = len(queue.Lines(rows, 1, 0, nil, 1)) > 0
		})
		select {
		case <-deadline:
			from.t.Fatal("some do not leave")
		case <-time.After(time.Millisecond):
		}
	}
	for _, late := range p.carried {
		p.to.propose(late)
	}
	var got []message.ID
	p.to.read(func(rows queue.Reader) {
		q, _ := queue.Queue(rows, 2)
		list, _, _, _ := queue.List(rows, &q, &queue.ListQuery{Queue: 2, State: message.Ready, Limit: 100}, 1)
		for _, d := range list {
			got = append(got, d.ID)
		}
	})
	if !slices.Equal(got, ids) {
		from.t.Fatalf("there are %v, want %v", got, ids)
	}
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
	p.be("deaf")
	die(3)
	p.wait(from)
	p.be("away")
	die(2)
	to.clock.add(10 * window)
	to.step(time.Second)
	p.wait(from)
	from.restart()
	from.Sender = p
	p.be("deaf")
	p.wait(from)
	p.be("well")
	p.wait(from)
	p.wantThere(from, died)
	from.read(func(rows queue.Reader) {
		if q, _ := queue.Queue(rows, 1); q.Counts() != (message.Counts{}) {
			t.Errorf("left where they died: %+v", q.Counts())
		}
	})
}

// Acks with follow-ups for another group: an answer of that one is lost, then the source
// fails over, then the target. Each follow-up that a worker was told the id of is there
// once, in order, and who waits for the end of one is told when it has left.
func TestFollowUpsOutliveFailovers(t *testing.T) {
	to, from := newRig(t), newRig(t)
	to.propose((&queue.Configure{Queue: 2, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{From: 0, To: 0, Path: "0"}}}).Command())
	p := &postman{to: to, called: make(chan struct{}, 100)}
	from.Sender = p
	var sent []message.ID
	ack := func() {
		t.Helper()
		from.send(1, 0)
		got := from.receive(1, time.Hour)[0]
		c := queue.Settle{
			Settlements: []message.Settlement{{Token: message.Token{ID: got.ID, Fence: got.Fence}, Action: message.Ack}},
			FollowUps:   [][]queue.FollowUp{{{To: queue.Target{Queue: 2}}, {To: queue.Target{Queue: 2}}}},
		}
		for again := range 2 {
			r := from.propose(c.Command()).([]message.SettleResult)[0]
			if r.Err != nil || len(r.FollowUps) != 2 || r.AlreadyDone != (again == 1) {
				t.Fatalf("%+v", r)
			}
			if again == 0 {
				sent = append(sent, r.FollowUps...)
			}
		}
	}
	p.be("deaf")
	ack()
	p.wait(from)
	p.be("away")
	from.restart()
	from.Sender = p
	ack()
	p.wait(from)
	waits := make(chan error, 1)
	go func() { waits <- from.Await(t.Context(), sent[3]) }()
	to.restart()
	p.be("deaf")
	p.wait(from)
	select {
	case err := <-waits:
		t.Errorf("before it is known to have left: %v", err)
	default:
	}
	p.be("well")
	p.wantThere(from, sent)
	select {
	case err := <-waits:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("who waits is not told")
	}
}

// oneWay carries deliveries to one queue, and to no other.
type oneWay struct {
	postman
	open uint32
}

func (o *oneWay) Deliver(ctx context.Context, number uint32, cell int, c queue.Command) (any, error) {
	if number != o.open {
		return nil, message.Errorf(message.Unavailable, "it is away")
	}
	return o.postman.Deliver(ctx, number, cell, c)
}

// More queues than a leader looks at in a turn are away: what goes to the one behind them
// leaves all the same.
func TestStuckLinesKeepNoOther(t *testing.T) {
	const away = 2 * maxLines
	to, from := newRig(t), newRig(t)
	to.propose((&queue.Configure{Queue: 2 + away, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{From: 0, To: 0, Path: "0"}}}).Command())
	p := &oneWay{postman: postman{to: to, called: make(chan struct{}, 1)}, open: 2 + away}
	from.Sender = p
	var c queue.Settle
	for number := uint32(2); number <= p.open; {
		from.send(1, 0)
		got := from.receive(1, time.Hour)[0]
		c.Settlements = append(c.Settlements, message.Settlement{Token: message.Token{ID: got.ID, Fence: got.Fence}, Action: message.Ack})
		var fs []queue.FollowUp
		for ; number <= p.open && len(fs) < message.MaxFollowUps; number++ {
			fs = append(fs, queue.FollowUp{To: queue.Target{Queue: number}})
		}
		c.FollowUps = append(c.FollowUps, fs)
	}
	from.propose(c.Command())
	p.wait(from)
}

// A leader sends so many lines at a time and no more, and forgets those that are gone:
// their queue was purged, or their cell given away.
func TestOutboxIsBounded(t *testing.T) {
	to, from := newRig(t), newRig(t)
	p := &postman{to: to, how: "away", called: make(chan struct{}, 100)}
	from.Sender = p
	gone := way{queue.Line{Queue: 1}, queue.Line{Queue: 2}}
	from.mu.Lock()
	from.outbox.lines[gone] = &sending{at: from.clock.Now()}
	from.outbox.busy = maxSending
	next := from.beginAll(gone.from, &gone.to, []queue.Line{{Queue: 3}})
	begun := len(from.outbox.lines)
	from.mu.Unlock()
	if begun != 1 || next != &gone.to {
		t.Errorf("%d lines are known, one more than are sent at a time, and the next turn begins behind %v", begun, next)
	}
	from.clock.add(2 * maxDeliverAgain)
	from.sendOutbox()
	from.mu.Lock()
	defer from.mu.Unlock()
	if len(from.outbox.lines) != 0 {
		t.Errorf("%d lines are remembered that are gone", len(from.outbox.lines))
	}
}

// What waits for its next attempt keeps nobody who waits for the clock; what could be
// sent does.
func TestOverdueOutbox(t *testing.T) {
	from, to := queue.Line{Queue: 1}, queue.Line{Queue: 2}
	now := time.Unix(100, 0)
	for name, c := range map[string]struct {
		news bool
		line *sending
		want bool
	}{
		"not looked at yet":      {true, nil, true},
		"looked at, not begun":   {false, nil, true},
		"being sent":             {false, &sending{busy: true}, true},
		"its pause is over":      {false, &sending{at: now}, true},
		"it pauses":              {false, &sending{at: now.Add(1)}, false},
		"more came in its pause": {true, &sending{at: now.Add(1)}, true},
	} {
		o := newOutbox()
		o.cells[from] = &leaving{news: c.news}
		if c.line != nil {
			o.lines[way{from, to}] = c.line
		}
		if got := o.overdue(now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if o := newOutbox(); o.overdue(now) {
		t.Error("nothing is to leave")
	}
}

// The turn begins with the cell for which the last one had no room.
func TestTurnOfCells(t *testing.T) {
	o := newOutbox()
	a, b, c := queue.Line{Queue: 1, Cell: 2}, queue.Line{Queue: 1, Cell: 9}, queue.Line{Queue: 2}
	if got := o.turn([]queue.Line{c, a, b}); !slices.Equal(got, []queue.Line{a, b, c}) {
		t.Error(got)
	}
	o.stopped = b
	if got := o.turn([]queue.Line{c, b, a}); !slices.Equal(got, []queue.Line{b, c, a}) {
		t.Error(got)
	}
}
