package leader

import (
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
	"github.com/comanda-mq/comanda/internal/queue"
)

// pickAmong bounds how many of those who wait are compared.
const pickAmong = 64

// grants pairs those who wait with what there is, in the order of the messages. A
// message with a key goes to the worker that its key prefers, unless that has
// more than its part or takes nothing now, and then to the next one: none waits
// for its worker. The others go to whoever holds the fewest. The order of a key's
// messages does not come from here: only one of them is offered at a time.
func (g *Group) grants(l *line) []grant {
	if l.paused || l.postponed {
		return nil
	}
	if l.limits.Assign == message.AssignSingle {
		return g.grantsToOne(l)
	}
	p := pass{line: l, part: share(l.available(), l.workers.calls)}
	for {
		key, free := g.next(l)
		if free <= 0 {
			break
		}
		w, n := p.choose(key)
		if w == nil {
			l.beckon(l.available())
			g.beckonAgain(l)
			break
		}
		n = p.give(w, key, min(n, free))
		g.leasing += n
		l.leasing += n
	}
	p.end()
	return p.grants
}

// next is the key of a line's next message, and how many may go out now, if any.
func (g *Group) next(l *line) (key uint64, free int) {
	from := l.first()
	if from == nil {
		return 0, 0
	}
	return from.offers[0].Key, g.free(l)
}

// free is how many more messages of a line may go out now. At a limit that time
// lifts, the line waits for the next Tick; at max_in_flight, for the end of a lease.
func (g *Group) free(l *line) int {
	free := g.limit - len(g.leases.by) - g.leasing
	if l.limits.Rate.Count > 0 {
		now, _ := g.stamps.now()
		free = min(free, l.limits.Rate.Room(time.Duration(now)*time.Millisecond, time.Duration(l.next))-l.leasing)
	}
	if free <= 0 {
		g.postpone(l)
		return 0
	}
	if m := l.limits.MaxInFlight; m > 0 {
		free = min(free, m-l.workers.load)
	}
	return free
}

// follow lets calls that take several messages of a key have later ones of the keys that
// they were given, as far as they have room left. What is offered goes first, so no key
// waits for later messages of another one.
func (g *Group) follow(l *line, grants []grant) {
	for i := range grants {
		gr, keys := &grants[i], 0
		for _, o := range gr.offers {
			if o.Key != 0 {
				keys++
			}
		}
		perKey := min(gr.call.Lease.PerKey, message.MaxPerKey)
		if perKey <= 1 || keys == 0 {
			continue
		}
		free := g.free(l)
		if free <= 0 {
			return
		}
		gr.extra = gr.call.reserve(min(keys*(perKey-1), free))
		gr.perKey = min(perKey, 1+(gr.extra+keys-1)/keys)
		g.leasing += gr.extra
		l.leasing += gr.extra
		gr.worker.take(gr.extra)
	}
}

// pass is one round of grants.
type pass struct {
	line   *line
	part   int // of what there is, for each call
	grants []grant
	// The first of those who wait, as far as they still take something, and how
	// many of them were looked at.
	among []*worker
	seen  int
	given []*worker // workers with marks of this pass
}

// choose picks the worker that the first message goes to, and how many may go
// with it; nil: nobody takes anything. 0 is no key.
func (p *pass) choose(key uint64) (w *worker, n int) {
	ws := &p.line.workers
	if key != 0 {
		w = ws.prefers(classOf(key))
		if w != nil && !w.done() && !laden(w.load, ws.load, len(ws.by)) {
			return w, 1
		}
	}
	p.look()
	switch {
	case len(p.among) == 0:
		return nil, 0
	case key != 0:
		return p.next(classOf(key)), 1
	default:
		return p.leastLoaded(), share(p.line.available(), ws.calls-len(p.grants))
	}
}

// done says that the worker takes nothing more in this pass.
func (w *worker) done() bool { return w.at == len(w.calls) }

// look brings among up to date.
func (p *pass) look() {
	if p.among == nil {
		p.among = make([]*worker, 0, min(pickAmong, len(p.line.workers.waiting)))
	}
	p.among = slices.DeleteFunc(p.among, (*worker).done)
	for waiting := p.line.workers.waiting; p.seen < len(waiting) && len(p.among) < pickAmong; p.seen++ {
		if w := waiting[p.seen]; !w.done() {
			p.among = append(p.among, w)
		}
	}
}

// next is whom a class of keys prefers of those who wait.
func (p *pass) next(class uint64) *worker {
	var members [pickAmong]placement.Member
	for i, w := range p.among {
		members[i] = placement.Member{ID: w.id, Weight: 1, Load: w.load}
	}
	id, _ := placement.Owner(class, members[:len(p.among)])
	return p.line.workers.by[id]
}

func (p *pass) leastLoaded() *worker {
	var loads [pickAmong]int
	for i, w := range p.among {
		loads[i] = w.load
	}
	return p.among[leastLoaded(loads[:len(p.among)])]
}

// give gives a worker up to n messages, the first of this key, and returns how
// many. One whose call has its part goes on with its next call.
func (p *pass) give(w *worker, key uint64, n int) int {
	if w.at == 0 && w.grant == 0 {
		p.given = append(p.given, w)
	}
	c := w.calls[w.at]
	reserved := c.reserve(n)
	if reserved == 0 { // or it was given something elsewhere just now
		w.at, w.grant = w.at+1, 0
		return 0
	}
	if w.grant == 0 {
		p.grants = append(p.grants, grant{call: c, worker: w, line: p.line, floors: p.line.floors(), offers: make([]queue.Offer, 0, reserved)})
		w.grant = len(p.grants)
	}
	gr := &p.grants[w.grant-1]
	took := p.line.take(gr, reserved)
	if took < reserved {
		c.deliver(reserved-took, nil, nil)
	}
	w.take(took)
	if (key == 0 || len(gr.offers) >= p.part) && w.at+1 < len(w.calls) {
		w.at, w.grant = w.at+1, 0
	}
	return took
}

// end takes those out of the waiting who got something.
func (p *pass) end() {
	for i := range p.grants {
		p.grants[i].worker.leave(p.grants[i].call)
	}
	for _, w := range p.given {
		w.at, w.grant = 0, 0
	}
}

// take takes the first message for a grant and, if it has no key, up to n with
// those that follow and have none either.
func (l *line) take(gr *grant, n int) (took int) {
	for keyed := false; took < n && !keyed; took++ {
		from := l.first()
		if from == nil {
			break
		}
		keyed = from.offers[0].Key != 0
		if keyed && took > 0 {
			break
		}
		gr.offers = append(gr.offers, l.pop(from))
	}
	return took
}
