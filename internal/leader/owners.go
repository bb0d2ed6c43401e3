package leader

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
)

// Owners tells which workers the keys of a queue prefer at its leader, and how much
// of them each, by name.
func (g *Group) Owners(_ context.Context, number uint32) ([]message.Preferred, error) {
	g.mu.Lock()
	l := g.queues[number]
	switch {
	case !g.leading:
		g.mu.Unlock()
		return nil, message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID())
	case l == nil:
		g.mu.Unlock()
		return nil, nil
	}
	l.workers.forget(g.clock.Now())
	names := l.workers.names()
	g.mu.Unlock()
	return shares(names), nil
}

// names are all workers by id.
func (ws *workers) names() map[uint64]string {
	names := make(map[uint64]string, len(ws.by))
	for id, w := range ws.by {
		names[id] = w.name
	}
	return names
}

// shares are the parts of all classes of keys that prefer each worker, by name.
// With many workers that takes a while: it wants no lock.
func shares(names map[uint64]string) []message.Preferred {
	if len(names) == 0 {
		return nil
	}
	members := make([]placement.Member, 0, len(names))
	for id := range names {
		members = append(members, placement.Member{ID: id, Weight: 1})
	}
	count := map[string]int{}
	for class := range uint64(classes) {
		id, _ := placement.Owner(class, members)
		count[names[id]]++
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
