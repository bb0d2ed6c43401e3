package queue

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// A message that dies in a queue with a dead_letter_to goes there, under its id. In
// this group that happens in the entry of its death. Elsewhere the entry leaves a row
// in the cell's outbox, in the line of the target's cell, and the message stays here,
// dead, until the target has it. Whoever leads this group sends the rows of a line in
// order (Deliver) and says here what came of them (Delivered). The target keeps, for
// each line, the floor below which nothing comes any more, and what it answered above
// it: so a call may come twice, late, or after days, and a message arrives once.

// Target is a queue that messages go to.
type Target struct {
	Queue  uint32         // 0: none, they stay where they are
	Secret message.Secret // of that queue: places keys there
}

func (t *Target) append(b []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(t.Queue)), t.Secret[:]...)
}

func decodeTarget(d *decoder) (t Target) {
	t.Queue = uint32(d.uint())
	copy(t.Secret[:], d.take(uint64(len(t.Secret))))
	return t
}

// Line is what goes from one cell to one other, in order.
type Line struct {
	Queue uint32 // where it goes
	Cell  int
}

// Compare orders lines by queue and cell.
func (l Line) Compare(other Line) int {
	return cmp.Or(cmp.Compare(l.Queue, other.Queue), cmp.Compare(l.Cell, other.Cell))
}

// What a cell's outbox holds at the most; above it a message stays dead where it is,
// with a line of history that says so. maxInboxes is from how many cells messages come
// to one, those of deleted queues included: what keeps late copies of theirs out is never
// forgotten. maxForwards is how many that left are found by their id.
const (
	maxOutbox      = 1 << 20
	maxOutboxBytes = 4 << 30
	maxInboxes     = 1 << 16
	maxForwards    = 1 << 20
)

// Parcel is one message on its way.
type Parcel struct {
	Seq     uint64 // in the line
	Head    Head   // Foreign is its id, Hash its place there, Due how long it is to wait there, ms
	Body    []byte
	History []Attempt
}

// fresh says that the message has lived nowhere yet: it is a follow-up.
func (p *Parcel) fresh() bool { return len(p.History) == 0 }

// minParcel is the least that a Parcel takes.
const minParcel = 7

// Deliver brings messages to a cell, in the order of their line. The answer is a
// []*message.Error, nil for each that is there by now, or a refusal of the whole:
// WRONG_SHARD, CONFLICT (a late copy).
type Deliver struct {
	To      Line
	From    Line   // the cell that they come from
	Floor   uint64 // nothing below it comes again
	Parcels []Parcel
}

// Command encodes c.
func (c *Deliver) Command() Command {
	b := append(make([]byte, 0, 256), cmdDeliver, laneNone)
	b = append(binary.AppendUvarint(b, uint64(c.To.Queue)), byte(c.To.Cell))
	b = append(binary.AppendUvarint(b, uint64(c.From.Queue)), byte(c.From.Cell))
	b = binary.AppendUvarint(binary.AppendUvarint(b, c.Floor), uint64(len(c.Parcels)))
	for i := range c.Parcels {
		p := &c.Parcels[i]
		b = appendHistory(binary.AppendUvarint(b, p.Seq), p.History)
		b = appendHead(b, &p.Head, p.Body)
		if len(p.Body) > inlineBody {
			b = append(b, p.Body...)
		}
	}
	return Command{Head: b}
}

func decodeLine(d *decoder) Line {
	l := Line{Queue: uint32(d.uint()), Cell: int(d.byte())}
	if l.Cell >= message.Cells {
		d.fail()
		return Line{}
	}
	return l
}

func (c *Deliver) decode(d *decoder) {
	c.To, c.From, c.Floor = decodeLine(d), decodeLine(d), d.uint()
	c.Parcels = make([]Parcel, d.count(minParcel))
	for i := range c.Parcels {
		p := &c.Parcels[i]
		p.Seq, p.History = d.uint(), decodeHistory(d)
		var apart bool
		if p.Head, p.Body, apart = readHead(d); apart {
			p.Body = d.take(uint64(p.Head.BodySize))
		}
		h := &p.Head
		if h.keyed() && h.Hash.Point().Cell() != c.To.Cell || h.Foreign == (message.ID{}) || h.Priority > message.MaxPriority ||
			h.Due < 0 || h.Due > millis(message.MaxDelay) || !p.fresh() && (h.scheduled() || h.Expires != 0) || h.Dedup != nil || h.Unique != nil {
			d.fail()
		}
	}
}

func (m *Machine) deliver(d *decoder) any {
	var c Deliver
	c.decode(d)
	if d.bad {
		return nil
	}
	at := m.cell(c.To.Queue, c.To.Cell)
	if at == nil {
		return wrongShard(c.To.Queue, c.To.Cell)
	}
	floor, known := uint64(0), false
	if row, ok := m.rows.Get(at.space, m.keys.inbox(c.From)); ok {
		floor, known = beUint64(row), true
	}
	switch {
	case c.Floor < floor:
		return message.Errorf(message.Conflict, "what is below %d of this line has arrived: this is a late copy", floor)
	case !known && at.inboxes >= maxInboxes:
		// For good: no place becomes free, so no copy of them can arrive later.
		full := message.Errorf(message.ResourceExhausted, "messages have come to this part of the queue from %d cells of other queues, as many as it tells apart, and those of deleted queues count: redrive it to another queue", at.inboxes)
		return slices.Repeat([]*message.Error{full}, len(c.Parcels))
	}
	if !known || c.Floor > floor {
		m.raiseInbox(at, c.From, floor, c.Floor, known)
	}
	results := make([]*message.Error, len(c.Parcels))
	for i := range c.Parcels {
		p := &c.Parcels[i]
		if row, ok := m.rows.Get(at.space, m.keys.arrived(c.From, p.Seq)); ok {
			kept := decoder{b: row}
			results[i] = decodeError(&kept)
			must(kept.end("a row of what arrived"))
			continue
		}
		results[i] = m.arrive(at, c.From.Queue, p)
		m.rows.Set(at.space, m.keys.arrived(c.From, p.Seq), appendError(nil, results[i]))
	}
	return results
}

// raiseInbox forgets what was answered below a line's floor.
func (m *Machine) raiseInbox(at *cell, from Line, old, floor uint64, known bool) {
	if !known {
		at.inboxes++
		m.touch(at)
	}
	var seqs []uint64
	lo := slices.Clone(m.keys.arrived(from, old))
	m.rows.Scan(at.space, lo, m.keys.arrived(from, floor), func(key, _ []byte) bool {
		seqs = append(seqs, beUint64(key[len(key)-8:]))
		return true
	})
	for _, seq := range seqs {
		m.rows.SingleDelete(at.space, m.keys.arrived(from, seq))
	}
	m.rows.Set(at.space, m.keys.inbox(from), binary.BigEndian.AppendUint64(nil, floor))
}

// inboxRow is a row of what came to a cell from elsewhere.
type inboxRow struct{ key, value []byte }

// inboxRows are those of a cell: some for each cell that messages come from.
func (m *Machine) inboxRows(c *cell) (all []inboxRow) {
	m.rows.Scan(c.space, []byte{rowInbox}, []byte{rowArrived + 1}, func(key, value []byte) bool {
		all = append(all, inboxRow{slices.Clone(key), slices.Clone(value)})
		return true
	})
	return all
}

// setInboxRows gives them to a cell that has none.
func (m *Machine) setInboxRows(c *cell, all []inboxRow) {
	for _, r := range all {
		m.rows.Set(c.space, r.key, r.value)
		if r.key[0] == rowInbox {
			c.inboxes++
		}
	}
	m.touch(c)
}

// arrive gives a message from another queue a place in a cell. A refusal is for good.
func (m *Machine) arrive(c *cell, from uint32, p *Parcel) *message.Error {
	switch {
	case c.shard.full():
		return sequencesUsed(c.shard)
	case len(p.Body) > c.queue.settings.MaxMessageBytes:
		return message.Errorf(message.TooLarge, "body has %d bytes, the queue takes at most %d (max_message_bytes)", len(p.Body), c.queue.settings.MaxMessageBytes)
	}
	x := &stored{cell: c, Head: p.Head}
	switch {
	case !p.fresh():
		x.st = &standing{state: message.Ready, history: p.History}
		x.st.remember(Attempt{Outcome: Moved, From: from, EndedAt: m.wall})
	case x.Due > 0:
		x.Due, x.DueWall = m.meta.groupTime+x.Due, m.wall+x.Due
	}
	m.put(x, p.Body)
	if p.fresh() {
		c.totals.Sent++
	}
	m.rows.Set(c.space, m.keys.foreign(x.Foreign), binary.AppendUvarint(nil, x.Seq))
	c.foreigns++
	return nil
}

// parcel is a message as it goes to another queue, at a group time: what counts within
// this one stays behind.
func parcel(rows Reader, k *keys, x *stored, to *Target, now int64) Parcel {
	p := Parcel{Head: x.Head, Body: x.fullBody(rows, k)}
	if x.st != nil {
		p.History = x.st.history
	}
	p.Head.Foreign, p.Head.Seq = x.id(), 0
	if p.fresh() {
		p.Head.Due = max(0, x.Due-now) // the other group's time is another one
	} else {
		p.Head.Due, p.Head.At, p.Head.DueWall, p.Head.Expires = 0, 0, 0, 0
	}
	p.Head.Dedup, p.Head.Unique = nil, nil
	if x.keyed() {
		p.Head.Hash = message.HashKey(&to.Secret, x.Key)
	}
	if x.Tenant != "" {
		p.Head.TenantHash = message.HashTenant(&to.Secret, x.Tenant)
	}
	return p
}

// leaveFor lets a message that is dead go to another queue, and says whether it is
// there and no longer here. Else it is on its way (leaving), or stays, and its history
// says why; its state is to be saved.
func (m *Machine) leaveFor(x *stored, to *Target) (gone bool) {
	c := x.cell
	whole, ok := m.load(c, x.Seq) // one that was leased has no body in memory
	if !ok {
		return false
	}
	whole.st = x.st
	line := Line{Queue: to.Queue, Cell: c.number}
	if x.keyed() {
		hash := message.HashKey(&to.Secret, x.Key)
		line.Cell = hash.Point().Cell()
	}
	if at := m.cell(line.Queue, line.Cell); at != nil {
		sent := parcel(m.rows, &m.keys, whole, to, m.meta.groupTime)
		if err := m.arrive(at, c.queue.number, &sent); err != nil {
			x.st.remember(undelivered(m.wall, err))
			return false
		}
		m.remove(x, line)
		return true
	}
	if err := c.mayPost(1, whole.answer()); err != nil {
		x.st.remember(undelivered(m.wall, err))
		return false
	}
	x.st.leaving = true
	m.post(whole, line, &to.Secret)
	return false
}

// mayPost refuses n messages with so many bytes that a cell's outbox has no room for.
func (c *cell) mayPost(n, bytes int64) *message.Error {
	if c.outbox+n > maxOutbox || c.outboxBytes+bytes > maxOutboxBytes {
		return message.Errorf(message.ResourceExhausted, "%d messages with %d bytes wait to leave this part of the queue already", c.outbox, c.outboxBytes)
	}
	return nil
}

// post puts a message into the outbox of its cell. Its state says that it is leaving.
func (m *Machine) post(x *stored, line Line, s *message.Secret) {
	c := x.cell
	c.outbox, c.outboxBytes = c.outbox+1, c.outboxBytes+x.answer()
	m.touch(c)
	m.rows.Set(c.space, m.keys.outbox(line, m.next(c)), append(binary.AppendUvarint(nil, x.Seq), s[:]...))
	m.effect(Effect{Kind: Outgoing, Queue: c.queue.number, Ref: Ref{Cell: c.number}})
}

func undelivered(wall int64, err *message.Error) Attempt {
	return Attempt{Outcome: Undelivered, EndedAt: wall, Error: message.ClipError(fmt.Sprintf("%s: %s", err.Code, err.Text))}
}

// remove takes away a message that is in another queue now, but for a row that says
// where. The oldest of those go when there are too many.
func (m *Machine) remove(x *stored, to Line) {
	c := x.cell
	m.rows.SingleDelete(c.space, m.keys.seq(rowData, x.Seq))
	if x.apart {
		m.rows.SingleDelete(c.space, m.keys.seq(rowBody, x.Seq))
	}
	m.rows.Delete(c.space, m.keys.seq(rowState, x.Seq))
	f := forward{to: to, id: x.Foreign}
	m.rows.Set(c.space, m.keys.seq(rowForward, x.Seq), f.append(nil))
	c.forwards++
	for c.forwards > maxForwards {
		m.forgetForward(c)
	}
	m.touch(c)
}

// forward is the row of a message that went on.
type forward struct {
	to Line
	id message.ID // of one that had come from elsewhere; zero: it was sent here
}

func (f *forward) append(b []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(f.to.Queue)), byte(f.to.Cell))
	return append(b, f.id[:]...)
}

func decodeForward(row []byte) (f forward) {
	d := decoder{b: row}
	f.to = decodeLine(&d)
	copy(f.id[:], d.take(16))
	must(d.end("a row of a message that went on"))
	return f
}

func (m *Machine) forgetForward(c *cell) {
	var seq uint64
	var f forward
	m.rows.Scan(c.space, []byte{rowForward}, []byte{rowForward + 1}, func(key, row []byte) bool {
		seq, f = beUint64(key[1:]), decodeForward(row)
		return false
	})
	m.rows.SingleDelete(c.space, m.keys.seq(rowForward, seq))
	c.forwards--
	m.forgetForeign(c, f.id, seq)
}

// forgetForeign forgets where a message from elsewhere stands, unless it has come
// again since.
func (m *Machine) forgetForeign(c *cell, id message.ID, seq uint64) {
	if id == (message.ID{}) {
		return
	}
	if row, ok := m.rows.Get(c.space, m.keys.foreign(id)); ok && decodeForeign(row) == seq {
		m.rows.Delete(c.space, m.keys.foreign(id))
	}
	c.foreigns--
	m.touch(c)
}

func decodeForeign(row []byte) uint64 {
	d := decoder{b: row}
	seq := d.uint()
	must(d.end("a row of a message from elsewhere"))
	return seq
}

// Delivered says in the source what came of the messages of a line. One that is not
// in the outbox any more was told of before.
type Delivered struct {
	From, To Line
	Results  []DeliveredResult
}

// DeliveredResult is what became of one message; Err: it stays where it is, for good.
type DeliveredResult struct {
	Seq uint64
	Err *message.Error
}

// Command encodes c. The answer is nil.
func (c *Delivered) Command() Command {
	b := append(binary.AppendUvarint([]byte{cmdDelivered, laneNone}, uint64(c.From.Queue)), byte(c.From.Cell))
	b = append(binary.AppendUvarint(b, uint64(c.To.Queue)), byte(c.To.Cell))
	b = binary.AppendUvarint(b, uint64(len(c.Results)))
	for _, r := range c.Results {
		b = appendError(binary.AppendUvarint(b, r.Seq), r.Err)
	}
	return Command{Head: b}
}

func (c *Delivered) decode(d *decoder) {
	c.From, c.To = decodeLine(d), decodeLine(d)
	c.Results = make([]DeliveredResult, d.count(2))
	for i := range c.Results {
		c.Results[i] = DeliveredResult{Seq: d.uint(), Err: decodeError(d)}
	}
}

func (m *Machine) delivered(d *decoder) {
	var c Delivered
	c.decode(d)
	at := m.cell(c.From.Queue, c.From.Cell)
	if d.bad || at == nil {
		return
	}
	for _, r := range c.Results {
		row, ok := m.rows.Get(at.space, m.keys.outbox(c.To, r.Seq))
		if !ok {
			continue
		}
		seq, _ := decodeOutbox(row)
		m.rows.SingleDelete(at.space, m.keys.outbox(c.To, r.Seq))
		x, _ := m.load(at, seq)
		at.outbox, at.outboxBytes = at.outbox-1, at.outboxBytes-x.answer()
		m.touch(at)
		dead := x.st.state == message.Dead
		if !dead { // a follow-up, whose end somebody may wait for
			m.effect(Effect{Kind: Withheld, Queue: c.From.Queue, Ref: x.ref()})
		}
		if r.Err != nil {
			x.st.leaving = false
			x.st.remember(undelivered(m.wall, r.Err))
			if dead {
				m.save(x)
			} else {
				m.count(at, CountDead)
				m.bury(x)
			}
			continue
		}
		if dead {
			m.rows.SingleDelete(at.space, m.keys.seq(rowDead, seq))
			at.counts.Dead--
		}
		m.remove(x, c.To)
	}
}

func decodeOutbox(row []byte) (seq uint64, s message.Secret) {
	d := decoder{b: row}
	seq = d.uint()
	copy(s[:], d.take(uint64(len(s))))
	must(d.end("an outbox row"))
	return seq, s
}

// Lines reads up to limit lines of a cell's outbox that have messages, from after a
// given one (nil: from the first).
func Lines(rows Reader, number uint32, n int, after *Line, limit int) (out []Line) {
	var k keys
	for len(out) < limit {
		lo := []byte{rowOutbox}
		if after != nil {
			lo = append(slices.Clone(k.outbox(*after, math.MaxUint64)), 0)
		}
		after = nil
		rows.Scan(spaceOf(number, n), lo, []byte{rowOutbox + 1}, func(key, _ []byte) bool {
			after = &Line{Queue: binary.BigEndian.Uint32(key[1:]), Cell: int(key[5])}
			return false
		})
		if after == nil {
			break
		}
		out = append(out, *after)
	}
	return out
}

// NextDelivery reads what is to be sent of a line first, at a group time: up to limit
// messages, and no more bytes than an entry takes.
func NextDelivery(rows Reader, from, to Line, limit int, now int64) Deliver {
	var k keys
	c := &cell{queue: &queue{number: from.Queue}, number: from.Cell, space: spaceOf(from.Queue, from.Cell)}
	out := Deliver{To: to, From: from}
	type row struct {
		seq, message uint64
		secret       message.Secret
	}
	var found []row
	lo := slices.Clone(k.outbox(to, 0))
	rows.Scan(c.space, lo, k.outbox(to, math.MaxUint64), func(key, v []byte) bool {
		seq, secret := decodeOutbox(v)
		found = append(found, row{beUint64(key[len(key)-8:]), seq, secret})
		return len(found) < limit
	})
	bytes := int64(0)
	for _, r := range found {
		x, ok := load(rows, &k, c, r.message)
		if !ok {
			continue
		}
		if bytes += x.answer() + int64(len(x.st.history))*message.MaxErrorText; bytes > message.MaxEntryBytes/2 && len(out.Parcels) > 0 {
			break
		}
		p := parcel(rows, &k, x, &Target{Queue: to.Queue, Secret: r.secret}, now)
		p.Seq = r.seq
		out.Parcels = append(out.Parcels, p)
	}
	if len(out.Parcels) > 0 {
		out.Floor = out.Parcels[0].Seq
	}
	return out
}
