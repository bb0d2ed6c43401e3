package queue_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// deadLetterQueue is queue 2, which the dead of queue 1 go to.
var deadLetterQueue = queue.Target{Queue: 2, Secret: message.Secret{7}}

// post is two groups: queue 1 is in the first, queue 2 in the second, or in the first
// as well.
type post struct {
	from, to *world
	settings message.Settings // of queue 2
	died     []message.ID     // in this order
	keys     map[message.ID]string
	calls    []queue.Deliver // that were made: each may come again
}

func newPost(settings message.Settings, apart bool) *post {
	p := &post{from: newWorld(), settings: settings.WithDefaults(), keys: map[message.ID]string{}}
	p.to = p.from
	if apart {
		p.to = newWorld()
	}
	all := []queue.Bounds{{To: 15, Path: "0"}}
	p.to.apply((&queue.Configure{Queue: 2, Version: 1, Settings: p.settings, Shards: all}).Command())
	p.from.apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{MaxAttempts: 1}.WithDefaults(), Shards: all, DeadLetter: deadLetterQueue}).Command())
	return p
}

// die sends a message that is rejected at once.
func (p *post) die(key string, body []byte) message.ID {
	w := p.from
	m := queue.Sent{Cell: 3, Hash: hashOf(key), New: message.New{Key: key, Body: body, DedupID: fmt.Sprint(len(p.died)), UniqueKey: key}}
	if key == "" {
		m.DedupID, m.UniqueKey = "", ""
	}
	mark(&m)
	w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())
	lease := queue.Lease{Queue: 1, Worker: "w", Length: time.Minute, MaxBytes: 1 << 20}
	for n := range message.Cells {
		lease.Items = append(lease.Items, queue.Refs(queue.Offers(w.rows, 1, n, nil, 10))...)
	}
	got := w.apply(lease.Command())[0].(queue.LeaseResult).Leased[0]
	w.apply((&queue.Settle{Settlements: []message.Settlement{{Token: message.Token{ID: got.ID, Fence: got.Fence}, Action: message.Reject, Error: "no"}}}).Command())
	p.died = append(p.died, got.ID)
	p.keys[got.ID] = key
	return got.ID
}

// next are the calls that a leader makes now: one for each line.
func (p *post) next(limit int) (calls []queue.Deliver) {
	for n := range message.Cells {
		for _, to := range queue.Lines(p.from.rows, 1, n, nil, 100) {
			calls = append(calls, queue.NextDelivery(p.from.rows, queue.Line{Queue: 1, Cell: n}, to, limit, p.from.now))
		}
	}
	return calls
}

// arrive lets a call come to the target.
func (p *post) arrive(c queue.Deliver) ([]*message.Error, *message.Error) {
	switch r := p.to.apply(c.Command())[0].(type) {
	case []*message.Error:
		return r, nil
	case *message.Error:
		return nil, r
	}
	panic("no answer")
}

// answer brings what the target said to the source.
func (p *post) answer(c queue.Deliver, results []*message.Error) {
	d := queue.Delivered{From: c.From, To: c.To}
	for i := range c.Parcels {
		d.Results = append(d.Results, queue.DeliveredResult{Seq: c.Parcels[i].Seq, Err: results[i]})
	}
	p.from.apply(d.Command())
}

// check holds what is in the target against what died: each once, the messages of a
// key in the order in which they died.
func (p *post) check(t failing) {
	t.Helper()
	there := map[message.ID]int{}
	order := map[string][]message.ID{}
	q, _ := queue.Queue(p.to.rows, 2)
	list, _, _, _ := queue.List(p.to.rows, &q, &queue.ListQuery{Queue: 2, State: message.Ready, Limit: 1000}, 1<<16-1)
	for _, d := range list {
		there[d.ID]++
		order[d.Key] = append(order[d.Key], d.ID)
		if d.Place.Queue() != 2 || d.ID.Queue() != 1 || d.Dedup != nil || d.Unique != nil {
			t.Fatalf("message %s is at %s: %+v", d.ID, d.Place, d.Head)
		}
	}
	for key, ids := range order {
		want := slices.DeleteFunc(slices.Clone(p.died), func(id message.ID) bool { return p.keys[id] != key })
		if !slices.Equal(ids, want[:len(ids)]) {
			t.Fatalf("of key %q there are %v, they died in the order %v", key, ids, want)
		}
	}
	for id, n := range there {
		if n != 1 {
			t.Fatalf("message %s is there %d times", id, n)
		}
	}
}

type failing interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Whatever is lost, comes late, twice, or after ten dedup windows, while leaders
// change, and the target is split: each message arrives once, in the order of its
// key, and is found by its id from where it was sent to.
func TestOutbox(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPost(message.Settings{DedupWindow: time.Second}, true)
		split := []queue.Split{{Queue: 2, To: 15, Epoch: 1, At: 8}, {Queue: 2, To: 7, Epoch: 2, At: 4}}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { p.check(t) },
			"die": func(t *rapid.T) {
				p.die(rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key"), make([]byte, rapid.SampledFrom([]int{0, 5000}).Draw(t, "size")))
			},
			"call": func(t *rapid.T) { p.calls = append(p.calls, p.next(rapid.IntRange(1, 3).Draw(t, "limit"))...) },
			"arrive": func(t *rapid.T) { // any call, also one that came before, or of a leader that was deposed
				if len(p.calls) == 0 {
					return
				}
				c := rapid.SampledFrom(p.calls).Draw(t, "late")
				if results, err := p.arrive(c); err == nil && rapid.Bool().Draw(t, "answered") {
					p.answer(c, results)
				} else if err != nil && err.Code != message.Conflict {
					t.Fatalf("%v", err)
				}
			},
			"outage": func(*rapid.T) {
				p.to.now += 10_000
				p.to.apply(queue.Tick())
			},
			"leader": func(*rapid.T) { p.from.m, p.to.m = queue.New(), queue.New() },
			"split": func(*rapid.T) {
				if len(split) > 0 {
					p.to.apply(split[0].Command())
					split = split[1:]
				}
			},
		})
		for calls := p.next(2); len(calls) > 0; calls = p.next(2) {
			for _, c := range calls {
				results, err := p.arrive(c)
				if err != nil {
					t.Fatalf("%v", err)
				}
				p.answer(c, results)
			}
		}
		for _, c := range p.calls { // and all of them once more
			_, _ = p.arrive(c)
		}
		p.check(t)
		q, _ := queue.Queue(p.to.rows, 2)
		if n := q.Counts().Ready; n != int64(len(p.died)) {
			t.Fatalf("%d died, %d arrived", len(p.died), n)
		}
		q, _ = queue.Queue(p.from.rows, 1)
		if c := q.Counts(); c != (message.Counts{}) {
			t.Fatalf("left where they died: %+v", c)
		}
		for _, id := range p.died {
			_, on := queue.Find(p.from.rows, id, queue.Line{Queue: 1, Cell: id.Point().Cell()})
			if on == nil {
				t.Fatalf("nobody knows where message %s went", id)
			}
			d, _ := queue.Find(p.to.rows, id, *on)
			if d == nil || d.Key != p.keys[id] || len(d.History) != 2 || d.History[0].Outcome != queue.Rejected || d.History[1].Outcome != queue.Moved || d.History[1].From != 1 {
				t.Fatalf("message %s is found as %+v", id, d)
			}
		}
	})
}

// What came to a queue, and was purged there, does not come again with a call that is
// made once more; what is new does.
func TestPurgeKnowsWhatCame(t *testing.T) {
	p := newPost(message.Settings{}, true)
	ready := func() int64 {
		q, _ := queue.Queue(p.to.rows, 2)
		return q.Counts().Ready
	}
	p.die("a", nil)
	c := p.next(10)[0]
	for _, leader := range []bool{false, true} {
		if results, err := p.arrive(c); err != nil || results[0] != nil {
			t.Fatalf("%v, %v", results, err)
		}
		p.to.apply((&queue.Purge{Queue: 2}).Command())
		if leader {
			p.to.m = queue.New()
		}
		results, err := p.arrive(c) // the answer was lost
		if err != nil || results[0] != nil || ready() != 0 {
			t.Errorf("again after the purge: %v, %v, %d are there", results, err, ready())
		}
	}
	p.answer(c, []*message.Error{nil})
	p.die("a", nil)
	if results, err := p.arrive(p.next(10)[0]); err != nil || results[0] != nil || ready() != 1 {
		t.Errorf("a new one: %v, %v, %d are there", results, err, ready())
	}
	if _, err := p.arrive(c); err == nil || err.Code != message.Conflict {
		t.Errorf("a late copy: %v", err)
	}
}

// A cell from which nothing came yet is one too many: what comes from it is refused for
// good, for no place becomes free. What comes from others arrives.
func TestInboxIsFull(t *testing.T) {
	p := newPost(message.Settings{}, true)
	first, other := p.die("a", nil), p.die("b", nil)
	var calls []queue.Deliver
	for _, id := range []message.ID{first, other} {
		from := queue.Line{Queue: 1, Cell: id.Point().Cell()}
		calls = append(calls, queue.NextDelivery(p.from.rows, from, queue.Lines(p.from.rows, 1, from.Cell, nil, 1)[0], 1, p.from.now))
		calls[len(calls)-1].To.Cell = calls[0].To.Cell
		calls[len(calls)-1].Parcels[0].Head.Hash = calls[0].Parcels[0].Head.Hash
	}
	if calls[0].From == calls[1].From {
		t.Fatal("both are of one cell")
	}
	if results, err := p.arrive(calls[0]); err != nil || results[0] != nil {
		t.Fatalf("%v, %v", results, err)
	}
	p.to.m.CountInboxes(2, calls[0].To.Cell, queue.MaxInboxes)
	for range 2 {
		results, err := p.arrive(calls[1])
		if err != nil || len(results) != 1 || results[0] == nil || results[0].Code != message.ResourceExhausted || !strings.Contains(results[0].Text, "deleted") {
			t.Errorf("of one more: %v, %v", results, err)
		}
	}
	if results, err := p.arrive(calls[0]); err != nil || results[0] != nil {
		t.Errorf("of one that is known: %v, %v", results, err)
	}
}

// wantLeaving wants so many messages of queue 1 to be counted as leaving.
func wantLeaving(t *testing.T, w *world, n int64) {
	t.Helper()
	if q, _ := queue.Queue(w.rows, 1); q.Shards[0].Leaving != n {
		t.Errorf("%d are leaving, want %d", q.Shards[0].Leaving, n)
	}
}

// While a message is on its way it is dead where it died, and can't be revived. What
// the target refuses for good stays there, with the reason, and can.
func TestOutboxRefused(t *testing.T) {
	p := newPost(message.Settings{MaxMessageBytes: 10}, true)
	large, small := p.die("a", make([]byte, 11)), p.die("a", nil)
	d, _ := queue.Show(p.from.rows, large)
	if d == nil || d.State != message.Dead || !d.Leaving {
		t.Fatalf("on its way: %+v", d)
	}
	wantLeaving(t, p.from, 2)
	redrive := func() *message.Error {
		return p.from.apply((&queue.Redrive{IDs: []message.ID{large}}).Command())[0].([]queue.RedriveResult)[0]
	}
	if err := redrive(); err == nil || err.Code != message.Conflict {
		t.Errorf("revived on its way: %v", err)
	}
	c := p.next(10)[0]
	for range 2 { // the answer is lost once
		results, err := p.arrive(c)
		if err != nil || results[0] == nil || results[0].Code != message.TooLarge || results[1] != nil {
			t.Fatalf("%v, %v", results, err)
		}
		p.answer(c, results)
	}
	if d, _ = queue.Show(p.from.rows, large); d.Leaving || d.State != message.Dead || !strings.Contains(d.History[1].Error, "TOO_LARGE") {
		t.Errorf("refused: %+v", d)
	}
	if _, ok := queue.Show(p.from.rows, small); ok {
		t.Error("what arrived is still here")
	}
	wantLeaving(t, p.from, 0)
	dead := (&queue.Query{Dead: &queue.DeadQuery{Queue: 1, Cell: large.Point().Cell(), Filter: message.DeadFilter{Reason: "rejected"}}}).Run(p.from.rows).Dead
	if dead.Count != 1 {
		t.Errorf("%d died by being rejected", dead.Count)
	}
	if err := redrive(); err != nil {
		t.Error(err)
	}
}

// Within a group a dead letter is in the other queue with the entry of its death. It
// is handed out there under its id, with a token that names its place, and is
// forgotten like others when it is done.
func TestDeadLetterInAGroup(t *testing.T) {
	p := newPost(message.Settings{KeepFinished: 1}, false)
	ids := []message.ID{p.die("a", make([]byte, 5000)), p.die("", []byte("b")), p.die("a", []byte("c"))}
	if calls := p.next(1); len(calls) > 0 {
		t.Fatalf("%+v", calls)
	}
	p.check(t)
	w := p.to
	for range ids {
		lease := queue.Lease{Queue: 2, Worker: "w", Length: time.Minute, MaxBytes: 1 << 20}
		for n := range message.Cells {
			lease.Items = append(lease.Items, queue.Refs(queue.Offers(w.rows, 2, n, nil, 1))...)
		}
		lease.Items = lease.Items[:1]
		result := w.apply(lease.Command())[0]
		sent, err := queue.DecodeResult(queue.AppendResult(nil, result))
		if err != nil {
			t.Fatal(err)
		}
		got := sent.(queue.LeaseResult).Leased[0]
		if !slices.Contains(ids, got.ID) || got.Place.Queue() != 2 {
			t.Fatalf("%+v", got)
		}
		r := w.apply((&queue.Settle{Settlements: []message.Settlement{{Token: message.Token{ID: got.ID, Place: got.Place, Fence: got.Fence}, Action: message.Ack}}}).Command())[0].([]message.SettleResult)[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	found := 0
	for _, id := range ids {
		_, on := queue.Find(w.rows, id, queue.Line{Queue: 1, Cell: id.Point().Cell()})
		if d, _ := queue.Find(w.rows, id, *on); d != nil && d.State == message.Finished && d.ID == id && d.History[1].From == 1 {
			found++
		}
	}
	if found < 1 || found == len(ids) {
		t.Errorf("%d of %d are known after their end", found, len(ids))
	}
}

// A redrive to a queue of another group leaves the same rows, whether the machine that
// applies it has been at it since the begin or was loaded in between: what waits to
// leave a cell is counted in the cell's row.
func TestRedriveToAnotherQueueIsCounted(t *testing.T) {
	p, reloaded := newPost(message.Settings{}, true), newPost(message.Settings{}, true)
	for _, p := range []*post{p, reloaded} {
		p.from.apply((&queue.Configure{Queue: 1, Version: 2, Settings: message.Settings{MaxAttempts: 1}.WithDefaults()}).Command())
		id := p.die("a", nil)
		redrive := queue.RedriveSome{Queue: 1, Cell: id.Point().Cell(), Operation: 1, Through: id.Seq(), To: deadLetterQueue, Messages: []queue.DeadRef{{Seq: id.Seq(), Counter: 1}}}
		if r := p.from.apply(redrive.Command())[0].(queue.Progress); r.Redriven != 1 {
			t.Fatalf("%+v", r)
		}
		if p == reloaded {
			p.from.m = queue.New()
		}
		c := p.next(1)[0]
		results, err := p.arrive(c)
		if err != nil {
			t.Fatal(err)
		}
		p.answer(c, results)
		p.check(t)
	}
	if !p.from.rows.equal(reloaded.from.rows) {
		t.Error("the rows differ")
	}
}
