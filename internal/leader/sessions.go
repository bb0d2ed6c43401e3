package leader

import (
	"slices"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// sessions are the workers' sessions that are attached to the group, with what
// they hold. The catalog decides which of them live: one that does not is ended
// here by one entry, and then what it held is given to others, some at a time.
type sessions struct {
	by map[uint64]*bound
	// ending are those that were ended and may still hold something.
	ending map[uint64]*bound
}

// bound is one session.
type bound struct {
	id, incarnation uint64
	catalog         uint64 // version in which it was live when it was attached
	leases          map[leaseKey]*deadline
	ended           uint64 // the incarnations up to this one have ended here
	proposed        bool   // its end is on its way
}

func (s *sessions) get(id uint64) *bound {
	b := s.by[id]
	if b == nil {
		b = &bound{id: id, leases: map[leaseKey]*deadline{}}
		s.by[id] = b
	}
	return b
}

// attach notes that a session holds leases here.
func (s *sessions) attach(x queue.Session) {
	b := s.get(x.ID)
	if x.Incarnation > b.incarnation {
		b.incarnation, b.catalog, b.proposed = x.Incarnation, x.CatalogVersion, false
	}
}

// end notes that a session has ended here.
func (s *sessions) end(id, incarnation uint64) {
	b := s.get(id)
	b.ended = max(b.ended, incarnation)
	s.ending[id] = b
}

// hold binds a lease to its session.
func (s *sessions) hold(d *deadline) {
	b := s.get(d.session)
	b.leases[d.key] = d
	if d.incarnation <= b.ended {
		s.ending[b.id] = b
	}
}

// free is called when a lease that was bound to a session has ended.
func (s *sessions) free(d *deadline) {
	b := s.by[d.session]
	if b == nil || b.leases[d.key] != d {
		return
	}
	delete(b.leases, d.key)
	s.forget(b)
}

// forget forgets a session that has ended, once it holds nothing.
func (s *sessions) forget(b *bound) {
	if len(b.leases) == 0 {
		delete(s.ending, b.id)
		if b.incarnation <= b.ended {
			delete(s.by, b.id)
		}
	}
}

// sweep are leases of sessions that have ended, a queue and at most sweep leases
// in each; they are on their way until expire hears of them again.
func (s *sessions) sweep() (out [][]*deadline) {
	for _, b := range inOrder(s.ending) {
		s.forget(b)
		byQueue := map[uint32][]*deadline{}
		for _, d := range b.leases {
			if d.incarnation <= b.ended && !d.ending {
				d.ending = true
				byQueue[d.key.queue] = append(byQueue[d.key.queue], d)
			}
		}
		for _, ds := range inOrder(byQueue) {
			// In the order of sending, as far as they are of one shard.
			slices.SortFunc(ds, func(x, y *deadline) int { return compareKeys(x.key, y.key) })
			out = slices.AppendSeq(out, slices.Chunk(ds, sweep))
		}
	}
	return out
}

// expireSessions are the ends of sessions that the catalog has no longer as live.
// With changes it looks only at those. The lock is held.
func (g *Group) expireSessions(changes []catalog.Change) (ends []queue.ExpireSession) {
	if g.view == nil {
		return nil
	}
	if changes == nil {
		for _, b := range inOrder(g.sessions.by) {
			ends = g.expireSession(ends, b)
		}
		return ends
	}
	for _, c := range changes {
		if c.Session == nil {
			continue
		}
		if b := g.sessions.by[c.Session.ID]; b != nil {
			ends = g.expireSession(ends, b)
		}
	}
	return ends
}

// expireSession looks at one session. A copy of the catalog that is older than the
// one in which it was live can't know of it yet: what ended it later is among the
// changes that are still to come.
func (g *Group) expireSession(ends []queue.ExpireSession, b *bound) []queue.ExpireSession {
	if b.catalog > g.view.Version {
		return ends
	}
	s, ok := g.view.Session(b.id)
	if b.proposed || b.incarnation <= b.ended || (ok && s.Live() && s.Incarnation == b.incarnation) {
		return ends
	}
	b.proposed = true
	return append(ends, queue.ExpireSession{Session: queue.Session{ID: b.id, Incarnation: b.incarnation, CatalogVersion: g.view.Version}})
}

// proposeEnds proposes the ends of sessions; one that is lost is proposed again.
// It is called without the lock.
func (g *Group) proposeEnds(ends []queue.ExpireSession) {
	for i := range ends {
		g.raft.Propose(replica.Command(ends[i].Command()), func(_ any, err error) {
			if err == nil {
				return
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if b := g.sessions.by[ends[i].Session.ID]; b != nil {
				b.proposed = false
			}
			g.again = true
		})
	}
}
