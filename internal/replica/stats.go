package replica

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats are counts since the host was made.
type Stats struct {
	Syncs    uint64 // writes of the log, each with its sync
	Entries  uint64 // proposed here
	Commands uint64 // in them
	Messages uint64 // given to the transport
	Lost     uint64 // messages for which a group had no room
	// SnapshotsSent and SnapshotsReceived count those that were installed.
	SnapshotsSent, SnapshotsReceived uint64
	// SyncP50 and SyncP99 are over the last 1,024 to 2,048 writes; each is the
	// upper end of a power of two of microseconds.
	SyncP50, SyncP99 time.Duration
	// SyncTimes counts all writes: element i those that took less than 2^i µs and
	// are in none before, the last all longer ones. SyncTime is their sum.
	SyncTimes [syncBuckets]uint64
	SyncTime  time.Duration
	// Commits and Applies are the same of entries that were proposed here: until they
	// were committed, and until they were applied then.
	Commits, Applies Times
}

// Times counts durations: element i of Under those below 2^i µs that are in none
// before, the last all longer ones. Sum is their sum.
type Times struct {
	Under [syncBuckets]uint64
	Sum   time.Duration
}

// times is a Times that is being counted.
type times struct {
	under [syncBuckets]atomic.Uint64
	sum   atomic.Int64
}

func (t *times) add(d time.Duration) {
	d = max(d, 0)
	t.under[min(bits.Len64(uint64(d.Microseconds())), syncBuckets-1)].Add(1)
	t.sum.Add(int64(d))
}

func (t *times) read() (out Times) {
	for i := range out.Under {
		out.Under[i] = t.under[i].Load()
	}
	out.Sum = time.Duration(t.sum.Load())
	return out
}

const (
	syncBuckets = 32    // bucket i holds durations below 2^i µs
	syncWindow  = 1_024 // writes before the older half is forgotten
)

type counters struct {
	syncs, entries, commands, messages, lost atomic.Uint64
	snapshots, installed                     atomic.Uint64
	// durations holds this half of the window and the last; the loop adds, and
	// who reads in the moment of a change may see a half-empty one.
	durations [2][syncBuckets]atomic.Uint64
	all       [syncBuckets]atomic.Uint64
	syncTime  atomic.Int64

	commits, applies times
}

func (c *counters) synced(d time.Duration) {
	n := c.syncs.Add(1) - 1
	half := &c.durations[n/syncWindow%2]
	if n%syncWindow == 0 {
		for i := range half {
			half[i].Store(0)
		}
	}
	bucket := min(bits.Len64(uint64(d.Microseconds())), syncBuckets-1)
	half[bucket].Add(1)
	c.all[bucket].Add(1)
	c.syncTime.Add(int64(d))
}

func (c *counters) quantile(q float64) time.Duration {
	var sum [syncBuckets]uint64
	var total uint64
	for i := range sum {
		sum[i] = c.durations[0][i].Load() + c.durations[1][i].Load()
		total += sum[i]
	}
	rank := uint64(q * float64(total))
	for i, n := range sum {
		if rank < n {
			return time.Microsecond << i
		}
		rank -= n
	}
	return 0
}

// Stats may be called by any goroutine.
func (h *Host) Stats() Stats {
	c := &h.stats
	s := Stats{
		Syncs: c.syncs.Load(), Entries: c.entries.Load(), Commands: c.commands.Load(),
		Messages: c.messages.Load(), Lost: c.lost.Load(),
		SnapshotsSent: c.snapshots.Load(), SnapshotsReceived: c.installed.Load(),
		SyncP50: c.quantile(0.5), SyncP99: c.quantile(0.99),
		SyncTime: time.Duration(c.syncTime.Load()),
		Commits:  c.commits.read(), Applies: c.applies.read(),
	}
	for i := range s.SyncTimes {
		s.SyncTimes[i] = c.all[i].Load()
	}
	return s
}
