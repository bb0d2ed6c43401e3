package raftlog

import (
	"encoding/binary"

	"go.etcd.io/raft/v3/raftpb"
)

// keptBytes is the largest buffer that a batch keeps for its next use.
const keptBytes = 4 << 20

// Batch collects records of any groups for one Write. The zero value is ready;
// a Write that succeeded leaves it empty for the next use. Records take effect
// in the order in which they were added. It keeps the entries, not their
// slices' owner: entries are immutable from here on.
type Batch struct {
	buf  []byte
	recs []batchRecord
}

type batchRecord struct {
	start, end int // in buf
	kind       kind
	group      uint64
	entries    []*raftpb.Entry
}

// Empty reports that nothing was added since the last Write.
func (b *Batch) Empty() bool { return len(b.recs) == 0 }

// Append adds a group's new hard state (nil: unchanged) and consecutive entries
// (none is fine); entries from the first one's index on are replaced. What is
// torn by a crash loses a suffix of the entries, and never has a hard state
// whose Commit lies beyond them.
func (b *Batch) Append(group uint64, hs *raftpb.HardState, entries []*raftpb.Entry) {
	var hard *hardState
	if hs != nil {
		h := newHardState(hs)
		hard = &h
	}
	for {
		n := prefix(entries)
		if n == len(entries) {
			b.run(kindAppend, group, hard, entries)
			return
		}
		part := hard
		if hard != nil {
			clipped := *hard
			clipped.commit = min(hard.commit, entries[n-1].GetIndex())
			part = &clipped
		}
		b.run(kindAppend, group, part, entries[:n])
		entries = entries[n:]
	}
}

// moved adds entries that the log has already, to give them a newer place.
func (b *Batch) moved(group uint64, entries []*raftpb.Entry) {
	for len(entries) > 0 {
		n := prefix(entries)
		b.run(kindMoved, group, nil, entries[:n])
		entries = entries[n:]
	}
}

// prefix is how many of the entries go into one record.
func prefix(entries []*raftpb.Entry) int {
	bytes := 0
	for i, e := range entries {
		if bytes += len(e.GetData()) + entryFraming; bytes > runBytes {
			return max(i, 1)
		}
	}
	return len(entries)
}

func (b *Batch) run(k kind, group uint64, hs *hardState, entries []*raftpb.Entry) {
	b.open(k)
	b.buf = putRun(b.buf, group, hs, entries)
	b.close()
	r := &b.recs[len(b.recs)-1]
	r.group, r.entries = group, entries
}

// Create adds a new replica. Its log begins after r.Base; r.Truncated is not
// looked at. Write fails if the group has a replica, or once had one with this
// id or a higher one.
func (b *Batch) Create(r Replica) {
	b.open(kindCreated)
	b.buf = putReplica(b.buf, r.Group, &replica{
		id: r.ID, root: r.Root, base: r.Base, conf: r.Conf, truncated: r.Base, hard: newHardState(r.HardState),
	})
	b.close()
}

// Destroy adds the end of a group's replica here: log and hard state are gone,
// and only replica ids from minNext on may be created for the group.
func (b *Batch) Destroy(group, minNext uint64) {
	b.open(kindDestroyed)
	b.buf = putUvarints(b.buf, group, minNext)
	b.close()
}

// Reset adds the moment at which an installed snapshot becomes real: the log is
// empty after base, with the configuration, the rows' root and the hard state
// (nil: unchanged) that come with it.
func (b *Batch) Reset(group uint64, base Position, conf *raftpb.ConfState, root uint64, hs *raftpb.HardState) {
	b.open(kindReset)
	b.buf = putUvarints(b.buf, group, root, base.Index, base.Term)
	b.buf = putConf(b.buf, conf)
	if hs != nil {
		b.buf = newHardState(hs).put(b.buf)
	}
	b.close()
}

// ReserveHandles adds that handle numbers below upTo may be in use.
func (b *Batch) ReserveHandles(upTo uint64) {
	b.open(kindHandles)
	b.buf = putUvarints(b.buf, upTo)
	b.close()
}

// open starts a record; the first one of a batch follows the batch head.
func (b *Batch) open(k kind) {
	if len(b.recs) == 0 {
		b.buf = openRecord(b.buf[:0], kindBatch)
		b.buf = append(b.buf, make([]byte, 8)...)
		b.recs = append(b.recs, batchRecord{end: len(b.buf), kind: kindBatch})
	}
	b.recs = append(b.recs, batchRecord{start: len(b.buf), kind: k})
	b.buf = openRecord(b.buf, k)
}

func (b *Batch) close() { b.recs[len(b.recs)-1].end = len(b.buf) }

// finish completes record r for its place and returns it.
func (b *Batch) finish(r *batchRecord, mark uint64, off, synced uint32) record {
	bytes := b.buf[r.start:r.end]
	if r.kind == kindBatch {
		binary.LittleEndian.PutUint64(bytes[headerBytes:], uint64(synced))
	}
	finishRecord(bytes, mark, off)
	return record{kind: r.kind, payload: bytes[headerBytes:], off: off, end: off + uint32(len(bytes))}
}

func (b *Batch) empty() {
	clear(b.recs) // lets go of the entries
	b.recs = b.recs[:0]
	if cap(b.buf) > keptBytes {
		b.buf = nil
	}
}
