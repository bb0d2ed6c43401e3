package raftlog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"slices"
)

// Open opens the log in o.Dir, or begins one if the directory has none (the
// owner knows whether it should have). It always starts a new segment, and
// brings into it, synced, what may have been only in the page cache. What a
// crash has torn off the end, which nobody was told of, is dropped; anything
// else that does not match is ErrDamaged. ErrNewerFormat and ErrOtherStore say
// whose log it is.
func Open(o Options) (*Log, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	l := &Log{o: o, slots: map[uint32]*segment{}, replicas: map[uint64]*replica{}, destroyed: map[uint64]uint64{}}
	if err := l.open(); err != nil {
		l.err = err
		return nil, fmt.Errorf("open the raft log: %w", l.Close())
	}
	return l, nil
}

func (l *Log) open() error {
	if err := l.openSlots(); err != nil {
		return err
	}
	synced, err := l.replay()
	if err != nil {
		return err
	}
	tail, err := l.unsyncedTail(synced)
	if err != nil {
		return err
	}
	l.strict = true
	if err := l.beginSegment(synced, tail); err != nil {
		return err
	}
	l.o.Logger.Info("raft log opened", slog.Uint64("boot", l.Boot()), slog.Int("segments", len(l.chain)),
		slog.Int("replicas", len(l.replicas)), slog.Int("copied_bytes", len(tail.buf)))
	return nil
}

// openSlots opens the slot files and sorts them into chain and free.
func (l *Log) openSlots() error {
	if err := l.o.FS.MkdirAll(l.o.Dir, 0o755); err != nil {
		return err
	}
	if err := syncDir(l.o.FS, l.o.FS.PathDir(l.o.Dir)); err != nil {
		return err
	}
	names, err := l.o.FS.List(l.o.Dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		slot := parseSlot(name)
		if slot == 0 {
			continue
		}
		s, err := openSlot(l.o.FS, l.o.Dir, slot)
		if err != nil {
			return err
		}
		l.nextSlot = max(l.nextSlot, slot)
		l.free = append(l.free, s)
		if s.generation > 0 && s.store != l.o.StoreID {
			return fmt.Errorf("%s: %w: it says store %x, and this is %x", l.path(s), ErrOtherStore, s.store, l.o.StoreID)
		}
	}
	// A segment that was begun and never sealed becomes the next one, so that
	// it does not stay beside the one that takes its place.
	slices.SortStableFunc(l.free, func(a, b *segment) int { return cmp.Compare(a.generation, b.generation) })
	if n := len(l.free); n > 0 {
		l.generation = l.free[n-1].generation
	}
	if err := l.findChain(); err != nil {
		return err
	}
	return l.trimFree()
}

func (l *Log) path(s *segment) string { return l.o.FS.PathJoin(l.o.Dir, slotName(s.slot)) }

// findChain moves the segments that are needed from free to chain.
func (l *Log) findChain() error {
	byGeneration := map[uint64]*segment{}
	for _, s := range l.free {
		if s.generation == 0 {
			continue
		}
		if other := byGeneration[s.generation]; other != nil {
			return damage(l.path(s), 0, "it has the same generation %d as %s: one is a copy", s.generation, slotName(other.slot))
		}
		byGeneration[s.generation] = s
	}
	s := newest(l.free, byGeneration)
	if s == nil {
		return nil
	}
	if s.sealed != 0 {
		return damage(l.path(s), sealAt, "segment %d follows it and is not there", s.sealed)
	}
	oldest, err := l.readOldest(s)
	if err != nil {
		return err
	}
	if before := byGeneration[s.prev]; before != nil {
		// The seal, too, may be only in the page cache.
		if err := seal(before, s.generation); err != nil {
			return fmt.Errorf("seal %s again: %w", l.path(before), err)
		}
	}
	chain := []*segment{s}
	for s.generation > oldest {
		before := byGeneration[s.prev]
		if before == nil || before.sealed != s.generation {
			return damage(l.path(s), 0, "segment %d goes before it and is not there", s.prev)
		}
		s = before
		chain = append(chain, s)
	}
	slices.Reverse(chain)
	l.chain = chain
	for _, s := range chain {
		l.slots[s.slot] = s
	}
	l.free = slices.DeleteFunc(l.free, func(s *segment) bool { return l.slots[s.slot] != nil })
	return nil
}

// newest finds the last segment that counts. One that the segment before it
// does not name was never used. Where that one is gone, it was needed no more,
// so this one was in use.
func newest(byAge []*segment, byGeneration map[uint64]*segment) *segment {
	for _, s := range slices.Backward(byAge) {
		before := byGeneration[s.prev]
		if s.generation > 0 && (before == nil || before.sealed == s.generation) {
			return s
		}
	}
	return nil
}

// readOldest reads from the newest segment's table which is the oldest needed.
func (l *Log) readOldest(s *segment) (uint64, error) {
	var err error
	if l.buf, err = s.read(l.buf); err != nil {
		return 0, err
	}
	rec, ok := parseRecord(l.buf[min(recordsAt, len(l.buf)):], s.mark, recordsAt)
	if !ok || rec.kind != kindTable {
		return 0, damage(l.path(s), recordsAt, "the table of replicas does not match its checksum")
	}
	d := decoder{b: rec.payload}
	return d.uvarint(), nil
}

// replay reads the chain into the state and returns up to where the last
// segment is known to be synced.
func (l *Log) replay() (synced uint32, err error) {
	for i, s := range l.chain {
		if l.buf, err = s.read(l.buf); err != nil {
			return 0, err
		}
		if last := i == len(l.chain)-1; last {
			synced, err = l.replayLast(s, l.buf)
		} else {
			err = l.replayUpTo(s, l.buf, recordsAt, l.chain[i+1].prevLength)
		}
		if err != nil {
			return 0, err
		}
	}
	return synced, nil
}

// replayUpTo applies the records in [off, end), all of which must be valid.
func (l *Log) replayUpTo(s *segment, data []byte, off, end uint32) error {
	for off < end {
		rec, ok := parseRecord(data[min(int(off), len(data)):], s.mark, off)
		if !ok || rec.end > end {
			return damage(l.path(s), int64(off), "a record does not match its checksum")
		}
		if err := l.replayRecord(s, rec); err != nil {
			return err
		}
		off = rec.end
	}
	return nil
}

func (l *Log) replayRecord(s *segment, rec record) error {
	if err := l.apply(s, rec); err != nil {
		return damage(l.path(s), int64(rec.off), "a %v record: %v", rec.kind, err)
	}
	return nil
}

// replayLast applies what the newest segment holds, and tells a torn end from
// damage: no batch that came later may say that the place was synced.
func (l *Log) replayLast(s *segment, data []byte) (synced uint32, err error) {
	if err := l.replayUpTo(s, data, recordsAt, s.begin); err != nil {
		return 0, err
	}
	if err := l.complete(); err != nil {
		return 0, damage(l.path(s), recordsAt, "%v", err)
	}
	l.strict = true
	synced = s.begin
	for off := s.begin; ; {
		rec, ok := parseRecord(data[min(int(off), len(data)):], s.mark, off)
		if !ok {
			if later := lastSynced(data, s.mark, off); later > off {
				return 0, damage(l.path(s), int64(off), "a record does not match its checksum, and was synced")
			}
			return synced, nil
		}
		synced = max(synced, batchSynced(rec))
		if err := l.replayRecord(s, rec); err != nil {
			return 0, err
		}
		off = rec.end
	}
}

// batchSynced is what a batch head says, 0 for other records.
func batchSynced(rec record) uint32 {
	if rec.kind != kindBatch || len(rec.payload) != 8 {
		return 0
	}
	return uint32(binary.LittleEndian.Uint64(rec.payload))
}

// lastSynced is the most that a valid batch head after off says.
func lastSynced(data []byte, mark uint64, off uint32) (synced uint32) {
	want := binary.LittleEndian.AppendUint64(nil, mark)
	for at := int(off) + 1; at < len(data); at++ {
		i := bytes.Index(data[at:], want)
		if i < 0 {
			break
		}
		at += i
		if rec, ok := parseRecord(data[at:], mark, uint32(at)); ok {
			synced = max(synced, batchSynced(rec))
		}
	}
	return synced
}

// unsyncedTail takes the entries that lie in the newest segment from synced on,
// which may be only in the page cache: a sync of that file proves nothing if
// one had failed before. The rest of what the tail says goes into the table.
func (l *Log) unsyncedTail(synced uint32) (*Batch, error) {
	tail := &Batch{}
	if len(l.chain) == 0 {
		return tail, nil
	}
	slot := l.current().slot
	for _, group := range slices.Sorted(maps.Keys(l.replicas)) {
		r := l.replicas[group]
		for index := r.truncated.Index + 1; index <= r.last(); {
			places := r.at(index)
			n := matching(places, func(e entry) bool { return e.slot == slot && e.off >= synced })
			if n == 0 {
				index++
				continue
			}
			entries, err := l.Entries(group, index, index+uint64(n), 1<<62)
			if err != nil {
				return nil, err
			}
			tail.moved(group, entries)
			l.forget(group, places[:n])
			clear(places[:n])
			index += uint64(n)
		}
	}
	return tail, nil
}
