package leader

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// dropProposed stands in Group.proposed for a drop.
const dropProposed = ^uint64(0)

// setting is a command that brings this group to what the catalog says.
type setting struct {
	queue   uint32 // whose settings it brings; 0: none
	command queue.Command
}

// Learn takes in a newer catalog. changes are what is new since the one before;
// nil: anything.
func (g *Group) Learn(view *catalog.View, changes []catalog.Change) {
	g.mu.Lock()
	first := g.view == nil
	g.view = view
	g.resharded = true // perhaps
	var settings []setting
	var ends []queue.ExpireSession
	switch {
	case !g.leading:
	case first || changes == nil:
		settings, ends = g.reconcileAll(), g.expireSessions(nil)
	default:
		if leaves(changes) {
			settings = g.forgetNodes(settings)
		}
		ends = g.expireSessions(changes)
		for _, c := range changes {
			if c.Queue != nil {
				settings = g.reconcile(settings, c.Queue.Number)
			}
		}
	}
	g.mu.Unlock()
	g.proposeAll(settings)
	g.proposeEnds(ends)
}

// forgetNodes adds what has the group forget what it keeps for the retries of nodes
// that were removed. The rows say for whom it keeps something.
func (g *Group) forgetNodes(settings []setting) []setting {
	view := g.raft.View()
	if view == nil {
		return settings // the host ends
	}
	defer view.Close()
	var c queue.Forget
	for _, id := range queue.Senders(view) {
		if g.view.Gone(id) {
			c.Nodes = append(c.Nodes, id)
		}
	}
	if len(c.Nodes) > 0 {
		settings = append(settings, setting{command: c.Command()})
	}
	return settings
}

// leaves says that a node is removed by one of the changes.
func leaves(changes []catalog.Change) bool {
	return slices.ContainsFunc(changes, func(c catalog.Change) bool { return c.Node != nil && c.Node.State == catalog.Removed })
}

// reconcileAll compares everything that the group has with the catalog.
func (g *Group) reconcileAll() (settings []setting) {
	if g.view == nil {
		return nil
	}
	for number := range inOrder(g.queues) {
		settings = g.reconcile(settings, number)
	}
	for _, q := range g.view.Queues("", g.view.Len()) {
		settings = g.reconcile(settings, q.Number)
	}
	return g.forgetNodes(settings)
}

// reconcile adds what brings a queue in this group to what the catalog says.
// The entries compare versions, so a repeat changes nothing.
func (g *Group) reconcile(settings []setting, number uint32) []setting {
	if g.view == nil {
		return settings
	}
	l := g.queues[number]
	q, exists := g.view.QueueNumber(number)
	switch {
	case exists:
		if c, wanted := g.configuration(q, l); wanted {
			g.proposed[number] = q.Version
			return append(settings, setting{number, c})
		}
	case l != nil && number < g.view.Cluster.NextQueue && g.proposed[number] != dropProposed:
		// The catalog has given this number and has it no more: deleted.
		g.proposed[number] = dropProposed
		return append(settings, setting{number, (&queue.Drop{Queue: number}).Command()})
	}
	return settings
}

func (g *Group) configuration(q *catalog.Queue, l *line) (c queue.Command, wanted bool) {
	if (l != nil && l.version >= q.Version) || g.proposed[q.Number] >= q.Version {
		return c, false
	}
	configure := queue.Configure{Queue: q.Number, Version: q.Version, Settings: q.Settings, Paused: q.Paused}
	configure.Pauses, configure.Hashes = q.Pauses, pauseHashes(q)
	if q.DeadLetter != 0 {
		configure.DeadLetter.Queue = q.DeadLetter
		if to, ok := g.view.QueueNumber(q.DeadLetter); ok {
			configure.DeadLetter.Secret = to.Secret // of one that was deleted nobody asks for it
		}
	}
	for _, s := range q.Shards {
		if s.Group == g.raft.ID() {
			configure.Shards = append(configure.Shards, queue.Bounds{From: s.From, To: s.To, Path: s.Path})
		}
	}
	if len(configure.Shards) == 0 && l == nil {
		return c, false
	}
	return configure.Command(), true
}

func pauseHashes(q *catalog.Queue) []uint64 {
	hashes := make([]uint64, len(q.Pauses))
	for i, p := range q.Pauses {
		if hashes[i] = q.Hash(p.Key).Hi; p.Tenant != "" {
			hashes[i] = q.HashTenant(p.Tenant)
		}
	}
	return hashes
}

// proposeAll proposes and, if that was lost, lets the next Tick compare anew.
// It is called without mu: a proposal that is refused answers at once.
func (g *Group) proposeAll(settings []setting) {
	for _, s := range settings {
		g.raft.Propose(replica.Command(s.command), func(_ any, err error) {
			if err == nil {
				return
			}
			g.log.Warn("what the catalog says did not reach the group; trying again", "queue", s.queue, "error", err)
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.proposed, s.queue)
			g.again = true
		})
	}
}

// recordWithin is how long the catalog may take to record what became of a shard,
// the others after how long it is asked again.
const (
	recordWithin   = 5 * time.Second
	recordAgain    = time.Second
	maxRecordAgain = time.Minute
)

// unrecorded are the shards that were spun off into this group, and the splits
// that were made here, which the catalog lacks, of each shard the first. The
// group's log is the truth about them, the catalog a copy: whoever leads brings
// it up to date. The lock is held.
func (g *Group) unrecorded() (changes []catalog.Command) {
	if g.view == nil {
		return nil
	}
	for number, l := range inOrder(g.queues) {
		q, ok := g.view.QueueNumber(number)
		if !ok {
			continue
		}
		for _, s := range q.Shards {
			if s.Group != g.raft.ID() {
				if l.tookOver(&s) {
					changes = append(changes, catalog.Command{MoveShard: &catalog.MoveShard{Queue: number, Path: s.Path, Epoch: s.Epoch, Group: g.raft.ID()}})
				}
			} else if at, ok := l.splitAt(s.Path); ok {
				changes = append(changes, catalog.Command{SplitShard: &catalog.SplitShard{Queue: number, Path: s.Path, Epoch: s.Epoch, At: at}})
			}
		}
	}
	return changes
}

// splitAt is the first cell of a shard's second half, if it was split.
func (l *line) splitAt(path string) (at int, ok bool) {
	for _, s := range l.shards {
		if s.Path == path+".1" || strings.HasPrefix(s.Path, path+".1.") {
			return s.From, true // shards are by their first cell
		}
	}
	return 0, false
}

// record has the catalog record what became of shards, one after the other. What
// fails is tried again, ever less often: each try is an entry in the catalog's log.
func (g *Group) record(changes []catalog.Command) {
	failed := false
	for _, c := range changes {
		if err := g.recordOne(c); err != nil {
			failed = true
			g.log.Debug("the catalog has not recorded yet what became of a shard", "error", err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.recording = false
	if !failed {
		g.recordPause = 0
		return
	}
	g.resharded = true
	g.recordPause = min(max(2*g.recordPause, recordAgain), maxRecordAgain)
	g.recordAt = g.clock.Now().Add(g.recordPause)
}

func (g *Group) recordOne(c catalog.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordWithin)
	defer cancel()
	r, err := g.change(ctx, c)
	if err == nil && r.Err != nil {
		err = r.Err
	}
	return err
}
