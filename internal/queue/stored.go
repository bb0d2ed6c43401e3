package queue

import (
	"encoding/binary"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// stored is a message with the rows that say what has become of it.
type stored struct {
	Head
	cell  *cell
	body  []byte // inline ones only
	apart bool   // the body lies in a row of its own
	// behind: it was taken out of those that wait (withhold), and did not have the
	// turn of its key: who has it keeps it.
	behind bool
	// outside: likewise, and it stood outside of the line (aside).
	outside bool
	st      *standing
}

// load reads a message that is not finished.
func load(rows Reader, k *keys, c *cell, seq uint64) (*stored, bool) {
	row, ok := rows.Get(c.space, k.seq(rowData, seq))
	if !ok {
		return nil, false
	}
	x := &stored{cell: c}
	x.Head, x.body, x.apart = decodeHead(seq, row)
	if row, ok := rows.Get(c.space, k.seq(rowState, seq)); ok {
		x.st = decodeStanding(row)
	}
	return x, true
}

func (m *Machine) load(c *cell, seq uint64) (*stored, bool) { return load(m.rows, &m.keys, c, seq) }

// loadAt reads a message whose state counter is known: at 0 there is no state
// row, and the look for it is saved.
func (m *Machine) loadAt(c *cell, seq uint64, counter uint32) (*stored, bool) {
	if counter > 0 {
		return m.load(c, seq)
	}
	row, ok := m.rows.Get(c.space, m.keys.seq(rowData, seq))
	if !ok {
		return nil, false
	}
	x := &stored{cell: c}
	x.Head, x.body, x.apart = decodeHead(seq, row)
	return x, true
}

// fullBody is the message's body, wherever it lies.
func (x *stored) fullBody(rows Reader, k *keys) []byte {
	if !x.apart {
		return x.body
	}
	b, _ := rows.Get(x.cell.space, k.seq(rowBody, x.Seq))
	return b
}

// counter is the state counter: 0 until the first change that is written.
func (x *stored) counter() uint32 {
	if x.st == nil {
		return 0
	}
	return x.st.counter
}

func (x *stored) ref() Ref {
	return Ref{Cell: x.cell.number, Priority: x.Priority, Seq: x.Seq, Counter: x.counter()}
}

func (x *stored) turn() Turn { return Turn{Priority: x.Priority, Tenant: x.TenantHash} }

// point is where the message stands.
func (x *stored) point() message.Point {
	switch {
	case x.st != nil && x.st.bound.Queue != 0:
		return message.CellPoint(x.cell.number) // its key has a place only where it is to live
	case x.keyed():
		return x.Hash.Point()
	case x.Dedup != nil || x.Unique != nil:
		return placed(x.Dedup, x.Unique).Point()
	}
	return message.CellPoint(x.cell.number)
}

// place is where the message stands, and its id unless it was sent elsewhere.
func (x *stored) place() message.ID { return message.NewID(x.cell.queue.number, x.point(), x.Seq) }

func (x *stored) id() message.ID {
	if x.Foreign != (message.ID{}) {
		return x.Foreign
	}
	return x.place()
}

// save writes the state row with the next counter.
func (m *Machine) save(x *stored) {
	x.st.counter++
	m.buf = x.st.append(m.buf[:0])
	m.rows.Set(x.cell.space, m.keys.seq(rowState, x.Seq), m.buf)
}

// scheduled says that the message was sent to be ready later.
func (h *Head) scheduled() bool { return h.Due > 0 || h.At > 0 }

// publish writes the ready row. One that is not the newest may lie before a
// floor, or before one that a leader has found and not told yet.
func (m *Machine) publish(x *stored) {
	m.buf = m.buf[:0]
	if x.keyed() {
		m.buf = binary.BigEndian.AppendUint64(m.buf, x.Hash.Hi)
	}
	m.rows.Set(x.cell.space, m.keys.ready(x.turn(), x.Seq, x.counter()), m.buf)
	m.effect(Effect{Kind: Offered, Queue: x.cell.queue.number, Ref: x.ref(), Key: x.Hash.Hi, Tenant: x.TenantHash})
	c := x.cell
	if x.Seq == c.shard.counter || x.TenantHash != 0 {
		return // just sent, or of those that have no floor
	}
	c.floors[x.Priority] = min(c.floors[x.Priority], x.Seq)
	if c.low == 0 || x.Seq < c.low {
		c.low = x.Seq
	}
	c.lowered = m.index
	m.touch(c)
}

// withdraw takes back the ready row of a message that lost its turn to an
// earlier one.
func (m *Machine) withdraw(x *stored) {
	m.rows.SingleDelete(x.cell.space, m.keys.ready(x.turn(), x.Seq, x.counter()))
	m.effect(Effect{Kind: Withdrawn, Queue: x.cell.queue.number, Ref: x.ref(), Tenant: x.TenantHash})
}

// state derives the message's state; the package comment has the order.
func (x *stored) state(rows Reader, k *keys) message.State {
	if x.st != nil {
		return x.st.state
	}
	if _, _, leased := currentLease(rows, k, x.cell, x.Seq); leased {
		return message.Leased
	}
	if x.scheduled() {
		return message.Scheduled
	}
	return message.Ready
}

// currentLease finds the lease row of a message without knowing its fence.
func currentLease(rows Reader, k *keys, c *cell, seq uint64) (l lease, fence uint64, ok bool) {
	lo := slices.Clone(k.lease(seq, 0))
	rows.Scan(c.space, lo, k.lease(seq+1, 0), func(key, v []byte) bool {
		fence, ok = beUint64(key[len(key)-8:]), true
		l = decodeLease(v)
		return false
	})
	return l, fence, ok
}
