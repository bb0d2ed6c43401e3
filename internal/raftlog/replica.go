package raftlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// Position is a place in a group's log.
type Position struct{ Index, Term uint64 }

// Replica is what the log knows of one group's replica on this node, its
// entries apart.
type Replica struct {
	Group, ID uint64
	// Root is the handle of the replica's space 0 in the store of rows.
	Root uint64
	// Base is where the log began, at creation or at the last reset, and Conf
	// the configuration there.
	Base Position
	Conf *raftpb.ConfState
	// Truncated is the last entry that is no longer there; at least Base.
	Truncated Position
	// HardState is never nil in what the log returns. Its Commit may be older
	// than what is applied: commit-only changes need no sync.
	HardState *raftpb.HardState
}

// entry is where an entry lies: 24 bytes for each that is not truncated. A slot
// of 0 stands for one whose record was not met yet, during replay only.
type entry struct {
	term uint64
	slot uint32
	off  uint32 // of its record
	size uint32 // at least its encoded size
}

type replica struct {
	id, root  uint64
	base      Position
	conf      *raftpb.ConfState
	truncated Position
	hard      hardState
	entries   []entry         // of the indexes after truncated, without a gap
	cached    []*raftpb.Entry // of a suffix of them
}

func (r *replica) last() uint64 { return r.truncated.Index + uint64(len(r.entries)) }

// at returns the entries from index on; index is in (truncated, last+1].
func (r *replica) at(index uint64) []entry { return r.entries[index-r.truncated.Index-1:] }

func (r *replica) export(group uint64) Replica {
	return Replica{Group: group, ID: r.id, Root: r.root, Base: r.base, Conf: r.conf, Truncated: r.truncated, HardState: r.hard.raft()}
}

func putReplica(b []byte, group uint64, r *replica) []byte {
	b = putUvarints(b, group, r.id, r.root, r.base.Index, r.base.Term, r.truncated.Index, r.truncated.Term, r.last())
	return putConf(r.hard.put(b), r.conf)
}

// replica reads one; its entries are all yet to be met.
func (d *decoder) replica() (group uint64, r *replica, last uint64) {
	group = d.uvarint()
	r = &replica{id: d.uvarint(), root: d.uvarint(), base: d.position(), truncated: d.position()}
	last = d.uvarint()
	r.hard, r.conf = d.hardState(), d.conf()
	return group, r, last
}

// putTable adds the state of every replica to b.
func (l *Log) putTable(b []byte, oldest uint64) []byte {
	b = putUvarints(b, oldest, l.handles, uint64(len(l.replicas)))
	for _, group := range slices.Sorted(maps.Keys(l.replicas)) {
		b = putReplica(b, group, l.replicas[group])
	}
	b = putUvarints(b, uint64(len(l.destroyed)))
	for _, group := range slices.Sorted(maps.Keys(l.destroyed)) {
		b = putUvarints(b, group, l.destroyed[group])
	}
	return b
}

// loadTable makes a segment's table the state; of what was replayed before it
// only the places of entries that are still wanted stay.
func (l *Log) loadTable(payload []byte) error {
	d := decoder{b: payload}
	d.uvarint() // the oldest segment that is needed
	l.handles = d.uvarint()
	replicas := map[uint64]*replica{}
	for range d.uvarint() {
		group, r, last := d.replica()
		if d.bad || last < r.truncated.Index || last-r.truncated.Index > maxGap || replicas[group] != nil {
			return errPayload
		}
		r.entries = make([]entry, last-r.truncated.Index)
		if old := l.replicas[group]; old != nil && old.id == r.id {
			l.keepPlaces(group, old, r)
		}
		replicas[group] = r
	}
	for group, old := range l.replicas {
		l.forget(group, old.entries)
	}
	l.replicas = replicas
	clear(l.destroyed)
	for range d.uvarint() {
		group, minNext := d.uvarint(), d.uvarint()
		if d.bad {
			return errPayload
		}
		l.destroyed[group] = minNext
	}
	return d.finish()
}

// keepPlaces moves the places of those entries from old to r that r has too.
func (l *Log) keepPlaces(group uint64, old, r *replica) {
	lo := max(old.truncated.Index, r.truncated.Index) + 1
	hi := min(old.last(), r.last())
	if lo > hi {
		return
	}
	places := old.at(lo)[:hi-lo+1]
	copy(r.at(lo), places)
	l.forget(group, old.entries[:lo-old.truncated.Index-1])
	l.forget(group, old.at(hi+1))
	old.entries = nil
}

// complete reports whether every entry's place is known.
func (l *Log) complete() error {
	for group, r := range l.replicas {
		if i := slices.IndexFunc(r.entries, func(e entry) bool { return e.slot == 0 }); i >= 0 {
			return fmt.Errorf("entry %d of group %d is in no segment", r.truncated.Index+1+uint64(i), group)
		}
	}
	return nil
}

// apply brings a record that lies in s into the state. An error means, for a
// record that is being written, a mistake of the caller; for one that was read,
// that segments do not fit one another.
func (l *Log) apply(s *segment, rec record) error {
	d := decoder{b: rec.payload}
	switch rec.kind {
	case kindBatch:
		return nil
	case kindAppend, kindMoved:
		return l.applyRun(s, rec)
	case kindCreated:
		group, r, _ := d.replica()
		if err := d.finish(); err != nil {
			return err
		}
		if l.replicas[group] != nil || r.id < l.destroyed[group] || r.id == 0 {
			return fmt.Errorf("replica %d of group %d cannot be created: the lowest that may be is %d", r.id, group, l.MinReplica(group))
		}
		delete(l.destroyed, group)
		l.replicas[group] = r
		return nil
	case kindDestroyed:
		group, minNext := d.uvarint(), d.uvarint()
		if r := l.replicas[group]; r != nil {
			l.forget(group, r.entries)
			delete(l.replicas, group)
		}
		l.destroyed[group] = max(l.destroyed[group], minNext)
		return d.finish()
	case kindReset:
		return l.applyReset(&d)
	case kindTable:
		return l.loadTable(rec.payload)
	case kindHandles:
		l.handles = max(l.handles, d.uvarint())
		return d.finish()
	default:
		return fmt.Errorf("a record of unknown %v", rec.kind)
	}
}

func (l *Log) applyReset(d *decoder) error {
	group, root, base, conf := d.uvarint(), d.uvarint(), d.position(), d.conf()
	r := l.replicas[group]
	if r == nil {
		return errNoReplica(group)
	}
	if len(d.b) > 0 {
		r.hard = d.hardState()
	}
	l.forget(group, r.entries)
	r.entries, r.cached = nil, nil
	r.root, r.base, r.conf, r.truncated = root, base, conf, base
	return d.finish()
}

func (l *Log) applyRun(s *segment, rec record) error {
	u, err := parseRun(rec.payload)
	if err != nil {
		return err
	}
	r := l.replicas[u.group]
	if r == nil {
		return errNoReplica(u.group)
	}
	if u.hasHard {
		r.hard = u.hs
	}
	if u.n == 0 {
		return u.entries.finish()
	}
	lo, hi := u.first, u.first+u.n-1
	if lo <= r.truncated.Index || (l.strict && lo > r.last()+1) || (lo > r.last() && lo-r.last() > maxGap) {
		return fmt.Errorf("entries %d to %d of group %d do not follow a log from %d to %d", lo, hi, u.group, r.truncated.Index+1, r.last())
	}
	if gap := int64(lo) - int64(r.last()) - 1; gap > 0 {
		r.entries = append(r.entries, make([]entry, gap)...)
	}
	r.uncache(lo, rec.kind)
	if rec.kind == kindAppend {
		l.forget(u.group, r.at(lo))
		r.entries = r.entries[:lo-r.truncated.Index-1]
	} else {
		l.forget(u.group, r.at(lo)[:min(hi, r.last())-lo+1])
	}
	for i := range u.n {
		term, _, data := u.next()
		e := entry{term: term, slot: s.slot, off: rec.off, size: uint32(len(data) + entryFraming)}
		if index := lo + i; index <= r.last() {
			r.at(index)[0] = e
		} else {
			r.entries = append(r.entries, e)
		}
	}
	s.live[u.group] += int(u.n)
	return u.entries.finish()
}

// forget takes entries out of the count of their segments.
func (l *Log) forget(group uint64, entries []entry) {
	for i := 0; i < len(entries); {
		slot, n := entries[i].slot, 0
		for ; i < len(entries) && entries[i].slot == slot; i++ {
			n++
		}
		if s := l.slots[slot]; s != nil {
			if s.live[group] -= n; s.live[group] == 0 {
				delete(s.live, group)
			}
		}
	}
}

// ErrNoReplica means that the node has no replica of the group.
var ErrNoReplica = errors.New("no replica of the group is in the raft log")

func errNoReplica(group uint64) error { return fmt.Errorf("group %d: %w", group, ErrNoReplica) }
