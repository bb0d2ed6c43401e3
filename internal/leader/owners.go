package leader

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// Owners tells which workers the keys of a queue prefer at its leader, and how much
// of them each, by name.
func (g *Group) Owners(_ context.Context, number uint32) ([]message.Preferred, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.queues[number]
	switch {
	case !g.leading:
		return nil, message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID())
	case l == nil:
		return nil, nil
	}
	l.workers.forget(g.clock.Now())
	return l.workers.shares(), nil
}

// shares are the parts of all classes of keys that prefer each worker, by name.
func (ws *workers) shares() []message.Preferred {
	count := map[string]int{}
	for class := range uint64(classes) {
		if w := ws.prefers(class); w != nil {
			count[w.name]++
		}
	}
	out := make([]message.Preferred, 0, len(count))
	for _, name := range slices.Sorted(maps.Keys(count)) {
		out = append(out, message.Preferred{Worker: name, Share: float64(count[name]) / classes})
	}
	return out
}

// Owners has the other node tell which workers the keys of a queue prefer.
func (r *Remote) Owners(ctx context.Context, number uint32) (all []message.Preferred, err error) {
	b, err := r.at.ask(ctx, r.id, binary.AppendUvarint(appendRequest(nil, askOwners, r.id), uint64(number)), nil)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	return all, err
}

func (s *Service) owners(ctx context.Context, g *Group, fields []byte) ([]byte, error) {
	number, n := binary.Uvarint(fields)
	if n <= 0 {
		return nil, errWire
	}
	all, err := g.Owners(ctx, uint32(number))
	if err != nil {
		return nil, err
	}
	return appendJSON([]byte{answered}, all)
}
