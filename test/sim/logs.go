package main

import (
	"fmt"
	"hash/fnv"
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
	w       *world
	mu      sync.Mutex
	by      map[uint64]*groupLog
	singles map[string]*stored // by unique key: the newest message
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

	messages map[cellSeq]*stored
	gave     map[uint64]*groupLog // spaces that were given to a group that was spun off
	lines    map[string][]*stored // by key: those that have not ended, in order
	news     []*stored            // that this entry has stored
}

// cellSeq names a message.
type cellSeq struct {
	queue uint32
	cell  int
	seq   uint64
}

// stored is a message that is in a group.
type stored struct {
	id      message.ID
	payload string
	line    string        // its queue and key; empty: no key
	ended   message.State // an end; 0: it has not ended, as far as anybody has looked
	leased  bool
	fence   uint64
	granted map[uint64]grant // by fence
}

// grant is one lease as the log has it.
type grant struct {
	at time.Duration // when it was applied
}

// space is where the message's rows are.
func (m cellSeq) space() uint64 { return uint64(m.queue)<<8 | uint64(m.cell) }

func newLogs(w *world) *logs {
	return &logs{w: w, by: map[uint64]*groupLog{}, singles: map[string]*stored{}}
}

func nameOf(id message.ID) cellSeq { return cellSeq{id.Queue(), id.Point().Cell(), id.Seq()} }

func (l *logs) group(id uint64) *groupLog {
	g := l.by[id]
	if g == nil {
		g = &groupLog{w: l.w, group: id, entries: map[uint64]uint64{}, rows: rows{}, messages: map[cellSeq]*stored{}, gave: map[uint64]*groupLog{}, lines: map[string][]*stored{}}
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
		return
	}
	results := g.queue.Apply(ownRows{g.rows, g, told}, index, entry)
	if hashOf(entry, results) != hash {
		g.w.fail("index %d of group %d has other results here than on its first replica", index, g.group)
	}
	if limit := g.w.now().Seconds()*(1+maxDrift) + 1 + float64(g.w.leaps.Load()); float64(g.queue.GroupTime())/1000 > limit {
		g.w.fail("group %d is at %d ms of group time, faster than any clock", g.group, g.queue.GroupTime())
	}
	batches := map[cellSeq]int{} // of the leases of this entry: the command's place
	for i, r := range results {
		switch r := r.(type) {
		case []message.SendResult:
			for _, s := range r {
				if s.Err == nil {
					g.holder(nameOf(s.ID)).sent(s.ID)
				}
			}
		case queue.LeaseResult:
			for _, x := range r.Leased {
				batches[nameOf(x.ID)] = i + 1
			}
		}
	}
	for _, e := range g.queue.Effects() {
		name := cellSeq{e.Queue, e.Ref.Cell, e.Ref.Seq}
		at := g.holder(name)
		switch e.Kind {
		case queue.Offered:
			at.revived(name)
		case queue.LeaseSet:
			at.leased(at.messages[name], e.Fence, batches)
		case queue.LeaseEnded:
			if m := at.messages[name]; m.fence == e.Fence {
				m.leased = false
			}
		default: // of no interest here
		}
	}
	for _, at := range g.w.logs.by {
		for _, m := range at.news {
			at.alone(m)
		}
		at.news = nil
	}
}

// holder is where a message is by the end of an entry: its cell may have been given
// to a group that was spun off.
func (g *groupLog) holder(m cellSeq) *groupLog {
	if child := g.gave[m.space()]; child != nil {
		return child.holder(m)
	}
	return g
}

// sent takes in that a message was stored; a repeated answer names it again.
func (g *groupLog) sent(id message.ID) {
	name := nameOf(id)
	if g.messages[name] != nil {
		return
	}
	d, ok := queue.Show(g.rows, id)
	if !ok {
		g.w.fail("message %s was stored, and is not there", id)
		return
	}
	m := &stored{id: id, payload: string(d.Body), granted: map[uint64]grant{}}
	g.messages[name] = m
	if d.Key != "" {
		m.line = fmt.Sprintf("%d/%s", id.Queue(), d.Key)
		g.lines[m.line] = append(g.lines[m.line], m)
	}
	g.w.tally.stored(m.payload, id)
	g.news = append(g.news, m)
}

// alone checks that no other message has the unique key of one that was stored, now
// that all of its entry is known.
func (g *groupLog) alone(m *stored) {
	name := g.w.tally.single(m.payload)
	if name == "" {
		return
	}
	if o := g.w.logs.singles[name]; o != nil {
		if state := g.holder(nameOf(o.id)).state(o); !state.Ended() {
			g.w.fail("messages %s and %s have one unique key, and the first is %s", o.id, m.id, state)
		}
	}
	g.w.logs.singles[name] = m
}

// leased checks a lease: a message has one holder, fences grow, and a key's
// messages go out in order, several only together.
func (g *groupLog) leased(m *stored, fence uint64, batches map[cellSeq]int) {
	switch {
	case m.leased && m.fence == fence:
		return // extended
	case m.leased:
		g.w.fail("message %s is leased with fence %d while it is with %d", m.id, fence, m.fence)
	case m.ended == message.Finished:
		g.w.fail("message %s is leased with fence %d, and was finished", m.id, fence)
	case fence <= m.fence:
		g.w.fail("message %s is leased with fence %d after %d", m.id, fence, m.fence)
	}
	m.leased, m.fence = true, fence
	m.granted[fence] = grant{g.w.now()}
	if m.line == "" {
		return
	}
	batch := batches[nameOf(m.id)]
	kept := g.lines[m.line][:0]
	before := true
	for _, o := range g.lines[m.line] {
		state := g.state(o)
		before = before && o != m
		switch ended := state.Ended(); {
		case ended && o != m:
			continue // a message that is dead comes back to the end, see redrive
		case o != m && o.leased && batches[nameOf(o.id)] != batch:
			g.w.fail("messages %s and %s of one key have two holders", m.id, o.id)
		case before && batches[nameOf(o.id)] != batch:
			g.w.fail("message %s went out before %s of the same key, which is %s", m.id, o.id, state)
		}
		kept = append(kept, o)
	}
	g.lines[m.line] = kept
}

// state is what has become of a message; 0: it is not there.
func (g *groupLog) state(m *stored) message.State {
	switch {
	case m.ended != 0:
		return m.ended
	case m.leased:
		return message.Leased
	}
	d, ok := queue.Show(g.rows, m.id)
	if !ok {
		return 0
	}
	if d.State.Ended() {
		m.ended = d.State
	}
	return d.State
}

// revived takes in that a message is ready, which may have been dead.
func (g *groupLog) revived(name cellSeq) {
	if m := g.messages[name]; m != nil {
		m.ended = 0
	}
}

// find finds a message and its last lease.
func (l *logs) find(id message.ID) (m *stored, state message.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.by {
		if m = g.messages[nameOf(id)]; m != nil {
			return m, g.state(m)
		}
	}
	return nil, 0
}

// lease is when a lease was applied, and the fence of the message's last one.
func (l *logs) lease(id message.ID, fence uint64) (at time.Duration, last uint64) {
	m, _ := l.find(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if m == nil {
		return 0, 0
	}
	return m.granted[fence].at, m.fence
}
