package main

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// limit changes how many messages of a queue may be leased at a time, again and again
// until ctx ends. A call that had no answer may still be done, later than those after it:
// so it is the last.
func (w *world) limit(q queueSpec) {
	who := "limiter of " + q.name
	r := w.rand(who)
	w.logs.limited(q.name, q.settings.MaxInFlight)
	for sure := true; sure && w.pause(w.ctx, time.Duration(r.Int64N(int64(3*time.Second)))); {
		s := q.settings
		s.MaxInFlight = 1 + r.IntN(4)
		w.logs.limiting(q.name, s.MaxInFlight)
		tries := 0
		err := w.insist(who, r, func(ctx context.Context, p *process) error {
			if tries++; w.hook.dropLimit {
				return nil
			}
			_, err := p.gateway.UpdateQueue(ctx, q.name, s, 0, false)
			return err
		})
		if sure = err == nil && tries == 1; sure {
			w.logs.limited(q.name, s.MaxInFlight)
			w.tally.count("limits")
		}
	}
}

// limiting is told that a queue will have another limit, limited that this was confirmed.
func (l *logs) limiting(name string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := l.number(name)
	l.limits[number] = max(l.limits[number], n)
}

func (l *logs) limited(name string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits[l.number(name)] = n
}

// pace is how far messages have gone out by a rate: when the next one is due, if they are
// evenly spread.
type pace struct {
	group time.Duration // by the time of their group
	world time.Duration // by that of the world, as its fastest clock has it
}

// paceOf names a pace: of a key or, without one, of all messages of a queue.
type paceOf struct {
	queue uint32
	key   string
}

// early is how much before it is due a message may go out: that early, or so late that the
// one before did not delay it.
const early = 100 * time.Millisecond

// inPace checks that a message which goes out now is not before its time by the rates of
// its queue.
func (l *logs) inPace(g *groupLog, m *stored) {
	of := paceOf{queue: m.place.Queue()}
	asked := l.asked(of.queue)
	l.spread(g, m, of, asked.Rate)
	if of.key = m.key; m.key != "" {
		l.spread(g, m, of, asked.RatePerKey)
	}
}

func (l *logs) spread(g *groupLog, m *stored, of paceOf, r message.Rate) {
	if r.Count == 0 {
		return
	}
	p := l.paces[of]
	if p == nil {
		p = &pace{}
		l.paces[of] = p
	}
	group := time.Duration(g.queue.GroupTime()) * time.Millisecond
	world := time.Duration(float64(l.w.now())*(1+maxDrift)) + time.Duration(l.w.leaps.Load())*leapCounts
	// In the world leases may take their time to be applied, and come together with those
	// that were made after them: as many as go out at a time.
	if p.group-group > early || p.world-world > 2*early+r.Step() {
		l.w.fail("message %s of %+v goes out %v before it is due by its group's time, and %v by the world's", m.id, of, p.group-group, p.world-world)
	}
	p.group, p.world = max(p.group, group)+r.Step(), max(p.world, world)+r.Step()
}

// number is that of a queue.
func (l *logs) number(name string) uint32 {
	q, _ := l.by[catalog.MetaGroup].catalog.View().Queue(name)
	return q.Number
}

// within checks that a message which goes out is one of those that may be leased at a time,
// and goes to the worker who has the others if only one may.
func (l *logs) within(m *stored) {
	number, n := m.place.Queue(), 0
	single := l.asked(number).Assign == message.AssignSingle
	for at, o := range l.messages {
		if !o.leased || at != nameOf(o.place) || at.queue != number {
			continue
		}
		if n++; single && o.worker != m.worker {
			l.w.fail("message %s goes to %s while %s has %s, and one worker gets the queue's messages", m.id, m.worker, o.worker, o.id)
		}
	}
	if limit, ok := l.limits[number]; ok && n > limit {
		l.w.fail("%d messages of queue %d are leased with message %s, and %d may be", n, number, m.id, limit)
	}
}
