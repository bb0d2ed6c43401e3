package queue_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/state"
)

// batch is a batch on Pebble of a group that spins nothing off.
type batch struct{ *state.Batch }

func (batch) SpinOff(uint64, map[uint64]uint64, []uint64) (func(key, value []byte), *message.Error) {
	return nil, message.Errorf(message.Conflict, "this group has other replicas")
}

func (m *mapRows) SpinOff(uint64, map[uint64]uint64, []uint64) (func(key, value []byte), *message.Error) {
	return batch{}.SpinOff(0, nil, nil)
}

// dividing are rows that can be divided; replicas are what is asked for.
type dividing struct {
	*mapRows
	child    *mapRows
	replicas map[uint64]uint64
}

func (d *dividing) SpinOff(_ uint64, replicas map[uint64]uint64, spaces []uint64) (func(key, value []byte), *message.Error) {
	d.child, d.replicas = newMapRows(), replicas
	for _, space := range spaces {
		d.give(space, d.child)
	}
	return func(k, v []byte) { d.child.Set(0, k, v) }, nil
}

// party is a world whose shard of the cells 8 to 15 holds a message in every
// state, and the other one some as well.
type party struct {
	*world
	ids     []message.ID
	tokens  []message.Token // of the leased ones, current
	session queue.Session
}

func newParty(t *testing.T) *party {
	p := &party{world: newWorld(), session: queue.Session{ID: 7, Incarnation: 1, CatalogVersion: 4}}
	p.now = 5_000
	settings := message.Settings{RatePerKey: message.Rate{Count: 1, Per: time.Hour}, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: 10 * time.Second}}.WithDefaults()
	p.apply((&queue.Configure{Queue: 1, Version: 1, Settings: settings, Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	p.apply((&queue.Split{Queue: 1, To: 15, At: 8, Epoch: 1}).Command())
	for i := range 24 { // three in every other cell
		m := queue.Sent{Cell: i % 8 * 2, New: message.New{Body: []byte{byte(i)}}}
		if i%8 == 6 {
			m.Delay = time.Minute
		}
		p.send(m)
	}
	for _, key := range []string{"a", "a", "b", "c", "d", "e"} {
		p.send(queue.Sent{Hash: hashOf(key), New: message.New{Key: key}})
	}
	for i, o := range pictureOf(p.rows, nil).Offers {
		session, action := queue.Session{}, []message.Action{message.Ack, message.Nack, message.Reject, 0, 0, 0}[i%6]
		if i%6 == 4 {
			session = p.session
		}
		if i%6 == 5 {
			continue // stays ready
		}
		tok := p.lease(session, queue.Refs([]queue.Offer{o})[0])
		if action == 0 {
			p.tokens = append(p.tokens, tok)
		} else if err := p.settle(tok, action).Err; err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *party) send(m queue.Sent) message.ID {
	id := p.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())[0].([]message.SendResult)[0].ID
	p.ids = append(p.ids, id)
	return id
}

func (w *world) lease(session queue.Session, ref queue.Ref) message.Token {
	x := w.apply((&queue.Lease{Queue: 1, Worker: "w", Session: session, Length: time.Minute, Items: []queue.Ref{ref}, MaxBytes: 1 << 20}).Command())[0].(queue.LeaseResult).Leased[0]
	return message.Token{ID: x.ID, Fence: x.Fence, Session: session.ID}
}

func (w *world) settle(tok message.Token, a message.Action) message.SettleResult {
	return w.apply((&queue.Settle{Settlements: []message.Settlement{{Token: tok, Action: a}}}).Command())[0].([]message.SettleResult)[0]
}

// there says that an id belongs to what is spun off.
func there(id message.ID) bool { return id.Point().Cell() >= 8 }

var spun = queue.SpinOff{Queue: 1, From: 8, To: 15, Epoch: 2, Group: 9, Replicas: []queue.ReplicaPair{{Here: 4, There: 1}, {Here: 6, There: 2}}}

// divide spins the cells 8 to 15 off.
func (p *party) divide(t *testing.T) (child *world, results []any) {
	d := &dividing{mapRows: p.rows}
	p.index++
	send := func(cell int) queue.Command {
		return (&queue.Send{Queue: 1, Messages: []queue.Sent{{Cell: cell}}}).Command()
	}
	entry := queue.AppendEntry(nil, p.now, 1_000_000+p.now, []queue.Command{send(9), spun.Command(), send(9), send(2)})
	results = p.m.Apply(d, p.index, entry)
	if results[1] != nil {
		t.Fatal(results[1])
	}
	if want := map[uint64]uint64{4: 1, 6: 2}; !maps.Equal(d.replicas, want) {
		t.Errorf("the replicas are %v, want %v", d.replicas, want)
	}
	child = newWorld()
	child.rows, child.index, child.now = d.child, p.index, p.now
	return child, results
}

// TestSpinOff shows that everything is in one of the two groups as it was (I3):
// states, attempts, due times, leases, lines of keys.
func TestSpinOff(t *testing.T) {
	p := newParty(t)
	before := pictureOf(p.rows, p.ids)
	cells := cloneRows(p.rows.rows)
	child, results := p.divide(t)
	sent := []*message.Error{results[0].([]message.SendResult)[0].Err, results[2].([]message.SendResult)[0].Err, results[3].([]message.SendResult)[0].Err}
	if sent[0] != nil || message.CodeOf(sent[1]) != message.WrongShard || sent[2] != nil {
		t.Errorf("in the entry that spins off, before, after and elsewhere: %v", sent)
	}
	if e := p.m.Effects(); !slices.ContainsFunc(e, func(e queue.Effect) bool { return e.Kind == queue.Configured && e.Queue == 1 }) {
		t.Errorf("the effects are %+v", e)
	}
	if groupTime, wall := queue.GroupTime(child.rows); groupTime != p.now || wall != 1_000_000+p.now {
		t.Errorf("the child begins at group time %d and wall time %d", groupTime, wall)
	}
	here, now := pictureOf(p.rows, p.ids), pictureOf(child.rows, p.ids)
	if here.Counts.Ready == 0 || now.Counts.Leased == 0 || now.Counts.Dead == 0 || now.Counts.Scheduled < 2 || now.Counts.Finished == 0 {
		t.Fatalf("the test has too little in it: %+v and %+v", here.Counts, now.Counts)
	}
	for id, was := range before.Messages {
		is, other := here.Messages[id], now.Messages[id]
		if there(id) {
			is, other = other, is
		}
		if !reflect.DeepEqual(is, was) || other.ID != (message.ID{}) {
			t.Errorf("message %s was %+v, is %+v, and in the other group %+v", id, was, is, other)
		}
	}
	before.Counts.Ready += 2 // sent by the entry
	sum := here.Counts
	sum.Add(now.Counts)
	if sum != before.Counts {
		t.Errorf("there were %+v, there are %+v and %+v", before.Counts, here.Counts, now.Counts)
	}
	if timers := slices.Concat(here.Timers, now.Timers); !reflect.DeepEqual(timers, before.Timers) {
		t.Errorf("the timers were %v, and are %v", before.Timers, timers)
	}
	if d := slices.Concat(here.Deadlines, now.Deadlines); !reflect.DeepEqual(d, before.Deadlines) {
		t.Errorf("the leases were %v, and are %v", before.Deadlines, d)
	}
	for k, v := range cells { // the sent one has written some in cells 2 and 9
		if k >= full(1, nil) && !strings.HasPrefix(k, full(1<<8|2, nil)) && !strings.HasPrefix(k, full(1<<8|9, nil)) {
			if string(child.rows.rows[k]) != string(v) && string(p.rows.rows[k]) != string(v) {
				t.Errorf("row %q was written", k)
			}
		}
	}
	for name, w := range map[string]*world{"parent": p.world, "child": child} {
		from, path, epoch := 0, "0.0", uint64(2)
		if name == "child" {
			from, path, epoch = 8, "0.1", 3
		}
		w.apply(queue.Tick()) // loads the child
		for _, info := range []func() (queue.Info, bool){
			func() (queue.Info, bool) { return queue.Queue(w.rows, 1) },
			func() (queue.Info, bool) { return w.m.Info(1) },
		} {
			q, ok := info()
			if !ok || len(q.Shards) != 1 || q.Shards[0].From != from || q.Shards[0].To != from+7 || q.Shards[0].Path != path || q.Shards[0].Epoch != epoch || q.Version != 1 {
				t.Errorf("the %s has %+v, %v", name, q, ok)
			}
		}
	}
}

// TestReadsOfASpunOffShard shows that who asks the group that gave a shard away is
// told so, and not that nothing is there.
func TestReadsOfASpunOffShard(t *testing.T) {
	p := newParty(t)
	child, _ := p.divide(t)
	asked := map[string]queue.Query{
		"list": {List: &queue.ListQuery{Queue: 1, State: message.Ready, Limit: 10}, Cells: 0xff00},
		"all":  {Queue: 1, Cells: 0xffff},
	}
	for _, id := range p.ids {
		if there(id) {
			asked["show "+id.String()] = queue.Query{Show: &id}
		}
	}
	for name, q := range asked {
		if a := q.Run(p.rows); !a.Moved {
			t.Errorf("%s is answered with %+v where the shard was", name, a)
		}
		if a := q.Run(child.rows); a.Moved != (name == "all") {
			t.Errorf("%s is answered with %+v where the shard is", name, a)
		}
	}
	for name, q := range map[string]queue.Query{"the rest": {Queue: 1, Cells: 0xff}, "anything": {Queue: 1}, "a queue to come": {Queue: 2, Cells: 0xffff}} {
		if q.Run(p.rows).Moved {
			t.Errorf("%s is said to have moved", name)
		}
	}
}

// TestSpinOffKeepsPromises shows that what was given before works after, in the
// group where it belongs, and there only (I5, I7).
func TestSpinOffKeepsPromises(t *testing.T) {
	p := newParty(t)
	child, _ := p.divide(t)
	highest := map[bool]uint64{}
	for _, tok := range p.tokens {
		highest[there(tok.ID)] = max(highest[there(tok.ID)], tok.Fence, tok.ID.Seq())
	}
	acked := 0
	for _, tok := range p.tokens {
		right, wrong := p.world, child
		if there(tok.ID) {
			right, wrong = child, p.world
			acked++
		}
		if r := wrong.settle(tok, message.Ack); message.CodeOf(r.Err) != message.WrongShard {
			t.Errorf("a token in the wrong group: %v", r.Err)
		}
		if r := right.settle(tok, message.Ack); r.Err != nil {
			t.Errorf("a token in the right group: %v", r.Err)
		}
		if r := right.settle(tok, message.Ack); !r.AlreadyDone {
			t.Errorf("and again: %+v", r)
		}
	}
	if acked < 3 {
		t.Fatalf("only %d leases were spun off", acked)
	}
	for _, key := range []string{"", "a", "b", "c", "d", "e"} {
		m := queue.Sent{Cell: 9, Hash: hashOf(key), New: message.New{Key: key}}
		w := p.world
		if key == "" || hashOf(key).Point().Cell() >= 8 {
			w = child
		}
		id := w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())[0].([]message.SendResult)[0].ID
		if id.Seq() <= highest[there(id)] {
			t.Errorf("key %q: message %d came after fence %d", key, id.Seq(), highest[there(id)])
		}
	}
	// Timers fire: what was delayed and what waits for a retry.
	timers := pictureOf(child.rows, nil).Timers
	for _, timer := range timers {
		child.now = max(child.now, timer.Due)
	}
	before := pictureOf(child.rows, nil).Counts
	child.apply((&queue.Wake{Queue: 1, Timers: timers}).Command())
	if after := pictureOf(child.rows, nil).Counts; before.Scheduled < 3 || after.Scheduled != 0 || after.Ready != before.Ready+before.Scheduled {
		t.Errorf("before the timers %+v, after %+v", before, after)
	}
}

// Dedup ids and unique keys lie in their cell's rows, and go along: a repeat is
// answered where the first message is now, with its id, until its window ends
// there. Elsewhere it is told to go on.
func TestSpinOffKeepsDedupIDsAndUniqueKeys(t *testing.T) {
	p := newParty(t)
	once := func(i int) (msgs [2]queue.Sent) {
		msgs[0].New = message.New{DedupID: fmt.Sprint("d", i)}
		msgs[1].New = message.New{UniqueKey: fmt.Sprint("u", i), OnConflict: message.ConflictExisting}
		for i := range msgs {
			mark(&msgs[i])
			msgs[i].Cell = placedAt(&msgs[i]).Point().Cell()
		}
		return msgs
	}
	send := func(w *world, m queue.Sent) message.SendResult {
		return w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())[0].([]message.SendResult)[0]
	}
	var sent []queue.Sent
	var first []message.SendResult
	for i := range 16 {
		for _, m := range once(i) {
			sent, first = append(sent, m), append(first, send(p.world, m))
		}
	}
	child, _ := p.divide(t)
	moved := 0
	for i, m := range sent {
		right, wrong := p.world, child
		if there(first[i].ID) {
			right, wrong = child, p.world
			moved++
		}
		if r := send(right, m); r.Err != nil || !r.Existing || r.ID != first[i].ID {
			t.Errorf("%+v: first %+v, then %+v", m.New, first[i], r)
		}
		if r := send(wrong, m); r.Err == nil || r.Err.Code != message.WrongShard {
			t.Errorf("%+v in the wrong group: %+v", m.New, r)
		}
	}
	if moved == 0 || moved == len(sent) {
		t.Fatalf("%d of %d messages were spun off", moved, len(sent))
	}
	child.now += message.DefaultDedupWindow.Milliseconds()
	for cell := range message.Cells {
		child.apply((&queue.Wake{Queue: 1, Timers: everyTimer(child.rows, cell)}).Command())
	}
	for i, m := range sent {
		if r := send(child, m); there(first[i].ID) && (r.Err != nil || r.Existing != (m.UniqueKey != "")) {
			t.Errorf("%+v after the window: %+v", m.New, r)
		}
	}
}

// placedAt is where a message without a key stands.
func placedAt(m *queue.Sent) message.KeyHash {
	if m.UniqueKey != "" {
		return m.UniqueHash
	}
	return m.DedupHash
}

// The sessions and the senders' answers are in both groups.
func TestSpinOffCopiesSessionsAndAnswers(t *testing.T) {
	p := newParty(t)
	p.apply((&queue.ExpireSession{Session: queue.Session{ID: 8, Incarnation: 1, CatalogVersion: 5}}).Command())
	numbered := func(seq uint64, cell int) queue.Command {
		return (&queue.Send{Queue: 1, Messages: []queue.Sent{{Cell: cell}}}).Command().WithLane(queue.Lane{Node: 3, Boot: 1, Seq: seq, Floor: 1})
	}
	first := p.apply(numbered(1, 2), numbered(2, 9))
	child, _ := p.divide(t)
	for name, w := range map[string]*world{"parent": p.world, "child": child} {
		before := pictureOf(w.rows, nil).Counts
		if again := w.apply(numbered(1, 2), numbered(2, 9)); !reflect.DeepEqual(again, first) {
			t.Errorf("the %s answers %v, not %v", name, again, first)
		}
		if after := pictureOf(w.rows, nil).Counts; after != before {
			t.Errorf("the %s has applied a repeat: %+v, then %+v", name, before, after)
		}
	}
	late := queue.Lease{Queue: 1, Session: queue.Session{ID: 20, Incarnation: 1, CatalogVersion: 3}, Items: []queue.Ref{{Cell: 9}}, MaxBytes: 1}
	if r := child.apply(late.Command())[0].(queue.LeaseResult); message.CodeOf(r.Err) != message.Unavailable {
		t.Errorf("a session that was looked up in an older catalog: %v", r.Err)
	}
	// The child ends what a session holds in it.
	refs := []queue.LeaseRef{}
	for _, d := range pictureOf(child.rows, nil).Deadlines {
		if d.Session == p.session.ID {
			refs = append(refs, d.LeaseRef)
		}
	}
	if len(refs) == 0 {
		t.Fatal("no lease of the session was spun off")
	}
	end := p.session
	end.CatalogVersion = 6
	child.apply((&queue.ExpireSession{Session: end}).Command())
	child.apply((&queue.Expire{Queue: 1, Leases: refs}).Command())
	left := slices.DeleteFunc(pictureOf(child.rows, nil).Deadlines, func(d queue.Deadline) bool { return d.Session != p.session.ID })
	if len(left) != 0 {
		t.Errorf("the session still holds %v", left)
	}
}

func TestSpinOffRefusals(t *testing.T) {
	p := newParty(t)
	for _, c := range []struct {
		change func(*queue.SpinOff)
		want   message.Code
	}{
		{func(c *queue.SpinOff) { c.Queue = 2 }, message.WrongShard},
		{func(c *queue.SpinOff) { c.Epoch = 1 }, message.Conflict},
		{func(c *queue.SpinOff) { c.From = 9 }, message.Conflict},
		{func(c *queue.SpinOff) { c.To = 14 }, message.Conflict},
		{func(*queue.SpinOff) {}, message.Conflict}, // other replicas
	} {
		before := newMapRows()
		before.rows = cloneRows(p.rows.rows)
		s := spun
		c.change(&s)
		err, _ := p.apply(s.Command())[0].(*message.Error)
		if err == nil || err.Code != c.want || !p.rows.equal(before) {
			t.Errorf("%+v: %v, want %s and no change", s, err, c.want)
		}
	}
	// The last shard leaves the queue where it was, so that a catalog that knows
	// less can't bring the cells back.
	p.divide(t)
	d := &dividing{mapRows: p.rows}
	rest := queue.SpinOff{Queue: 1, To: 7, Epoch: 2, Group: 10, Replicas: spun.Replicas}
	p.index++
	if r := p.m.Apply(d, p.index, queue.AppendEntry(nil, p.now, p.now, []queue.Command{rest.Command()}))[0]; r != nil {
		t.Fatal(r)
	}
	p.apply((&queue.Configure{Queue: 1, Version: 2, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	if q, ok := queue.Queue(p.rows, 1); !ok || len(q.Shards) != 0 || q.Version != 2 {
		t.Errorf("the queue is %+v, %v", q, ok)
	}
}

// Several shards of a queue with a limit stay in one group; one that is all of the
// queue takes along when its next message is due.
func TestSpinOffOfALimitedQueue(t *testing.T) {
	w := newWorld()
	configure := func(version uint64, shards ...queue.Bounds) {
		s := message.Settings{Rate: message.Rate{Count: 1, Per: time.Minute}}.WithDefaults()
		w.apply((&queue.Configure{Queue: 1, Version: version, Settings: s, Shards: shards}).Command())
	}
	spinOff := func(to int) (rows *dividing, err *message.Error) {
		rows = &dividing{mapRows: w.rows}
		w.index++
		c := queue.SpinOff{Queue: 1, To: to, Epoch: 1, Group: 9}
		err, _ = w.m.Apply(rows, w.index, queue.AppendEntry(nil, w.now, w.now, []queue.Command{c.Command()}))[0].(*message.Error)
		return rows, err
	}
	configure(1, queue.Bounds{To: 7, Path: "0.0"}, queue.Bounds{From: 8, To: 15, Path: "0.1"})
	if _, err := spinOff(7); err == nil || err.Code != message.InvalidArgument {
		t.Fatalf("one shard of two was spun off: %v", err)
	}
	w.apply((&queue.Drop{Queue: 1}).Command())
	configure(2, queue.Bounds{To: 15, Path: "0"})
	w.apply((&queue.Send{Queue: 1, Messages: make([]queue.Sent, 1)}).Command())
	w.apply((&queue.Lease{Queue: 1, Length: time.Hour, MaxBytes: 1, Items: queue.Refs(queue.Offers(w.rows, 1, 0, nil, 1))}).Command())
	rows, err := spinOff(15)
	if err != nil {
		t.Fatal(err)
	}
	if q, _ := queue.Queue(rows.child, 1); q.Next != int64(time.Minute) {
		t.Fatalf("in the new group the next message is due at %s", time.Duration(q.Next))
	}
}
