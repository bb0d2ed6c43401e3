package queue_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/state"
)

// TestModel runs random commands on Pebble, with power cuts and replays in
// between, against the same machine on a map and against a model that knows
// nothing but the promises: who may be handed out, and who may hold what.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTrial(t)
		defer w.close()
		t.Repeat(map[string]func(*rapid.T){
			"":          w.check,
			"send":      w.send,
			"atomic":    w.sendAtomic,
			"lease":     w.lease,
			"leasemore": w.lease,
			"settle":    w.settle,
			"settles":   w.settle,
			"time":      w.time,
			"redrive":   w.redrive,
			"operation": w.redriveSome,
			"release":   w.release,
			"session":   w.endSession,
			"forget":    w.forget,
			"split":     w.split,
			"repeat":    w.repeat,
			"restart":   w.restart,
			"purge":     w.purge,
			"cancel":    w.cancel,
			"leave":     w.leave,
			"configure": w.configure,
			"crash":     w.crash,
		})
	})
}

// known is a message as the model sees it.
type known struct {
	id    message.ID
	key   string
	state message.State
	name  string
	// While it is leased: to which life of which session; 0: until a deadline.
	session, incarnation uint64
	attempts, deaths     int
	cancelling           bool // it ends with its lease
	sent                 message.New
	aside                bool // it failed, and others of its key may overtake it
	redriven             bool
	back                 bool // it was leased and came back
}

type trial struct {
	fs      *vfs.MemFS
	store   *state.Store
	replica *state.Replica
	pebble  *queue.Machine
	handle  uint64

	rows  *mapRows
	plain *queue.Machine

	entries [][]byte // all of them, for replays
	now     int64
	version uint64
	deaths  int // max_worker_deaths
	tries   int // max_attempts
	skip    bool
	skew    int64 // of the wall clock
	policy  message.ExpiredPolicy
	dedups  dedups
	paces   paces
	pauses  []message.Pause
	// The model.
	messages map[message.ID]*known
	order    []*known // of sending
	tokens   []message.Token
	current  map[message.ID]message.Token // of the leased
	stale    []queue.Ref
	floors   []queue.Floor
	sessions map[uint64]*life // by id
	catalog  uint64           // version that the group has heard of
	lanes    lanes
	redrives redrives
	away     []message.ID // sent with acks to another group, and still here
}

func newTrial(t *rapid.T) *trial {
	w := &trial{fs: vfs.NewCrashableMem(), rows: newMapRows(), plain: queue.New(), messages: map[message.ID]*known{}, current: map[message.ID]message.Token{}, sessions: map[uint64]*life{}}
	w.open(t)
	w.configure(t)
	return w
}

func (w *trial) open(t *rapid.T) {
	store, err := state.Open(state.Options{FS: w.fs, Dir: "rows", StoreID: 1, MemTable: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Sweep([]uint64{1}); err != nil {
		t.Fatal(err)
	}
	w.store = store
	w.replica, err = store.OpenReplica(1, func() (uint64, error) { w.handle++; return 100 + w.handle, nil })
	if err != nil {
		t.Fatal(err)
	}
	w.pebble = queue.New()
}

func (w *trial) close() { _ = w.store.Close() }

// apply applies one entry to both and compares. Its commands may be numbered by
// a sender.
func (w *trial) apply(t *rapid.T, cmds ...queue.Command) []any {
	numbers := w.lanes.number(t, cmds)
	answers := w.applyEntry(t, cmds)
	w.lanes.remember(numbers, cmds, answers)
	return answers
}

func (w *trial) applyEntry(t *rapid.T, cmds []queue.Command) []any {
	entry := queue.AppendEntry(nil, w.now, w.wall(), cmds)
	w.entries = append(w.entries, entry)
	index := uint64(len(w.entries))
	want := w.plain.Apply(w.rows, index, entry)
	got := w.applyPebble(index)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("entry %d: Pebble answers %+v, the map %+v", index, got, want)
	}
	if !slices.Equal(w.pebble.Effects(), w.plain.Effects()) {
		t.Fatalf("entry %d: effects %+v on Pebble, %+v on the map", index, w.pebble.Effects(), w.plain.Effects())
	}
	return want
}

func (w *trial) applyPebble(index uint64) []any {
	b := w.replica.Begin()
	out := w.pebble.Apply(batch{b}, index, w.entries[index-1])
	b.Commit(binary.BigEndian.AppendUint64(nil, index))
	return out
}

func (w *trial) configure(t *rapid.T) {
	w.version++
	w.deaths = rapid.IntRange(1, 3).Draw(t, "deaths")
	w.tries = rapid.IntRange(1, 3).Draw(t, "attempts")
	w.policy = rapid.SampledFrom([]message.ExpiredPolicy{message.ExpiredDrop, message.ExpiredDead}).Draw(t, "on expired")
	w.dedups.window = time.Duration(rapid.IntRange(-1, 6).Draw(t, "window")) * time.Second
	s := message.Settings{OnExpired: w.policy, DedupWindow: w.dedups.window, MaxAttempts: w.tries, KeepFinished: rapid.IntRange(1, 8).Draw(t, "keep"), MaxWorkerDeaths: w.deaths}
	w.paces.draw(t)
	s.RatePerKey = w.paces.rate
	if w.skip = rapid.Bool().Draw(t, "skip"); w.skip {
		s.OnFailure = message.SkipKey
	}
	c := queue.Configure{Queue: 1, Version: w.version, Settings: s.WithDefaults(), Shards: []queue.Bounds{{To: 7, Path: "0.0"}, {From: 8, To: 15, Path: "0.1"}}}
	for _, p := range []message.Pause{{Tenant: "t", By: "ann"}, {Key: "a", By: "ann"}} {
		if rapid.IntRange(0, 3).Draw(t, "paused") == 0 {
			c.Pauses, c.Hashes = append(c.Pauses, p), append(c.Hashes, hashOf(p.Key+p.Tenant).Hi)
		}
	}
	w.pauses = c.Pauses
	w.apply(t, c.Command())
}

func (w *trial) draw(t *rapid.T) (msgs []queue.Sent) {
	for range rapid.IntRange(1, 3).Draw(t, "messages") {
		m := queue.Sent{Cell: rapid.SampledFrom([]int{0, 9}).Draw(t, "cell")}
		m.Key = rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key")
		m.Hash = hashOf(m.Key)
		m.Body = make([]byte, rapid.SampledFrom([]int{0, 10, 5000}).Draw(t, "size"))
		if m.Tenant = rapid.SampledFrom([]string{"", "", "s", "t"}).Draw(t, "tenant"); m.Tenant != "" {
			m.TenantHash = hashOf(m.Tenant).Hi
		}
		m.Type = rapid.SampledFrom([]string{"", "bake"}).Draw(t, "type")
		if rapid.IntRange(0, 4).Draw(t, "delayed") == 0 {
			m.Delay = 3 * time.Second
		}
		w.drawTimes(t, &m.New)
		drawMarks(t, &m)
		m.Priority = rapid.SampledFrom([]int{0, 0, 0, 1, message.MaxPriority}).Draw(t, "priority")
		if rapid.IntRange(0, 4).Draw(t, "own retry") == 0 {
			m.Retry = &message.Retry{MaxAttempts: rapid.IntRange(0, 2).Draw(t, "own attempts")}
		}
		msgs = append(msgs, m)
	}
	return msgs
}

func (w *trial) send(t *rapid.T) {
	c := queue.Send{Queue: 1, Messages: w.draw(t)}
	// Another queue comes and goes between two commands of one entry.
	w.version++
	other := queue.Configure{Queue: 2, Version: w.version, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}
	first := queue.Send{Queue: 1, Messages: c.Messages[:1]}
	rest := queue.Send{Queue: 1, Messages: c.Messages[1:]}
	answers := w.apply(t, first.Command(), other.Command(), (&queue.Drop{Queue: 2}).Command(), rest.Command())
	for i, r := range append(answers[0].([]message.SendResult), answers[3].([]message.SendResult)...) {
		if w.refused(&c.Messages[i].New) {
			if r.Err == nil || r.Err.Code != message.InvalidArgument {
				t.Fatalf("%+v was sent at %d and answered %+v", c.Messages[i].New, w.wall(), r)
			}
			continue
		}
		if w.there(t, &c.Messages[i].New, r) {
			continue
		}
		if r.Err != nil || r.Existing {
			t.Fatalf("%+v is answered %+v", c.Messages[i].New, r)
		}
		w.stored(&c.Messages[i].New, r.ID)
	}
}

// stored is a message that the queue has from now on.
func (w *trial) stored(m *message.New, id message.ID) {
	w.dedups.remember(*m, id, w.now)
	k := &known{id: id, sent: *m, key: m.Key, state: message.Ready, name: fmt.Sprintf("message %d of key %q", len(w.order)+1, m.Key)}
	if m.Delay > 0 || w.early(k) {
		k.state = message.Scheduled
	}
	w.messages[id] = k
	w.order = append(w.order, k)
}

func (w *trial) offers() (offers []queue.Offer) {
	for n := range message.Cells {
		offers = append(offers, everyOffer(w.rows, n)...)
	}
	return offers
}

func (w *trial) lease(t *rapid.T) {
	refs := append(queue.Refs(w.offers()), w.stale...)
	if len(refs) == 0 {
		return
	}
	picked := rapid.SliceOfNDistinct(rapid.SampledFrom(refs), 1, min(4, len(refs)), rapid.ID[queue.Ref]).Draw(t, "refs")
	w.stale = append(w.stale, picked...)
	w.stale = w.stale[max(0, len(w.stale)-20):]
	session, refused := w.pickSession(t)
	c := queue.Lease{Queue: 1, Worker: "w", Session: session, Length: 2 * time.Second, Items: picked, MaxBytes: rapid.SampledFrom([]int{1, 1 << 20}).Draw(t, "bytes")}
	if rapid.Bool().Draw(t, "several of a key") {
		c.PerKey, c.Extra = rapid.IntRange(1, 3).Draw(t, "per key"), rapid.IntRange(1, 3).Draw(t, "extra")
	}
	// As a leader does: it finds the first row of a cell and tells it with some
	// later lease.
	if all := w.offers(); len(all) > 0 && all[0].Tenant == 0 && rapid.Bool().Draw(t, "scan") {
		w.floors = append(w.floors, queue.Floor{Cell: all[0].Cell, Priority: all[0].Priority, Seq: all[0].Seq, Index: uint64(len(w.entries))})
	}
	if len(w.floors) > 0 && rapid.Bool().Draw(t, "floor") {
		c.Floors = append(c.Floors, rapid.SampledFrom(w.floors).Draw(t, "which floor"))
	}
	r := w.apply(t, c.Command())[0].(queue.LeaseResult)
	if (r.Err != nil) != refused {
		t.Fatalf("a lease of session %+v: %v; refused should be %v, the group knows %+v and catalog %d", session, r.Err, refused, w.sessions[session.ID], w.catalog)
	}
	if r.Err == nil && session.ID != 0 {
		w.attached(session)
	}
	batch := map[string]int{}
	for _, x := range r.Leased {
		w.leased(t, x, session, batch)
	}
	if extra := len(r.Leased) - len(picked); extra > c.Extra {
		t.Fatalf("%d messages more than the %d that were chosen were leased, with %+v", extra, len(picked), c)
	}
	for key, n := range batch {
		if n > max(c.PerKey, 1) {
			t.Fatalf("%d messages of key %q were leased, with %+v", n, key, c)
		}
	}
	for _, k := range w.order {
		// Who is asked for after its time ends at once.
		if k.state == message.Ready && w.overdue(k) {
			w.mayEnd(t, k)
		}
	}
	w.sameEnds(t)
}

// leased checks the promises at the moment of a lease.
func (w *trial) leased(t *rapid.T, x queue.Leased, session queue.Session, batch map[string]int) {
	k := w.messages[x.ID]
	if w.overdue(k) {
		t.Fatalf("%s was handed out after its time", k.name)
	}
	if message.PauseOf(w.pauses, k.key, k.sent.Tenant) != nil {
		t.Fatalf("%s was handed out while %+v", k.name, w.pauses)
	}
	w.paces.leased(t, k, w.now)
	if k.state != message.Ready {
		t.Fatalf("%s was handed out while it was %s", k.name, k.state)
	}
	for _, o := range w.order {
		if o == k || o.key == "" || o.key != k.key {
			continue
		}
		if o.state == message.Leased && (batch[k.key] == 0 || o.id.Seq() > k.id.Seq()) {
			t.Fatalf("two messages of one key are leased: %s and %s", o.name, k.name)
		}
		if o.goesBefore(k) {
			t.Fatalf("%s was handed out before %s, which is %s", k.name, o.name, o.state)
		}
	}
	if k.key != "" {
		batch[k.key]++
	}
	tok := message.Token{ID: x.ID, Fence: x.Fence, Session: session.ID}
	for _, old := range w.tokens {
		if old.ID == tok.ID && old.Fence >= tok.Fence {
			t.Fatalf("the fence of %s went from %d to %d", k.name, old.Fence, tok.Fence)
		}
	}
	if (x.Deadline == 0) != (session.ID != 0) || x.Attempts != k.attempts {
		t.Fatalf("%s, with %d failed attempts, was handed out to %+v as %+v", k.name, k.attempts, session, x)
	}
	k.state, k.session, k.incarnation = message.Leased, session.ID, session.Incarnation
	w.tokens = append(w.tokens, tok)
	w.current[x.ID] = tok
}

func (w *trial) settle(t *rapid.T) {
	if len(w.tokens) == 0 {
		return
	}
	var c queue.Settle
	// Two in one entry, often for the same message; old tokens as well.
	for range 2 {
		tok := rapid.SampledFrom(w.tokens).Draw(t, "token")
		if live := slices.SortedFunc(maps.Values(w.current), func(a, b message.Token) int {
			return cmp.Or(cmp.Compare(a.Fence, b.Fence), bytes.Compare(a.ID[:], b.ID[:]))
		}); len(live) > 0 && rapid.Bool().Draw(t, "live") {
			tok = rapid.SampledFrom(live).Draw(t, "live token")
		}
		s := message.Settlement{Token: tok, Action: message.Action(rapid.IntRange(1, 5).Draw(t, "action")), Lease: 4 * time.Second}
		if rapid.Bool().Draw(t, "delay") {
			s.HasDelay, s.Delay = true, time.Duration(rapid.IntRange(0, 2).Draw(t, "seconds"))*time.Second
		}
		c.Settlements = append(c.Settlements, s)
	}
	followUps, refused := w.drawFollowUps(t, c.Settlements)
	c.FollowUps = followUps
	for i, r := range w.apply(t, c.Command())[0].([]message.SettleResult) {
		s := c.Settlements[i]
		k := w.messages[s.Token.ID]
		live := !refused[i] && w.current[s.Token.ID] == s.Token && w.holds(k) && (!k.cancelling || s.Action != message.Extend || s.Token.Session != 0)
		if accepted := r.Err == nil && !r.AlreadyDone; accepted != live {
			t.Fatalf("a settlement of %s by a token that is current=%v was accepted=%v: %+v", k.name, live, accepted, r)
		}
		if !live {
			continue
		}
		if k.state = r.State; r.State == message.Leased {
			continue
		}
		if followUps != nil {
			w.followed(followUps[i], r.FollowUps)
		}
		delete(w.current, s.Token.ID)
		if s.Action != message.Ack {
			w.freeLater(k)
		}
		if k.cancelling {
			if r.State != message.Cancelled && s.Action != message.Ack {
				t.Fatalf("%s was to be cancelled and is %s", k.name, r.State)
			}
			continue
		}
		k.back = true
		if s.Action == message.Nack || s.Action == message.Reject {
			k.attempts++
		}
		if s.Action != message.Ack && w.overdue(k) {
			if r.State != w.lapsed() && r.State != message.Dead {
				t.Fatalf("%s came back after its time and is %s", k.name, r.State)
			}
			continue
		}
		if s.Action == message.Nack || s.Action == message.Reject {
			if last := k.attempts >= w.triesOf(k) || s.Action == message.Reject; last != (r.State == message.Dead) {
				t.Fatalf("%s is %s after %d of %d failed attempts", k.name, r.State, k.attempts, w.triesOf(k))
			}
		}
		k.aside = s.Action == message.Nack && k.state == message.Scheduled && w.skip
	}
}

// freeLater takes in that k came back, not done: later messages of its key that were
// leased with it are given back.
func (w *trial) freeLater(k *known) {
	for _, o := range w.order {
		if k.key != "" && o.key == k.key && o.id.Seq() > k.id.Seq() && o.state == message.Leased {
			w.freed(o)
		}
	}
}

// freed takes in that a lease ended without a failed attempt.
func (w *trial) freed(k *known) {
	delete(w.current, k.id)
	if k.state, k.back = message.Ready, true; w.overdue(k) {
		k.state = w.lapsed()
	}
	if k.cancelling {
		k.state = message.Cancelled
	}
}

// triesOf is how many failed attempts k has.
func (w *trial) triesOf(k *known) int {
	if r := k.sent.Retry; r != nil && r.MaxAttempts > 0 {
		return r.MaxAttempts
	}
	return w.tries
}

// time passes: leases end and timers are due, as Apply judges.
func (w *trial) time(t *rapid.T) {
	w.now += int64(rapid.IntRange(0, 3000).Draw(t, "ms"))
	w.skew += int64(rapid.SampledFrom([]int{0, 0, 0, -5000, 5000}).Draw(t, "jump"))
	for n := range message.Cells {
		e, k := queue.Expire{Queue: 1}, queue.Wake{Queue: 1}
		for _, d := range queue.Deadlines(w.rows, 1, n) {
			e.Leases = append(e.Leases, d.LeaseRef)
		}
		k.Timers = everyTimer(w.rows, n)
		if rapid.Bool().Draw(t, "windows are late") {
			k.Timers = slices.DeleteFunc(k.Timers, func(r queue.TimerRef) bool { return r.Kind == queue.TimerWindow })
		}
		if len(e.Leases)+len(k.Timers) == 0 {
			continue
		}
		w.apply(t, e.Command(), k.Command())
	}
	w.paces.look(w.now)
	// What became of them is in the rows; that it may be so is checked here.
	for _, k := range w.order {
		d, ok := queue.Show(w.rows, k.id)
		if k.state == message.Leased && (!ok || d.State != message.Leased) {
			// Those behind it of its key were given back before.
			w.freeLater(k)
		}
		if w.waits(k) && w.overdue(k) {
			if w.mayEnd(t, k); w.waits(k) {
				t.Fatalf("%s is %s after its time", k.name, k.state)
			}
			continue
		}
		if k.state == message.Leased && k.cancelling && (!ok || d.State != message.Leased) {
			if ok && d.State != message.Cancelled {
				t.Fatalf("%s was to be cancelled and is %s", k.name, d.State)
			}
			delete(w.current, k.id)
			k.state = message.Cancelled
			continue
		}
		if !ok {
			if k.state == message.Leased && w.overdue(k) {
				w.comeBack(k)
				k.state = message.Expired
			}
			continue
		}
		if k.state == message.Scheduled && !k.back && (k.sent.Delay == 0) && (d.State == message.Scheduled) != w.early(k) {
			t.Fatalf("%s is %s at %d and is to be delivered at %s", k.name, d.State, w.wall(), k.sent.DeliverAt)
		}
		switch {
		case k.state == message.Leased && !w.holds(k):
			k.back = true
			w.lost(t, k, d)
		case d.State == k.state:
		case k.state == message.Leased && k.session == 0 && (d.State == message.Ready || d.State == message.Dead || (d.State == w.lapsed() && w.overdue(k))):
			w.comeBack(k)
		case k.state == message.Scheduled && d.State == message.Ready:
			k.aside = false
		default:
			t.Fatalf("time made %s %s, which was %s", k.name, d.State, k.state)
		}
		k.state = d.State
		w.sameCounts(t, k, d)
	}
}

func (w *trial) redrive(t *rapid.T) {
	if len(w.order) == 0 {
		return
	}
	k := rapid.SampledFrom(w.order).Draw(t, "message")
	for _, o := range w.order {
		if o.state == message.Dead && rapid.Bool().Draw(t, "dead") {
			k = o
		}
	}
	c := queue.Redrive{IDs: []message.ID{k.id}, ResetAttempts: rapid.Bool().Draw(t, "reset")}
	err := w.apply(t, c.Command())[0].([]queue.RedriveResult)[0]
	holder := w.holder(&k.sent)
	if (err == nil) != (k.state == message.Dead && holder == nil) {
		t.Fatalf("redrive of %s, which is %s: %v", k.name, k.state, err)
	}
	if err == nil {
		k.state, k.redriven, k.back = message.Ready, true, true
		if c.ResetAttempts {
			k.attempts, k.deaths = 0, 0
		}
	}
}

// check holds what must be true after every entry: exactly those messages may
// go out that the promises allow, and the counts are right.
func (w *trial) check(t *rapid.T) {
	type place struct {
		cell int
		seq  uint64
	}
	want, barred := map[place]string{}, map[place]string{}
	hashes, priorities, tenants := map[place]uint64{}, map[place]int{}, map[place]uint64{}
	var counts message.Counts
	for _, k := range w.order {
		switch k.state {
		case message.Ready:
			counts.Ready++
		case message.Scheduled:
			counts.Scheduled++
		case message.Leased:
			counts.Leased++
		case message.Dead:
			counts.Dead++
		case message.Finished, message.Expired, message.Cancelled:
		}
		at := place{k.id.Point().Cell(), k.id.Seq()}
		if k.key != "" {
			hashes[at] = hashOf(k.key).Hi
		}
		priorities[at] = k.sent.Priority
		if k.sent.Tenant != "" {
			tenants[at] = hashOf(k.sent.Tenant).Hi
		}
		if o := w.before(k); k.state == message.Ready && o == nil && !w.paces.rests[k.key] {
			want[at] = k.name
		} else if o == nil && w.paces.rests[k.key] {
			barred[at] = fmt.Sprintf("%s is offered while its key rests", k.name)
		} else if o != nil {
			barred[at] = fmt.Sprintf("%s is offered while %s is %s", k.name, o.name, o.state)
		} else {
			barred[at] = fmt.Sprintf("%s is offered and is %s", k.name, k.state)
		}
	}
	var last queue.Offer
	for _, r := range w.offers() {
		at := place{r.Cell, r.Seq}
		if int(r.Priority) != priorities[at] || (last.Cell == r.Cell && last.Tenant == r.Tenant && last.Seq > 0 && cmp.Or(cmp.Compare(r.Priority, last.Priority), cmp.Compare(last.Seq, r.Seq)) >= 0) {
			t.Fatalf("%s, of priority %d, is offered as %+v after %+v", want[at], priorities[at], r, last)
		}
		last = r
		if want[at] == "" {
			t.Fatal(barred[at])
		}
		if r.Tenant != tenants[at] {
			t.Fatalf("%s is offered as tenant %x's and is %x's", want[at], r.Tenant, tenants[at])
		}
		if r.Key != hashes[at] {
			t.Fatalf("%s is offered with hash %x, its key's is %x", want[at], r.Key, hashes[at])
		}
		delete(want, at)
	}
	for _, name := range want {
		t.Fatalf("%s may go out and is not offered", name)
	}
	q, _ := queue.Queue(w.rows, 1)
	got := q.Counts()
	got.Finished = 0
	if got != counts {
		t.Fatalf("counts are %+v, want %+v", got, counts)
	}
	if len(w.entries)%8 == 0 {
		w.sameRows(t)
	}
}

// before is a message that k has to wait for; nil if there is none.
func (w *trial) before(k *known) *known {
	for _, o := range w.order {
		if k.key == "" || o.key != k.key || o == k {
			continue
		}
		if o.state == message.Leased || o.goesBefore(k) {
			return o
		}
	}
	return nil
}

// goesBefore says that k waits until k's key has done with o, an earlier message.
func (o *known) goesBefore(k *known) bool {
	return o.id.Seq() < k.id.Seq() && (o.state == message.Ready || o.state == message.Scheduled && !o.aside)
}
