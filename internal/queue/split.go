package queue

import (
	"encoding/binary"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// Split makes two shards of one, in this group: From to At−1 and At to To. No
// row of a message is touched, whatever the backlog: whole cells change hands,
// and both halves go on from the shard's counter, so what is numbered later in
// them is higher. Bounds and epoch must be those of the shard: a split that was
// decided on an older state is refused with CONFLICT.
type Split struct {
	Queue    uint32
	From, To int // cells of the shard, both included
	Epoch    uint64
	At       int // first cell of the second half
}

// Command encodes c. The answer is nil, or a *message.Error: WRONG_SHARD,
// CONFLICT, INVALID_ARGUMENT.
func (c *Split) Command() Command {
	b := binary.AppendUvarint([]byte{cmdSplit, laneNone}, uint64(c.Queue))
	b = binary.AppendUvarint(append(b, byte(c.From), byte(c.To), byte(c.At)), c.Epoch)
	return Command{Head: b}
}

func (c *Split) decode(d *decoder) {
	c.Queue = uint32(d.uint())
	c.From, c.To, c.At = int(d.byte()), int(d.byte()), int(d.byte())
	c.Epoch = d.uint()
}

func (m *Machine) split(d *decoder) *message.Error {
	var c Split
	c.decode(d)
	q := m.queues[c.Queue]
	if d.bad || q == nil {
		return wrongShard(c.Queue, c.From)
	}
	i, err := q.exactly(c.From, c.To, c.Epoch)
	if err != nil {
		return err
	}
	s := q.shards[i]
	switch {
	case q.settings.Assign == message.AssignSingle:
		return message.Errorf(message.InvalidArgument, "the queue's messages go to a single worker (assign): it keeps one shard")
	case s.from == s.to:
		return message.Errorf(message.InvalidArgument, "shard %s has one cell and can't be split further", s.path)
	case c.At <= s.from || c.At > s.to:
		return message.Errorf(message.InvalidArgument, "shard %s can be split before cells %d to %d, not before %d", s.path, s.from+1, s.to, c.At)
	}
	halves := []*shard{
		{from: s.from, to: c.At - 1, epoch: s.epoch + 1, counter: s.counter, path: s.path + ".0", dirty: true},
		{from: c.At, to: s.to, epoch: s.epoch + 1, counter: s.counter, path: s.path + ".1", dirty: true},
	}
	q.shards = slices.Replace(q.shards, i, i+1, halves...)
	for _, half := range halves {
		for n := half.from; n <= half.to; n++ {
			if c := q.cells[n]; c != nil {
				c.shard = half
			}
		}
	}
	m.shards = append(m.shards, q)
	m.effect(Effect{Kind: Configured, Queue: c.Queue})
	return nil
}
