package queue

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// line is the row of a key that has unsettled messages: who is first, and
// which of them are leased, all in one batch to one holder. Those behind the first have key rows, so a key
// with one message costs one row, and whether a message has its turn is one
// look-up.
type line struct {
	cell   *cell
	hash   message.KeyHash
	first  uint64   // the lowest sequence number
	locked []uint64 // the leased messages, in order; at most message.MaxPerKey
	count  uint64   // messages in the line; 0: there is no row
	dirty  bool
}

// maxLines is how many lines a machine remembers between entries.
const maxLines = 1 << 14

func (l *line) append(b []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, l.first), l.holder())
	b = binary.AppendUvarint(b, l.count)
	for i := 1; i < len(l.locked); i++ {
		b = binary.AppendUvarint(b, l.locked[i]-l.locked[i-1])
	}
	return b
}

// holder is the first of the leased messages; 0: none is.
func (l *line) holder() uint64 {
	if len(l.locked) == 0 {
		return 0
	}
	return l.locked[0]
}

func readLine(rows Reader, k *keys, c *cell, h message.KeyHash) *line {
	l := &line{cell: c, hash: h}
	if row, ok := rows.Get(c.space, k.line(h)); ok {
		d := decoder{b: row}
		l.first = d.uint()
		if first := d.uint(); first != 0 {
			l.locked = append(l.locked, first)
		}
		for l.count = d.uint(); len(d.b) > 0 && !d.bad; {
			l.locked = append(l.locked, l.locked[len(l.locked)-1]+d.uint())
		}
		must(d.end("the row of a key"))
	}
	return l
}

type lineKey struct {
	space uint64
	hash  message.KeyHash
}

// line returns the line of a key, for this entry to read and change.
func (m *Machine) line(c *cell, h message.KeyHash) *line {
	at := lineKey{c.space, h}
	l := m.lines[at]
	if l == nil {
		l = readLine(m.rows, &m.keys, c, h)
		m.lines[at] = l
	}
	return l
}

func (m *Machine) touchLine(l *line) {
	if !l.dirty {
		l.dirty = true
		m.changed = append(m.changed, l)
	}
}

// flushLines writes back the lines that the entry changed.
func (m *Machine) flushLines() {
	for _, l := range m.changed {
		l.dirty = false
		if l.count == 0 {
			m.rows.Delete(l.cell.space, m.keys.line(l.hash))
			delete(m.lines, lineKey{l.cell.space, l.hash})
			continue
		}
		m.buf = l.append(m.buf[:0])
		m.rows.Set(l.cell.space, m.keys.line(l.hash), m.buf)
	}
	m.changed = m.changed[:0]
	if len(m.lines) > maxLines {
		clear(m.lines)
	}
}

// join puts a message into its key's line, at its place.
func (m *Machine) join(x *stored) {
	l := m.line(x.cell, x.Hash)
	switch {
	case l.count == 0:
		l.first = x.Seq
	case x.Seq < l.first: // redriven
		m.rows.Set(x.cell.space, m.keys.behind(x.Hash, l.first), nil)
		l.first = x.Seq
	default:
		m.rows.Set(x.cell.space, m.keys.behind(x.Hash, x.Seq), nil)
	}
	l.count++
	m.touchLine(l)
}

// leave takes a message out of its key's line.
func (m *Machine) leave(x *stored) {
	l := m.line(x.cell, x.Hash)
	l.count--
	m.touchLine(l)
	if x.Seq != l.first {
		m.rows.SingleDelete(x.cell.space, m.keys.behind(x.Hash, x.Seq))
		return
	}
	if l.count == 0 {
		return
	}
	lo := slices.Clone(m.keys.behind(x.Hash, x.Seq))
	m.rows.Scan(x.cell.space, lo, m.keys.behind(x.Hash, math.MaxUint64), func(k, _ []byte) bool {
		l.first = beUint64(k[len(k)-8:])
		return false
	})
	m.rows.SingleDelete(x.cell.space, m.keys.behind(x.Hash, l.first))
}

// depart takes a message that has ended out of its key's line, which goes on.
func (m *Machine) depart(x *stored) {
	if !x.keyed() || x.outside {
		return
	}
	m.leave(x)
	if !x.behind {
		m.advance(x.cell, x.Hash)
	}
}

// lock notes that a message is leased, the last of its key's that are.
func (m *Machine) lock(x *stored) {
	l := m.line(x.cell, x.Hash)
	l.locked = append(l.locked, x.Seq)
	m.touchLine(l)
}

// unlock notes that it is leased no more.
func (m *Machine) unlock(x *stored) {
	l := m.line(x.cell, x.Hash)
	l.locked = slices.DeleteFunc(l.locked, func(seq uint64) bool { return seq == x.Seq })
	m.touchLine(l)
}

// hasTurn says that no message of x's key is leased, that the key does not rest, and that
// x is the first of those that wait. It is what keeps a key's messages in order and with
// one holder at a time.
func (m *Machine) hasTurn(x *stored) bool {
	l := m.line(x.cell, x.Hash)
	return len(l.locked) == 0 && l.first == x.Seq && !m.rests(x.cell, x.Hash)
}

// offer makes a message that is ready available, unless it has to wait for
// another one of its key.
func (m *Machine) offer(x *stored) {
	if x.keyed() && !m.hasTurn(x) {
		return
	}
	m.publish(x)
}

// advance hands the turn of a key to the head of its line, after a message of
// the key was unlocked or left the line, or the key has rested. A head that is scheduled
// keeps the others waiting: the line is in send order.
func (m *Machine) advance(c *cell, h message.KeyHash) {
	l := m.line(c, h)
	if l.count == 0 || len(l.locked) > 0 || m.rests(c, h) {
		return
	}
	if x, ok := m.load(c, l.first); ok && x.state(m.rows, &m.keys) == message.Ready {
		m.publish(x)
	}
}

// rejoin puts a message that was dead or stood aside back into its key's line,
// before all that were sent after it: one of those may have the turn already and loses it,
// unless it is leased.
func (m *Machine) rejoin(x *stored) {
	l := m.line(x.cell, x.Hash)
	if l.count > 0 && x.Seq < l.first {
		if y, ok := m.load(x.cell, l.first); ok && m.hasTurn(y) && y.state(m.rows, &m.keys) == message.Ready {
			m.withdraw(y)
		}
	}
	m.join(x)
	m.offer(x)
}
