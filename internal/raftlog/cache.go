package raftlog

import "go.etcd.io/raft/v3/raftpb"

// cachedEntry is what an entry costs in memory besides its data.
const cachedEntry = 96

// cache bounds the entries in memory: they are the last that were appended,
// over all groups. Truncation lets entries go early, which does not change the
// count: it is what they cost when they came.
type cache struct {
	window []cachedRun // oldest first
	bytes  int64
}

type cachedRun struct {
	group, last uint64
	bytes       int64
}

// remember keeps entries that were just appended.
func (l *Log) remember(group uint64, entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	r := l.replicas[group]
	r.cached = append(r.cached, entries...)
	run := cachedRun{group: group, last: r.last(), bytes: int64(len(entries)) * cachedEntry}
	for _, e := range entries {
		run.bytes += int64(len(e.GetData()))
	}
	c := &l.cache
	c.window = append(c.window, run)
	c.bytes += run.bytes
	for c.bytes > l.o.CacheBytes {
		oldest := c.window[0]
		c.window = c.window[1:]
		c.bytes -= oldest.bytes
		if r := l.replicas[oldest.group]; r != nil {
			first := r.last() + 1 - uint64(len(r.cached))
			if oldest.last >= first {
				r.uncacheFirst(min(int(oldest.last-first)+1, len(r.cached)))
			}
		}
	}
}

// uncache lets go of the entries that an append at index replaces.
func (r *replica) uncache(index uint64, k kind) {
	if k != kindAppend || len(r.cached) == 0 {
		return
	}
	first := r.last() + 1 - uint64(len(r.cached))
	keep := int(max(index, first) - first)
	if keep < len(r.cached) {
		clear(r.cached[keep:])
		r.cached = r.cached[:keep]
	}
}

func (r *replica) uncacheFirst(n int) {
	clear(r.cached[:n])
	r.cached = r.cached[n:]
}
