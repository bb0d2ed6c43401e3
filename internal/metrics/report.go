package metrics

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Report is what is so on a node at the moment of a scrape.
type Report struct {
	// Queues are those with shards that are led here, so that the sum over all
	// nodes is right.
	Queues  []Queue
	Groups  []Group
	Cluster *Cluster // where the catalog is led
	// Syncs counts writes of the log by how long they took: element i those below
	// 2^i microseconds that are not in one before.
	Syncs                            []uint64
	SyncTime                         time.Duration // of all of them
	Commits, Applies                 Times         // of entries that were proposed here
	Entries, Commands                uint64        // in the log; commands in them
	Messages, MessagesLost           uint64        // between replicas
	SnapshotsSent, SnapshotsReceived uint64        // that were installed
	DiskFree, DiskTotal, DiskReserve uint64        // bytes
	MemoryUsed, MemoryLimit          uint64        // bytes
}

// Times counts durations, as Syncs and SyncTime do.
type Times struct {
	Under []uint64
	Sum   time.Duration
}

// Cluster is what the catalog's leader knows of all.
type Cluster struct {
	Nodes   map[string]int // by state
	Workers int            // that live
	Slots   int            // of those that are not drained
}

// Queue is what a node leads of a queue.
type Queue struct {
	Name   string
	Counts map[string]int64 // by state
	Oldest time.Duration    // age of the oldest that may go out; 0: none may
	Drain  float64          // seconds until none is ready at the rate of late; +Inf: none was finished
	// Leaving are on their way to other queues.
	Leaving int64
}

func (q *Queue) size() (n int64) {
	for _, c := range q.Counts {
		n += c
	}
	return n
}

// Group is a replica here.
type Group struct {
	ID                    uint64
	Leading, Led          bool
	Term, Commit, Applied uint64
}

// reporter collects what a Report says.
type reporter func() Report

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	messages    = describe("comanda_messages", "Messages in shards that this node leads, by state.", "queue", "state")
	leaving     = describe("comanda_messages_leaving", "Messages on their way to other queues, from shards that this node leads.", "queue")
	oldest      = describe("comanda_oldest_message_seconds", "How long the oldest message that may go out could have, in shards that this node leads.", "queue")
	drain       = describe("comanda_time_to_drain_seconds", "How long until no message is ready in shards that this node leads, if as many go on to be finished.", "queue")
	commits     = describe("comanda_commit_seconds", "From proposing an entry on this node until a majority has it on disk.")
	applies     = describe("comanda_apply_seconds", "From the commit of an entry that was proposed on this node until it is applied here.")
	groupLeads  = describe("comanda_group_leading", "1 where this node leads the group.", "group")
	groupLed    = describe("comanda_group_has_leader", "1 where this node knows a leader of the group.", "group")
	groupTerm   = describe("comanda_group_term", "Raft term; it grows with each election.", "group")
	groupCommit = describe("comanda_group_commit_index", "Last entry that is known to be committed.", "group")
	groupApply  = describe("comanda_group_applied_index", "Last entry that is applied here.", "group")
	nodes       = describe("comanda_nodes", "Nodes of the cluster by state, told by the node that leads the catalog.", "state")
	workers     = describe("comanda_workers", "Workers that live, told by the node that leads the catalog.")
	slots       = describe("comanda_worker_slots", "Messages that the workers that live, and are not drained, take at a time, told by the node that leads the catalog.")
	syncs       = describe("comanda_log_sync_seconds", "How long a write of the log took, with its fdatasync.")
	entries     = describe("comanda_log_entries_total", "Entries that this node put into the log as a leader.")
	commands    = describe("comanda_log_commands_total", "Commands in those entries.")
	sentOn      = describe("comanda_peer_messages_total", "Messages from replicas here to other nodes.")
	lost        = describe("comanda_peer_messages_lost_total", "Messages for replicas here that found no room; they are sent again.")
	snapsSent   = describe("comanda_snapshots_sent_total", "Snapshots of groups that this node sent and others installed.")
	snapsGot    = describe("comanda_snapshots_received_total", "Snapshots of groups that this node installed.")
	diskFree    = describe("comanda_disk_free_bytes", "Free bytes of the data directory's disk.")
	diskTotal   = describe("comanda_disk_total_bytes", "Size of the data directory's disk.")
	diskReserve = describe("comanda_disk_reserve_bytes", "Sends are refused while less than this is free (--disk-reserve).")
	memoryUsed  = describe("comanda_memory_used_bytes", "Memory in use, without what could be given back.")
	memoryLimit = describe("comanda_memory_limit_bytes", "Sends are refused while more than this is in use (--memory-limit).")
)

// Describe says nothing: what is reported depends on what there is.
func (reporter) Describe(chan<- *prometheus.Desc) {}

// Collect asks for a report and tells it.
func (report reporter) Collect(out chan<- prometheus.Metric) {
	r := report()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	for _, q := range largest(r.Queues) {
		for state, n := range q.Counts {
			gauge(messages, float64(n), q.Name, state)
		}
		gauge(leaving, float64(q.Leaving), q.Name)
		gauge(oldest, q.Oldest.Seconds(), q.Name)
		gauge(drain, q.Drain, q.Name)
	}
	for _, g := range r.Groups {
		id := strconv.FormatUint(g.ID, 10)
		gauge(groupLeads, truth(g.Leading), id)
		gauge(groupLed, truth(g.Led), id)
		gauge(groupTerm, float64(g.Term), id)
		gauge(groupCommit, float64(g.Commit), id)
		gauge(groupApply, float64(g.Applied), id)
	}
	if c := r.Cluster; c != nil {
		for state, n := range c.Nodes {
			gauge(nodes, float64(n), state)
		}
		gauge(workers, float64(c.Workers))
		gauge(slots, float64(c.Slots))
	}
	out <- powers(syncs, Times{r.Syncs, r.SyncTime})
	out <- powers(commits, r.Commits)
	out <- powers(applies, r.Applies)
	counter(entries, r.Entries)
	counter(commands, r.Commands)
	counter(sentOn, r.Messages)
	counter(lost, r.MessagesLost)
	counter(snapsSent, r.SnapshotsSent)
	counter(snapsGot, r.SnapshotsReceived)
	gauge(diskFree, float64(r.DiskFree))
	gauge(diskTotal, float64(r.DiskTotal))
	gauge(diskReserve, float64(r.DiskReserve))
	gauge(memoryUsed, float64(r.MemoryUsed))
	gauge(memoryLimit, float64(r.MemoryLimit))
}

// powers is a histogram of durations by powers of two.
func powers(d *prometheus.Desc, t Times) prometheus.Metric {
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, n := range t.Under {
		total += n
		if i < len(t.Under)-1 { // the last has no upper end
			buckets[(time.Microsecond << i).Seconds()] = total
		}
	}
	return prometheus.MustNewConstHistogram(d, total, t.Sum.Seconds(), buckets)
}

// largest are the queues with the most messages; the rest is one, other.
func largest(qs []Queue) []Queue {
	slices.SortFunc(qs, func(a, b Queue) int {
		return cmp.Or(cmp.Compare(b.size(), a.size()), cmp.Compare(a.Name, b.Name))
	})
	var out []Queue
	rest := Queue{Name: other, Counts: map[string]int64{}}
	for _, q := range qs {
		if len(out) < MaxQueues && q.Name != other {
			out = append(out, q)
			continue
		}
		for state, n := range q.Counts {
			rest.Counts[state] += n
		}
		rest.Leaving += q.Leaving
		rest.Oldest, rest.Drain = max(rest.Oldest, q.Oldest), max(rest.Drain, q.Drain)
	}
	if len(rest.Counts) > 0 {
		out = append(out, rest)
	}
	return out
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
