package node

import (
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/metrics"
	"github.com/comanda-mq/comanda/internal/queue"
)

// report tells how the node is, for a scrape.
func (n *Node) report() metrics.Report {
	s, r := n.host.Stats(), n.resources
	out := metrics.Report{
		Queues: n.ledQueues(),
		Syncs:  s.SyncTimes[:], SyncTime: s.SyncTime, Entries: s.Entries, Commands: s.Commands,
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
		}
	}
	return c
}

// ledQueues adds up, by queue, the shards whose groups are led here.
func (n *Node) ledQueues() (out []metrics.Queue) {
	v := n.view.Load()
	counts := map[uint32]*message.Counts{}
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
				counts[q.Number] = &message.Counts{}
			}
			counts[q.Number].Add(q.Counts())
		}
		view.Close()
	}
	for number, c := range counts {
		if q, ok := v.QueueNumber(number); ok {
			out = append(out, metrics.Queue{Name: q.Name, Counts: byState(c)})
		}
	}
	return out
}

func byState(c *message.Counts) map[string]int64 {
	return map[string]int64{
		message.Ready.String(): c.Ready, message.Scheduled.String(): c.Scheduled, message.Leased.String(): c.Leased,
		message.Dead.String(): c.Dead, message.Finished.String(): c.Finished,
	}
}
