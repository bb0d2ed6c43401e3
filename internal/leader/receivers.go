package leader

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Receivers tells who receives from a queue, as far as its leader knows.
func (g *Group) Receivers(_ context.Context, number uint32) (message.Receivers, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.queues[number]
	switch {
	case !g.leading:
		return message.Receivers{}, message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID())
	case l == nil:
		return message.Receivers{}, nil
	case l.wanted():
		l.asked = g.clock.Now()
	}
	busy := 0
	for _, w := range l.workers.by {
		if w.load > 0 {
			busy++
		}
	}
	return message.Receivers{Waiting: l.workers.calls + len(l.peeks), Busy: busy, Last: l.asked.Truncate(time.Millisecond)}, nil
}

// Receivers has the other node tell who receives from a queue.
func (r *Remote) Receivers(ctx context.Context, number uint32) (who message.Receivers, err error) {
	b, err := r.at.ask(ctx, r.id, binary.AppendUvarint(appendRequest(nil, askReceivers, r.id), uint64(number)), nil)
	if err == nil {
		err = json.Unmarshal(b, &who)
	}
	return who, err
}

func (s *Service) receivers(ctx context.Context, g *Group, fields []byte) ([]byte, error) {
	number, n := binary.Uvarint(fields)
	if n <= 0 {
		return nil, errWire
	}
	who, err := g.Receivers(ctx, uint32(number))
	if err != nil {
		return nil, err
	}
	return appendJSON([]byte{answered}, who)
}
