package queue

import (
	"github.com/comanda-mq/comanda/internal/message"
)

// setTimer makes a moment known to whoever looks for due ones.
func (m *Machine) setTimer(x *stored, kind TimerKind, due int64, counter uint32) {
	m.rows.Set(x.cell.space, m.keys.timer(kind, due, x.Seq, counter), nil)
	m.due(TimerRef{Cell: x.cell.number, Kind: kind, Due: due}, x.cell.queue.number)
}

func (m *Machine) due(t TimerRef, queueNumber uint32) {
	m.effect(Effect{Kind: Due, Queue: queueNumber, Ref: Ref{Cell: t.Cell}, Timer: t.Kind, At: t.Due})
}

// schedule lets a message wait, as it was sent or as its state says.
func (m *Machine) schedule(x *stored) {
	x.cell.counts.Scheduled++
	kind, due := x.waitsFor()
	m.setTimer(x, kind, due, x.counter())
}

// waitsFor is the timer of a scheduled message.
func (x *stored) waitsFor() (kind TimerKind, due int64) {
	switch {
	case x.st != nil:
		return TimerDelay, x.st.due
	case x.At > 0:
		return TimerDeliver, x.At
	}
	return TimerDelay, x.Due
}

// wake does what is due.
func (m *Machine) wake(d *decoder) {
	var w Wake
	w.decode(d)
	if d.bad {
		return
	}
	for _, t := range w.Timers {
		c := m.cell(w.Queue, t.Cell)
		if c == nil || !m.rows.Has(c.space, m.keys.timer(t.Kind, t.Due, t.Seq, t.Counter)) {
			continue
		}
		if t.Kind == TimerPace {
			m.lookAtPace(c, t)
			continue
		}
		now := m.meta.groupTime
		if t.Kind.Wall() {
			now = m.wall
		}
		if t.Due > now {
			m.due(t, w.Queue) // the leader's wall clock has gone back since: it comes again
			continue
		}
		if t.Kind == TimerWindow {
			m.endWindow(c, t)
			continue
		}
		m.rows.SingleDelete(c.space, m.keys.timer(t.Kind, t.Due, t.Seq, t.Counter))
		x, ok := m.load(c, t.Seq)
		switch {
		case !ok:
		case t.Kind == TimerExpire:
			m.lapse(x)
		case x.counter() == t.Counter:
			m.start(x)
		}
	}
}

// start makes a scheduled message ready.
func (m *Machine) start(x *stored) {
	if x.st == nil {
		x.st = &standing{}
	}
	aside := x.st.aside
	x.st.aside = false
	x.cell.counts.Scheduled--
	m.becomeReady(x)
	m.touch(x.cell)
	switch {
	case aside:
		m.rejoin(x)
	case x.keyed():
		m.offer(x)
	}
}

// expired says that a message's time has passed.
func (m *Machine) expired(x *stored) bool { return x.expires() && x.Expires <= m.wall }

func (x *stored) expires() bool { return x.Expires > 0 && (x.st == nil || !x.st.unexpiring) }

// lapse ends a message whose time has passed, if it waits. One that is leased may
// still be done: it ends when it comes back (back).
func (m *Machine) lapse(x *stored) {
	switch x.state(m.rows, &m.keys) {
	case message.Ready, message.Scheduled:
		m.withhold(x)
		m.expire(x)
	case message.Leased, message.Finished, message.Dead, message.Expired, message.Cancelled:
	}
}

// withhold takes a message out of those that wait, but not out of its key's line.
func (m *Machine) withhold(x *stored) {
	state := x.state(m.rows, &m.keys)
	if state == message.Scheduled {
		kind, due := x.waitsFor()
		m.rows.SingleDelete(x.cell.space, m.keys.timer(kind, due, x.Seq, x.counter()))
		x.cell.counts.Scheduled--
	} else {
		x.cell.counts.Ready--
	}
	if x.st != nil && x.st.aside {
		x.outside, x.st.aside = true, false
	} else if x.behind = x.keyed() && !m.hasTurn(x); !x.behind && state == message.Ready {
		m.withdraw(x)
	}
	m.effect(Effect{Kind: Withheld, Queue: x.cell.queue.number, Ref: x.ref()})
	m.touch(x.cell)
}

// expire ends a message that waits for nothing, as its queue wants it.
func (m *Machine) expire(x *stored) message.State {
	m.count(x.cell, CountExpired)
	line := Attempt{Outcome: Lapsed, EndedAt: m.wall}
	if x.cell.queue.settings.OnExpired == message.ExpiredDead {
		if x.st == nil {
			x.st = &standing{}
		}
		x.st.remember(line)
		m.die(x)
		return message.Dead
	}
	m.end(x, &finished{}, line)
	return message.Expired
}

// watchExpiry sets the timer of a message's end, unless it is there.
func (m *Machine) watchExpiry(x *stored) {
	if x.expires() && !m.rows.Has(x.cell.space, m.keys.timer(TimerExpire, x.Expires, x.Seq, 0)) {
		m.setTimer(x, TimerExpire, x.Expires, 0)
	}
}

// forgetExpiry removes it, if it is there.
func (m *Machine) forgetExpiry(x *stored) {
	if k := m.keys.timer(TimerExpire, x.Expires, x.Seq, 0); x.Expires > 0 && m.rows.Has(x.cell.space, k) {
		m.rows.SingleDelete(x.cell.space, k)
	}
}
