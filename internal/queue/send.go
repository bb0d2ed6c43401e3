package queue

import (
	"github.com/comanda-mq/comanda/internal/message"
)

func (m *Machine) send(d *decoder, e *entry) []message.SendResult {
	number := uint32(d.uint())
	q := m.queues[number]
	results := make([]message.SendResult, d.count(minSent))
	var s Sent
	for i := range results {
		s.decode(d)
		if len(e.bodies) == 0 {
			d.fail()
			return nil
		}
		s.Body, e.bodies = e.bodies[0], e.bodies[1:]
		if q == nil {
			results[i].Err = wrongShard(number, s.Cell)
			continue
		}
		results[i] = m.sendOne(q, &s)
	}
	return results
}

func (m *Machine) sendOne(q *queue, s *Sent) message.SendResult {
	made, err := m.sendable(q, s)
	if err != nil {
		return message.SendResult{Err: err}
	}
	x := &made
	if first := m.repeats(x); first != 0 {
		return message.SendResult{ID: message.NewID(q.number, x.point(), first), Existing: true}
	}
	if holder := m.uniqueHolder(x); holder != 0 {
		id := message.NewID(q.number, x.point(), holder)
		if s.OnConflict == message.ConflictExisting {
			return message.SendResult{ID: id, Existing: true}
		}
		return message.SendResult{Err: uniqueTaken(x, id)}
	}
	c := x.cell
	if x.Dedup != nil && c.dedups >= maxDedups {
		return message.SendResult{Err: dedupsFull(c)}
	}
	m.put(x, s.Body)
	c.totals.Sent++
	return message.SendResult{ID: x.id()}
}

// put gives a message its number, and its place among those that wait.
func (m *Machine) put(x *stored, body []byte) {
	m.write(x, body)
	m.remember(x)
	if x.keyed() {
		m.join(x)
	}
	if x.scheduled() {
		m.schedule(x)
	} else {
		x.cell.counts.Ready++
		m.offer(x)
	}
	if x.Expires > 0 {
		m.setTimer(x, TimerExpire, x.Expires, 0)
	}
}

// write gives a message its number, and writes what it is.
func (m *Machine) write(x *stored, body []byte) {
	c := x.cell
	x.Seq = m.next(c)
	m.buf = appendHead(m.buf[:0], &x.Head, body)
	m.rows.Set(c.space, m.keys.seq(rowData, x.Seq), m.buf)
	if len(body) > inlineBody {
		m.rows.Set(c.space, m.keys.seq(rowBody, x.Seq), body)
	}
	if x.st != nil {
		m.save(x)
	}
	m.touch(c)
}

// sendable is the message that is sent, without a number, or why it can't be stored
// whatever others there are. It is a value, which costs no allocation.
func (m *Machine) sendable(q *queue, s *Sent) (x stored, err *message.Error) {
	c := m.cellOf(q, s.Cell)
	switch {
	case c == nil:
		return x, wrongShard(q.number, s.Cell)
	case c.shard.full():
		return x, sequencesUsed(c.shard)
	case len(s.Body) > q.settings.MaxMessageBytes:
		return x, message.Errorf(message.TooLarge, "body has %d bytes, the queue takes at most %d (max_message_bytes)", len(s.Body), q.settings.MaxMessageBytes)
	}
	x.cell = c
	x.Head, err = m.newHead(s)
	return x, err
}

func sequencesUsed(s *shard) *message.Error {
	return message.Errorf(message.ResourceExhausted, "shard %s has used up its 2^50 sequence numbers", s.path)
}

func dedupsFull(c *cell) *message.Error {
	return message.Errorf(message.ResourceExhausted, "%d dedup ids count in the message's part of the queue already: wait, or shorten the queue's dedup_window", c.dedups)
}

// newHead is what is known of a message when it is sent: all but its number.
func (m *Machine) newHead(s *Sent) (Head, *message.Error) {
	h := Head{
		Key: s.Key, Hash: s.Hash, Type: s.Type, Attributes: s.Attributes, SentAt: m.wall,
		BodySize: len(s.Body), Tenant: s.Tenant, TenantHash: s.TenantHash, Priority: byte(s.Priority), Retry: s.Retry,
		Dedup: s.dedup(), Unique: s.unique(),
	}
	if s.Delay > 0 {
		h.Due, h.DueWall = m.meta.groupTime+millis(s.Delay), m.wall+millis(s.Delay)
	} else if !s.DeliverAt.IsZero() {
		if at := s.DeliverAt.UnixMilli(); at > m.wall {
			h.At, h.DueWall = at, at
		}
	}
	if s.Expires.IsZero() {
		return h, nil
	}
	h.Expires = s.Expires.UnixMilli()
	switch {
	case h.Expires <= m.wall:
		return h, message.Errorf(message.InvalidArgument, "expires is %s, and that has passed: it is %s", wallTime(h.Expires), wallTime(m.wall))
	case h.Expires <= h.DueWall:
		return h, message.Errorf(message.InvalidArgument, "expires is %s, and the message would be ready at %s", wallTime(h.Expires), wallTime(h.DueWall))
	}
	return h, nil
}
