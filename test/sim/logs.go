package main

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// logs checks what the groups' logs say. The first replica that applies an entry
// has it applied here as well, by a machine of its own that has seen all entries
// from the first on; every other replica must apply the same one, with the same
// results.
type logs struct {
	w         *world
	mu        sync.Mutex
	by        map[uint64]*groupLog
	homes     map[uint64]*groupLog     // by space: who has the cell by the end of an entry
	messages  map[cellSeq]*stored      // by each place where somebody has held them, and where they were sent to
	lines     map[string]*line         // by queue and key
	singles   map[string]*stored       // by unique key: the newest message
	paused    map[uint32]message.Pause // by queue, from when that was confirmed until it is taken back
	ends      int                      // leases that have ended
	revivals  map[uint64]*revival      // by operation
	limits    map[uint32]int           // by queue: how many messages are leased at a time, at the most
	paces     map[paceOf]*pace
	cleanings map[uint32]*cleaning // by queue, from before a purge until it was confirmed
}

// groupLog is what is known of one group.
type groupLog struct {
	w       *world
	group   uint64
	entries map[uint64]uint64 // index → hash of entry and results
	last    uint64
	rows    rows
	queue   *queue.Machine
	catalog *catalog.Machine
	news    []*stored    // that this entry has stored
	cleared []queue.Line // cells that it has emptied
	gone    []gone       // that was in them
}

// cellSeq names a place, where one message stands for ever.
type cellSeq struct {
	queue uint32
	cell  int
	seq   uint64
}

// stored is a message that is in a group.
type stored struct {
	id          message.ID
	payload     string
	key, tenant string
	at          queue.Line    // where it was last seen
	ended       message.State // an end; 0: it has not ended, as far as anybody has looked
	cancelled   bool          // somebody was told that it is, or will be
	leased      bool
	place       message.ID    // where it stood when it was last leased
	fence       uint64        // of its last lease there; 0: none
	granted     time.Duration // when that was applied
	worker      string        // who got that
	over        int           // its last lease was the how manieth to end
	died        queue.Outcome // how that ended
	revived     uint64        // the last redrive that did it
	came        int           // the same when it came from another queue
	bound       bool          // it was sent with an ack, and has not been seen in its queue yet
	purged      bool
	adrift      bool // purged on its way to another queue: it may be there
}

// line is a key of a queue.
type line struct {
	stand []*stored // those that have not ended and that are known here, in order
	first uint64    // the highest place of one that has been leased
	died  int       // when the last that came from another queue had died (over)
	// followed are the places at which the last were sent that came from each cell
	// where something was acked.
	followed map[queue.Line]uint64
}

func newLogs(w *world) *logs {
	return &logs{
		w: w, by: map[uint64]*groupLog{}, homes: map[uint64]*groupLog{}, messages: map[cellSeq]*stored{},
		lines: map[string]*line{}, singles: map[string]*stored{}, paused: map[uint32]message.Pause{},
		revivals: map[uint64]*revival{}, cleanings: map[uint32]*cleaning{}, limits: map[uint32]int{}, paces: map[paceOf]*pace{},
	}
}

func nameOf(id message.ID) cellSeq { return cellSeq{id.Queue(), id.Point().Cell(), id.Seq()} }

func lineOf(id message.ID) queue.Line { return queue.Line{Queue: id.Queue(), Cell: id.Point().Cell()} }

func spaceOf(at queue.Line) uint64 { return uint64(at.Queue)<<8 | uint64(at.Cell) }

func (l *logs) group(id uint64) *groupLog {
	g := l.by[id]
	if g == nil {
		g = &groupLog{w: l.w, group: id, entries: map[uint64]uint64{}, rows: rows{}}
		if id == catalog.MetaGroup {
			g.catalog = catalog.New()
		} else {
			g.queue = queue.New()
		}
		l.by[id] = g
	}
	return g
}

// applied is told by every replica what it has applied.
func (l *logs) applied(node, group, index uint64, entry []byte, results []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.group(group)
	hash := hashOf(entry, results)
	known, ok := g.entries[index]
	switch {
	case ok && known != hash:
		l.w.fail("node %d applied another entry, or got other results, at index %d of group %d than others", node, index, group)
	case ok:
	case index <= g.last:
		l.w.fail("node %d applied an entry at index %d of group %d, and others went on to %d without one", node, index, group, g.last)
	default:
		g.entries[index], g.last = hash, index
		l.w.note("group %d index %d is %x", group, index, hash)
		l.w.log.Debug("entry", "group", group, "index", index, "bytes", entry)
		g.apply(index, entry, results, hash)
	}
}

func hashOf(entry []byte, results []any) uint64 {
	h := fnv.New64a()
	h.Write(entry)
	for _, r := range results {
		if c, ok := r.(catalog.Result); ok {
			h.Write(c.Encode())
		} else {
			h.Write(queue.AppendResult(nil, r))
		}
	}
	return h.Sum64()
}

func (g *groupLog) apply(index uint64, entry []byte, told []any, hash uint64) {
	if g.catalog != nil {
		if hashOf(entry, g.catalog.Apply(g.rows, index, entry)) != hash {
			g.w.fail("index %d of the catalog has other results here than on its first replica", index)
		}
		g.w.logs.redrives(g.catalog.View())
		return
	}
	results := g.queue.Apply(ownRows{g.rows, g, told}, index, entry)
	if hashOf(entry, results) != hash {
		g.w.fail("index %d of group %d has other results here than on its first replica", index, g.group)
	}
	if limit := g.w.now().Seconds()*(1+maxDrift) + 1 + float64(g.w.leaps.Load()); float64(g.queue.GroupTime())/1000 > limit {
		g.w.fail("group %d is at %d ms of group time, faster than any clock", g.group, g.queue.GroupTime())
	}
	l := g.w.logs
	batches := map[cellSeq]int{} // of the leases of this entry: the command's place
	redriven := false
	for i, r := range results {
		switch r := r.(type) {
		case []message.SendResult:
			for _, s := range r {
				if s.Err == nil {
					g.sent(s.ID)
				}
			}
		case []message.SettleResult:
			for _, s := range r {
				for _, id := range s.FollowUps {
					g.sent(id)
				}
			}
		case queue.Progress:
			redriven = true
		case queue.LeaseResult:
			for j := range r.Leased {
				x := &r.Leased[j]
				batches[nameOf(x.At())] = i + 1
				l.arrived(x.ID, x.At())
			}
		}
	}
	for _, e := range g.queue.Effects() {
		m := l.messages[cellSeq{e.Queue, e.Ref.Cell, e.Ref.Seq}]
		switch e.Kind {
		case queue.Configured:
			l.house(g, e.Queue)
		case queue.Purged:
			l.cleared(g)
		case queue.LeaseSet:
			l.leased(g, m, e.Fence, batches)
		case queue.LeaseEnded:
			if m.fence == e.Fence {
				l.ends++
				m.leased, m.over, m.died = false, l.ends, e.Outcome
				l.state(m) // it may be dead
			}
		default: // of no interest here
		}
	}
	if redriven {
		l.revived(g)
	}
	for _, m := range g.news {
		l.alone(m)
		g.w.tally.whole(m.payload)
	}
	g.news, g.cleared = nil, nil
}

// house notes which cells of a queue a group has. It gets them with the queue.
func (l *logs) house(g *groupLog, number uint32) {
	q, _ := g.queue.Info(number)
	for _, s := range q.Shards {
		for cell := s.From; cell <= s.To; cell++ {
			l.homes[spaceOf(queue.Line{Queue: number, Cell: cell})] = g
		}
	}
}

// sent takes in that a message was stored; a repeated answer names it again.
func (g *groupLog) sent(id message.ID) {
	l := g.w.logs
	if l.messages[nameOf(id)] != nil {
		return
	}
	d, _ := l.show(id, lineOf(id))
	if d == nil && slices.Contains(g.cleared, lineOf(id)) {
		l.messages[nameOf(id)] = &stored{id: id, at: lineOf(id), place: id, purged: true}
		return // who sent it is not known any more
	}
	if d == nil {
		g.w.fail("message %s was stored, and is not there", id)
		return
	}
	m := &stored{id: id, payload: string(d.Body), key: d.Key, tenant: d.Tenant, bound: d.Leaving}
	l.stands(m, id)
	g.w.tally.stored(m.payload, id)
	g.news = append(g.news, m)
}

// show reads a message in a cell; on is where it went from there.
func (l *logs) show(id message.ID, at queue.Line) (d *queue.Detail, on *queue.Line) {
	return queue.Find(l.homes[spaceOf(at)].rows, id, at)
}

// stands notes a message's place.
func (l *logs) stands(m *stored, place message.ID) {
	m.at, m.place, m.fence = lineOf(place), place, 0
	l.messages[nameOf(place)] = m
	if !m.bound {
		l.stand(m)
	}
}

// stand puts a message into the line of its key, if it is not there.
func (l *logs) stand(m *stored) {
	if m.key == "" {
		return
	}
	k := l.line(m)
	at, there := slices.BinarySearchFunc(k.stand, m.place.Seq(), func(o *stored, seq uint64) int { return cmp.Compare(o.place.Seq(), seq) })
	if !there {
		k.stand = slices.Insert(k.stand, at, m)
	}
}

// line is the line of a message's key, where it was last leased.
func (l *logs) line(m *stored) *line {
	name := fmt.Sprintf("%d/%s", m.place.Queue(), m.key)
	k := l.lines[name]
	if k == nil {
		k = &line{followed: map[queue.Line]uint64{}}
		l.lines[name] = k
	}
	return k
}

// arrived takes in that a message is leased in another queue for the first time: it was
// sent there with an ack, or has died since it was last seen, and after those of its key
// that came before.
func (l *logs) arrived(id, place message.ID) {
	if l.messages[nameOf(place)] != nil {
		return
	}
	m := l.messages[nameOf(id)]
	switch {
	case m == nil:
		l.w.fail("message %s is leased at %s, and was never sent", id, place)
		return
	case m.purged && !l.found(m):
		l.w.fail("message %s is leased at %s, and was purged", id, place)
		return
	case m.bound:
		l.joins(m, place)
		return
	case m.leased, m.over == m.came:
		l.w.fail("message %s is leased at %s, and has not died at %s", id, place, m.place)
	}
	m.came = m.over
	if m.key != "" {
		k := l.line(m)
		k.stand = slices.DeleteFunc(k.stand, func(o *stored) bool { return o == m })
	}
	l.stands(m, place)
	if m.key != "" {
		k := l.line(m)
		if m.over < k.died {
			l.w.fail("message %s comes to %s after one of its key that died later", id, place)
		}
		k.died = m.over
	}
	l.w.tally.count("letters")
}

// joins takes in that a message which was sent with an ack has come to its queue.
func (l *logs) joins(m *stored, place message.ID) {
	m.bound = false
	l.stands(m, place)
	if m.key != "" {
		k, from := l.line(m), lineOf(m.id)
		if last := k.followed[from]; m.id.Seq() < last {
			l.w.fail("message %s comes to %s after one of its key that was sent later, at %d, from the same cell", m.id, place, last)
		}
		k.followed[from] = m.id.Seq()
	}
	l.w.tally.count("follow-ups elsewhere")
}

// forwards says that the dead of the queue that a message is in go to another one.
func (l *logs) forwards(m *stored) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	q, _ := l.homes[spaceOf(m.at)].queue.Info(m.at.Queue)
	return q.Settings.DeadLetterTo != ""
}

// alone checks that no other message has the unique key of one that was stored or
// revived, now that all of its entry is known. One that was in another queue has none.
func (l *logs) alone(m *stored) {
	name := l.w.tally.single(m.payload)
	if name == "" || m.place != m.id {
		return
	}
	if o := l.singles[name]; o != nil && o != m {
		state := l.state(o)
		if home := o.at == lineOf(o.id) && o.place == o.id; home && !state.Ended() {
			l.w.fail("messages %s and %s have one unique key, and the first is %s", o.id, m.id, state)
		}
	}
	l.singles[name] = m
}

// leased checks a lease: a message has one holder, fences grow, nothing goes out that
// is paused or cancelled, and a key's messages go out in order, several only together.
func (l *logs) leased(g *groupLog, m *stored, fence uint64, batches map[cellSeq]int) {
	switch {
	case m.leased && m.fence == fence:
		return // extended
	case m.leased:
		l.w.fail("message %s is leased with fence %d while it is with %d", m.id, fence, m.fence)
	case m.purged:
		l.w.fail("message %s is leased with fence %d, and was purged", m.id, fence)
	case m.ended == message.Finished:
		l.w.fail("message %s is leased with fence %d, and was finished", m.id, fence)
	case m.cancelled:
		l.w.fail("message %s is leased with fence %d, and was cancelled", m.id, fence)
	case fence <= m.fence:
		l.w.fail("message %s is leased with fence %d after %d", m.id, fence, m.fence)
	case l.holds(m):
		l.w.fail("message %s is leased with fence %d, and that was confirmed to be paused: %+v", m.id, fence, l.paused[m.place.Queue()])
	}
	first := m.fence == 0
	m.leased, m.fence, m.granted = true, fence, l.w.now()
	if d, _ := l.show(m.id, lineOf(m.place)); d != nil { // else the entry purges it as well
		m.worker = d.Worker
	}
	l.within(m)
	l.inPace(g, m)
	if m.key != "" {
		l.inLine(m, first, batches)
	}
}

// holds says that a pause keeps the message.
func (l *logs) holds(m *stored) bool {
	p, ok := l.paused[m.place.Queue()]
	return ok && (!p.Names() || message.PauseOf([]message.Pause{p}, m.key, m.tenant) != nil)
}

// inLine checks that a message may go out before the others of its key. first: it has
// not been leased where it is.
func (l *logs) inLine(m *stored, first bool, batches map[cellSeq]int) {
	k, seq := l.line(m), m.place.Seq()
	if first && seq < k.first {
		l.w.fail("message %s at %s goes out for the first time after one of its key with the later place %d", m.id, m.place, k.first)
	}
	k.first = max(k.first, seq)
	batch := batches[nameOf(m.place)]
	kept := k.stand[:0]
	before := true
	for _, o := range k.stand {
		state := l.state(o)
		before = before && o != m
		switch gone := state.Ended() || o.at != m.at; {
		case gone && o != m:
			continue // one that is dead comes back if it is revived
		case o != m && o.leased && batches[nameOf(o.place)] != batch:
			l.w.fail("messages %s and %s of one key have two holders", m.id, o.id)
		case before && batches[nameOf(o.place)] != batch && l.aside(o, state):
			l.w.tally.count("overtaken")
		case before && batches[nameOf(o.place)] != batch:
			l.w.fail("message %s went out before %s of the same key, which is %s", m.id, o.id, state)
		}
		kept = append(kept, o)
	}
	k.stand = kept
}

// aside says that a message waits for its next attempt, and that others of its key may
// overtake it until then.
func (l *logs) aside(m *stored, state message.State) bool {
	return state == message.Scheduled && m.died == queue.Nacked && l.asked(m.at.Queue).OnFailure == message.SkipKey
}

// asked are the settings with which a queue was to be created.
func (l *logs) asked(number uint32) message.Settings {
	q, _ := l.by[catalog.MetaGroup].catalog.View().QueueNumber(number)
	return queues[slices.IndexFunc(queues, func(spec queueSpec) bool { return spec.name == q.Name })].settings
}

// state is what has become of a message, wherever it is; 0: it is not there.
func (l *logs) state(m *stored) message.State {
	switch {
	case m.adrift && l.found(m):
	case m.purged:
		return message.Cancelled
	case m.ended != 0:
		return m.ended
	case m.leased:
		return message.Leased
	}
	d, on := l.show(m.id, m.at)
	for on != nil {
		m.at = *on
		d, on = l.show(m.id, m.at)
	}
	if d == nil {
		return 0
	}
	if d.State.Ended() && !d.Leaving {
		m.ended = d.State
	}
	return d.State
}

// find finds a message. One that is on its way to another queue waits.
func (l *logs) find(id message.ID) (m *stored, state message.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m = l.messages[nameOf(id)]; m == nil {
		return nil, 0
	}
	if state = l.state(m); state == message.Dead && m.ended == 0 {
		state = message.Ready
	}
	return m, state
}

// count counts the messages of all groups as their rows do.
func (l *logs) count() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, g := range l.by {
		if id == catalog.MetaGroup {
			continue
		}
		for _, q := range queue.Queues(g.rows) {
			c := q.Counts()
			n += c.Ready + c.Scheduled + c.Leased + c.Dead + c.Finished
		}
	}
	return n
}

// newest is the token of a message's last lease, and when that was applied.
func (l *logs) newest(id message.ID) (t message.Token, granted time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.messages[nameOf(id)]
	if m == nil {
		return t, 0
	}
	t = message.Token{ID: id, Fence: m.fence}
	if m.place != id {
		t.Place = m.place
	}
	return t, m.granted
}

// cancelled is told that the cancel of a message was confirmed.
func (l *logs) cancelled(id message.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages[nameOf(id)].cancelled = true
}

// lasts says that a message does not expire any more: it was redriven, or has died in
// another queue.
func (l *logs) lasts(id message.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.messages[nameOf(id)]
	return m.revived != 0 || m.came != 0
}

// pause is told that a pause of a queue, or of a part of it, was confirmed, resume
// that it will be taken back.
func (l *logs) pause(queue uint32, of message.Pause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused[queue] = of
}

func (l *logs) resume(queue uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.paused, queue)
}
