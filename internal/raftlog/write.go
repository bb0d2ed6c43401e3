package raftlog

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// Write makes everything in b durable with one write and one sync, and empties
// it. A batch that does not fit in the segment takes a write and a sync for
// each segment.
func (l *Log) Write(b *Batch) error { return l.write(b, true) }

// WriteNoSync is Write without the sync, for hard states of which only Commit
// has changed: they become durable with the next Write.
func (l *Log) WriteNoSync(b *Batch) error { return l.write(b, false) }

func (l *Log) write(b *Batch, sync bool) error {
	if l.err != nil {
		return l.err
	}
	for from := 0; from < len(b.recs); {
		to, err := l.writePart(b, from)
		if err == nil && to == from {
			err = l.makeRoom()
		}
		if err != nil {
			return l.fail(fmt.Errorf("write the raft log: %w", err))
		}
		from = to
	}
	if sync {
		if err := l.sync(); err != nil {
			return l.fail(fmt.Errorf("write the raft log: %w", err))
		}
	}
	b.empty()
	return nil
}

// writePart writes as many records as fit, and brings them into the state
// before that: if the write fails, so does everything after it.
func (l *Log) writePart(b *Batch, from int) (to int, err error) {
	s := l.current()
	limit := min(s.size-batchBytes, int64(l.synced)+maxUnsynced(s.size))
	off := l.end
	for to = from; to < len(b.recs); to++ {
		r := &b.recs[to]
		if int64(off)+int64(r.end-r.start) > limit {
			break
		}
		rec := b.finish(r, s.mark, off, l.synced)
		if err := l.apply(s, rec); err != nil {
			return from, err
		}
		if r.kind == kindAppend {
			l.remember(r.group, r.entries)
		}
		off = rec.end
	}
	if to == from {
		return from, nil
	}
	if err := l.checkTable(b, from, to); err != nil {
		return from, err
	}
	_, err = s.file.WriteAt(b.buf[b.recs[from].start:b.recs[to-1].end], int64(l.end))
	if err != nil {
		return from, fmt.Errorf("%s: %w", slotName(s.slot), err)
	}
	l.end = off
	return to, nil
}

// maxUnsynced bounds what Open may have to copy: with the table, which is at
// most 1/8 of a segment, it fits in the next one.
func maxUnsynced(size int64) int64 { return size / 4 * 3 }

func maxTable(size int64) int64 { return size / 8 }

// checkTable refuses new replicas that the table at the head of the next
// segment could not hold.
func (l *Log) checkTable(b *Batch, from, to int) error {
	for _, r := range b.recs[from:to] {
		if r.kind != kindCreated && r.kind != kindReset {
			continue
		}
		l.buf = l.putTable(l.buf[:0], 0)
		if int64(len(l.buf)) > maxTable(l.o.SegmentBytes) {
			return fmt.Errorf("%d replicas are more than a segment of %d bytes can list", len(l.replicas), l.o.SegmentBytes)
		}
		return nil
	}
	return nil
}

// makeRoom lets the next record fit where it did not.
func (l *Log) makeRoom() error {
	s := l.current()
	switch {
	case l.end > l.synced:
		return l.sync()
	case l.end > s.begin:
		return l.beginSegment(l.end, nil)
	default:
		return fmt.Errorf("an entry is larger than a segment of %d bytes can hold", s.size)
	}
}

func (l *Log) sync() error {
	if l.end == l.synced {
		return nil
	}
	s := l.current()
	if err := s.file.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", slotName(s.slot), err)
	}
	l.synced = l.end
	return nil
}

// attest writes a batch head and nothing after it.
func (l *Log) attest() error {
	if err := l.sync(); err != nil {
		return err
	}
	s := l.current()
	r := openRecord(l.buf[:0], kindBatch)
	r = binary.LittleEndian.AppendUint64(r, uint64(l.synced))
	finishRecord(r, s.mark, l.end)
	if _, err := s.file.WriteAt(r, int64(l.end)); err != nil {
		return fmt.Errorf("close the raft log: %w", err)
	}
	l.end += uint32(len(r))
	return l.sync()
}

// beginSegment switches to a new segment, of which valid bytes of the one
// before count. The new one is synced with the table of replicas and the copies
// in tail (nil: none) before the one before is sealed, and the seal is synced
// before anything follows: a segment without a seal that names it does not
// count.
func (l *Log) beginSegment(valid uint32, tail *Batch) error {
	s, err := l.takeSlot()
	if err != nil {
		return err
	}
	l.generation++
	s.head = head{format: format, store: l.o.StoreID, generation: l.generation}
	if s.mark, err = newMark(); err != nil {
		return err
	}
	var before *segment
	if len(l.chain) > 0 {
		before = l.current()
		s.prev, s.prevLength = before.generation, valid
	}
	l.chain = append(l.chain, s)
	l.slots[s.slot] = s
	if err := l.writeBegin(s, tail); err != nil {
		return fmt.Errorf("begin %s: %w", slotName(s.slot), err)
	}
	if before != nil {
		if err := seal(before, s.generation); err != nil {
			return fmt.Errorf("seal %s: %w", slotName(before.slot), err)
		}
	}
	l.end, l.synced = s.begin, s.begin
	return l.recycle()
}

// writeBegin writes head, table and tail, and syncs them.
func (l *Log) writeBegin(s *segment, tail *Batch) error {
	buf := openRecord(append(l.buf[:0], make([]byte, recordsAt)...), kindTable)
	buf = l.putTable(buf, l.oldest().generation)
	if int64(len(buf)-recordsAt) > maxTable(s.size) {
		return fmt.Errorf("the table of %d replicas does not fit in %d bytes", len(l.replicas), s.size)
	}
	finishRecord(buf[recordsAt:], s.mark, recordsAt)
	if tail != nil {
		for i := range tail.recs {
			rec := tail.finish(&tail.recs[i], s.mark, uint32(len(buf)), recordsAt)
			if err := l.apply(s, rec); err != nil {
				return err
			}
			buf = append(buf, tail.buf[tail.recs[i].start:tail.recs[i].end]...)
		}
	}
	if int64(len(buf)) > s.size-batchBytes {
		return fmt.Errorf("%d bytes of table and unsynced entries do not fit in %d", len(buf), s.size)
	}
	s.begin = uint32(len(buf))
	s.put(buf)
	l.buf = buf
	if _, err := s.file.WriteAt(buf, 0); err != nil {
		return err
	}
	return s.file.SyncData()
}

// seal commits the segment that follows.
func seal(s *segment, next uint64) error {
	var b [recordsAt - sealAt]byte
	putSeal(b[:], s.mark, next)
	if _, err := s.file.WriteAt(b[:], sealAt); err != nil {
		return err
	}
	s.sealed = next
	return s.file.SyncData()
}

func newMark() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("draw a segment's mark: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// oldest is the first segment that holds an entry that is still wanted; all
// else that older ones hold is in the table of the last.
func (l *Log) oldest() *segment {
	for _, s := range l.chain {
		if len(s.live) > 0 {
			return s
		}
	}
	return l.current()
}

// recycle frees the segments before the oldest one, and sees to it that a slot
// is there for the next switch. The last segment's table and its seal are
// synced.
func (l *Log) recycle() error {
	oldest := l.oldest()
	for l.chain[0] != oldest {
		s := l.chain[0]
		l.chain = l.chain[1:]
		delete(l.slots, s.slot)
		l.free = append(l.free, s)
	}
	if err := l.trimFree(); err != nil {
		return err
	}
	if len(l.free) == 0 && l.spare == nil {
		l.prepareSpare()
	}
	return nil
}

// trimFree deletes free slots that are too many or have not the right size.
func (l *Log) trimFree() error {
	var keep []*segment
	for i, s := range l.free {
		if s.size == l.o.SegmentBytes && len(l.free)-i <= maxFree {
			keep = append(keep, s)
		} else if err := l.remove(s); err != nil {
			return err
		}
	}
	l.free = keep
	return nil
}

func (l *Log) remove(s *segment) error {
	path := l.o.FS.PathJoin(l.o.Dir, slotName(s.slot))
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err := l.o.FS.Remove(path); err != nil {
		return fmt.Errorf("remove a raft log segment: %w", err)
	}
	return nil
}

// prepareSpare makes a slot in the background, so that the next switch need not
// wait until it is filled with zeros. takeSlot or Close collects it.
func (l *Log) prepareSpare() {
	l.nextSlot++
	done := make(chan slotResult, 1)
	go func(slot uint32) {
		s, err := createSlot(l.o.FS, l.o.Dir, slot, l.o.SegmentBytes)
		done <- slotResult{s, err}
	}(l.nextSlot)
	l.spare = done
}

func (l *Log) takeSlot() (*segment, error) {
	if n := len(l.free); n > 0 {
		s := l.free[n-1]
		l.free = l.free[:n-1]
		return s, nil
	}
	if l.spare == nil {
		l.prepareSpare()
	}
	r := <-l.spare
	l.spare = nil
	return r.segment, r.err
}
