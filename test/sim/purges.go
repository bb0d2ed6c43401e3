package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// purge empties a queue now and then until ctx ends, in one world of three: what is gone
// tests nothing any more. A call that had no answer may still be done, at any time: so it
// is the last.
func (w *world) purge(name string) {
	who := "purger of " + name
	r := w.rand(who)
	for sure := r.IntN(3) == 0; sure && w.pause(w.ctx, time.Second+time.Duration(r.Int64N(int64(10*time.Second)))); {
		w.logs.purging(name)
		tries := 0
		err := w.insist(who, r, func(ctx context.Context, p *process) error {
			if tries++; w.hook.dropPurge {
				return nil
			}
			return p.gateway.PurgeQueue(ctx, name)
		})
		if sure = err == nil && tries == 1; sure {
			w.logs.purged(name)
		}
	}
}

// cleaning is a purge of a queue that somebody has asked for.
type cleaning struct {
	before map[*stored]int // what was in the queue: which of its leases had ended (over)
}

// purging is told that a queue will be purged, purged that this was confirmed: by then
// what was in the queue is gone or has left it.
func (l *logs) purging(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := l.number(name)
	c := &cleaning{before: map[*stored]int{}}
	for _, m := range l.messages {
		if l.state(m) != 0 && m.at.Queue == number && !m.purged {
			c.before[m] = m.over
		}
	}
	l.cleanings[number] = c
}

func (l *logs) purged(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := l.number(name)
	for m, over := range l.cleanings[number].before {
		if state := l.state(m); !m.purged && m.at.Queue == number && m.over == over {
			l.w.fail("queue %d was confirmed to be purged, and message %s, which was there before, is %s", number, m.id, state)
		}
	}
	delete(l.cleanings, number)
	l.w.tally.count("purges")
}

// clearing notes what is in a cell that an entry is about to empty.
func (l *logs) clearing(g *groupLog, space uint64) {
	at := queue.Line{Queue: uint32(space >> 8), Cell: int(space & 0xff)}
	if l.cleanings[at.Queue] == nil {
		l.w.fail("group %d purges queue %d, and nobody has asked for that since it was done", g.group, at.Queue)
	}
	g.cleared = append(g.cleared, at)
	for place, m := range l.messages {
		elsewhere := m.ended != 0 && m.at != at && m.at == lineOf(m.id)
		if place != nameOf(m.place) || m.purged && !m.adrift || elsewhere {
			continue
		}
		d, on := l.show(m.id, at)
		switch {
		case d != nil:
			g.gone = append(g.gone, gone{m, d.Leaving})
			m.at = at
		case on != nil:
			if m.at == at {
				m.at = *on
			}
			l.w.tally.purged(m.payload) // it is not found by its id any more
		}
	}
}

// gone is a message that a purge has taken away. One that was on its way to another
// queue may be there, or come there yet.
type gone struct {
	m      *stored
	adrift bool
}

// cleared takes in that an entry has purged what was in the cells.
func (l *logs) cleared(g *groupLog) {
	maps.DeleteFunc(l.paces, func(of paceOf, _ *pace) bool {
		return of.key != "" && slices.ContainsFunc(g.cleared, func(at queue.Line) bool { return at.Queue == of.queue })
	})
	for _, x := range g.gone {
		x.m.purged, x.m.adrift, x.m.leased = true, x.adrift, false
		l.w.tally.purged(x.m.payload)
	}
	g.gone = nil
}

// found looks for a message that was on its way when it was purged.
func (l *logs) found(m *stored) bool {
	for space := range l.homes {
		at := queue.Line{Queue: uint32(space >> 8), Cell: int(space & 0xff)}
		if d, _ := l.show(m.id, at); d != nil {
			m.at, m.purged, m.adrift = at, false, false
			return true
		}
	}
	return false
}

// wasPurged says that a message was purged, and has not come to another queue since.
func (l *logs) wasPurged(id message.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.messages[nameOf(id)]
	return m != nil && m.purged
}
