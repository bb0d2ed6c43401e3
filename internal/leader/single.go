package leader

import (
	"time"
)

// standBy is how long the active worker of a queue may neither hold nor wait for
// anything, as it does between two receives, before another one is active.
const standBy = time.Second

// grantsToOne gives what there is to the line's active worker. The others that
// wait stand by.
func (g *Group) grantsToOne(l *line) []grant {
	p := pass{line: l, part: l.available()}
	for w := l.activate(g.clock.Now()); w != nil && !w.done(); {
		key, free := g.next(l)
		if free <= 0 {
			break
		}
		n := p.give(w, key, free)
		g.leasing += n
		l.leasing += n
	}
	p.end()
	if l.first() != nil {
		g.postpone(l) // perhaps the active worker has gone by then
	}
	return p.grants
}

// activate is the active worker; nil: there is none. One that holds messages stays
// it, also when another leader takes over: the rows say who holds them.
func (l *line) activate(now time.Time) *worker {
	if w := l.active; w != nil && (len(w.calls)+w.load > 0 || now.Sub(w.seen) < standBy) {
		return w
	}
	l.active = nil
	for _, w := range l.workers.by {
		if w.load > 0 && (l.active == nil || w.load > l.active.load || w.load == l.active.load && w.id < l.active.id) {
			l.active = w
		}
	}
	if l.active == nil && len(l.workers.waiting) > 0 {
		l.active = l.workers.waiting[0]
	}
	return l.active
}
