package leader

import (
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// dropProposed stands in Group.proposed for a drop.
const dropProposed = ^uint64(0)

// Learn takes in a newer catalog. changes are what it did to queues since the
// one before; nil: anything.
func (g *Group) Learn(view *catalog.View, changes []catalog.Change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := g.view == nil
	g.view = view
	if !g.leading {
		return
	}
	if first || changes == nil {
		g.reconcileAll()
		return
	}
	for _, c := range changes {
		g.reconcile(c.Queue.Number)
	}
}

// reconcileAll compares everything that the group has with the catalog.
func (g *Group) reconcileAll() {
	if g.view == nil {
		return
	}
	for number := range g.queues {
		g.reconcile(number)
	}
	for _, q := range g.view.Queues("", g.view.Len()) {
		g.reconcile(q.Number)
	}
}

// reconcile proposes what brings a queue in this group to what the catalog
// says. The entries compare versions, so a repeat changes nothing.
func (g *Group) reconcile(number uint32) {
	l := g.queues[number]
	q, exists := g.view.QueueNumber(number)
	switch {
	case exists:
		g.configureFrom(q, l)
	case l != nil && g.view.Version > l.version && g.proposed[number] != dropProposed:
		// Absent in a catalog that is newer than what made the queue here: deleted.
		g.proposed[number] = dropProposed
		g.proposeSettings(number, (&queue.Drop{Queue: number}).Command())
	}
}

func (g *Group) configureFrom(q *catalog.Queue, l *line) {
	if (l != nil && l.version >= q.Version) || g.proposed[q.Number] >= q.Version {
		return
	}
	c := queue.Configure{Queue: q.Number, Version: q.Version, Settings: q.Settings, Paused: q.Paused}
	for _, s := range q.Shards {
		if s.Group == g.raft.ID() {
			c.Shards = append(c.Shards, queue.Bounds{From: s.From, To: s.To, Path: s.Path})
		}
	}
	if len(c.Shards) == 0 && l == nil {
		return
	}
	g.proposed[q.Number] = q.Version
	g.proposeSettings(q.Number, c.Command())
}

// proposeSettings proposes and, if that was lost, lets the next comparison try
// again.
func (g *Group) proposeSettings(number uint32, c queue.Command) {
	g.raft.Propose(replica.Command(c), func(_ any, err error) {
		if err == nil {
			return
		}
		g.log.Warn("a queue's settings did not reach the group; trying again", "queue", number, "error", err)
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.proposed, number)
		g.again = true
	})
}
