package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	magic  = "comandaL"
	format = 1

	headBytes    = 64
	sealAt       = headBytes
	recordsAt    = 128 // head and seal share the first sector, which a disk writes whole or not at all
	headerBytes  = 8 + 4 + 4 + 1
	batchBytes   = headerBytes + 8
	runBytes     = 256 << 10 // a record of entries is closed above this
	minEntry     = 3         // bytes of the smallest encoded entry
	maxGap       = 1 << 26   // entries that may be missing between two records while older segments are replayed
	entryFraming = 30        // most that protobuf adds to an entry's data
)

// kind says what a record holds. The numbers are the format: never reuse one.
type kind byte

const (
	kindBatch     kind = 1 // the offset up to which this segment was synced before the batch
	kindAppend    kind = 2 // hard state, or entries that replace the group's suffix, or both
	kindMoved     kind = 3 // entries copied from an older place, which replace only themselves
	kindCreated   kind = 4
	kindDestroyed kind = 5
	kindReset     kind = 6
	kindHandles   kind = 7
	kindTable     kind = 8
)

func (k kind) String() string {
	names := [...]string{
		kindBatch: "batch", kindAppend: "append", kindMoved: "moved", kindCreated: "created",
		kindDestroyed: "destroyed", kindReset: "reset", kindHandles: "handles", kindTable: "table",
	}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", byte(k))
	}
	return names[k]
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is the first thing in a segment. Its length and the place of its
// checksum hold for every format, so that an older program can tell a newer
// format from damage.
type head struct {
	format     uint32
	begin      uint32 // up to here the segment was synced before its seal was written
	store      uint64
	generation uint64
	prev       uint64 // generation of the segment before, 0 for the first
	prevLength uint32 // how much of that segment is valid
	mark       uint64 // random, drawn for this use of the slot; binds every record to this head
}

func (h *head) put(b []byte) {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], h.format)
	binary.LittleEndian.PutUint32(b[12:], h.begin)
	binary.LittleEndian.PutUint64(b[16:], h.store)
	binary.LittleEndian.PutUint64(b[24:], h.generation)
	binary.LittleEndian.PutUint64(b[32:], h.prev)
	binary.LittleEndian.PutUint32(b[40:], h.prevLength)
	binary.LittleEndian.PutUint64(b[48:], h.mark)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// parseHead reads a head; false means that it is damaged.
func parseHead(b []byte) (head, bool) {
	if string(b[:8]) != magic || crc32.Checksum(b[:60], castagnoli) != binary.LittleEndian.Uint32(b[60:]) {
		return head{}, false
	}
	return head{
		format:     binary.LittleEndian.Uint32(b[8:]),
		begin:      binary.LittleEndian.Uint32(b[12:]),
		store:      binary.LittleEndian.Uint64(b[16:]),
		generation: binary.LittleEndian.Uint64(b[24:]),
		prev:       binary.LittleEndian.Uint64(b[32:]),
		prevLength: binary.LittleEndian.Uint32(b[40:]),
		mark:       binary.LittleEndian.Uint64(b[48:]),
	}, true
}

// putSeal names the generation that follows the segment with this mark.
func putSeal(b []byte, mark, next uint64) {
	binary.LittleEndian.PutUint64(b, next)
	binary.LittleEndian.PutUint64(b[8:], mark)
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
}

// parseSeal reads a seal: 0 for none, false when it is damaged.
func parseSeal(b []byte, mark uint64) (next uint64, ok bool) {
	if allZero(b[:recordsAt-sealAt]) {
		return 0, true
	}
	ok = binary.LittleEndian.Uint64(b[8:]) == mark &&
		crc32.Checksum(b[:16], castagnoli) == binary.LittleEndian.Uint32(b[16:]) && allZero(b[20:recordsAt-sealAt])
	return binary.LittleEndian.Uint64(b), ok
}

func allZero(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}

// openRecord starts a record in b; finishRecord completes it once its place is known.
func openRecord(b []byte, k kind) []byte {
	return append(append(b, make([]byte, headerBytes-1)...), byte(k))
}

// finishRecord writes the header of the record r (header and payload), which
// goes to the offset off of the segment with this mark.
func finishRecord(r []byte, mark uint64, off uint32) {
	binary.LittleEndian.PutUint64(r, mark)
	binary.LittleEndian.PutUint32(r[8:], uint32(len(r)-headerBytes))
	binary.LittleEndian.PutUint32(r[12:], checksum(r, off))
}

// checksum puts off where the checksum stands while it sums, so that one call
// covers mark, length, offset, kind and payload; it leaves the field changed.
func checksum(r []byte, off uint32) uint32 {
	binary.LittleEndian.PutUint32(r[12:], off)
	return crc32.Checksum(r, castagnoli)
}

// record is one parsed record; payload aliases what was parsed.
type record struct {
	kind    kind
	payload []byte
	off     uint32
	end     uint32
}

// parseRecord reads the record that begins at data[0] and lies at offset off of
// the segment with this mark. False means that no valid record is there.
func parseRecord(data []byte, mark uint64, off uint32) (record, bool) {
	if len(data) < headerBytes || binary.LittleEndian.Uint64(data) != mark {
		return record{}, false
	}
	n := uint64(binary.LittleEndian.Uint32(data[8:])) + headerBytes
	if n > uint64(len(data)) {
		return record{}, false
	}
	want := binary.LittleEndian.Uint32(data[12:])
	got := checksum(data[:n], off)
	binary.LittleEndian.PutUint32(data[12:], want)
	if got != want {
		return record{}, false
	}
	return record{kind: kind(data[headerBytes-1]), payload: data[headerBytes:n], off: off, end: off + uint32(n)}, true
}

// decoder reads the fields of a payload. After a field that is not there it
// yields zeros and finish fails.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) position() Position { return Position{Index: d.uvarint(), Term: d.uvarint()} }

func (d *decoder) hardState() hardState {
	return hardState{term: d.uvarint(), vote: d.uvarint(), commit: d.uvarint()}
}

// conf never returns nil.
func (d *decoder) conf() *raftpb.ConfState {
	c := &raftpb.ConfState{}
	if err := proto.Unmarshal(d.bytes(), c); err != nil {
		d.b, d.bad = nil, true
	}
	return c
}

var errPayload = errors.New("a record's fields do not add up")

func (d *decoder) finish() error {
	if d.bad || len(d.b) > 0 {
		return errPayload
	}
	return nil
}

// hardState is raft's, by value. The zero value is 'none yet'.
type hardState struct{ term, vote, commit uint64 }

func newHardState(hs *raftpb.HardState) hardState {
	return hardState{term: hs.GetTerm(), vote: hs.GetVote(), commit: hs.GetCommit()}
}

func (h hardState) raft() *raftpb.HardState {
	return &raftpb.HardState{Term: &h.term, Vote: &h.vote, Commit: &h.commit}
}

func (h hardState) put(b []byte) []byte { return putUvarints(b, h.term, h.vote, h.commit) }

func putUvarints(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func putBytes(b, v []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(v))), v...) }

func putConf(b []byte, c *raftpb.ConfState) []byte {
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		panic("raftlog: a ConfState cannot be encoded: " + err.Error()) // it has only numbers
	}
	return putBytes(b, v)
}

// run is the payload of an append or moved record: a hard state, if there is
// one, and consecutive entries.
type run struct {
	group   uint64
	hs      hardState
	hasHard bool
	first   uint64
	n       uint64
	entries decoder
}

func putRun(b []byte, group uint64, hs *hardState, entries []*raftpb.Entry) []byte {
	b = binary.AppendUvarint(b, group)
	if hs == nil {
		b = append(b, 0)
	} else {
		b = hs.put(append(b, 1))
	}
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for i, e := range entries {
		if i == 0 {
			b = binary.AppendUvarint(b, e.GetIndex())
		} else if e.GetIndex() != entries[0].GetIndex()+uint64(i) {
			panic(fmt.Sprintf("raftlog: group %d: entry %d stands where %d should", group, e.GetIndex(), entries[0].GetIndex()+uint64(i)))
		}
		b = binary.AppendUvarint(b, e.GetTerm())
		b = append(b, byte(e.GetType()))
		b = putBytes(b, e.GetData())
	}
	return b
}

func parseRun(payload []byte) (run, error) {
	d := decoder{b: payload}
	r := run{group: d.uvarint()}
	if r.hasHard = d.uvarint() == 1; r.hasHard {
		r.hs = d.hardState()
	}
	if r.n = d.uvarint(); r.n > 0 {
		r.first = d.uvarint()
	}
	if d.bad || r.n > uint64(len(d.b))/minEntry || r.first+r.n < r.first || (r.n > 0 && r.first == 0) {
		return run{}, errPayload
	}
	r.entries = d
	return r, nil
}

// next returns the next of the n entries; data aliases the payload.
func (r *run) next() (term uint64, t raftpb.EntryType, data []byte) {
	term = r.entries.uvarint()
	t = raftpb.EntryType(r.entries.uvarint())
	return term, t, r.entries.bytes()
}

// raft returns the run's entries as raft's; their data aliases the payload.
func (r *run) raft() ([]*raftpb.Entry, error) {
	type whole struct {
		e           raftpb.Entry
		term, index uint64
		t           raftpb.EntryType
	}
	block := make([]whole, r.n)
	out := make([]*raftpb.Entry, r.n)
	for i := range block {
		w := &block[i]
		w.term, w.t, w.e.Data = r.next()
		w.index = r.first + uint64(i)
		w.e.Term, w.e.Index, w.e.Type = &w.term, &w.index, &w.t
		if len(w.e.Data) == 0 {
			w.e.Data = nil
		}
		out[i] = &w.e
	}
	return out, r.entries.finish()
}
