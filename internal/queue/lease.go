package queue

import (
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// lease hands out what the leader chose and what is still free to go.
func (m *Machine) lease(d *decoder) LeaseResult {
	var c Lease
	c.decode(d)
	q := m.queues[c.Queue]
	switch {
	case d.bad:
		return LeaseResult{}
	case q == nil:
		return LeaseResult{Err: wrongShard(c.Queue, 0)}
	case q.paused:
		return LeaseResult{Err: message.Errorf(message.Unavailable, "the queue is paused")}
	}
	l := lease{session: c.Session.ID, incarnation: c.Session.Incarnation, length: millis(c.Length), at: m.wall, worker: c.Worker}
	if l.session == 0 {
		l.deadline = m.meta.groupTime + l.length
	} else if err := m.attach(c.Session); err != nil {
		return LeaseResult{Err: err}
	}
	var r LeaseResult
	for _, ref := range c.Items {
		x := m.offered(q, ref)
		if x != nil {
			if err := m.mayPace(x); err != nil {
				if len(r.Leased) == 0 {
					r.Err = err
				}
				break
			}
			if c.MaxBytes -= int(x.answer()); c.MaxBytes < 0 && len(r.Leased) > 0 {
				break // a first one goes out whatever its size
			}
			m.rows.SingleDelete(x.cell.space, m.keys.ready(x.turn(), ref.Seq, ref.Counter))
			r.Leased = append(r.Leased, m.leaseOne(x, ref, &l))
		}
		r.Looked++
	}
	m.follow(q, &c, &l, &r)
	m.pace(q, len(r.Leased))
	for _, f := range c.Floors {
		m.raiseFloor(q, f)
	}
	return r
}

// offered finds a message that may go out as somebody saw it; nil if it has
// changed since. The ready row is there exactly if it may (package comment).
func (m *Machine) offered(q *queue, ref Ref) *stored {
	c := m.cellOf(q, ref.Cell)
	if c == nil || c.shard.full() {
		return nil
	}
	x, ok := m.loadAt(c, ref.Seq, ref.Counter)
	if !ok || !m.rows.Has(c.space, m.keys.ready(Turn{ref.Priority, x.TenantHash}, ref.Seq, ref.Counter)) {
		return nil
	}
	if m.expired(x) {
		m.lapse(x) // before its timer
		return nil
	}
	if message.PauseOf(q.pauses.list, x.Key, x.Tenant) != nil {
		return nil // its ready row stays
	}
	return x
}

func (m *Machine) leaseOne(x *stored, ref Ref, l *lease) Leased {
	c := x.cell
	fence := m.next(c)
	m.buf = l.append(m.buf[:0])
	m.rows.Set(c.space, m.keys.lease(x.Seq, fence), m.buf)
	if x.keyed() {
		m.lock(x)
		m.paceKey(x)
	}
	if x.st != nil {
		x.st.state, x.st.deadline = message.Leased, 0
		x.st.deliveries++
		m.save(x)
	}
	h := &held{stored: x, lease: *l, fence: fence}
	got := m.leased(h)
	if len(c.held) < maxHeld {
		x.body, x.Attributes = nil, nil // parts of the row, which would be kept with them
		c.held[x.Seq] = h
	}
	c.counts.Ready--
	c.counts.Leased++
	c.totals.Delivered++
	m.touch(c)
	m.effect(Effect{Kind: LeaseSet, Queue: c.queue.number, Ref: ref, Fence: fence, At: l.deadline, Session: l.session, Incarnation: l.incarnation})
	return got
}

// leased is the answer to whoever holds h, whose body was just read.
func (m *Machine) leased(h *held) Leased {
	got := Leased{ID: h.id(), Ref: h.ref(), Fence: h.fence, Deliveries: 1, Deadline: h.deadline(), Head: h.Head, Body: h.fullBody(m.rows, &m.keys)}
	if h.Foreign != (message.ID{}) {
		got.Place = h.place()
	}
	if h.st != nil {
		got.Attempts, got.Deliveries = h.st.attempts, h.st.deliveries
	}
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

// expireLeases ends leases. After a deadline the lease's own length was the wait, so
// the message is ready at once; the attempt counts as failed. When its session
// ended, it is the worker that failed.
func (m *Machine) expireLeases(d *decoder) {
	m.eachHeld(d, func(h *held) {
		h = m.firstOver(h)
		switch {
		case m.lost(h):
			m.lose(h)
		case m.overdue(h) && h.cancelling(): // also of a session, by force
			m.giveBackLater(h)
			m.endCancelled(h, Cancelled, m.attempt(h, Cancelled, ""))
		case m.overdue(h):
			m.fail(h, failure{outcome: Expired, err: "lease expired", hasDelay: true})
		}
	})
}

// lost says that a lease's session has ended, overdue that its deadline has passed.
func (m *Machine) lost(h *held) bool { return h.lease.session != 0 && !m.live(&h.lease) }

func (m *Machine) overdue(h *held) bool {
	return h.deadline() > 0 && h.deadline() <= m.meta.groupTime
}

// eachHeld visits those of a command's leases that still stand.
func (m *Machine) eachHeld(d *decoder, visit func(*held)) {
	number, leases := decodeLeaseRefs(d)
	if d.bad {
		return
	}
	for _, l := range leases {
		if c := m.cell(number, l.Cell); c != nil {
			if h, ok := m.held(c, l.Seq, l.Fence); ok {
				visit(h)
			}
		}
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
func (m *Machine) endLease(h *held, o Outcome) {
	m.rows.SingleDelete(h.cell.space, m.keys.lease(h.Seq, h.fence))
	if h.keyed() {
		m.unlock(h.stored)
	}
	delete(h.cell.held, h.Seq)
	h.cell.counts.Leased--
	m.touch(h.cell)
	m.effect(Effect{
		Kind: LeaseEnded, Queue: h.cell.queue.number, Ref: h.ref(), Fence: h.fence,
		Outcome: o, Held: time.Duration(m.wall-h.lease.at) * time.Millisecond,
	})
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
