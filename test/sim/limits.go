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

// number is that of a queue.
func (l *logs) number(name string) uint32 {
	q, _ := l.by[catalog.MetaGroup].catalog.View().Queue(name)
	return q.Number
}

// within checks that a message which goes out is one of those that may be leased at a time.
func (l *logs) within(id message.ID) {
	number, n := id.Queue(), 0
	for at, m := range l.messages {
		if m.leased && at == nameOf(m.place) && at.queue == number {
			n++
		}
	}
	if limit, ok := l.limits[number]; ok && n > limit {
		l.w.fail("%d messages of queue %d are leased with message %s, and %d may be", n, number, id, limit)
	}
}
