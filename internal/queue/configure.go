package queue

import (
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// configure takes over a queue's settings from the catalog, and makes the
// queue's shards that are in this group if they are new here.
func (m *Machine) configure(d *decoder) {
	number := uint32(d.uint())
	row := decodeSettings(d)
	shards := make([]Bounds, d.count(3))
	for i := range shards {
		shards[i] = Bounds{From: int(d.byte()), To: int(d.byte()), Path: d.string()}
		if shards[i].From > shards[i].To || shards[i].To >= message.Cells {
			d.fail()
			return
		}
	}
	q := m.queues[number]
	if q == nil {
		q = &queue{number: number}
		m.queues[number] = q
		for _, b := range shards {
			q.shards = append(q.shards, &shard{from: b.From, to: b.To, path: b.Path, epoch: 1, dirty: true})
		}
		m.shards = append(m.shards, q)
	} else if row.version <= q.version {
		return
	}
	q.settingsRow = row
	m.buf = row.append(m.buf[:0])
	m.rows.Set(groupSpace, m.keys.queue(number), m.buf)
	m.effect(Effect{Kind: Configured, Queue: number})
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
	delete(m.queues, number)
	m.forget(q)
	m.effect(Effect{Kind: Dropped, Queue: number})
}

// forget takes a dropped queue out of what the entry will write back.
func (m *Machine) forget(q *queue) {
	m.cells = slices.DeleteFunc(m.cells, func(c *cell) bool { return c.queue == q })
	m.shards = slices.DeleteFunc(m.shards, func(o *queue) bool { return o == q })
	m.changed = slices.DeleteFunc(m.changed, func(l *line) bool { return l.cell.queue == q })
	maps.DeleteFunc(m.lines, func(_ lineKey, l *line) bool { return l.cell.queue == q })
}
