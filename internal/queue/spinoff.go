package queue

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// SpinOff makes a group of its own of a shard, with a replica on each node that
// has one of this group. At this entry everything changes hands: the shard with
// its counter, and no row of its messages is touched; the sessions that are
// attached here and the answers that are kept for senders are then in both
// groups, for what they are about may be in either. From here on this group
// answers WRONG_SHARD for the shard's cells.
//
// Bounds and epoch must be those of the shard, and Replicas exactly the group's
// voters and learners: what was decided on an older state is refused with
// CONFLICT.
type SpinOff struct {
	Queue    uint32
	From, To int // cells of the shard, both included
	Epoch    uint64
	Group    uint64        // that is made; the catalog has given the number
	Replicas []ReplicaPair // one for each node
}

// ReplicaPair is a replica of this group and the one of the new group beside it.
type ReplicaPair struct{ Here, There uint64 }

// maxPairs is more than a group has voters and learners.
const maxPairs = 16

// Command encodes c. The answer is nil, or a *message.Error: WRONG_SHARD,
// CONFLICT.
func (c *SpinOff) Command() Command {
	b := binary.AppendUvarint([]byte{cmdSpinOff, laneNone}, uint64(c.Queue))
	b = binary.AppendUvarint(append(b, byte(c.From), byte(c.To)), c.Epoch)
	b = binary.AppendUvarint(b, c.Group)
	b = binary.AppendUvarint(b, uint64(len(c.Replicas)))
	for _, p := range c.Replicas {
		b = binary.AppendUvarint(binary.AppendUvarint(b, p.Here), p.There)
	}
	return Command{Head: b}
}

func (c *SpinOff) decode(d *decoder) {
	c.Queue = uint32(d.uint())
	c.From, c.To = int(d.byte()), int(d.byte())
	c.Epoch, c.Group = d.uint(), d.uint()
	n := d.count(2)
	if n > maxPairs || c.Group == 0 {
		d.fail()
		return
	}
	c.Replicas = make([]ReplicaPair, n)
	for i := range c.Replicas {
		c.Replicas[i] = ReplicaPair{Here: d.uint(), There: d.uint()}
	}
}

func (m *Machine) spinOff(d *decoder) *message.Error {
	var c SpinOff
	c.decode(d)
	q := m.queues[c.Queue]
	if d.bad || q == nil {
		return wrongShard(c.Queue, c.From)
	}
	i, err := q.exactly(c.From, c.To, c.Epoch)
	if err != nil {
		return err
	}
	if why := q.settings.Together(); why != "" && len(q.shards) > 1 {
		return message.Errorf(message.InvalidArgument, "the queue's %s counts over all its messages: its shards stay in one group", why)
	}
	s := q.shards[i]
	replicas := map[uint64]uint64{}
	for _, p := range c.Replicas {
		replicas[p.Here] = p.There
	}
	spaces := make([]uint64, 0, message.Cells)
	for n := s.from; n <= s.to; n++ {
		spaces = append(spaces, spaceOf(q.number, n))
	}
	// What earlier commands of the entry have changed goes along.
	m.flush()
	set, err := m.rows.SpinOff(c.Group, replicas, spaces)
	if err != nil {
		return err
	}
	m.endow(set, q, s)
	m.letGo(q, i)
	m.effect(Effect{Kind: Configured, Queue: c.Queue})
	return nil
}

// exactly finds the shard with these bounds and this epoch.
func (q *queue) exactly(from, to int, epoch uint64) (i int, err *message.Error) {
	i = slices.IndexFunc(q.shards, func(s *shard) bool { return s.from <= from && from <= s.to })
	if i < 0 {
		return i, wrongShard(q.number, from)
	}
	if s := q.shards[i]; s.from != from || s.to != to || s.epoch != epoch {
		return i, message.Errorf(message.Conflict, "shard %s has cells %d to %d and epoch %d, not %d to %d and %d: it was split since you looked", s.path, s.from, s.to, s.epoch, from, to, epoch)
	}
	return i, nil
}

// endow writes the first rows of the group that gets the shard.
func (m *Machine) endow(set func(key, value []byte), q *queue, s *shard) {
	set(m.keys.one(rowGroup), m.meta.append(nil))
	set(m.keys.queue(q.number), q.append(nil))
	if q.next > 0 {
		set(m.keys.pace(q.number), binary.BigEndian.AppendUint64(nil, uint64(q.next)))
	}
	there := shard{from: s.from, to: s.to, epoch: s.epoch + 1, counter: s.counter, path: s.path}
	set(m.keys.shard(q.number, s.from), there.append(nil))
	for _, kind := range []byte{rowSession, rowLane, rowExecuted} {
		m.rows.Scan(groupSpace, []byte{kind}, []byte{kind + 1}, func(k, v []byte) bool {
			set(k, v)
			return true
		})
	}
}

// letGo takes a shard out of this group. The queue stays, even without a shard: a
// catalog that does not know of the move yet must not bring the shard back.
func (m *Machine) letGo(q *queue, i int) {
	s := q.shards[i]
	m.rows.Delete(groupSpace, m.keys.shard(q.number, s.from))
	q.shards = slices.Delete(q.shards, i, i+1)
	for n := s.from; n <= s.to; n++ {
		q.cells[n] = nil
	}
	maps.DeleteFunc(m.lines, func(_ lineKey, l *line) bool { return l.cell.shard == s })
}
