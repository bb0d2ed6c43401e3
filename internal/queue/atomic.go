package queue

import (
	"fmt"

	"github.com/comanda-mq/comanda/internal/message"
)

// sendAtomic stores all messages of a Send or none: it looks at each, with those
// before it in mind, before it writes anything.
func (m *Machine) sendAtomic(d *decoder, e *entry) []message.SendResult {
	number := uint32(d.uint())
	sents := make([]Sent, d.count(minSent))
	for i := range sents {
		sents[i].decode(d)
	}
	if d.bad || len(e.bodies) < len(sents) {
		d.fail()
		return nil
	}
	for i := range sents {
		sents[i].Body = e.bodies[i]
	}
	e.bodies = e.bodies[len(sents):]
	results := make([]message.SendResult, len(sents))
	q := m.queues[number]
	if err := m.oneShard(q, number, sents); err != nil {
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	r := rehearsal{m: m, marks: map[string]int{}, dedups: map[*cell]int{}}
	refused := false
	for i := range sents {
		results[i].Err = r.send(q, &sents[i], i, len(sents))
		refused = refused || results[i].Err != nil
	}
	if refused {
		RefuseBatch(results)
		return results
	}
	for i := range sents {
		if results[i] = m.sendOne(q, &sents[i]); results[i].Err != nil {
			must(fmt.Errorf("queue: entry %d: message %d of an atomic batch is refused, after it was found good: %w", m.index, i, results[i].Err))
		}
	}
	return results
}

// RefuseBatch says of the messages of an atomic batch that have no error of their own
// which one is the reason that they are not stored: the first that has.
func RefuseBatch(results []message.SendResult) {
	for i := range results {
		if results[i].Err == nil {
			continue
		}
		why := message.Errorf(message.BatchRefused, "not stored: the batch is atomic, and its message %d of %d is refused with %s", i+1, len(results), results[i].Err.Code)
		for j := range results {
			if results[j].Err == nil {
				results[j] = message.SendResult{Err: why}
			}
		}
		return
	}
}

// oneShard refuses a batch that is not in one shard of this group: since its sender
// looked, the queue was split or moved.
func (m *Machine) oneShard(q *queue, number uint32, sents []Sent) *message.Error {
	var at *shard
	for i := range sents {
		if q == nil {
			return wrongShard(number, sents[i].Cell)
		}
		c := m.cellOf(q, sents[i].Cell)
		if c == nil || at != nil && c.shard != at {
			return wrongShard(number, sents[i].Cell)
		}
		at = c.shard
	}
	if at != nil && at.counter+uint64(len(sents)) >= message.MaxSequence {
		return sequencesUsed(at)
	}
	return nil
}

// rehearsal finds out what a batch's messages will be answered, and writes nothing.
type rehearsal struct {
	m      *Machine
	marks  map[string]int // the dedup ids and unique keys that the batch brings, by whose message
	dedups map[*cell]int  // how many dedup ids a cell will have more
}

// send says why message i of n would be refused. One that adds nothing, as a dedup id
// or a unique key says, is good.
func (r *rehearsal) send(q *queue, s *Sent, i, n int) *message.Error {
	made, err := r.m.sendable(q, s)
	if err != nil {
		return err
	}
	x := &made
	first, due := r.m.firstOf(x)
	ended := first != 0 && due <= r.m.meta.groupTime
	if _, earlier := r.holder(x, rowDedup, x.Dedup); earlier || first != 0 && !ended {
		return nil
	}
	holder, earlier := r.holder(x, rowUnique, x.Unique)
	other := r.m.uniqueHolder(x)
	switch {
	case (earlier || other != 0) && s.OnConflict == message.ConflictExisting:
		return nil
	case earlier:
		return message.Errorf(message.Conflict, "message %d of the batch's %d has the unique key %q already", holder+1, n, x.Unique.Name)
	case other != 0:
		return uniqueTaken(x, message.NewID(q.number, x.point(), other))
	}
	if x.Dedup != nil {
		if ended {
			r.dedups[x.cell]--
		}
		if int(x.cell.dedups)+r.dedups[x.cell] >= maxDedups {
			return dedupsFull(x.cell)
		}
		if q.settings.DedupWindow > 0 {
			r.dedups[x.cell]++
			r.marks[r.name(x, rowDedup, x.Dedup)] = i
		}
	}
	if x.Unique != nil {
		r.marks[r.name(x, rowUnique, x.Unique)] = i
	}
	return nil
}

// holder is the earlier message of the batch that has a mark.
func (r *rehearsal) holder(x *stored, kind byte, mark *Mark) (i int, ok bool) {
	if mark == nil {
		return 0, false
	}
	i, ok = r.marks[r.name(x, kind, mark)]
	return i, ok
}

// name is where a mark's row will be; points say which cell.
func (r *rehearsal) name(x *stored, kind byte, mark *Mark) string {
	return string(r.m.keys.mark(kind, x.point(), mark.Hash))
}
