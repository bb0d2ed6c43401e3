package gateway

import (
	"context"
	"sync"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// moves ends the waiting of receivers when shards are in other groups than they
// wait at: nobody would wake them for what is there now.
type moves struct {
	mu   sync.Mutex
	next context.Context // ends with the next move; nil: nobody waits
	end  context.CancelFunc
}

// within is over with ctx, or as soon as a shard has moved. stop lets go of it.
func (m *moves) within(ctx context.Context) (unmoved context.Context, stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.next == nil {
		m.next, m.end = context.WithCancel(context.Background())
	}
	unmoved, cancel := context.WithCancel(ctx)
	heard := context.AfterFunc(m.next, cancel)
	return unmoved, func() {
		heard()
		cancel()
	}
}

// learn compares the catalog with the one before.
func (m *moves) learn(old, now *catalog.View, changes []catalog.Change) {
	moved := changes == nil
	for _, c := range changes {
		moved = moved || c.Queue != nil && regrouped(old, now, c.Queue.Number)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if moved && m.next != nil {
		m.end()
		m.next = nil
	}
}

// regrouped says that cells of a queue are in another group than before.
func regrouped(old, now *catalog.View, number uint32) bool {
	was, ok := old.QueueNumber(number)
	is, still := now.QueueNumber(number)
	if !ok || !still {
		return false
	}
	for i := range is.Shards {
		if s := &is.Shards[i]; was.Shard(s.From).Group != s.Group {
			return true
		}
	}
	return false
}
