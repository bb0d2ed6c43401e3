package leader

import (
	"context"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// maxAwaits is how many may wait for the end of messages of a group at a time.
const maxAwaits = 10_000

// awaits are those who wait until a message has ended.
type awaits struct {
	by map[leaseKey][]chan struct{}
	n  int
}

func (a *awaits) add(key leaseKey) chan struct{} {
	news := make(chan struct{})
	a.by[key] = append(a.by[key], news)
	a.n++
	return news
}

// remove takes one out who waits no more.
func (a *awaits) remove(key leaseKey, news chan struct{}) {
	if i := slices.Index(a.by[key], news); i >= 0 {
		a.by[key] = slices.Delete(a.by[key], i, i+1)
		a.n--
		if len(a.by[key]) == 0 {
			delete(a.by, key)
		}
	}
}

// wake lets those look who wait for a message.
func (a *awaits) wake(key leaseKey) {
	if a.n == 0 {
		return
	}
	for _, news := range a.by[key] {
		close(news)
		a.n--
	}
	delete(a.by, key)
}

// wakeQueue lets those look who wait for any message of a queue; 0: of any queue.
func (a *awaits) wakeQueue(number uint32) {
	for key := range a.by {
		if number == 0 || key.queue == number {
			a.wake(key)
		}
	}
}

// Await returns when a message has ended, is not known here or is elsewhere, or
// when ctx ends. Who asked looks then, and asks again if it has not ended.
func (g *Group) Await(ctx context.Context, id message.ID) error {
	key := leaseKey{id.Queue(), id.Point().Cell(), id.Seq()}
	for {
		g.mu.Lock()
		switch {
		case !g.leading:
			g.mu.Unlock()
			return message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID())
		case g.awaits.n >= maxAwaits:
			g.mu.Unlock()
			return message.Errorf(message.ResourceExhausted, "%d callers wait for the end of messages of group %d already: ask without wait, or later", maxAwaits, g.raft.ID())
		}
		news := g.awaits.add(key) // before it is looked at, so that its end can't pass between
		g.mu.Unlock()
		over := g.over(id)
		if !over {
			select {
			case <-news:
			case <-ctx.Done():
			}
		}
		g.mu.Lock()
		g.awaits.remove(key, news)
		g.mu.Unlock()
		if over || ctx.Err() != nil {
			return nil //nolint:nilerr // who waits no more looks what there is
		}
	}
}

// over says that there is nothing to wait for here.
func (g *Group) over(id message.ID) bool {
	view := g.raft.View()
	if view == nil {
		return true // the host ends
	}
	defer view.Close()
	a := (&queue.Query{Show: &id}).Run(view)
	return a.Message == nil || a.Message.State.Ended()
}

// Await has the other node tell when a message has ended.
func (r *Remote) Await(ctx context.Context, id message.ID) error {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeFor+answerWithin)
	defer cancel()
	_, err := r.at.ask(call, r.id, append(appendRequest(nil, askAwait, r.id), id[:]...), ctx.Done())
	if message.CodeOf(err) == message.UnknownOutcome { // of a question, which does nothing
		return message.Errorf(message.NotLeader, "group %d was asked for the end of a message, and did not answer: %v", r.id, err)
	}
	return err
}

func (s *Service) await(ctx context.Context, g *Group, fields []byte) ([]byte, error) {
	var id message.ID
	if len(fields) != len(id) {
		return nil, errWire
	}
	copy(id[:], fields)
	ctx, cancel := context.WithTimeout(ctx, takeFor)
	defer cancel()
	return []byte{answered}, g.Await(ctx, id)
}
