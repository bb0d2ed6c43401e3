package queue_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// errands are acks with follow-ups. Queues 1, whose messages are acked, and 3 are in the
// first group, queue 2 in another; half of queue 1 may be spun off into a third one.
type errands struct {
	home, away, child *world // child: nil before that
	tokens            []message.Token
	acks              map[message.ID]queue.Settle
	sent              map[message.ID]errand
	order             []message.ID // of sending
	calls             []queue.Deliver
}

// errand is a follow-up that was confirmed.
type errand struct {
	queue.FollowUp
	from queue.Line // the cell of its ack
}

func (e *errand) refused() bool { return e.To.Queue == 2 && len(e.Body) > 10 }

func newErrands() *errands {
	e := &errands{home: newWorld(), away: newWorld(), acks: map[message.ID]queue.Settle{}, sent: map[message.ID]errand{}}
	all := []queue.Bounds{{To: 15, Path: "0"}}
	for number, w := range map[uint32]*world{1: e.home, 2: e.away, 3: e.home} {
		s := message.Settings{}
		if number == 2 {
			s.MaxMessageBytes = 10
		}
		w.apply((&queue.Configure{Queue: number, Version: 1, Settings: s.WithDefaults(), Shards: all}).Command())
	}
	e.home.apply((&queue.Split{Queue: 1, To: 15, At: 8, Epoch: 1}).Command())
	return e
}

func (e *errands) group(at queue.Line) *world {
	switch {
	case at.Queue == 2:
		return e.away
	case at.Queue == 1 && at.Cell >= 8 && e.child != nil:
		return e.child
	}
	return e.home
}

// work leases a new message.
func (e *errands) work(t *rapid.T) {
	at := queue.Line{Queue: 1, Cell: rapid.SampledFrom([]int{2, 11}).Draw(t, "cell")}
	w := e.group(at)
	id := w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{{Cell: at.Cell}}}).Command())[0].([]message.SendResult)[0].ID
	e.tokens = append(e.tokens, w.lease(queue.Session{}, queue.Ref{Cell: at.Cell, Seq: id.Seq()}))
}

func drawFollowUps(t *rapid.T) (fs []queue.FollowUp) {
	for range rapid.IntRange(1, 4).Draw(t, "follow-ups") {
		f := queue.FollowUp{Sent: queue.Sent{Cell: 2}}
		f.To.Queue = uint32(rapid.IntRange(1, 3).Draw(t, "queue"))
		f.To.Secret = message.Secret{byte(f.To.Queue)}
		f.Body = make([]byte, rapid.SampledFrom([]int{0, 10, 11}).Draw(t, "size"))
		if f.Key = rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key"); f.Key != "" {
			f.Hash = message.HashKey(&f.To.Secret, f.Key)
			f.Cell = f.Hash.Point().Cell()
		}
		fs = append(fs, f)
	}
	return fs
}

func (e *errands) settle(c *queue.Settle) message.SettleResult {
	id := c.Settlements[0].Token.ID
	return e.group(queue.Line{Queue: 1, Cell: id.Point().Cell()}).apply(c.Command())[0].([]message.SettleResult)[0]
}

// ack acks a message with follow-ups, or the same again.
func (e *errands) ack(t *rapid.T) {
	if len(e.tokens) == 0 {
		return
	}
	tok := rapid.SampledFrom(e.tokens).Draw(t, "token")
	c, again := e.acks[tok.ID]
	if !again {
		c = queue.Settle{Settlements: []message.Settlement{{Token: tok, Action: message.Ack}}, FollowUps: [][]queue.FollowUp{drawFollowUps(t)}}
		e.acks[tok.ID] = c
	}
	r := e.settle(&c)
	if r.Err != nil || r.AlreadyDone != again || len(r.FollowUps) != len(c.FollowUps[0]) {
		t.Fatalf("an ack with %d follow-ups, again=%v: %+v", len(c.FollowUps[0]), again, r)
	}
	for i, id := range r.FollowUps {
		if _, known := e.sent[id]; known != again {
			t.Fatalf("follow-up %s was known=%v to an ack again=%v", id, known, again)
		}
		if !again {
			e.sent[id] = errand{c.FollowUps[0][i], queue.Line{Queue: 1, Cell: tok.ID.Point().Cell()}}
			e.order = append(e.order, id)
		}
	}
}

// fail is an ack that is refused: with a follow-up that can't be, or too late. Nothing
// is sent with it.
func (e *errands) fail(t *rapid.T) {
	e.work(t)
	tok := e.tokens[len(e.tokens)-1]
	w, before := e.group(queue.Line{Queue: 1, Cell: tok.ID.Point().Cell()}), queue.Info{}
	c := queue.Settle{Settlements: []message.Settlement{{Token: tok, Action: message.Ack}}, FollowUps: [][]queue.FollowUp{drawFollowUps(t)}}
	want := message.InvalidArgument
	if rapid.Bool().Draw(t, "too late") {
		e.settle(&queue.Settle{Settlements: []message.Settlement{{Token: tok, Action: message.Release}}})
		want = message.Fenced
		e.tokens = e.tokens[:len(e.tokens)-1]
	} else {
		c.FollowUps[0][len(c.FollowUps[0])-1].Expires = time.UnixMilli(1)
	}
	before, _ = queue.Queue(w.rows, 1)
	if r := e.settle(&c); r.Err == nil || r.Err.Code != want || len(r.FollowUps) > 0 {
		t.Fatalf("%+v, want %s", r, want)
	}
	if after, _ := queue.Queue(w.rows, 1); after.Counts() != before.Counts() {
		t.Fatalf("there were %+v, there are %+v", before.Counts(), after.Counts())
	}
}

func (e *errands) next(limit int) (calls []queue.Deliver) {
	for n := range message.Cells {
		from := queue.Line{Queue: 1, Cell: n}
		rows := e.group(from).rows
		for _, to := range queue.Lines(rows, 1, n, nil, 100) {
			calls = append(calls, queue.NextDelivery(rows, from, to, limit, e.group(from).now))
		}
	}
	return calls
}

// carry brings a call to its target, and maybe the answer back.
func (e *errands) carry(t *rapid.T, c queue.Deliver, answered bool) {
	switch r := e.group(c.To).apply(c.Command())[0].(type) {
	case []*message.Error:
		d := queue.Delivered{From: c.From, To: c.To}
		for i := range c.Parcels {
			d.Results = append(d.Results, queue.DeliveredResult{Seq: c.Parcels[i].Seq, Err: r[i]})
		}
		if answered {
			e.group(c.From).apply(d.Command())
		}
	case *message.Error:
		if r.Code != message.Conflict {
			t.Fatalf("%v", r)
		}
	}
}

// spinOff gives the cells from 8 on of queue 1 to another group, with what is to leave
// them.
func (e *errands) spinOff(t *rapid.T) {
	if e.child != nil {
		return
	}
	d := &dividing{mapRows: e.home.rows}
	e.home.index++
	entry := queue.AppendEntry(nil, e.home.now, 1_000_000+e.home.now, []queue.Command{spun.Command()})
	if r := e.home.m.Apply(d, e.home.index, entry)[0]; r != nil {
		t.Fatalf("%v", r)
	}
	e.child = newWorld()
	e.child.rows, e.child.index, e.child.now = d.child, e.home.index, e.home.now
}

// check holds what there is against what was confirmed: each follow-up once, where it was
// sent to; those of one key from one cell in order.
func (e *errands) check(t *rapid.T) {
	for _, w := range []*world{e.home, e.away, e.child} {
		for number := uint32(1); w != nil && number <= 3; number++ {
			q, ok := queue.Queue(w.rows, number)
			if !ok {
				continue
			}
			list, _, _, _ := queue.List(w.rows, &q, &queue.ListQuery{Queue: number, State: message.Ready, Limit: 1000}, 1<<16-1)
			orders := map[string][]message.ID{}
			for _, d := range list {
				s, ok := e.sent[d.ID]
				if !ok {
					continue // it was sent by itself
				}
				if s.To.Queue != number || s.Key != d.Key || s.refused() {
					t.Fatalf("a follow-up for queue %d with key %q is in queue %d with key %q", s.To.Queue, s.Key, number, d.Key)
				}
				line := fmt.Sprint(s.from, d.Key)
				orders[line] = append(orders[line], d.ID)
			}
			for line, got := range orders {
				var want []message.ID
				for _, id := range e.order {
					if s := e.sent[id]; s.To.Queue == number && fmt.Sprint(s.from, s.Key) == line && !s.refused() && slices.Contains(got, id) {
						want = append(want, id)
					}
				}
				if line[len(line)-1] != '}' && !slices.Equal(got, want) { // with a key
					t.Fatalf("of %s there are %v, they were sent in the order %v", line, got, want)
				}
			}
		}
	}
}

// arrived is how often a follow-up is where it was sent to or, refused there, dead where
// it was made.
func (e *errands) arrived(id message.ID) (n int, state message.State) {
	at := queue.Line{Queue: id.Queue(), Cell: id.Point().Cell()}
	for range 3 {
		d, on := queue.Find(e.group(at).rows, id, at)
		if d != nil {
			return n + 1, d.State
		}
		if on == nil {
			return n, state
		}
		at = *on
	}
	return n, state
}

// Whatever is lost, comes late or twice, while leaders change, the source is spun off and
// the target is split: with an ack all of its follow-ups are sent, each once, and with
// one that is refused none is.
func TestFollowUps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := newErrands()
		split := []queue.Split{{Queue: 2, To: 15, Epoch: 1, At: 8}, {Queue: 2, To: 7, Epoch: 2, At: 4}}
		t.Repeat(map[string]func(*rapid.T){
			"":     e.check,
			"work": e.work,
			"ack":  e.ack,
			"fail": e.fail,
			"call": func(t *rapid.T) { e.calls = append(e.calls, e.next(rapid.IntRange(1, 3).Draw(t, "limit"))...) },
			"arrive": func(t *rapid.T) {
				if len(e.calls) > 0 {
					e.carry(t, rapid.SampledFrom(e.calls).Draw(t, "late"), rapid.Bool().Draw(t, "answered"))
				}
			},
			"leader": func(*rapid.T) {
				for _, w := range []*world{e.home, e.away, e.child} {
					if w != nil {
						w.m = queue.New()
					}
				}
			},
			"spin off": e.spinOff,
			"split": func(*rapid.T) {
				if len(split) > 0 {
					e.away.apply(split[0].Command())
					split = split[1:]
				}
			},
		})
		for calls := e.next(2); len(calls) > 0; calls = e.next(2) {
			for _, c := range calls {
				e.carry(t, c, true)
			}
		}
		for _, c := range e.calls { // and all of them once more
			e.carry(t, c, true)
		}
		e.check(t)
		for id, s := range e.sent {
			want := message.Ready
			if s.refused() {
				want = message.Dead
			}
			if n, state := e.arrived(id); n != 1 || state != want {
				t.Fatalf("follow-up %+v is there %d times, %s, want %s", s, n, state, want)
			}
		}
	})
}

// A delay, a deliver_at and an expires hold where the follow-up goes, by that group's
// time; it is counted there as sent, and nothing says that it came from elsewhere.
func TestFollowUpKeepsItsTimes(t *testing.T) {
	e := newErrands()
	e.away.now = 500_000
	at := queue.Line{Queue: 1, Cell: 2}
	id := e.home.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{{Cell: 2}}}).Command())[0].([]message.SendResult)[0].ID
	tok := e.home.lease(queue.Session{}, queue.Ref{Cell: 2, Seq: id.Seq()})
	to := queue.Target{Queue: 2, Secret: message.Secret{2}}
	fs := []queue.FollowUp{
		{To: to, Sent: queue.Sent{Cell: 4, New: message.New{Delay: 10 * time.Second}}},
		{To: to, Sent: queue.Sent{Cell: 4, New: message.New{DeliverAt: time.UnixMilli(1_520_000)}}},
		{To: to, Sent: queue.Sent{Cell: 4, New: message.New{Expires: time.UnixMilli(1_530_000)}}},
		{To: to, Sent: queue.Sent{Cell: 4, New: message.New{Priority: 9, Retry: &message.Retry{MaxAttempts: 7}}}},
	}
	r := e.settle(&queue.Settle{Settlements: []message.Settlement{{Token: tok, Action: message.Ack}}, FollowUps: [][]queue.FollowUp{fs}})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	wantLeaving(t, e.home, 4)
	e.home.now += 4000 // it waits so long for its way
	e.away.apply(queue.Tick())
	c := queue.NextDelivery(e.home.rows, at, queue.Line{Queue: 2, Cell: 4}, 10, e.home.now)
	e.away.apply(c.Command())
	states := func() (s []message.State) {
		e.away.apply((&queue.Wake{Queue: 2, Timers: timersOf(e.away, 2, 4)}).Command())
		for _, id := range r.FollowUps {
			d, _ := queue.Find(e.away.rows, id, queue.Line{Queue: 2, Cell: 4})
			if d.ID != id || d.State == message.Ready && len(d.History) > 0 {
				t.Errorf("%+v", d)
			}
			s = append(s, d.State)
		}
		return s
	}
	for _, step := range []struct {
		after int64
		want  []message.State
	}{
		{0, []message.State{message.Scheduled, message.Scheduled, message.Ready, message.Ready}},
		{5_999, []message.State{message.Scheduled, message.Scheduled, message.Ready, message.Ready}},
		{6_000, []message.State{message.Ready, message.Scheduled, message.Ready, message.Ready}},
		{20_000, []message.State{message.Ready, message.Ready, message.Ready, message.Ready}},
		{30_000, []message.State{message.Ready, message.Ready, message.Expired, message.Ready}},
	} {
		e.away.now = 500_000 + step.after
		if got := states(); !slices.Equal(got, step.want) {
			t.Errorf("after %d ms they are %v, want %v", step.after, got, step.want)
		}
	}
	if q, _ := queue.Queue(e.away.rows, 2); q.Totals().Sent != 4 {
		t.Errorf("%d are counted as sent", q.Totals().Sent)
	}
}

func timersOf(w *world, number uint32, n int) (refs []queue.TimerRef) {
	for kind := range queue.TimerKind(queue.TimerKinds) {
		refs = append(refs, queue.Timers(w.rows, number, n, kind, nil, 100)...)
	}
	return refs
}
