package queue

import (
	"encoding/binary"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Cancel ends messages that nobody wants done any more. One that waits ends at
// once. One that is leased ends when its worker gives it back, however it does,
// unless it acks: then it was done. With Force its lease ends after Grace.
type Cancel struct {
	IDs   []message.ID
	Force bool
	Grace time.Duration
}

// Command encodes c. The answer is a []message.SettleResult: cancelled (AlreadyDone:
// before), leased if the worker has been asked, or why not: MESSAGE_NOT_FOUND,
// ENDED, WRONG_SHARD.
func (c *Cancel) Command() Command {
	grace := uint64(0)
	if c.Force {
		grace = uint64(millis(c.Grace)) + 1
	}
	b := append(make([]byte, 0, 16+16*len(c.IDs)), cmdCancel, laneNone)
	b = binary.AppendUvarint(b, grace)
	return Command{Head: appendIDs(b, c.IDs)}
}

func (c *Cancel) decode(d *decoder) {
	grace := d.uint()
	c.Force, c.Grace = grace > 0, time.Duration(max(grace, 1)-1)*time.Millisecond
	c.IDs = decodeIDs(d)
}

func (m *Machine) cancel(d *decoder) []message.SettleResult {
	var c Cancel
	c.decode(d)
	if d.bad {
		return nil
	}
	results := make([]message.SettleResult, len(c.IDs))
	for i, id := range c.IDs {
		results[i] = m.cancelOne(id, &c)
	}
	return results
}

func (m *Machine) cancelOne(id message.ID, c *Cancel) message.SettleResult {
	at := m.cell(id.Queue(), id.Point().Cell())
	if at == nil {
		return message.SettleResult{Err: wrongShard(id.Queue(), id.Point().Cell())}
	}
	x, ok := m.load(at, id.Seq())
	if !ok || x.place() != id {
		return m.cancelledBefore(at, id)
	}
	switch state := x.state(m.rows, &m.keys); state {
	case message.Ready, message.Scheduled:
		if x.st != nil && x.st.leaving {
			return message.SettleResult{State: state, Err: message.Errorf(message.Conflict, "message %s is on its way to its queue: cancel it when it is there", x.id())}
		}
		m.withhold(x)
		m.end(x, &finished{}, Attempt{Outcome: Cancelled, EndedAt: m.wall})
		return message.SettleResult{State: message.Cancelled}
	case message.Leased:
		m.askToCancel(x, c)
		return message.SettleResult{State: message.Leased}
	default:
		return message.SettleResult{State: state, Err: nothingToCancel(x.id(), state)}
	}
}

func (m *Machine) cancelledBefore(c *cell, id message.ID) message.SettleResult {
	f, ok := m.ended(c, id.Seq())
	if !ok {
		return message.SettleResult{Err: message.Errorf(message.MessageNotFound, "message %s is not known here, or ended too long ago", id)}
	}
	state := f.state()
	if state == message.Cancelled {
		return message.SettleResult{AlreadyDone: true, State: state}
	}
	return message.SettleResult{State: state, Err: nothingToCancel(f.id(id), state)}
}

func nothingToCancel(id message.ID, s message.State) *message.Error {
	return message.Errorf(message.Ended, "message %s is %s: there is nothing to cancel", id, s)
}

// askToCancel notes that a leased message is to end with its lease.
func (m *Machine) askToCancel(x *stored, c *Cancel) {
	l, fence, _ := currentLease(m.rows, &m.keys, x.cell, x.Seq)
	h, _ := m.held(x.cell, x.Seq, fence)
	st := h.stand()
	st.cancelling = true
	if c.Force {
		st.deadline = m.meta.groupTime + millis(c.Grace)
	}
	m.save(h.stored)
	m.effect(Effect{
		Kind: LeaseSet, Queue: x.cell.queue.number, Ref: h.ref(), Fence: fence, At: h.deadline(),
		Session: l.session, Incarnation: l.incarnation, Cancelling: true,
	})
}

// cancelling says that a leased message ends with its lease.
func (h *held) cancelling() bool { return h.st != nil && h.st.cancelling }

// cancelHeld ends a message whose worker was asked to let it go; how it did is in
// the history.
func (m *Machine) cancelHeld(h *held, o Outcome, err string) message.State {
	h.st.remember(m.attempt(h, o, message.ClipError(err)))
	m.endCancelled(h, o, Attempt{Outcome: Cancelled, EndedAt: m.wall})
	return message.Cancelled
}

// endCancelled ends a message with its lease, which ended so; last is the last line of
// its history.
func (m *Machine) endCancelled(h *held, o Outcome, last Attempt) {
	m.endLease(h, o)
	m.end(h.stored, &finished{fence: h.fence}, last)
}
