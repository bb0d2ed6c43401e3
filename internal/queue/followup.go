package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/comanda-mq/comanda/internal/message"
)

// An ack may have follow-ups: messages that are sent in the entry of the ack, or not at
// all. One whose cell is in this group is there with the entry, like any that is sent.
// Any other is made here, under an id of the cell of the message that was acked, and
// leaves by that cell's outbox (outbox.go): until it has left it is scheduled, and if it
// is refused where it goes it is dead here.

// FollowUp is a message that is sent with an ack, and its queue.
type FollowUp struct {
	To Target
	Sent
}

// minFollowUp is the least that a FollowUp takes.
const minFollowUp = 1 + 16 + minSent

func appendFollowUps(b []byte, bodies [][]byte, fs []FollowUp) ([]byte, [][]byte) {
	b = binary.AppendUvarint(b, uint64(len(fs)))
	for i := range fs {
		b = fs[i].append(fs[i].To.append(b))
		bodies = append(bodies, fs[i].Body)
	}
	return b, bodies
}

func (s *settlement) decodeFollowUps(d *decoder) {
	n := d.count(minFollowUp)
	if n > message.MaxFollowUps || n > 0 && s.action != message.Ack {
		d.fail()
		return
	}
	for range n {
		f := FollowUp{To: decodeTarget(d)}
		f.decode(d)
		if f.To.Queue == 0 || f.To.Queue > message.MaxQueueNumber || f.DedupID != "" || f.UniqueKey != "" {
			d.fail()
			return
		}
		s.followUps = append(s.followUps, f)
	}
}

// sendFollowUps sends what goes with the ack of a message in a cell, all or nothing.
func (m *Machine) sendFollowUps(c *cell, fs []FollowUp) ([]message.ID, *message.Error) {
	if len(fs) == 0 {
		return nil, nil
	}
	if err := m.mayFollowUp(c, fs); err != nil {
		return nil, err
	}
	ids := make([]message.ID, len(fs))
	for i := range fs {
		q := m.here(&fs[i])
		if q == nil {
			ids[i] = m.sendAway(c, &fs[i])
			continue
		}
		r := m.sendOne(q, &fs[i].Sent)
		if r.Err != nil {
			must(fmt.Errorf("queue: entry %d: follow-up %d of an ack is refused, after it was found good: %w", m.index, i, r.Err))
		}
		ids[i] = r.ID
	}
	return ids, nil
}

// here is a follow-up's queue, if the cell is in this group where it is to be.
func (m *Machine) here(f *FollowUp) *queue {
	if q := m.queues[f.To.Queue]; q != nil && m.cellOf(q, f.Cell) != nil {
		return q
	}
	return nil
}

// mayFollowUp finds out whether all follow-ups can be sent, and writes nothing.
func (m *Machine) mayFollowUp(c *cell, fs []FollowUp) *message.Error {
	var away, bytes int64
	for i := range fs {
		f := &fs[i]
		at := c
		var err *message.Error
		if q := m.here(f); q != nil {
			var x stored
			x, err = m.sendable(q, &f.Sent)
			at = x.cell
		} else {
			var h Head
			h, err = m.newHead(&f.Sent)
			away, bytes = away+1, bytes+h.answer()
		}
		switch {
		case err != nil:
			return message.Errorf(err.Code, "follow-up %d of %d: %s", i+1, len(fs), err.Text)
		case at.shard.counter+2*message.MaxFollowUps >= message.MaxSequence: // one away takes two numbers
			return sequencesUsed(at.shard)
		}
	}
	return c.mayPost(away, bytes)
}

// sendAway puts a follow-up on its way to another group.
func (m *Machine) sendAway(c *cell, f *FollowUp) message.ID {
	h, _ := m.newHead(&f.Sent) // which was found good
	x := &stored{Head: h, cell: c, st: &standing{state: message.Scheduled, dueWall: h.DueWall, leaving: true, bound: f.To}}
	m.write(x, f.Body)
	m.post(x, Line{Queue: f.To.Queue, Cell: f.Cell}, &f.To.Secret)
	return x.id()
}
