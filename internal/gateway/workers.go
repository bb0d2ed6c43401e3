package gateway

import (
	"cmp"
	"context"
	"slices"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
)

// Workers lists the workers' sessions, the newest first, those that have ended until
// they are forgotten: up to limit from page on. The catalog knows who there is, its
// leader when each was heard, and every group what they hold there.
func (g *Gateway) Workers(ctx context.Context, limit int, page string) (message.ListedWorkers, error) {
	below, v, err := g.newestFirst(ctx, limit, page)
	if err != nil {
		return message.ListedWorkers{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	sessions, next := newestBelow(v.Sessions(), below, limit, func(s *catalog.Session) uint64 { return s.ID })
	out, err := g.workers(ctx, v, sessions)
	out.NextPage = next
	return out, err
}

// DrainWorker has all sessions that a worker's name has now finish what they hold and
// get nothing more; a repeat is fine. It answers with them, and with those that have
// ended lately, the newest first.
func (g *Gateway) DrainWorker(ctx context.Context, name string) (message.ListedWorkers, error) {
	if err := g.authorize(ctx, auth.Manage, ""); err != nil {
		return message.ListedWorkers{}, err
	}
	if err := message.CheckWorkerName(name); err != nil {
		return message.ListedWorkers{}, err
	}
	if _, err := g.propagate(ctx, catalog.Command{DrainWorker: &catalog.DrainWorker{Worker: name}}); err != nil {
		return message.ListedWorkers{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	if err := g.o.Refresh(ctx); err != nil {
		return message.ListedWorkers{}, err
	}
	v := g.newest.Load()
	sessions := slices.SortedFunc(slices.Values(v.Worker(name)), func(x, y *catalog.Session) int { return cmp.Compare(y.ID, x.ID) })
	return g.workers(ctx, v, sessions)
}

// workers tells of sessions.
func (g *Gateway) workers(ctx context.Context, v *catalog.View, sessions []*catalog.Session) (message.ListedWorkers, error) {
	ids := make([]uint64, len(sessions))
	for i, s := range sessions {
		ids[i] = s.ID
	}
	heard, err := g.heard(ctx, ids)
	if err != nil {
		return message.ListedWorkers{}, err
	}
	holds, unreached := g.holds(ctx, v, ids)
	out := message.ListedWorkers{Workers: make([]message.WorkerInfo, len(sessions)), Unreached: unreached}
	for i, s := range sessions {
		out.Workers[i] = workerInfo(v, s, heard[s.ID], holds[s.ID])
	}
	return out, nil
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
	case s.Draining:
		info.State = "draining"
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

// holds adds up what sessions hold in all groups but those that can't be asked now.
func (g *Gateway) holds(ctx context.Context, v *catalog.View, sessions []uint64) (all map[uint64]int, unreached []uint64) {
	type part struct {
		group uint64
		holds map[uint64]int
		err   error
	}
	var parts []part
	for _, group := range v.Groups() {
		if group.ID != catalog.MetaGroup && !group.Unborn() {
			parts = append(parts, part{group: group.ID})
		}
	}
	each(parts, func(p *part) {
		r := g.retry(ctx)
		p.holds, p.err = g.holdsOnce(ctx, p.group, sessions)
		for p.err != nil && movable(p.err) && r.again() {
			p.holds, p.err = g.holdsOnce(ctx, p.group, sessions)
		}
	})
	all = map[uint64]int{}
	for i := range parts {
		if parts[i].err != nil {
			unreached = append(unreached, parts[i].group)
		}
		for id, n := range parts[i].holds {
			all[id] += n
		}
	}
	return all, unreached
}

func (g *Gateway) holdsOnce(ctx context.Context, group uint64, sessions []uint64) (map[uint64]int, error) {
	gr, err := g.o.Leader(group)
	if err != nil {
		return nil, err
	}
	return gr.Holds(ctx, sessions)
}
