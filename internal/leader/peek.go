package leader

import (
	"context"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// wanted says that somebody waits for the queue's messages.
func (l *line) wanted() bool { return l.workers.calls+len(l.peeks) > 0 }

// peek returns when the queue has a message here that may go out and that
// nobody takes who waits here, or when ctx ends. A receiver that waits at
// several groups can lend its room to one of them at a time, so it asks first.
// Others may be quicker: then it asks again. Meanwhile its worker is one of those
// that keys may prefer.
func (g *Group) peek(ctx context.Context, number uint32, name string) error {
	g.mu.Lock()
	l := g.queues[number]
	switch {
	case !g.leading:
		g.mu.Unlock()
		return message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID())
	case l == nil:
		g.mu.Unlock()
		return message.Errorf(message.WrongShard, "queue number %d is not in group %d", number, g.raft.ID())
	case len(l.peeks) >= maxCalls:
		g.mu.Unlock()
		return message.Errorf(message.ResourceExhausted, "%d receivers wait for this queue already", maxCalls)
	}
	here := make(chan struct{})
	l.peeks = append(l.peeks, here)
	w := l.workers.get(name, g.clock.Now())
	w.peeks++
	g.mu.Unlock()
	g.dispatch(l)
	select {
	case <-here:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	w.peeks--
	w.seen = g.clock.Now()
	l.asked = w.seen
	if i := slices.Index(l.peeks, here); i >= 0 {
		l.peeks = slices.Delete(l.peeks, i, i+1)
	}
	return nil
}

// beckonAgain has a line looked at with the next Tick. Those who were told to come
// may be gone by now, or have got something elsewhere: then others are told. The lock
// is held.
func (g *Group) beckonAgain(l *line) {
	if !l.beckons && len(l.peeks) > 0 {
		l.beckons = true
		g.beckons = append(g.beckons, l)
	}
}

// beckon lets the first n of those who peek come. The lock is held.
func (l *line) beckon(n int) {
	n = min(n, len(l.peeks))
	for _, p := range l.peeks[:n] {
		close(p)
	}
	l.peeks = slices.Delete(l.peeks, 0, n)
}
