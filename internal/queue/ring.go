package queue

import (
	"encoding/binary"
)

// Finished messages stay visible in a ring: a header by sequence number, and
// chunk rows that hold the order in which they finished. One chunk row an entry
// and cell keeps the cost low; at high rates the ring turns over in memory.

// trimPerFinish is how many old headers go for each new one, so that a ring
// that is too long shrinks without an entry that takes long.
const trimPerFinish = 4

// finish writes a header and notes it for the entry's chunk.
func (m *Machine) finish(x *stored, f *finished) {
	m.buf = f.append(m.buf[:0])
	m.rows.Set(x.cell.space, m.keys.seq(rowFinished, x.Seq), m.buf)
	x.cell.counts.Finished++
	x.cell.finishing = append(x.cell.finishing, x.Seq)
}

// ended finds a message that has ended, as long as the ring has it.
func (m *Machine) ended(c *cell, seq uint64) (f finished, ok bool) {
	row, ok := m.rows.Get(c.space, m.keys.seq(rowFinished, seq))
	if ok {
		f = decodeFinished(row)
	}
	return f, ok
}

// turnRing writes the entry's chunk and trims the shard's ring by count and
// age, oldest first over all cells of the shard.
func (m *Machine) turnRing(c *cell) {
	n := len(c.finishing)
	if n == 0 {
		return
	}
	m.buf = putInt(m.buf[:0], m.meta.groupTime)
	for _, seq := range c.finishing {
		m.buf = binary.AppendUvarint(m.buf, seq)
	}
	if c.head == c.tail {
		c.oldest = m.meta.groupTime
	}
	m.rows.Set(c.space, m.keys.seq(rowRing, c.tail), m.buf)
	c.tail++
	c.finishing = c.finishing[:0]

	settings := &c.queue.settings
	keep, tooOld := int64(settings.KeepFinished), m.meta.groupTime-millis(settings.KeepFinishedFor)
	for budget := trimPerFinish * n; budget > 0; {
		old, total := m.oldestRing(c.queue, c.shard)
		if old == nil || (total <= keep && old.oldest >= tooOld) {
			return
		}
		_, seqs := m.chunk(old, old.head)
		if old.oldest >= tooOld && total-int64(len(seqs)) < keep {
			return // without this chunk there would be fewer than promised
		}
		m.trimChunk(old, seqs)
		budget -= len(seqs)
	}
}

// oldestRing finds the cell of a shard whose ring has the oldest chunk, and the
// number of headers in all of them.
func (m *Machine) oldestRing(q *queue, s *shard) (old *cell, total int64) {
	for i := s.from; i <= s.to; i++ {
		c := m.cellOf(q, i)
		total += c.counts.Finished
		if c.head < c.tail && (old == nil || c.oldest < old.oldest) {
			old = c
		}
	}
	return old, total
}

// trimChunk removes the oldest chunk of a cell's ring with its headers.
func (m *Machine) trimChunk(c *cell, seqs []uint64) {
	for _, seq := range seqs {
		if c.foreigns > 0 {
			row, _ := m.rows.Get(c.space, m.keys.seq(rowFinished, seq))
			m.forgetForeign(c, decodeFinished(row).foreign, seq)
		}
		m.rows.SingleDelete(c.space, m.keys.seq(rowFinished, seq))
	}
	m.rows.SingleDelete(c.space, m.keys.seq(rowRing, c.head))
	c.head++
	c.counts.Finished -= int64(len(seqs))
	if c.head < c.tail {
		c.oldest, _ = m.chunk(c, c.head)
	}
	m.touch(c)
}

func (m *Machine) chunk(c *cell, n uint64) (at int64, seqs []uint64) {
	row, _ := m.rows.Get(c.space, m.keys.seq(rowRing, n))
	return decodeChunk(row)
}

func decodeChunk(row []byte) (at int64, seqs []uint64) {
	d := decoder{b: row}
	at = d.int()
	for len(d.b) > 0 {
		seqs = append(seqs, d.uint())
	}
	must(d.end("a ring row"))
	return at, seqs
}
