package leader

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// sweep is how many leases or timers one command ends at the most.
const sweep = 500

type leaseKey struct {
	queue uint32
	cell  int
	seq   uint64
}

func compareKeys(a, b leaseKey) int {
	return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.seq, b.seq), cmp.Compare(a.cell, b.cell))
}

// deadline is a lease that the leader watches.
type deadline struct {
	key    leaseKey
	fence  uint64
	at     int64   // group time, ms; 0: bound to a session, which ends it
	worker *worker // nil: not known yet
	place  int     // in the heap; -1: not in it
	// What it is bound to, and that its end is on its way because that has ended.
	session, incarnation uint64
	ending               bool
	cancelling           bool   // its worker is to let it go
	missed               int    // claims in a row that lacked it,
	missedBy             uint64 // of this attachment
}

// leases are all leases of the group, the next deadline first.
type leases struct {
	by    map[leaseKey]*deadline
	queue deadlines
}

func (l *leases) set(key leaseKey, fence uint64, at int64) *deadline {
	d := l.by[key]
	if d == nil {
		d = &deadline{key: key, place: -1}
		l.by[key] = d
	}
	d.fence, d.at = fence, at
	l.watch(d)
	return d
}

// watch puts a lease into the heap, or to its new place in it.
func (l *leases) watch(d *deadline) {
	switch {
	case d.at == 0:
	case d.place < 0:
		heap.Push(&l.queue, d)
	default:
		heap.Fix(&l.queue, d.place)
	}
}

func (l *leases) end(key leaseKey, fence uint64) *deadline {
	d := l.by[key]
	if d == nil || d.fence != fence {
		return nil
	}
	if d.place >= 0 {
		heap.Remove(&l.queue, d.place)
	}
	delete(l.by, key)
	return d
}

// of lists the leases of a queue.
func (l *leases) of(number uint32) (ds []*deadline) {
	for key, d := range l.by {
		if key.queue == number {
			ds = append(ds, d)
		}
	}
	return ds
}

// due takes up to limit leases of one queue out of the heap whose deadline has
// passed.
func (l *leases) due(now int64, limit int) (out []*deadline) {
	for len(l.queue) > 0 && len(out) < limit && l.queue[0].at <= now {
		if len(out) > 0 && l.queue[0].key.queue != out[0].key.queue {
			break
		}
		out = append(out, heap.Pop(&l.queue).(*deadline))
	}
	return out
}

type deadlines []*deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at < d[j].at }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

func (d *deadlines) Push(x any) {
	l := x.(*deadline)
	l.place = len(*d)
	*d = append(*d, l)
}

func (d *deadlines) Pop() any {
	old := *d
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	l.place = -1
	return l
}

// timers knows when the first timer of a kind is due in a cell. The rows have the
// rest: they are read when the time has come. Times are ms in the time of the kind.
type timers struct {
	cell   *cell
	kind   queue.TimerKind
	next   int64 // 0: nothing is due
	after  int64 // all that were due up to here were woken: no need to read them
	waking bool
	// added is the first of those that were set since the rows were read; 0: none.
	added int64
	// far: some may be due later than the queue's settings have it now.
	far bool
}

func (t *timers) add(at int64) {
	if t.waking {
		t.added = soonest(t.added, at)
	} else {
		t.next = soonest(t.next, at)
	}
	// An entry may be stamped before and applied after others were woken, and a wall
	// clock may go back.
	t.after = min(t.after, at-1)
}

func soonest(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// schedule notes that something of a cell is due at a time.
func (g *Group) schedule(c *cell, kind queue.TimerKind, at int64) {
	t := &c.timers[kind]
	t.add(at)
	g.timed[t] = true
}

// unschedule forgets what is due of a cell.
func (g *Group) unschedule(c *cell) {
	for kind := range c.timers {
		delete(g.timed, &c.timers[kind])
	}
}

// wakeable takes those timers that are due, and says whether anything counts on
// group time.
func (g *Group) wakeable(now int64) (wake []wakeJob, counts bool) {
	wall := g.clock.Wall().UnixMilli()
	for t := range g.timed {
		until := now
		if t.kind.Wall() {
			until = wall
		} else {
			counts = true
		}
		if t.waking || t.next > until && !t.far {
			continue
		}
		t.waking = true
		w := wakeJob{timers: t, after: t.after, until: until}
		if t.far {
			t.far, w.far = false, g.far(t, now)
		}
		wake = append(wake, w)
	}
	slices.SortFunc(wake, func(a, b wakeJob) int {
		x, y := a.timers, b.timers
		return cmp.Or(cmp.Compare(x.cell.queue, y.cell.queue), cmp.Compare(x.cell.number, y.cell.number), cmp.Compare(x.kind, y.kind))
	})
	return wake, counts || len(g.leases.by) > 0
}

// far is from when on no pace of a key may be due by what the queue's settings say now.
func (g *Group) far(t *timers, now int64) int64 {
	r := g.queues[t.cell.queue].limits.RatePerKey
	latest := r.Ends(r.Latest(time.Duration(now) * time.Millisecond))
	return latest.Milliseconds() + 2 // timers are rounded up
}

// Overdue says that the time of a lease or a timer has come and that its end is not
// applied yet, or that something is to leave for another group and could.
func (g *Group) Overdue() bool {
	now, _ := g.stamps.now()
	wall := g.clock.Wall().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.outbox.overdue(g.clock.Now()) {
		return true
	}
	for t := range g.timed {
		if t.waking || t.next <= now && !t.kind.Wall() || t.next <= wall && t.kind.Wall() {
			return true
		}
	}
	for _, d := range g.leases.by {
		if d.at > 0 && d.at <= now {
			return true
		}
	}
	return false
}

// Tick ends leases whose deadline has passed, wakes what is due, hands out what
// was postponed, and stamps the time if something counts on it: often enough
// that no step is cut (maxStep). It is called each Every.
func (g *Group) Tick() {
	now, since := g.stamps.now()
	g.mu.Lock()
	if !g.leading {
		g.mu.Unlock()
		return
	}
	var settings []setting
	var ends []queue.ExpireSession
	if g.again {
		g.again = false
		settings, ends = g.reconcileAll(), g.expireSessions(nil)
	}
	var records []catalog.Command
	if g.resharded && !g.recording && !g.clock.Now().Before(g.recordAt) {
		g.resharded = false
		records = g.unrecorded()
		g.recording = len(records) > 0
	}
	expired := g.sessions.sweep() // what was lost on its way the last time
	for d := g.leases.due(now, sweep); len(d) > 0; d = g.leases.due(now, sweep) {
		expired = append(expired, d)
	}
	wake, timed := g.wakeable(now)
	timed = timed || len(g.outbox.cells) > 0 // delays go on
	again := slices.Concat(g.postponed, g.beckons)
	g.postponed, g.beckons = nil, nil
	for _, l := range again {
		l.postponed, l.beckons = false, false
	}
	g.mu.Unlock()
	g.proposeAll(settings)
	g.proposeEnds(ends)
	if len(records) > 0 {
		go g.record(records)
	}
	for _, d := range expired {
		g.expire(d)
	}
	for _, w := range wake {
		g.wake(w)
	}
	for _, l := range again {
		g.dispatch(l)
	}
	g.sendOutbox()
	if timed && since >= maxStep/2 && len(expired)+len(wake) == 0 {
		g.raft.Propose(replica.Command(queue.Tick()), func(any, error) {})
	}
}

// expire proposes the end of leases; Apply looks whether their time has come.
func (g *Group) expire(ds []*deadline) {
	c := queue.Expire{Queue: ds[0].key.queue}
	for _, d := range ds {
		c.Leases = append(c.Leases, queue.LeaseRef{Cell: d.key.cell, Seq: d.key.seq, Fence: d.fence})
	}
	g.raft.Propose(replica.Command(c.Command()), func(any, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, d := range ds { // those that are still there get another try
			d.ending = false
			if g.leases.by[d.key] == d && d.place < 0 {
				g.leases.watch(d)
			}
		}
	})
}

type wakeJob struct {
	timers       *timers
	after, until int64
	far          int64 // those from there on as well: Apply looks when they are due now; 0: none
}

// wake reads those timers that are due and proposes to do what they wait for.
func (g *Group) wake(w wakeJob) {
	t := w.timers
	view := g.raft.View()
	if view == nil {
		return // the host ends
	}
	due := queue.Timers(view, t.cell.queue, t.cell.number, t.kind, &queue.TimerRef{Due: w.after}, sweep+1)
	n := 0
	for n < len(due) && n < sweep && due[n].Due <= w.until {
		n++
	}
	c := queue.Wake{Queue: t.cell.queue, Timers: due[:n:n]}
	if w.far > 0 && n < sweep {
		c.Timers = append(c.Timers, queue.Timers(view, t.cell.queue, t.cell.number, t.kind, &queue.TimerRef{Due: w.far}, sweep-n)...)
	}
	view.Close()
	finish := func(err error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		t.waking = false
		if w.far > 0 && (err != nil || n == sweep || len(c.Timers) > n) {
			t.far = true // there may be more
		}
		if err != nil {
			return // again with the next tick
		}
		t.next = 0
		if n < len(due) {
			t.next = due[n].Due
		}
		if n > 0 {
			t.after = max(t.after, due[n-1].Due-1)
		}
		if t.added > 0 {
			t.next, t.after = soonest(t.next, t.added), min(t.after, t.added-1)
			t.added = 0
		}
		if t.next == 0 {
			delete(g.timed, t)
		}
	}
	if len(c.Timers) == 0 {
		finish(nil)
		return
	}
	g.raft.Propose(replica.Command(c.Command()), func(_ any, err error) { finish(err) })
}
