package queue

import (
	"encoding/binary"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// A redrive that is an operation goes through the dead messages of each cell once,
// in the order of their numbers. How far it is lies in the cell: a step says from
// where to where it goes and is compared with that, so a step that comes twice, or
// from a runner that was deposed, does nothing. A message that dies again lies
// behind the position and is left alone.

// RedriveSome is a step: those of Messages that are dead and unchanged live again.
type RedriveSome struct {
	Queue         uint32
	Cell          int
	Operation     uint64
	After         uint64 // where the operation stood
	Through       uint64 // where it stands now
	ResetAttempts bool
	To            Target // the queue that they are to live in; none: where they are
	Messages      []DeadRef
}

// Flags of a RedriveSome.
const (
	redriveReset = 1 << iota
	redriveTo    // a queue follows
)

// DeadRef is a dead message as somebody saw it.
type DeadRef struct {
	Seq     uint64
	Counter uint32
}

// Progress is how far an operation is in a cell: the answer to a RedriveSome.
type Progress struct {
	After             uint64 // its position
	Redriven, Skipped uint64 // so far
	// Err: nothing was done. WRONG_SHARD; CONFLICT: a later operation has begun.
	Err *message.Error
}

// Command encodes c.
func (c *RedriveSome) Command() Command {
	b := binary.AppendUvarint([]byte{cmdRedriveSome, laneNone}, uint64(c.Queue))
	b = binary.AppendUvarint(append(b, byte(c.Cell)), c.Operation)
	b = binary.AppendUvarint(binary.AppendUvarint(b, c.After), c.Through)
	var flags byte
	if c.ResetAttempts {
		flags |= redriveReset
	}
	if c.To.Queue != 0 {
		flags |= redriveTo
	}
	b = append(b, flags)
	if c.To.Queue != 0 {
		b = c.To.append(b)
	}
	b = binary.AppendUvarint(b, uint64(len(c.Messages)))
	for _, r := range c.Messages {
		b = binary.AppendUvarint(binary.AppendUvarint(b, r.Seq), uint64(r.Counter))
	}
	return Command{Head: b}
}

func (c *RedriveSome) decode(d *decoder) {
	c.Queue, c.Cell, c.Operation = uint32(d.uint()), int(d.byte()), d.uint()
	c.After, c.Through = d.uint(), d.uint()
	flags := d.byte()
	c.ResetAttempts = flags&redriveReset != 0
	if flags&redriveTo != 0 {
		c.To = decodeTarget(d)
	}
	if flags >= redriveTo<<1 {
		d.fail() // of a newer version
	}
	c.Messages = make([]DeadRef, d.count(2))
	for i := range c.Messages {
		c.Messages[i] = DeadRef{Seq: d.uint(), Counter: uint32(d.uint())}
	}
	if c.Cell >= message.Cells {
		d.fail()
		c.Cell = 0
	}
}

func (m *Machine) redriveSome(d *decoder) Progress {
	var c RedriveSome
	c.decode(d)
	if d.bad {
		return Progress{}
	}
	at := m.cell(c.Queue, c.Cell)
	if at == nil {
		return Progress{Err: wrongShard(c.Queue, c.Cell)}
	}
	operation, p := redriveProgress(m.rows, &m.keys, at.space, c.Operation)
	switch {
	case operation > c.Operation:
		return Progress{Err: message.Errorf(message.Conflict, "operation %d revives messages here, operation %d is over", operation, c.Operation)}
	case p.After != c.After || c.Through <= c.After:
		return p
	}
	for _, r := range c.Messages {
		x, ok := m.load(at, r.Seq)
		if ok && r.Seq > p.After && r.Seq <= c.Through && x.st != nil && x.st.counter == r.Counter && x.st.state == message.Dead && m.redriveTo(x, &c) {
			p.Redriven++
		} else {
			p.Skipped++
		}
		p.After = max(p.After, r.Seq) // none twice in one step
	}
	p.After = c.Through
	m.buf = binary.AppendUvarint(m.buf[:0], c.Operation)
	for _, v := range []uint64{p.After, p.Redriven, p.Skipped} {
		m.buf = binary.AppendUvarint(m.buf, v)
	}
	m.rows.Set(at.space, m.keys.one(rowRedrive), m.buf)
	return p
}

// redriveTo revives a dead message, here or in another queue. false: it stays dead.
func (m *Machine) redriveTo(x *stored, c *RedriveSome) bool {
	if c.To.Queue == 0 || c.To.Queue == c.Queue {
		return m.revive(x, c.ResetAttempts) == nil
	}
	if x.st.leaving {
		return false // it is on its way already
	}
	return m.sendOn(x, &c.To)
}

// sendOn lets a dead message go to another queue. false: it stays dead, and its history
// says why.
func (m *Machine) sendOn(x *stored, to *Target) bool {
	gone := m.leaveFor(x, to)
	if gone {
		m.rows.SingleDelete(x.cell.space, m.keys.seq(rowDead, x.Seq))
		x.cell.counts.Dead--
	} else {
		m.save(x)
	}
	if gone || x.st.leaving {
		m.count(x.cell, CountRedriven)
	}
	return gone || x.st.leaving
}

// redriveProgress reads how far an operation is in a cell. Another one that the row
// is of is named: an earlier one is over.
func redriveProgress(rows Reader, k *keys, space, operation uint64) (of uint64, p Progress) {
	row, ok := rows.Get(space, k.one(rowRedrive))
	if !ok {
		return 0, p
	}
	of, p = decodeProgress(row)
	if of != operation {
		p = Progress{}
	}
	return of, p
}

func decodeProgress(row []byte) (operation uint64, p Progress) {
	d := decoder{b: row}
	operation, p = d.uint(), Progress{After: d.uint(), Redriven: d.uint(), Skipped: d.uint()}
	must(d.end("the row of a redrive"))
	return operation, p
}

// DeadQuery asks for the dead messages of a cell that a filter chooses, by number.
type DeadQuery struct {
	Queue uint32 `json:"queue"`
	Cell  int    `json:"cell"`
	// Operation that revives them: those that it has not come to. 0: from after After.
	Operation uint64             `json:"operation,omitempty"`
	After     uint64             `json:"after,omitempty"`
	Through   uint64             `json:"through,omitempty"` // up to this one; 0: to the last
	Limit     int                `json:"limit,omitempty"`   // 0: count them only
	Filter    message.DeadFilter `json:"filter"`
}

// Dead is the answer to a DeadQuery.
type Dead struct {
	Progress Progress
	Messages []DeadRef
	Count    int
	Through  uint64 // the last that was looked at, chosen or not; 0: there was none
	More     bool   // there may be others behind it
}

func (q *DeadQuery) run(rows Reader) *Dead {
	var k keys
	c := &cell{queue: &queue{number: q.Queue}, number: q.Cell, space: spaceOf(q.Queue, q.Cell)}
	a := &Dead{}
	after := q.After
	if q.Operation > 0 {
		_, a.Progress = redriveProgress(rows, &k, c.space, q.Operation)
		after = a.Progress.After
	}
	found := scanSeqs(rows, c.space, rowDead, slices.Clone(k.seq(rowDead, after+1)), []byte{rowDead + 1}, message.MaxExamined)
	a.More = len(found) == message.MaxExamined
	for _, f := range found {
		if q.Through > 0 && f.seq > q.Through {
			a.More = false
			break
		}
		a.Through = f.seq
		x, ok := load(rows, &k, c, f.seq)
		if !ok || !x.died(&q.Filter) {
			continue
		}
		a.Count++
		if q.Limit > 0 {
			a.Messages = append(a.Messages, DeadRef{Seq: f.seq, Counter: x.counter()})
			if len(a.Messages) >= q.Limit {
				a.More = true
				break
			}
		}
	}
	return a
}

// died says that the message is dead in a way that a filter chooses.
func (x *stored) died(f *message.DeadFilter) bool {
	if x.st == nil || x.st.state != message.Dead || len(x.st.history) == 0 {
		return false
	}
	last := &x.st.history[len(x.st.history)-1]
	for i := len(x.st.history) - 1; i > 0 && last.Outcome == Undelivered; i-- {
		last = &x.st.history[i-1] // what it died of
	}
	return f.Matches(x.Type, x.Key, x.Tenant, x.Attributes, last.Outcome.String(), last.EndedAt)
}
