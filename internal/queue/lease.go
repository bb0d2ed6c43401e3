package queue

import (
	"github.com/comanda-mq/comanda/internal/message"
)

// lease hands out what the leader chose and what is still free to go.
func (m *Machine) lease(d *decoder) LeaseResult {
	number, worker, session, length, maxBytes := uint32(d.uint()), d.string(), d.uint(), d.int(), d.int()
	refs := make([]Ref, 0, d.count(4))
	for range cap(refs) {
		refs = append(refs, decodeRef(d))
	}
	floors := make([]Floor, d.count(4))
	for i := range floors {
		floors[i] = Floor{Cell: int(d.byte()), Priority: d.byte(), Seq: d.uint(), Index: d.uint()}
	}
	q := m.queues[number]
	switch {
	case q == nil:
		return LeaseResult{Err: wrongShard(number, 0)}
	case q.paused:
		return LeaseResult{Err: message.Errorf(message.Unavailable, "the queue is paused")}
	}
	l := lease{session: session, deadline: m.meta.groupTime + length, length: length, at: m.wall, worker: worker}
	var r LeaseResult
	for _, ref := range refs {
		x := m.offered(q, ref)
		if x != nil {
			if maxBytes -= x.answer(); maxBytes < 0 && len(r.Leased) > 0 {
				break // a first one goes out whatever its size
			}
			r.Leased = append(r.Leased, m.leaseOne(x, ref, &l))
		}
		r.Looked++
	}
	for _, f := range floors {
		m.raiseFloor(q, f)
	}
	return r
}

// offered finds a message that may go out as somebody saw it; nil if it has
// changed since. The ready row is there exactly if it may (package comment).
func (m *Machine) offered(q *queue, ref Ref) *stored {
	c := m.cellOf(q, ref.Cell)
	if c == nil || c.shard.full() || !m.rows.Has(c.space, m.keys.ready(ref.Priority, ref.Seq, ref.Counter)) {
		return nil
	}
	x, _ := m.loadAt(c, ref.Seq, ref.Counter)
	return x
}

func (m *Machine) leaseOne(x *stored, ref Ref, l *lease) Leased {
	c := x.cell
	fence := m.next(c)
	m.rows.SingleDelete(c.space, m.keys.ready(ref.Priority, ref.Seq, ref.Counter))
	m.buf = l.append(m.buf[:0])
	m.rows.Set(c.space, m.keys.lease(x.Seq, fence), m.buf)
	if x.keyed() {
		m.lock(x, x.Seq)
	}
	got := Leased{ID: x.id(), Fence: fence, Deliveries: 1, Deadline: l.deadline, Head: x.Head, Body: x.fullBody(m.rows, &m.keys)}
	if x.st != nil {
		x.st.state, x.st.deadline = message.Leased, 0
		x.st.deliveries++
		m.save(x)
		got.Attempts, got.Deliveries = x.st.attempts, x.st.deliveries
	}
	got.Ref = x.ref()
	if len(c.held) < maxHeld {
		x.body, x.Attributes = nil, nil // parts of the row, which would be kept with them
		c.held[x.Seq] = &held{stored: x, lease: *l, fence: fence}
	}
	c.counts.Ready--
	c.counts.Leased++
	m.touch(c)
	m.effect(Effect{Kind: LeaseSet, Queue: c.queue.number, Ref: ref, Fence: fence, At: l.deadline, Session: l.session})
	return got
}

// raiseFloor takes over what the leader found when it scanned, unless an entry
// after its scan made an older message ready.
func (m *Machine) raiseFloor(q *queue, f Floor) {
	if f.Cell >= message.Cells || f.Priority > message.MaxPriority {
		return
	}
	c := m.cellOf(q, f.Cell)
	if c == nil || f.Seq <= c.floors[f.Priority] {
		return
	}
	if f.Index >= c.lowered {
		c.low = 0 // the scan saw all of those
	} else if c.low < f.Seq {
		return // also when it was forgotten which one was the oldest
	}
	c.floors[f.Priority] = f.Seq
	m.touch(c)
}

// expire ends leases whose deadline has passed. The lease's own length was the
// wait, so the message is ready at once; the attempt counts as failed.
func (m *Machine) expire(d *decoder) {
	number := uint32(d.uint())
	for range d.count(3) {
		at, seq, fence := int(d.byte()), d.uint(), d.uint()
		if at >= message.Cells {
			d.fail()
			return
		}
		c := m.cell(number, at)
		if c == nil {
			continue
		}
		h, ok := m.held(c, seq, fence)
		if !ok || h.lease.session != 0 || h.deadline() > m.meta.groupTime {
			continue
		}
		m.fail(h, failure{outcome: Expired, err: "lease expired", hasDelay: true})
	}
}

// held is a leased message with its lease.
type held struct {
	*stored
	lease lease
	fence uint64
}

// deadline is when the lease ends by itself, in group time.
func (h *held) deadline() int64 {
	if h.st != nil && h.st.deadline > 0 {
		return h.st.deadline
	}
	return h.lease.deadline
}

// held finds a message by its current lease. That the lease row with this
// fence is there is the compare of every settlement's compare-and-set.
func (m *Machine) held(c *cell, seq, fence uint64) (*held, bool) {
	if h := c.held[seq]; h != nil {
		return h, h.fence == fence
	}
	row, ok := m.rows.Get(c.space, m.keys.lease(seq, fence))
	if !ok {
		return nil, false
	}
	x, ok := m.load(c, seq)
	if !ok {
		return nil, false
	}
	return &held{stored: x, lease: decodeLease(row), fence: fence}, true
}

// endLease removes the lease and unlocks the key.
func (m *Machine) endLease(h *held) {
	m.rows.SingleDelete(h.cell.space, m.keys.lease(h.Seq, h.fence))
	if h.keyed() {
		m.lock(h.stored, 0)
	}
	delete(h.cell.held, h.Seq)
	h.cell.counts.Leased--
	m.touch(h.cell)
	m.effect(Effect{Kind: LeaseEnded, Queue: h.cell.queue.number, Ref: h.ref(), Fence: h.fence})
}

// stand makes sure that there is a state to write: of a message that is leased
// for the first time until now.
func (h *held) stand() *standing {
	if h.st == nil {
		h.st = &standing{state: message.Leased, deliveries: 1}
	}
	return h.st
}

// attempt is the history line of the attempt that ends now.
func (m *Machine) attempt(h *held, o Outcome, err string) Attempt {
	attempts := 0
	if h.st != nil {
		attempts = h.st.attempts
	}
	return Attempt{Outcome: o, Number: attempts + 1, LeasedAt: h.lease.at, EndedAt: m.wall, Worker: h.lease.worker, Error: err}
}
