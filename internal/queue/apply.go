package queue

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Machine applies entries to the rows of one group. What it holds between
// entries is a copy of rows, and every entry writes back what it changed.
type Machine struct {
	meta     groupMeta
	loaded   bool
	queues   map[uint32]*queue
	sessions map[uint64]*session
	lanes    map[uint64]*lane // by sender
	effects  []Effect

	// Of the entry that is being applied.
	rows    Rows
	index   uint64
	wall    int64
	cells   []*cell  // changed ones, in the order of their first change
	shards  []*queue // queues with changed shards, likewise
	entered []*lane  // changed ones

	lines   map[lineKey]*line // remembered
	changed []*line           // by this entry

	keys   keys
	buf    []byte
	bodies [][]byte
}

// New returns a machine that loads its rows with the first entry.
func New() *Machine {
	return &Machine{queues: map[uint32]*queue{}, sessions: map[uint64]*session{}, lanes: map[uint64]*lane{}, lines: map[lineKey]*line{}}
}

// Effect tells the leader what an entry changed, so that its window and timers
// need no scan. Effects are not part of the state.
type Effect struct {
	Kind   EffectKind
	Queue  uint32
	Ref    Ref    // Offered, Withdrawn, Leased, Ended, Due, Withheld
	Key    uint64 // Offered: as in an Offer
	Tenant uint64 // Offered, Withdrawn: as in an Offer
	Fence  uint64 // Leased, Ended
	At     int64  // Leased: deadline, 0 if bound to a session; group time, ms. Due: when, in the time of Timer
	Timer  TimerKind
	// LeaseEnded: how, and how long it was by the leaders' time of day.
	Outcome Outcome
	Held    time.Duration
	// LeaseSet: what it is bound to. SessionAttached. SessionEnded: this
	// incarnation and all before it, whose leases are to be ended now.
	Session, Incarnation uint64
	Cancelling           bool // LeaseSet: its worker is to let it go
	// SessionAttached: the version of the catalog in which it was live.
	Catalog uint64
}

// EffectKind says what an Effect is about.
type EffectKind byte

// The kinds of effects.
const (
	Offered    EffectKind = 1 // a ready row appeared
	Withdrawn  EffectKind = 2 // a ready row went without a lease
	LeaseSet   EffectKind = 3 // a lease began, or its deadline changed
	LeaseEnded EffectKind = 4
	Due        EffectKind = 5 // a timer row appeared
	Configured EffectKind = 6 // the queue's settings or shards changed
	Dropped    EffectKind = 7
	// SessionAttached: compare it with the catalog, in which it may have ended.
	SessionAttached EffectKind = 8
	SessionEnded    EffectKind = 9
	Paced           EffectKind = 10 // by the queue's rate, one more message is due at At, ns of group time
	Purged          EffectKind = 11 // all messages of the queue are gone
	Withheld        EffectKind = 12 // a message that waited ended without a lease, or is elsewhere
	Outgoing        EffectKind = 13 // a message is to leave the cell
	// What befell a message, for who counts that; of Queue.
	CountRetried  EffectKind = 14 // an attempt failed, and another one is to come
	CountDead     EffectKind = 15 // it may go on to another queue at once
	CountExpired  EffectKind = 16 // if it is dead then, CountDead comes as well
	CountRedriven EffectKind = 17
)

// Effects returns what the last entry changed, valid until the next one.
func (m *Machine) Effects() []Effect { return m.effects }

// Info tells what the machine knows of a queue, without counts.
func (m *Machine) Info(number uint32) (Info, bool) {
	q := m.queues[number]
	if q == nil {
		return Info{}, false
	}
	info := Info{Number: number, Version: q.version, Settings: q.settings, Paused: q.paused, Pauses: q.pauses.list, Hashes: q.pauses.hashes}
	for _, s := range q.shards {
		info.Shards = append(info.Shards, ShardInfo{Bounds: Bounds{From: s.from, To: s.to, Path: s.path}, Epoch: s.epoch})
	}
	return info, true
}

// GroupTime is the group time of the last entry, in ms.
func (m *Machine) GroupTime() int64 { return m.meta.groupTime }

// Load reads the group's rows, unless that was done before.
func (m *Machine) Load(rows Reader) {
	if m.loaded {
		return
	}
	m.loaded = true
	if row, ok := rows.Get(groupSpace, m.keys.one(rowGroup)); ok {
		m.meta = decodeGroupMeta(row)
	} else {
		m.meta.command = commandVersion
	}
	if m.meta.command != commandVersion {
		must(fmt.Errorf("queue: the group is at command version %d, this binary knows %d: start the newer binary", m.meta.command, commandVersion))
	}
	rows.Scan(groupSpace, []byte{rowQueue}, []byte{rowQueue + 1}, func(k, v []byte) bool {
		d := decoder{b: v}
		q := &queue{number: binary.BigEndian.Uint32(k[1:]), settingsRow: decodeSettings(&d)}
		must(d.end("a settings row"))
		m.queues[q.number] = q
		return true
	})
	rows.Scan(groupSpace, []byte{rowShard}, []byte{rowShard + 1}, func(k, v []byte) bool {
		q := m.queues[binary.BigEndian.Uint32(k[1:])]
		q.shards = append(q.shards, decodeShard(int(k[5]), v))
		return true
	})
	rows.Scan(groupSpace, []byte{rowPace}, []byte{rowPace + 1}, func(k, v []byte) bool {
		m.queues[binary.BigEndian.Uint32(k[1:])].next = int64(beUint64(v))
		return true
	})
	for _, s := range Sessions(rows) {
		m.sessions[s.ID] = &session{Session: s.Session, ended: s.Ended}
	}
	m.loadLanes(rows)
}

// Apply applies one entry and returns an answer for each of its commands, in
// order: []message.SendResult, LeaseResult, []message.SettleResult,
// []RedriveResult, Progress, nil, or a *message.Error that refuses the command as a whole
// (Split, SpinOff; any command with a Lane: CONFLICT, a late copy; RESOURCE_EXHAUSTED).
// It panics with an error if the entry is of a newer format: going on without
// it would make this replica differ from the others.
func (m *Machine) Apply(rows Rows, index uint64, b []byte) []any {
	m.Load(rows)
	m.rows, m.index, m.effects = rows, index, m.effects[:0]
	e, err := decodeEntry(b, m.bodies[:0])
	must(err)
	m.bodies = e.bodies
	// Group time never goes back, whatever a new leader's clock said.
	m.meta.groupTime = max(m.meta.groupTime, e.groupTime)
	m.meta.wall, m.wall = e.wall, e.wall
	results := make([]any, e.n)
	for i := range results {
		kind, lane, fields := e.commands.byte(), e.commands.byte(), e.commands.bytes()
		d := decoder{b: fields}
		switch lane {
		case laneNone:
			results[i] = m.apply(kind, &d, &e)
		case laneNumbered:
			results[i] = m.applyOnce(kind, &d, &e)
		default:
			must(fmt.Errorf("queue: entry %d: a lane of a newer version: start the newer binary", index))
		}
		if d.unread() {
			must(d.end(fmt.Sprintf("command %d of type %d in entry %d", i, kind, index)))
		}
	}
	if len(e.bodies) > 0 {
		must(fmt.Errorf("queue: entry %d has %d bodies that are of no message", index, len(e.bodies)))
	}
	m.flush()
	clear(m.bodies) // they are parts of the log's memory
	m.rows = nil
	return results
}

func (m *Machine) apply(kind byte, d *decoder, e *entry) any {
	switch kind {
	case cmdSend:
		return m.send(d, e)
	case cmdSendAtomic:
		return m.sendAtomic(d, e)
	case cmdLease:
		return m.lease(d)
	case cmdSettle, cmdSettleSend:
		return m.settle(d, e, kind)
	case cmdExpire:
		m.expireLeases(d)
	case cmdWake:
		m.wake(d)
	case cmdRedrive:
		return m.redrive(d)
	case cmdDeliver:
		return m.deliver(d)
	case cmdDelivered:
		m.delivered(d)
	case cmdRedriveSome:
		return m.redriveSome(d)
	case cmdConfigure:
		m.configure(d)
	case cmdDrop:
		m.drop(uint32(d.uint()))
	case cmdPurge:
		m.purge(uint32(d.uint()))
	case cmdCancel:
		return m.cancel(d)
	case cmdTick:
	case cmdReleaseLeases:
		m.eachHeld(d, func(h *held) { m.release(h, 0) })
	case cmdExpireSession:
		m.expireSession(d)
	case cmdForget:
		m.forgetAll(d)
	case cmdSplit:
		if err := m.split(d); err != nil {
			return err
		}
	case cmdSpinOff:
		if err := m.spinOff(d); err != nil {
			return err
		}
	default:
		must(fmt.Errorf("queue: entry %d: command type %d of a newer version: start the newer binary", m.index, kind))
	}
	return nil
}

// cell returns a cell that this group owns, or nil.
func (m *Machine) cell(queueNumber uint32, number int) *cell {
	q := m.queues[queueNumber]
	if q == nil {
		return nil
	}
	return m.cellOf(q, number)
}

func (m *Machine) cellOf(q *queue, number int) *cell {
	if c := q.cells[number]; c != nil {
		return c
	}
	s := q.owner(number)
	if s == nil {
		return nil
	}
	c := &cell{queue: q, shard: s, number: number, space: spaceOf(q.number, number), held: map[uint64]*held{}}
	if row, ok := m.rows.Get(c.space, m.keys.one(rowCell)); ok {
		c.decode(row)
	}
	q.cells[number] = c
	return c
}

// touch marks a cell whose meta row must be written at the end of the entry.
func (m *Machine) touch(c *cell) {
	if !c.dirty {
		c.dirty = true
		m.cells = append(m.cells, c)
	}
}

// next gives the next number of the cell's shard.
func (m *Machine) next(c *cell) uint64 {
	if !c.shard.dirty {
		m.shards = append(m.shards, c.queue)
	}
	return c.shard.next()
}

// flush writes back what the entry changed of the rows that the machine keeps
// in memory.
func (m *Machine) flush() {
	m.flushLines()
	for _, c := range m.cells {
		m.turnRing(c)
	}
	for i := 0; i < len(m.cells); i++ { // turnRing may have touched more
		c := m.cells[i]
		m.buf = c.append(m.buf[:0])
		m.rows.Set(c.space, m.keys.one(rowCell), m.buf)
		c.dirty = false
	}
	for _, q := range m.shards {
		for _, s := range q.shards {
			if s.dirty {
				m.buf = s.append(m.buf[:0])
				m.rows.Set(groupSpace, m.keys.shard(q.number, s.from), m.buf)
				s.dirty = false
			}
		}
	}
	m.flushLanes()
	m.buf = m.meta.append(m.buf[:0])
	m.rows.Set(groupSpace, m.keys.one(rowGroup), m.buf)
	m.cells, m.shards = m.cells[:0], m.shards[:0]
}

func (m *Machine) effect(e Effect) { m.effects = append(m.effects, e) }

// count tells what befell a message of a cell, which changes nothing for the leader.
func (m *Machine) count(c *cell, kind EffectKind) {
	m.effect(Effect{Kind: kind, Queue: c.queue.number})
}

func wrongShard(queueNumber uint32, cell int) *message.Error {
	return message.Errorf(message.WrongShard, "cell %d of queue number %d is not in this group", cell, queueNumber)
}
