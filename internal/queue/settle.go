package queue

import (
	"github.com/comanda-mq/comanda/internal/message"
)

func (m *Machine) settle(d *decoder, e *entry, kind byte) []message.SettleResult {
	results := make([]message.SettleResult, d.count(minSettlement))
	var s settlement
	for i := range results {
		s.decode(d, kind)
		if len(e.bodies) < len(s.followUps) {
			d.fail()
			return nil
		}
		for n := range s.followUps {
			s.followUps[n].Body = e.bodies[n]
		}
		e.bodies = e.bodies[len(s.followUps):]
		results[i] = m.settleOne(&s)
	}
	return results
}

func (m *Machine) settleOne(s *settlement) message.SettleResult {
	number := s.at.Point().Cell()
	c := m.cell(s.at.Queue(), number)
	if c == nil {
		return message.SettleResult{Err: wrongShard(s.at.Queue(), number)}
	}
	h, ok := m.held(c, s.at.Seq(), s.fence)
	if !ok || h.lease.session != s.session {
		return m.refuse(c, s)
	}
	if s.session != 0 && !m.live(&h.lease) {
		return message.SettleResult{State: message.Leased, Err: message.Errorf(message.Fenced, "the session that held message %s has ended: stop working on it", h.id())}
	}
	switch s.action {
	case message.Ack:
		ids, err := m.sendFollowUps(c, s.followUps)
		if err != nil {
			return message.SettleResult{State: message.Leased, Err: err}
		}
		m.ack(h, ids)
		return message.SettleResult{State: message.Finished, FollowUps: ids}
	case message.Nack:
		return message.SettleResult{State: m.fail(h, failure{outcome: Nacked, err: s.err, hasDelay: s.hasDelay, delay: s.delay})}
	case message.Reject:
		return message.SettleResult{State: m.fail(h, failure{outcome: Rejected, err: s.err, final: true})}
	case message.Release:
		return message.SettleResult{State: m.release(h, s.delay)}
	case message.Extend:
		if s.session != 0 {
			return message.SettleResult{State: message.Leased} // it has no deadline
		}
		if h.cancelling() {
			return message.SettleResult{State: message.Leased, Err: message.Errorf(message.CancelRequested, "message %s is to be cancelled: stop working on it and give it back", h.id())}
		}
		m.extend(h, m.meta.groupTime+s.lease)
		for _, x := range m.later(h) {
			if !x.cancelling() && x.deadline() < h.deadline() {
				m.extend(x, h.deadline()) // they are not begun before h is done
			}
		}
		return message.SettleResult{State: message.Leased}
	}
	return message.SettleResult{Err: message.Errorf(message.InvalidArgument, "a settlement has no action")}
}

// extend sets a lease's deadline.
func (m *Machine) extend(h *held, deadline int64) {
	h.stand().deadline = deadline
	m.save(h.stored)
	m.effect(Effect{Kind: LeaseSet, Queue: h.cell.queue.number, Ref: h.ref(), Fence: h.fence, At: deadline})
}

// refuse says why a token no longer settles anything.
func (m *Machine) refuse(c *cell, s *settlement) message.SettleResult {
	if f, ok := m.ended(c, s.at.Seq()); ok {
		if s.action == message.Ack && f.fence == s.fence && f.state() == message.Finished {
			if n := len(s.followUps); n > 0 && n != len(f.followUps) {
				return message.SettleResult{State: message.Finished, Err: message.Errorf(message.Fenced, "message %s was acked before with %d follow-ups: these %d are not sent", f.id(s.at), len(f.followUps), n)}
			}
			return message.SettleResult{AlreadyDone: true, State: message.Finished, FollowUps: f.followUps}
		}
		state := f.state()
		return message.SettleResult{State: state, Err: message.Errorf(message.Fenced, "message %s is %s", f.id(s.at), state)}
	}
	x, ok := m.load(c, s.at.Seq())
	if !ok {
		return message.SettleResult{Err: message.Errorf(message.Gone, "message %s was settled too long ago to say how", s.at)}
	}
	state := x.state(m.rows, &m.keys)
	return message.SettleResult{State: state, Err: message.Errorf(message.Fenced, "the lease on message %s has ended and the message is %s: stop working on it", x.id(), state)}
}

// ack finishes a message, with which others were sent.
func (m *Machine) ack(h *held, followUps []message.ID) {
	line := m.attempt(h, Acked, "")
	h.cell.totals.Finished++
	m.endLease(h, Acked)
	m.end(h.stored, &finished{fence: h.fence, deliveries: 1, followUps: followUps}, line)
}

// end removes a message: its rows go, a header stays in the ring for a while. f has
// what is not in them, and last is the last line of its history.
func (m *Machine) end(x *stored, f *finished, last Attempt) {
	f.at, f.sentAt, f.key, f.hash, f.kind, f.bodySize = m.wall, x.SentAt, x.Key, x.Hash, x.Type, x.BodySize
	f.dedup, f.unique, f.tenant, f.foreign = x.Dedup, x.Unique, x.Tenant, x.Foreign
	if x.st != nil {
		f.attempts, f.deliveries, f.deaths, f.history = x.st.attempts, x.st.deliveries, x.st.deaths, x.st.history
		m.rows.Delete(x.cell.space, m.keys.seq(rowState, x.Seq))
	}
	f.history = append(f.history, last)
	m.rows.SingleDelete(x.cell.space, m.keys.seq(rowData, x.Seq))
	if x.apart {
		m.rows.SingleDelete(x.cell.space, m.keys.seq(rowBody, x.Seq))
	}
	m.forgetExpiry(x)
	m.freeUnique(x)
	m.finish(x, f)
	m.depart(x)
}

// release gives a message back without counting an attempt.
func (m *Machine) release(h *held, delay int64) message.State {
	m.giveBackLater(h)
	return m.giveBack(h, delay, "")
}

// giveBack does so with one message; why says what it had nothing to do with.
func (m *Machine) giveBack(h *held, delay int64, why string) message.State {
	if h.cancelling() {
		return m.cancelHeld(h, Released, why)
	}
	h.stand().remember(m.attempt(h, Released, why))
	m.endLease(h, Released)
	return m.back(h.stored, delay)
}

// back returns a message that was leased to those that wait, unless its time has
// passed meanwhile.
func (m *Machine) back(x *stored, delay int64) message.State {
	if m.expired(x) {
		x.st.aside = false
		return m.expire(x)
	}
	m.watchExpiry(x) // it may have fired while the message was leased
	x.st.deadline = 0
	if delay > 0 {
		x.st.state, x.st.due, x.st.dueWall = message.Scheduled, m.meta.groupTime+delay, m.wall+delay
		m.save(x)
		m.schedule(x)
	} else {
		m.becomeReady(x)
	}
	if x.keyed() {
		if x.st.aside {
			m.leave(x)
		}
		// Unlocked, but a head that waits for its time keeps the key (advance
		// knows); an earlier message that was redriven meanwhile goes first.
		m.advance(x.cell, x.Hash)
	}
	return x.st.state
}

// becomeReady writes the state. A keyed message is offered by advance or offer.
func (m *Machine) becomeReady(x *stored) {
	x.st.state, x.st.due = message.Ready, 0
	m.save(x)
	x.cell.counts.Ready++
	if !x.keyed() {
		m.publish(x)
	}
}
