package queue_test

import (
	"maps"
	"reflect"
	"slices"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// What a group of a cluster has beside: sessions that end, splits, and commands
// that come again.

// life is a session as the model sees it.
type life struct {
	incarnation uint64
	version     uint64 // of the catalog
	ended       bool
}

// pickSession draws a session, or none, and says whether the group refuses it.
func (w *trial) pickSession(t *rapid.T) (s queue.Session, refused bool) {
	s.ID = uint64(rapid.IntRange(0, 2).Draw(t, "session"))
	if s.ID == 0 {
		return s, false
	}
	l := w.sessions[s.ID]
	s.Incarnation = 1
	if l != nil {
		s.Incarnation = max(1, l.incarnation+uint64(rapid.IntRange(0, 2).Draw(t, "incarnation"))-1)
	}
	s.CatalogVersion = w.catalog + uint64(rapid.IntRange(0, 2).Draw(t, "catalog"))
	s.CatalogVersion -= min(s.CatalogVersion, 1)
	switch {
	case l != nil && l.incarnation == s.Incarnation && !l.ended:
		return s, false
	case l != nil && l.incarnation >= s.Incarnation:
		return s, true
	}
	return s, s.CatalogVersion < w.catalog
}

func (w *trial) attached(s queue.Session) {
	if l := w.sessions[s.ID]; l != nil && l.incarnation == s.Incarnation {
		return
	}
	w.sessions[s.ID] = &life{incarnation: s.Incarnation, version: s.CatalogVersion}
	w.catalog = max(w.catalog, s.CatalogVersion)
}

// holds says that what a leased message is bound to still stands.
func (w *trial) holds(k *known) bool {
	l := w.sessions[k.session]
	return k.session == 0 || (l != nil && l.incarnation == k.incarnation && !l.ended)
}

// endSession ends a session, or one that is over, or one that is to come.
func (w *trial) endSession(t *rapid.T) {
	s, _ := w.pickSession(t)
	if s.ID == 0 {
		return
	}
	w.apply(t, (&queue.ExpireSession{Session: s}).Command())
	w.catalog = max(w.catalog, s.CatalogVersion)
	if l := w.sessions[s.ID]; l != nil && (l.incarnation < s.Incarnation || (l.incarnation == s.Incarnation && !l.ended)) {
		*l = life{incarnation: s.Incarnation, version: s.CatalogVersion, ended: true}
	}
	w.sameEnds(t)
	var want []queue.SessionInfo
	for _, id := range slices.Sorted(maps.Keys(w.sessions)) {
		l := w.sessions[id]
		want = append(want, queue.SessionInfo{Session: queue.Session{ID: id, Incarnation: l.incarnation, CatalogVersion: l.version}, Ended: l.ended})
	}
	if got := queue.Sessions(w.rows); !slices.Equal(got, want) {
		t.Fatalf("sessions are %+v, want %+v", got, want)
	}
}

// sameEnds wants the rows to say of each lease whether its session has ended.
func (w *trial) sameEnds(t *rapid.T) {
	for n := range message.Cells {
		for _, d := range queue.Deadlines(w.rows, 1, n) {
			for _, k := range w.order {
				if k.state == message.Leased && k.id.Point().Cell() == n && k.id.Seq() == d.Seq && d.Ended == w.holds(k) {
					t.Fatalf("the lease of %s: ended=%v, and the session stands: %v", k.name, d.Ended, w.holds(k))
				}
			}
		}
	}
}

// lost takes in that a message was swept whose session had ended.
func (w *trial) lost(t *rapid.T, k *known, d *queue.Detail) {
	delete(w.current, k.id)
	k.deaths++
	want := message.Ready
	if w.overdue(k) {
		if d.State != w.lapsed() && d.State != message.Dead {
			t.Fatalf("%s lost its worker after its time and is %s", k.name, d.State)
		}
		return
	}
	if k.deaths >= w.deaths {
		want = message.Dead
	}
	if last := d.History[len(d.History)-1]; d.State != want || last.Outcome != queue.WorkerLost {
		t.Fatalf("%s lost its worker for the %d. time of %d and is %s: %+v", k.name, k.deaths, w.deaths, d.State, last)
	}
}

func (w *trial) sameCounts(t *rapid.T, k *known, d *queue.Detail) {
	if d.Attempts != k.attempts || d.Deaths != k.deaths {
		t.Fatalf("%s has %d failed attempts and %d worker deaths, want %d and %d", k.name, d.Attempts, d.Deaths, k.attempts, k.deaths)
	}
}

func (w *trial) forget(t *rapid.T) {
	c := queue.Forget{Sessions: uint64(rapid.IntRange(0, int(w.catalog)).Draw(t, "up to"))}
	w.apply(t, c.Command())
	maps.DeleteFunc(w.sessions, func(_ uint64, l *life) bool { return l.ended && l.version <= c.Sessions })
}

// release gives back what nobody claims: it works on any lease that stands.
func (w *trial) release(t *rapid.T) {
	if len(w.tokens) == 0 {
		return
	}
	tok := rapid.SampledFrom(w.tokens).Draw(t, "token")
	w.apply(t, (&queue.ReleaseLeases{Queue: 1, Leases: []queue.LeaseRef{{Cell: tok.ID.Point().Cell(), Seq: tok.ID.Seq(), Fence: tok.Fence}}}).Command())
	if w.current[tok.ID] == tok {
		k := w.messages[tok.ID]
		w.freeLater(k)
		w.freed(k)
	}
}

// split splits a shard, or tries what is over, and compares all that is there.
func (w *trial) split(t *rapid.T) {
	q, _ := queue.Queue(w.rows, 1)
	s := rapid.SampledFrom(q.Shards).Draw(t, "shard")
	c := queue.Split{Queue: 1, From: s.From, To: s.To, At: rapid.IntRange(s.From, s.To+1).Draw(t, "at"), Epoch: s.Epoch}
	c.Epoch -= uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "stale"))
	ids := make([]message.ID, len(w.order))
	for i, k := range w.order {
		ids[i] = k.id
	}
	before := pictureOf(w.rows, ids)
	err := w.apply(t, c.Command())[0]
	if valid := c.Epoch == s.Epoch && c.At > s.From && c.At <= s.To; (err == nil) != valid {
		t.Fatalf("%+v of %+v: %v", c, s, err)
	}
	if after := pictureOf(w.rows, ids); !reflect.DeepEqual(before, after) {
		t.Fatalf("%+v changed what is in the shard from %+v to %+v", c, before, after)
	}
	next := 0
	q, _ = queue.Queue(w.rows, 1)
	for _, s := range q.Shards {
		if s.From != next {
			t.Fatalf("the shards do not partition the cells: %+v", q.Shards)
		}
		next = s.To + 1
	}
	if next != message.Cells {
		t.Fatalf("the shards do not cover the cells: %+v", q.Shards)
	}
}

// cancel ends what waits, and has what is leased end when its lease does.
func (w *trial) cancel(t *rapid.T) {
	if len(w.order) == 0 {
		return
	}
	k := rapid.SampledFrom(w.order).Draw(t, "message")
	r := w.apply(t, (&queue.Cancel{IDs: []message.ID{k.id}}).Command())[0].([]message.SettleResult)[0]
	switch k.state {
	case message.Ready, message.Scheduled:
		if r.State != message.Cancelled || r.AlreadyDone || r.Err != nil {
			t.Fatalf("a cancel of %s, which is %s: %+v", k.name, k.state, r)
		}
		k.state = message.Cancelled
	case message.Leased:
		if r.State != message.Leased || r.Err != nil {
			t.Fatalf("a cancel of %s, which is leased: %+v", k.name, r)
		}
		k.cancelling = true
	default:
		if r.Err == nil && (!r.AlreadyDone || k.state != message.Cancelled) {
			t.Fatalf("a cancel of %s, which is %s: %+v", k.name, k.state, r)
		}
	}
}

// purge deletes all messages, seldom: tokens and references from before settle and
// lease nothing, and what is numbered later is higher.
func (w *trial) purge(t *rapid.T) {
	if rapid.IntRange(0, 5).Draw(t, "purge") > 0 {
		return
	}
	w.apply(t, (&queue.Purge{Queue: 1}).Command())
	for _, space := range spaces() {
		w.rows.Scan(space, nil, []byte{0xff}, func(k, _ []byte) bool {
			t.Fatalf("a purge left row %x in space %x", k, space)
			return false
		})
	}
	w.order, w.dedups.first, w.away = nil, nil, nil
	clear(w.paces.next)
	clear(w.paces.rests)
	clear(w.current)
	// How far an operation was is gone as well, and a step of before would begin anew.
	w.redrives.at, w.redrives.steps, w.redrives.revived = map[int]queue.Progress{}, nil, map[message.ID]bool{}
}

// restart forgets what the machines hold in memory.
func (w *trial) restart(*rapid.T) { w.plain, w.pebble = queue.New(), queue.New() }

// lanes are two senders and what they sent.
type lanes struct {
	seq         uint64
	boot, floor [3]uint64
	sent        []sent
}

type sent struct {
	lane    queue.Lane
	command queue.Command
	answer  any
}

// number gives numbers to commands; the zero Lane: none. Leases have none.
func (l *lanes) number(t *rapid.T, cmds []queue.Command) []queue.Lane {
	numbers := make([]queue.Lane, len(cmds))
	if slices.ContainsFunc(cmds, func(c queue.Command) bool { return c.Head[0] == (&queue.Lease{}).Command().Head[0] }) {
		return numbers
	}
	node := uint64(rapid.IntRange(0, 2).Draw(t, "sender"))
	if node == 0 {
		return numbers
	}
	if rapid.IntRange(0, 9).Draw(t, "starts again") == 0 || l.boot[node] == 0 {
		l.boot[node]++
		l.floor[node] = 0
	}
	for i := range cmds {
		l.seq++
		l.floor[node] = min(l.seq, l.floor[node]+uint64(rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "heard")))
		numbers[i] = queue.Lane{Node: node, Boot: l.boot[node], Seq: l.seq, Floor: l.floor[node]}
		cmds[i] = cmds[i].WithLane(numbers[i])
	}
	return numbers
}

func (l *lanes) remember(numbers []queue.Lane, cmds []queue.Command, answers []any) {
	for i, n := range numbers {
		if n.Node != 0 {
			l.sent = append(l.sent, sent{n, cmds[i], answers[i]})
		}
	}
}

// repeat sends commands again that were sent before, with another one behind
// them: they change nothing and are answered the same, or are known to be late.
func (w *trial) repeat(t *rapid.T) {
	if len(w.lanes.sent) == 0 {
		return
	}
	last := w.lanes.sent[max(0, len(w.lanes.sent)-8):]
	var again []sent
	var cmds []queue.Command
	for range rapid.IntRange(1, 3).Draw(t, "commands") {
		s := rapid.SampledFrom(last).Draw(t, "command")
		again = append(again, s)
		cmds = append(cmds, s.command)
	}
	before := cloneRows(w.rows.rows)
	answers := w.applyEntry(t, cmds)
	for i, s := range again {
		if s.lane.Boot < w.lanes.boot[s.lane.Node] || s.lane.Seq < w.lanes.floor[s.lane.Node] {
			if err, _ := answers[i].(*message.Error); err == nil || err.Code != message.Conflict {
				t.Fatalf("a late copy of %+v is answered %+v", s.lane, answers[i])
			}
			continue
		}
		if !reflect.DeepEqual(answers[i], s.answer) {
			t.Fatalf("%+v was answered %+v, and then %+v", s.lane, s.answer, answers[i])
		}
	}
	if !reflect.DeepEqual(w.withoutTime(before), w.withoutTime(w.rows.rows)) || len(w.plain.Effects()) > 0 {
		t.Fatalf("repeated commands changed rows, or had effects %+v", w.plain.Effects())
	}
}

// withoutTime leaves the group's own row out: a later entry has a later time.
func (w *trial) withoutTime(rows map[string][]byte) map[string][]byte {
	rows = maps.Clone(rows)
	delete(rows, full(0, []byte{'g'}))
	return rows
}
