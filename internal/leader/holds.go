package leader

import (
	"context"
	"encoding/json"

	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
)

// Holds counts the messages of the group that sessions hold. Who holds none is left
// out.
func (g *Group) Holds(_ context.Context, sessions []uint64) (map[uint64]int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.leading {
		return nil, message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID())
	}
	holds := map[uint64]int{}
	for _, id := range sessions {
		if b := g.sessions.by[id]; b != nil && len(b.leases) > 0 {
			holds[id] = len(b.leases)
		}
	}
	return holds, nil
}

// Heard tells when the monitor heard sessions. Who is not watched, because the
// session has ended or is just being opened, is left out.
func (m *Meta) Heard(_ context.Context, sessions []uint64) (map[uint64]liveness.Heard, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.monitor == nil {
		return nil, message.Errorf(message.NotLeader, "the catalog is not led here")
	}
	return m.monitor.Heard(sessions, m.clock.Now()), nil
}

// Holds has the other node count what sessions hold.
func (r *Remote) Holds(ctx context.Context, sessions []uint64) (holds map[uint64]int, err error) {
	return holds, r.askSessions(ctx, askHolds, sessions, &holds)
}

// Heard has the leader of the catalog tell when it heard sessions.
func (r *Remote) Heard(ctx context.Context, sessions []uint64) (heard map[uint64]liveness.Heard, err error) {
	return heard, r.askSessions(ctx, askHeard, sessions, &heard)
}

func (r *Remote) askSessions(ctx context.Context, kind byte, sessions []uint64, answer any) error {
	fields, err := json.Marshal(sessions)
	if err != nil {
		return err
	}
	b, err := r.at.ask(ctx, r.id, append(appendRequest(nil, kind, r.id), fields...), nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, answer)
}

func aboutSessions[T any](ctx context.Context, fields []byte, tell func(context.Context, []uint64) (map[uint64]T, error)) ([]byte, error) {
	var sessions []uint64
	if err := json.Unmarshal(fields, &sessions); err != nil {
		return nil, errWire
	}
	told, err := tell(ctx, sessions)
	if err != nil {
		return nil, err
	}
	return appendJSON([]byte{answered}, told)
}
