package queue

import (
	"math/bits"

	"github.com/comanda-mq/comanda/internal/message"
)

// failure is how an attempt failed.
type failure struct {
	outcome  Outcome
	err      string
	final    bool  // no further attempt
	hasDelay bool  // delay instead of the queue's backoff
	delay    int64 // ms
}

// fail counts a failed attempt: the message is tried again later, or is dead.
func (m *Machine) fail(h *held, f failure) message.State {
	m.giveBackLater(h)
	if h.cancelling() {
		return m.cancelHeld(h, f.outcome, f.err)
	}
	st := h.stand()
	st.remember(m.attempt(h, f.outcome, message.ClipError(f.err)))
	st.attempts++
	h.cell.totals.Failed++
	m.endLease(h, f.outcome)
	if f.final || st.attempts >= h.maxAttempts() {
		m.die(h.stored)
		return message.Dead
	}
	delay := f.delay
	if !f.hasDelay {
		delay = backoff(h.backoff(), st.attempts, h.id())
	}
	// Wake brings it back into the line, at its old place.
	st.aside = delay > 0 && h.keyed() && h.cell.queue.settings.OnFailure == message.SkipKey
	return m.retry(h.stored, delay)
}

// retry lets a message have another attempt.
func (m *Machine) retry(x *stored, delay int64) message.State {
	state := m.back(x, delay)
	if !state.Ended() { // its time may have passed
		m.count(x.cell, CountRetried)
	}
	return state
}

// maxAttempts is after how many failed attempts the message is dead.
func (x *stored) maxAttempts() int {
	if x.Retry != nil && x.Retry.MaxAttempts > 0 {
		return x.Retry.MaxAttempts
	}
	return x.cell.queue.settings.Attempts(x.keyed())
}

func (x *stored) backoff() *message.Backoff {
	if x.Retry != nil && x.Retry.Backoff.Kind != 0 {
		return &x.Retry.Backoff
	}
	return &x.cell.queue.settings.Backoff
}

// die makes a message dead where it is: its history stays with it, and its key
// goes on.
func (m *Machine) die(x *stored) {
	m.count(x.cell, CountDead)
	m.forgetExpiry(x)
	m.freeUnique(x)
	if to := &x.cell.queue.deadLetter; to.Queue != 0 && m.leaveFor(x, to) {
		m.depart(x)
		return
	}
	m.bury(x)
	m.depart(x)
}

// bury makes a message dead that is in no line.
func (m *Machine) bury(x *stored) {
	x.st.state, x.st.deadline = message.Dead, 0
	m.save(x)
	m.rows.Set(x.cell.space, m.keys.seq(rowDead, x.Seq), nil)
	x.cell.counts.Dead++
	m.touch(x.cell)
}

// backoff is how long a message waits after its n-th failed attempt (n ≥ 1),
// in ms. Jitter of ± 20 % keeps messages that failed together from coming back
// together; it is made from id and attempt, so all replicas compute the same.
func backoff(b *message.Backoff, n int, id message.ID) int64 {
	switch b.Kind {
	case message.BackoffFixed:
		return millis(b.Initial)
	case message.BackoffList:
		return millis(b.List[min(n, len(b.List))-1])
	case message.BackoffExponential:
	}
	initial, highest := millis(b.Initial), millis(b.Max)
	d := highest
	if shift := n - 1; shift < bits.LeadingZeros64(uint64(initial))-1 {
		d = min(initial<<shift, highest)
	}
	return d - d/5 + int64(jitter(id, n)%uint64(2*(d/5)+1))
}

// jitter mixes id and attempt (the finalizer of SplitMix64).
func jitter(id message.ID, n int) uint64 {
	z := beUint64(id[:8]) ^ beUint64(id[8:]) ^ uint64(n)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// redrive revives dead messages where they are, in their old place in the line
// of their key.
func (m *Machine) redrive(d *decoder) []RedriveResult {
	var c Redrive
	c.decode(d)
	if d.bad {
		return nil
	}
	results := make([]RedriveResult, len(c.IDs))
	for i, id := range c.IDs {
		results[i] = m.redriveOne(id, c.ResetAttempts)
	}
	return results
}

func (m *Machine) redriveOne(id message.ID, reset bool) *message.Error {
	c := m.cell(id.Queue(), id.Point().Cell())
	if c == nil {
		return wrongShard(id.Queue(), id.Point().Cell())
	}
	x, ok := m.load(c, id.Seq())
	if !ok || x.place() != id {
		f, ok := m.ended(c, id.Seq())
		if !ok {
			return message.Errorf(message.MessageNotFound, "message %s is not known here, or ended too long ago", id)
		}
		return notDead(f.id(id), f.state())
	}
	if x.st == nil || x.st.state != message.Dead {
		return notDead(x.id(), x.state(m.rows, &m.keys))
	}
	return m.revive(x, reset)
}

func notDead(id message.ID, s message.State) *message.Error {
	return message.Errorf(message.NotDead, "message %s is %s: only dead messages are redriven", id, s)
}

// revive makes a dead message ready, in its old place in the line of its key. A
// follow-up that could not get to its queue is on its way again.
func (m *Machine) revive(x *stored, reset bool) *message.Error {
	if x.st.leaving {
		return message.Errorf(message.Conflict, "message %s is on its way to another queue: redrive it there", x.id())
	}
	if to := x.st.bound; to.Queue != 0 {
		if !m.sendOn(x, &to) {
			return message.Errorf(message.Conflict, "message %s is a follow-up for another queue, and can't go there: %s", x.id(), x.st.history[len(x.st.history)-1].Error)
		}
		return nil
	}
	if err := m.takeUnique(x); err != nil {
		return err
	}
	c := x.cell
	m.rows.SingleDelete(c.space, m.keys.seq(rowDead, x.Seq))
	c.counts.Dead--
	x.st.unexpiring = x.Expires > 0 // whoever revives it wants it done
	x.st.dueWall = 0                // it may have died before its time
	if reset {
		x.st.attempts, x.st.deaths = 0, 0
	}
	x.st.remember(Attempt{Outcome: Redriven, EndedAt: m.wall})
	m.count(c, CountRedriven)
	m.becomeReady(x)
	m.touch(c)
	if x.keyed() {
		m.rejoin(x)
	}
	return nil
}
