package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

func (l *Log) replica(group uint64) (*replica, error) {
	if l.err != nil {
		return nil, l.err
	}
	r := l.replicas[group]
	if r == nil {
		return nil, errNoReplica(group)
	}
	return r, nil
}

// FirstIndex is the index after the truncated ones.
func (l *Log) FirstIndex(group uint64) (uint64, error) {
	r, err := l.replica(group)
	if err != nil {
		return 0, err
	}
	return r.truncated.Index + 1, nil
}

// LastIndex is that of the last entry, or of the truncation if there is none.
func (l *Log) LastIndex(group uint64) (uint64, error) {
	r, err := l.replica(group)
	if err != nil {
		return 0, err
	}
	return r.last(), nil
}

// Term returns the term of an entry, or of the last truncated one:
// raft.ErrCompacted below, raft.ErrUnavailable above.
func (l *Log) Term(group, index uint64) (uint64, error) {
	r, err := l.replica(group)
	switch {
	case err != nil:
		return 0, err
	case index < r.truncated.Index:
		return 0, raft.ErrCompacted
	case index > r.last():
		return 0, raft.ErrUnavailable
	case index == r.truncated.Index:
		return r.truncated.Term, nil
	}
	return r.at(index)[0].term, nil
}

// Entries returns the entries in [lo, hi), at least one and else at most
// maxSize bytes of them. The slice is the caller's, the entries are shared:
// nobody changes them. What is not in memory is read back, and ErrDamaged if it
// is not what was written. raft.ErrCompacted and raft.ErrUnavailable as in
// raft.Storage.
func (l *Log) Entries(group, lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	r, err := l.replica(group)
	switch {
	case err != nil:
		return nil, err
	case lo <= r.truncated.Index:
		return nil, raft.ErrCompacted
	case hi > r.last()+1:
		return nil, raft.ErrUnavailable
	case lo >= hi:
		return nil, nil
	}
	places := r.at(lo)[:hi-lo]
	n, size := 1, uint64(places[0].size)
	for n < len(places) && size+uint64(places[n].size) <= maxSize {
		size += uint64(places[n].size)
		n++
	}
	places = places[:n]

	out := make([]*raftpb.Entry, 0, n)
	for len(out) < n {
		index := lo + uint64(len(out))
		if first := r.last() + 1 - uint64(len(r.cached)); index >= first {
			out = append(out, r.cached[index-first:][:n-len(out)]...)
			break
		}
		if out, err = l.readRecord(out, places, group, index); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readRecord adds to out those entries, from index on, that lie in the same
// record as the first of them. places[len(out)] is that of index.
func (l *Log) readRecord(out []*raftpb.Entry, places []entry, group, index uint64) ([]*raftpb.Entry, error) {
	at := places[len(out)]
	u, err := l.readRun(at)
	if err != nil {
		return nil, err
	}
	if u.group != group || index < u.first || index >= u.first+u.n {
		return nil, l.damaged(at, "entry %d of group %d is not in its record", index, group)
	}
	skip := index - u.first
	read, err := u.raft()
	if err != nil {
		return nil, l.damaged(at, "entries of group %d: %v", group, err)
	}
	for _, e := range read[skip:] {
		if len(out) == len(places) || places[len(out)].slot != at.slot || places[len(out)].off != at.off {
			break
		}
		out = append(out, e)
	}
	return out, nil
}

// readRun reads and verifies the record at an entry's place, into memory that
// the entries keep.
func (l *Log) readRun(at entry) (run, error) {
	s := l.slots[at.slot]
	var header [headerBytes]byte
	if err := readFull(s, header[:], at.off); err != nil {
		return run{}, err
	}
	n := int64(binary.LittleEndian.Uint32(header[8:])) + headerBytes
	if int64(at.off)+n > s.size {
		return run{}, l.damaged(at, "a record is longer than its segment")
	}
	data := make([]byte, n)
	if err := readFull(s, data, at.off); err != nil {
		return run{}, err
	}
	rec, ok := parseRecord(data, s.mark, at.off)
	if !ok {
		return run{}, l.damaged(at, "a record does not match its checksum")
	}
	u, err := parseRun(rec.payload)
	if err != nil {
		return run{}, l.damaged(at, "%v", err)
	}
	return u, nil
}

func (l *Log) damaged(at entry, format string, args ...any) error {
	return damage(l.o.FS.PathJoin(l.o.Dir, slotName(at.slot)), int64(at.off), format, args...)
}

func readFull(s *segment, b []byte, off uint32) error {
	if n, err := s.file.ReadAt(b, int64(off)); err != nil && (n < len(b) || !errors.Is(err, io.EOF)) {
		return fmt.Errorf("read raft log segment %s: %w", slotName(s.slot), err)
	}
	return nil
}

// Truncate drops the entries up to index, which is clipped to the last one. It
// becomes durable with the table of the next segment; until then a crash brings
// the entries back.
func (l *Log) Truncate(group, index uint64) error {
	r, err := l.replica(group)
	if err != nil {
		return err
	}
	index = min(index, r.last())
	if index <= r.truncated.Index {
		return nil
	}
	n := index - r.truncated.Index
	keep := min(uint64(len(r.cached)), uint64(len(r.entries))-n)
	r.uncacheFirst(len(r.cached) - int(keep))
	r.truncated = Position{Index: index, Term: r.entries[n-1].term}
	l.forget(group, r.entries[:n])
	r.entries = r.entries[n:]
	return nil
}

// Relocate writes the group's entries that lie in the oldest segment again, in
// the current one, so that a group whose entries cannot be truncated does not
// pin the log. The oldest segment is free after the next switch, if no other
// group pins it. It costs at most a segment of reads and writes.
func (l *Log) Relocate(group uint64) error {
	r, err := l.replica(group)
	if err != nil || len(l.chain) < 2 {
		return err
	}
	from := l.chain[0]
	generation := from.generation
	var b Batch
	most := uint64(min(runBytes, l.o.SegmentBytes/4)) // a record must fit in what the table leaves
	for index := r.truncated.Index + 1; index <= r.last(); {
		n := matching(r.at(index), func(e entry) bool { return e.slot == from.slot })
		if n == 0 {
			index++
			continue
		}
		entries, err := l.Entries(group, index, index+uint64(n), most)
		if err != nil {
			return err
		}
		b.moved(group, entries)
		if err := l.Write(&b); err != nil {
			return err
		}
		if from.generation != generation {
			return nil // it was empty, freed and taken again
		}
		index += uint64(len(entries))
	}
	return nil
}

// matching is the length of the longest prefix whose entries all match.
func matching(entries []entry, match func(entry) bool) int {
	for i, e := range entries {
		if !match(e) {
			return i
		}
	}
	return len(entries)
}
