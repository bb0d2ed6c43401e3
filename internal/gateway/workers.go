package gateway

import (
	"context"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
)

// Workers lists the workers' sessions, the newest first, those that have ended until
// they are forgotten: up to limit from page on, and the next page. The catalog knows
// who there is, its leader when each was heard, and every group what they hold there.
func (g *Gateway) Workers(ctx context.Context, limit int, page string) ([]message.WorkerInfo, string, error) {
	if err := g.authorize(ctx, auth.Observe, ""); err != nil {
		return nil, "", err
	}
	if err := checkLimit(limit); err != nil {
		return nil, "", err
	}
	below, err := pageBelow(page)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	if err := g.o.Refresh(ctx); err != nil {
		return nil, "", err
	}
	v := g.newest.Load()
	sessions, next := newestBelow(v.Sessions(), below, limit, func(s *catalog.Session) uint64 { return s.ID })
	ids := make([]uint64, len(sessions))
	for i, s := range sessions {
		ids[i] = s.ID
	}
	heard, err := g.heard(ctx, ids)
	if err != nil {
		return nil, "", err
	}
	holds, err := g.holds(ctx, v, ids)
	if err != nil {
		return nil, "", err
	}
	out := make([]message.WorkerInfo, len(sessions))
	for i, s := range sessions {
		out[i] = workerInfo(v, s, heard[s.ID], holds[s.ID])
	}
	return out, next, nil
}

func workerInfo(v *catalog.View, s *catalog.Session, h liveness.Heard, holds int) message.WorkerInfo {
	info := message.WorkerInfo{
		Worker: s.Worker, Session: s.ID, State: "alive", Silent: h.Silent, Holds: holds, Queues: s.Queues, Slots: s.Slots, TTL: s.TTL,
	}
	switch {
	case !s.Live():
		info.State, info.Reason, info.Silent = "dead", s.Why, 0
	case h.Lost:
		info.State, info.Reason = "suspect", "connection lost"
	case h.Silent >= liveness.SuspectAfter(s.TTL):
		info.State, info.Reason = "suspect", "silent"
	}
	node := h.Node
	if node == 0 {
		node = s.Node // which opened it
	}
	if n, ok := v.Node(node); ok {
		info.Node = n.Name
	}
	return info
}

// heard asks the catalog's leader when sessions were heard.
func (g *Gateway) heard(ctx context.Context, sessions []uint64) (map[uint64]liveness.Heard, error) {
	r := g.retry(ctx)
	heard, err := g.o.Heard(ctx, sessions)
	for err != nil && movable(err) && r.again() {
		heard, err = g.o.Heard(ctx, sessions)
	}
	return heard, err
}

// holds adds up what sessions hold in all groups.
func (g *Gateway) holds(ctx context.Context, v *catalog.View, sessions []uint64) (map[uint64]int, error) {
	r, all := g.retry(ctx), map[uint64]int{}
	for _, group := range v.Groups() {
		if group.ID == catalog.MetaGroup || group.Unborn() {
			continue
		}
		here, err := g.holdsOnce(ctx, group.ID, sessions)
		for err != nil && movable(err) && r.again() {
			here, err = g.holdsOnce(ctx, group.ID, sessions)
		}
		if err != nil {
			return nil, g.leaderless(ctx, group.ID, err)
		}
		for id, n := range here {
			all[id] += n
		}
	}
	return all, nil
}

func (g *Gateway) holdsOnce(ctx context.Context, group uint64, sessions []uint64) (map[uint64]int, error) {
	gr, err := g.o.Leader(group)
	if err != nil {
		return nil, err
	}
	return gr.Holds(ctx, sessions)
}
