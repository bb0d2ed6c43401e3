package queue

import (
	"encoding/binary"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// A queue's rate is a row of the group that says when one more message is due. The leader
// looks at it before it chooses; here nothing is refused for it.
//
// Its rate_per_key is such a row for each key of which messages went out lately. A key
// that is as far ahead as it may be rests: none of its messages is offered until its time
// has come, so that there is nothing for the leader to choose wrongly or to pass over.
// The row goes when it makes no difference any more: a key of which nothing went out for
// a while has none.

// now is the group time of the entry.
func (m *Machine) now() time.Duration { return time.Duration(m.meta.groupTime) * time.Millisecond }

// pace notes by the queue's rate that n messages went out.
func (m *Machine) pace(q *queue, n int) {
	if r := q.settings.Rate; r.Count > 0 && n > 0 {
		m.setNext(q, int64(r.Next(m.now(), time.Duration(q.next), n)))
	}
}

// setNext notes when one more message of a queue is due.
func (m *Machine) setNext(q *queue, next int64) {
	q.next = next
	m.buf = binary.BigEndian.AppendUint64(m.buf[:0], uint64(next))
	m.rows.Set(groupSpace, m.keys.pace(q.number), m.buf)
	m.effect(Effect{Kind: Paced, Queue: q.number, At: next})
}

// keyPace is the row of a key. As long as it is there it has one timer, and it goes with
// it.
type keyPace struct {
	next  time.Duration // when one more message is due, group time
	rests bool          // until the timer no message of the key is offered
}

// maxPaced is how many keys of a cell have a pace: with their timers about 100 bytes of
// rows each, so about 100 MiB.
const maxPaced = 1 << 20

func (p *keyPace) append(b []byte) []byte {
	b = putInt(b, int64(p.next))
	if p.rests {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeKeyPace(row []byte) keyPace {
	d := decoder{b: row}
	p := keyPace{next: time.Duration(d.int())}
	switch d.byte() {
	case 0:
	case 1:
		p.rests = true
	default:
		d.fail()
	}
	must(d.end("the row of a key's pace"))
	return p
}

// readKeyPace reads the pace of a key; none is there: the zero value, false.
func readKeyPace(rows Reader, k *keys, c *cell, h message.KeyHash) (p keyPace, found bool) {
	row, found := rows.Get(c.space, k.keyPace(h))
	if found {
		p = decodeKeyPace(row)
	}
	return p, found
}

func (m *Machine) keyPace(c *cell, h message.KeyHash) (p keyPace, found bool) {
	if c.paced == 0 {
		return p, false
	}
	return readKeyPace(m.rows, &m.keys, c, h)
}

// rests says that no message of a key may go out for a while.
func (m *Machine) rests(c *cell, h message.KeyHash) bool {
	p, _ := m.keyPace(c, h)
	return p.rests
}

// mayPace refuses a message of a key that would be one too many to have a pace.
func (m *Machine) mayPace(x *stored) *message.Error {
	c := x.cell
	if !x.keyed() || c.paced < maxPaced || c.queue.settings.RatePerKey.Count == 0 || m.rows.Has(c.space, m.keys.keyPace(x.Hash)) {
		return nil
	}
	return message.Errorf(message.ResourceExhausted, "the rate_per_key of %d keys is under way in one part of the queue, as many as may be: wait, or let more messages of a key out in less time", maxPaced)
}

// paceKey notes by the queue's rate_per_key that x went out.
func (m *Machine) paceKey(x *stored) {
	c, r := x.cell, x.cell.queue.settings.RatePerKey
	if r.Count == 0 {
		return
	}
	p, found := m.keyPace(c, x.Hash)
	p.next = r.Next(m.now(), p.next, 1)
	p.rests = r.Room(m.now(), p.next) == 0
	m.savePace(c, x.Hash, p)
	if !found {
		m.watchPace(c, x.Hash, p, x.Seq)
		c.paced++
		m.touch(c)
	}
}

func (m *Machine) savePace(c *cell, h message.KeyHash, p keyPace) {
	m.buf = p.append(m.buf[:0])
	m.rows.Set(c.space, m.keys.keyPace(h), m.buf)
}

// watchPace sets the timer of a key's pace. seq is of one of its messages, so that no two
// keys share a timer.
func (m *Machine) watchPace(c *cell, h message.KeyHash, p keyPace, seq uint64) {
	r := c.queue.settings.RatePerKey
	at := r.Ends(p.next)
	if p.rests {
		at = r.Opens(p.next)
	}
	due := int64((at + time.Millisecond - 1) / time.Millisecond)
	m.buf = appendHash(m.buf[:0], h)
	m.rows.Set(c.space, m.keys.timer(TimerPace, due, seq, 0), m.buf)
	m.due(TimerRef{Cell: c.number, Kind: TimerPace, Due: due}, c.queue.number)
}

// lookAtPace ends the rest of a key, or its pace, if it is time for that by the queue's
// settings as they are now. Its timer t is there.
func (m *Machine) lookAtPace(c *cell, t TimerRef) {
	row, _ := m.rows.Get(c.space, m.keys.timer(t.Kind, t.Due, t.Seq, 0))
	d := decoder{b: row}
	h := d.hash()
	must(d.end("the timer of a key's pace"))
	m.rows.SingleDelete(c.space, m.keys.timer(t.Kind, t.Due, t.Seq, 0))
	r, now := c.queue.settings.RatePerKey, m.now()
	p, _ := m.keyPace(c, h)
	rested := p.rests
	if p.next = min(p.next, r.Latest(now)); now >= r.Ends(p.next) {
		p.rests = false
		m.rows.Delete(c.space, m.keys.keyPace(h))
		c.paced--
		m.touch(c)
	} else {
		p.rests = p.rests && r.Room(now, p.next) == 0
		m.savePace(c, h, p)
		m.watchPace(c, h, p, t.Seq)
	}
	if rested && !p.rests {
		m.advance(c, h)
	}
}
