package queue

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// Configure brings a queue's settings into the group, and the queue itself
// with its shards if the group does not have it. An older version than the
// group has changes nothing. The shards of a queue that is there stay as they
// are: the group's are the truth, the catalog has a copy.
type Configure struct {
	Queue    uint32
	Version  uint64 // of the queue in the catalog
	Settings message.Settings
	Paused   bool
	// Pauses of keys and tenants, in order, and the hash of each: the upper half of the
	// key's, or the tenant's number.
	Pauses []message.Pause
	Hashes []uint64
	Shards []Bounds // those that are in this group
	// DeadLetter is where messages of the queue go that die.
	DeadLetter Target
}

// Bounds is a shard as a run of cells, both included.
type Bounds struct {
	From, To int
	Path     string // its id in its queue: 0, 0.1, …
}

// Command encodes c.
func (c *Configure) Command() Command {
	b := append(make([]byte, 0, 64), cmdConfigure, laneNone)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = (&settingsRow{version: c.Version, settings: c.Settings, paused: c.Paused, deadLetter: c.DeadLetter, pauses: pauses{c.Pauses, c.Hashes}}).append(b)
	b = binary.AppendUvarint(b, uint64(len(c.Shards)))
	for _, s := range c.Shards {
		b = putString(append(b, byte(s.From), byte(s.To)), s.Path)
	}
	return Command{Head: b}
}

func (c *Configure) decode(d *decoder) {
	number := d.uint()
	row := decodeSettings(d)
	if number == 0 || number > message.MaxQueueNumber {
		d.fail()
	}
	c.Queue = uint32(number)
	c.Version, c.Settings, c.Paused = row.version, row.settings, row.paused
	c.DeadLetter = row.deadLetter
	c.Pauses, c.Hashes = row.pauses.list, row.pauses.hashes
	c.Shards = make([]Bounds, d.count(3))
	for i := range c.Shards {
		b := Bounds{From: int(d.byte()), To: int(d.byte()), Path: d.string()}
		if b.From > b.To || b.To >= message.Cells {
			d.fail()
		}
		c.Shards[i] = b
	}
}

func (m *Machine) configure(d *decoder) {
	var c Configure
	c.decode(d)
	q := m.queues[c.Queue]
	if d.bad || (q != nil && c.Version <= q.version) {
		return
	}
	if q == nil {
		q = &queue{number: c.Queue}
		m.queues[c.Queue] = q
		for _, b := range c.Shards {
			q.shards = append(q.shards, &shard{from: b.From, to: b.To, path: b.Path, epoch: 1, dirty: true})
		}
		m.shards = append(m.shards, q)
	}
	q.settingsRow = settingsRow{version: c.Version, settings: c.Settings, paused: c.Paused, deadLetter: c.DeadLetter, pauses: pauses{c.Pauses, c.Hashes}}
	m.buf = q.append(m.buf[:0])
	m.rows.Set(groupSpace, m.keys.queue(c.Queue), m.buf)
	m.effect(Effect{Kind: Configured, Queue: c.Queue})
	if latest := int64(q.settings.Rate.Latest(m.now())); q.next > latest {
		m.setNext(q, latest) // the rate was raised
	}
}

// Drop deletes a queue from the group with every message in it.
type Drop struct{ Queue uint32 }

// Command encodes c.
func (c *Drop) Command() Command {
	return Command{Head: binary.AppendUvarint([]byte{cmdDrop, laneNone}, uint64(c.Queue))}
}

// drop deletes a queue with all its rows: a range tombstone a cell, no scan.
func (m *Machine) drop(number uint32) {
	q := m.queues[number]
	if q == nil {
		return
	}
	for _, s := range q.shards {
		for c := s.from; c <= s.to; c++ {
			m.rows.Clear(spaceOf(number, c))
		}
		m.rows.Delete(groupSpace, m.keys.shard(number, s.from))
	}
	m.rows.Delete(groupSpace, m.keys.queue(number))
	m.rows.Delete(groupSpace, m.keys.pace(number))
	delete(m.queues, number)
	m.forget(q)
	m.effect(Effect{Kind: Dropped, Queue: number})
}

// Purge deletes every message of a queue that is in the group. The queue stays,
// with its settings, and with its counters: what is numbered later is higher, and
// a token of a message that was purged settles nothing.
type Purge struct{ Queue uint32 }

// Command encodes c. The answer is nil, also if the group does not have the queue.
func (c *Purge) Command() Command {
	return Command{Head: binary.AppendUvarint([]byte{cmdPurge, laneNone}, uint64(c.Queue))}
}

// purge costs a range tombstone a cell, whatever is in it. What has come from elsewhere
// stays known, so that a late copy does not bring it back.
func (m *Machine) purge(number uint32) {
	q := m.queues[number]
	if q == nil {
		return
	}
	came := map[int][]inboxRow{}
	for _, s := range q.shards {
		for n := s.from; n <= s.to; n++ {
			if c := m.cell(number, n); c.inboxes > 0 {
				came[n] = m.inboxRows(c)
			}
			m.rows.Clear(spaceOf(number, n))
			q.cells[n] = nil
		}
	}
	m.forgetCells(q)
	for _, n := range slices.Sorted(maps.Keys(came)) {
		m.setInboxRows(m.cell(number, n), came[n])
	}
	m.effect(Effect{Kind: Purged, Queue: number})
}

// forget takes a dropped queue out of what the entry will write back.
func (m *Machine) forget(q *queue) {
	m.shards = slices.DeleteFunc(m.shards, func(o *queue) bool { return o == q })
	m.forgetCells(q)
}

// forgetCells takes the messages of a queue out of what the entry will write back.
func (m *Machine) forgetCells(q *queue) {
	m.cells = slices.DeleteFunc(m.cells, func(c *cell) bool { return c.queue == q })
	m.changed = slices.DeleteFunc(m.changed, func(l *line) bool { return l.cell.queue == q })
	maps.DeleteFunc(m.lines, func(_ lineKey, l *line) bool { return l.cell.queue == q })
}
