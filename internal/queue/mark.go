package queue

import (
	"encoding/binary"

	"github.com/comanda-mq/comanda/internal/message"
)

// Mark is a dedup id or a unique key with its place: the hash of it within its
// message's key. The hash is keyed with the queue's secret, so nobody can make two
// names that share one.
type Mark struct {
	Name string
	Hash message.KeyHash
}

// append writes a mark; none is the empty name alone.
func (k *Mark) append(b []byte) []byte {
	if k == nil {
		return append(b, 0)
	}
	return appendHash(putString(b, k.Name), k.Hash)
}

func decodeMark(d *decoder) *Mark {
	k := &Mark{Name: d.string()}
	if k.Name == "" {
		return nil
	}
	k.Hash = d.hash()
	return k
}

// placed is where a message without a key stands: with its unique key, else with
// its dedup id.
func placed(dedup, unique *Mark) message.KeyHash {
	if unique != nil {
		return unique.Hash
	}
	return dedup.Hash
}

func (m *Sent) dedup() *Mark {
	if m.DedupID == "" {
		return nil
	}
	return &Mark{Name: m.DedupID, Hash: m.DedupHash}
}

func (m *Sent) unique() *Mark {
	if m.UniqueKey == "" {
		return nil
	}
	return &Mark{Name: m.UniqueKey, Hash: m.UniqueHash}
}

// maxDedups is how many dedup ids a cell remembers: with their timers about 130
// bytes of rows each, so about 130 MiB.
const maxDedups = 1 << 20

// repeats finds the first message with x's dedup id, if that still counts; 0: none.
func (m *Machine) repeats(x *stored) (seq uint64) {
	seq, due := m.firstOf(x)
	if seq == 0 || due > m.meta.groupTime {
		return seq
	}
	m.endWindow(x.cell, TimerRef{Kind: TimerWindow, Due: due, Seq: seq}) // before its timer
	return 0
}

// firstOf finds the first message with x's dedup id, and when its window ends, which
// may have passed; 0: none is remembered.
func (m *Machine) firstOf(x *stored) (seq uint64, due int64) {
	if x.Dedup == nil {
		return 0, 0
	}
	row, ok := m.rows.Get(x.cell.space, m.keys.mark(rowDedup, x.point(), x.Dedup.Hash))
	if !ok {
		return 0, 0
	}
	d := decoder{b: row}
	seq, due = d.uint(), d.int()
	must(d.end("a dedup row"))
	return seq, due
}

// remember lets a message's dedup id count from now on, and takes its unique key,
// which nobody has.
func (m *Machine) remember(x *stored) {
	if window := x.cell.queue.settings.DedupWindow; x.Dedup != nil && window > 0 {
		due := m.meta.groupTime + millis(window)
		m.rows.Set(x.cell.space, m.keys.mark(rowDedup, x.point(), x.Dedup.Hash), putInt(binary.AppendUvarint(nil, x.Seq), due))
		value := appendHash(binary.BigEndian.AppendUint64(nil, uint64(x.point())), x.Dedup.Hash)
		m.rows.Set(x.cell.space, m.keys.timer(TimerWindow, due, x.Seq, 0), value)
		m.due(TimerRef{Cell: x.cell.number, Kind: TimerWindow, Due: due}, x.cell.queue.number)
		x.cell.dedups++
	}
	if x.Unique != nil {
		m.rows.Set(x.cell.space, m.keys.mark(rowUnique, x.point(), x.Unique.Hash), binary.AppendUvarint(nil, x.Seq))
	}
}

// endWindow forgets a dedup id with its timer, which is there.
func (m *Machine) endWindow(c *cell, t TimerRef) {
	row, _ := m.rows.Get(c.space, m.keys.timer(t.Kind, t.Due, t.Seq, 0))
	m.rows.SingleDelete(c.space, m.keys.timer(t.Kind, t.Due, t.Seq, 0))
	m.rows.SingleDelete(c.space, append([]byte{rowDedup}, row...))
	c.dedups--
	m.touch(c)
}

// uniqueHolder finds the message that has x's unique key; 0: none.
func (m *Machine) uniqueHolder(x *stored) (seq uint64) {
	if x.Unique == nil {
		return 0
	}
	if row, ok := m.rows.Get(x.cell.space, m.keys.mark(rowUnique, x.point(), x.Unique.Hash)); ok {
		d := decoder{b: row}
		seq = d.uint()
		must(d.end("a unique row"))
	}
	return seq
}

func uniqueTaken(x *stored, holder message.ID) *message.Error {
	return message.Errorf(message.Conflict, "message %s has the unique key %q and is not finished: wait for it; a send may be answered with its id instead (on_conflict existing, --existing)", holder, x.Unique.Name)
}

// takeUnique gives a message that was dead its unique key again, if it is free.
func (m *Machine) takeUnique(x *stored) *message.Error {
	if x.Unique == nil {
		return nil
	}
	if holder := m.uniqueHolder(x); holder != 0 {
		return uniqueTaken(x, message.NewID(x.cell.queue.number, x.point(), holder))
	}
	m.rows.Set(x.cell.space, m.keys.mark(rowUnique, x.point(), x.Unique.Hash), binary.AppendUvarint(nil, x.Seq))
	return nil
}

// freeUnique gives up the unique key of a message that has ended.
func (m *Machine) freeUnique(x *stored) {
	if x.Unique != nil {
		m.rows.SingleDelete(x.cell.space, m.keys.mark(rowUnique, x.point(), x.Unique.Hash))
	}
}
