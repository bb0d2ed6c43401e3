package raftlog

import (
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Item is one thing that Inspect met, in words for people and figures.
type Item struct {
	File       string
	Generation uint64 // 0: the slot was never used
	Offset     int64
	Bytes      int64
	// Kind is a record's, or "head", or "end" with the reason in Note.
	Kind        string
	Group       uint64 // 0 if the record is of no single group
	First, Last uint64 // indexes, 0 without entries
	Note        string
}

// Inspect walks the log of a stopped node and shows what lies in it, slot by
// slot, also where Open would refuse it. It writes nothing. It stops at the
// first error of visit.
func Inspect(fs vfs.FS, dir string, visit func(Item) error) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("inspect the raft log: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		if parseSlot(name) == 0 {
			continue
		}
		if err := inspectSlot(fs, fs.PathJoin(dir, name), name, visit); err != nil {
			return fmt.Errorf("inspect the raft log: %w", err)
		}
	}
	return nil
}

func inspectSlot(fs vfs.FS, path, name string, visit func(Item) error) error {
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	s := &segment{slot: parseSlot(name), file: f}
	if err := s.readHead(path); err != nil {
		return visit(Item{File: name, Kind: "end", Note: err.Error()})
	}
	if s.generation == 0 {
		return visit(Item{File: name, Kind: "end", Note: "never used"})
	}
	note := fmt.Sprintf("store %x, follows %d which is valid up to %d, sealed for %d", s.store, s.prev, s.prevLength, s.sealed)
	if err := visit(Item{File: name, Generation: s.generation, Kind: "head", Bytes: recordsAt, Note: note}); err != nil {
		return err
	}
	data, err := s.read(nil)
	if err != nil {
		return err
	}
	off := uint32(recordsAt)
	for {
		rec, ok := parseRecord(data[min(int(off), len(data)):], s.mark, off)
		if !ok {
			break
		}
		item := Item{File: name, Generation: s.generation, Offset: int64(off), Bytes: int64(rec.end - off), Kind: rec.kind.String()}
		item.explain(rec)
		if err := visit(item); err != nil {
			return err
		}
		off = rec.end
	}
	end := Item{File: name, Generation: s.generation, Offset: int64(off), Kind: "end", Note: "no valid record follows"}
	if off < s.begin || lastSynced(data, s.mark, off) > off {
		end.Note = "damaged: what is here was synced and does not match its checksum"
	}
	return visit(end)
}

func (item *Item) explain(rec record) {
	d := decoder{b: rec.payload}
	switch rec.kind {
	case kindAppend, kindMoved:
		u, err := parseRun(rec.payload)
		if err != nil {
			item.Note = err.Error()
			return
		}
		item.Group = u.group
		if u.n > 0 {
			item.First, item.Last = u.first, u.first+u.n-1
		}
		if u.hasHard {
			item.Note = fmt.Sprintf("term %d, vote %d, commit %d", u.hs.term, u.hs.vote, u.hs.commit)
		}
	case kindCreated, kindDestroyed, kindReset:
		item.Group = d.uvarint()
	case kindTable:
		item.Note = fmt.Sprintf("oldest needed %d, handles below %d, %d replicas", d.uvarint(), d.uvarint(), d.uvarint())
	case kindBatch:
		item.Note = fmt.Sprintf("synced before: %d", batchSynced(rec))
	case kindHandles:
		item.Note = fmt.Sprintf("below %d", d.uvarint())
	}
}
