package node

import (
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/metrics"
	"github.com/comanda-mq/comanda/internal/queue"
)

// report tells how the node is, for a scrape.
func (n *Node) report() metrics.Report {
	s, r := n.host.Stats(), n.resources
	out := metrics.Report{
		Queues:  n.ledQueues(),
		Commits: metrics.Times{Under: s.Commits.Under[:], Sum: s.Commits.Sum}, Applies: metrics.Times{Under: s.Applies.Under[:], Sum: s.Applies.Sum},
		Syncs: s.SyncTimes[:], SyncTime: s.SyncTime, Entries: s.Entries, Commands: s.Commands,
		Messages: s.Messages, MessagesLost: s.Lost, SnapshotsSent: s.SnapshotsSent, SnapshotsReceived: s.SnapshotsReceived,
		DiskFree: r.diskFree.Load(), DiskTotal: r.diskTotal.Load(), DiskReserve: r.reserve.Load(),
		MemoryUsed: r.memoryUsed.Load(), MemoryLimit: r.memoryLimit,
	}
	for _, g := range n.host.Groups() {
		st := g.Status()
		out.Groups = append(out.Groups, metrics.Group{
			ID: st.Group, Leading: st.Leading, Led: st.Leader != 0, Term: st.Term, Commit: st.Commit, Applied: st.Applied,
		})
		if st.Group == catalog.MetaGroup && st.Leading {
			out.Cluster = cluster(n.view.Load())
		}
	}
	return out
}

func cluster(v *catalog.View) *metrics.Cluster {
	c := &metrics.Cluster{Nodes: map[string]int{}}
	for _, x := range v.Nodes() {
		c.Nodes[x.State.String()]++
	}
	for _, s := range v.Sessions() {
		if s.Live() {
			c.Workers++
			if !s.Draining {
				c.Slots += s.Slots
			}
		}
	}
	return c
}

// ledQueues adds up, by queue, the shards whose groups are led here.
func (n *Node) ledQueues() (out []metrics.Queue) {
	v := n.view.Load()
	now := n.config.Clock.Now()
	counts := map[uint32]*ledQueue{}
	for _, g := range n.groups() {
		here, ok := n.host.Group(g.ID())
		if !ok || !g.Leading() {
			continue
		}
		view := here.View()
		if view == nil {
			return nil // the host ends
		}
		for _, q := range queue.Queues(view) {
			if counts[q.Number] == nil {
				counts[q.Number] = &ledQueue{}
			}
			q.ReadOldest(view)
			counts[q.Number].add(&q, now)
		}
		view.Close()
	}
	drains := n.drains.look(counts, now)
	for number, c := range counts {
		if q, ok := v.QueueNumber(number); ok {
			out = append(out, metrics.Queue{Name: q.Name, Counts: byState(&c.counts), Leaving: c.leaving, Oldest: c.oldest, Drain: drains[number]})
		}
	}
	return out
}

// ledQueue is what this node leads of a queue.
type ledQueue struct {
	counts   message.Counts
	leaving  int64
	finished uint64
	oldest   time.Duration
}

func (l *ledQueue) add(q *queue.Info, now time.Time) {
	l.counts.Add(q.Counts())
	l.finished += q.Totals().Finished
	for _, s := range q.Shards {
		l.leaving += s.Leaving
		if s.Oldest > 0 {
			l.oldest = max(l.oldest, now.Sub(time.UnixMilli(s.Oldest)))
		}
	}
}

// drainOver is over how long a rate is taken, at least.
const drainOver = 10 * time.Second

// drains tell how long queues take until none of their messages is ready, by how
// many were finished between two scrapes.
type drains struct {
	mu sync.Mutex
	by map[uint32]drained
}

type drained struct {
	at       time.Time
	finished uint64
	rate     float64 // a second, before at
}

// look takes in what there is now and forgets queues that are led here no more.
func (d *drains) look(led map[uint32]*ledQueue, now time.Time) map[uint32]float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out, by := map[uint32]float64{}, make(map[uint32]drained, len(led))
	for number, l := range led {
		was, ok := d.by[number]
		switch over := now.Sub(was.at); {
		case !ok || l.finished < was.finished: // new, or purged
			was = drained{at: now, finished: l.finished}
		case over >= drainOver:
			was = drained{at: now, finished: l.finished, rate: float64(l.finished-was.finished) / over.Seconds()}
		}
		by[number] = was
		if l.counts.Ready > 0 {
			out[number] = float64(l.counts.Ready) / was.rate // +Inf at rate 0
		}
	}
	d.by = by
	return out
}

func byState(c *message.Counts) map[string]int64 {
	return map[string]int64{
		message.Ready.String(): c.Ready, message.Scheduled.String(): c.Scheduled, message.Leased.String(): c.Leased,
		message.Dead.String(): c.Dead, message.Finished.String(): c.Finished,
	}
}
