package queue

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Info is what a group knows of one of its queues.
type Info struct {
	Number   uint32
	Version  uint64 // of the settings, in the catalog
	Settings message.Settings
	Paused   bool
	Pauses   []message.Pause `json:",omitempty"`
	Hashes   []uint64        `json:",omitempty"` // see Configure
	Next     int64           // by its rate, when one more message is due to go out: group time, ns
	Shards   []ShardInfo
}

// ShardInfo is a shard in this group with its counts.
type ShardInfo struct {
	Bounds
	Epoch  uint64
	Counts message.Counts
	Cells  []int64 `json:",omitempty"` // messages that have not ended, by cell
	Totals message.Totals
	// Leaving are in the outbox: follow-ups, which no count has, and dead letters.
	Leaving int64 `json:",omitempty"`
	// Oldest is since when the oldest message that may go out could have: wall time,
	// ms; 0: none may. Only to a Query for the queue, and from ReadOldest.
	Oldest int64 `json:",omitempty"`
}

// Queues reads all queues of a group, by number.
func Queues(rows Reader) []Info {
	var out []Info
	rows.Scan(groupSpace, []byte{rowQueue}, []byte{rowQueue + 1}, func(k, v []byte) bool {
		out = append(out, decodeInfo(binary.BigEndian.Uint32(k[1:]), v))
		return true
	})
	for i := range out {
		out[i].readShards(rows)
	}
	return out
}

// Queue reads one queue of a group.
func Queue(rows Reader, number uint32) (Info, bool) {
	var k keys
	row, ok := rows.Get(groupSpace, k.queue(number))
	if !ok {
		return Info{}, false
	}
	q := decodeInfo(number, row)
	q.readShards(rows)
	return q, true
}

func decodeInfo(number uint32, row []byte) Info {
	d := decoder{b: row}
	s := decodeSettings(&d)
	must(d.end("a settings row"))
	return Info{Number: number, Version: s.version, Settings: s.settings, Paused: s.paused, Pauses: s.pauses.list, Hashes: s.pauses.hashes}
}

func (q *Info) readShards(rows Reader) {
	q.readBounds(rows)
	if q.Settings.Rate.Count > 0 {
		var k keys
		if row, ok := rows.Get(groupSpace, k.pace(q.Number)); ok {
			q.Next = int64(beUint64(row))
		}
	}
	for i := range q.Shards {
		s := &q.Shards[i]
		for n := s.From; n <= s.To; n++ {
			read := readCell(rows, q.Number, n)
			c := read.counts
			s.Counts.Add(c)
			s.Totals.Add(read.totals)
			s.Leaving += read.outbox
			s.Cells = append(s.Cells, c.Ready+c.Scheduled+c.Leased)
		}
	}
}

func (q *Info) readBounds(rows Reader) {
	var k keys
	lo := slices.Clone(k.shard(q.Number, 0))
	rows.Scan(groupSpace, lo, k.shard(q.Number, 0xff), func(key, v []byte) bool {
		s := decodeShard(int(key[5]), v)
		q.Shards = append(q.Shards, ShardInfo{Bounds: Bounds{From: s.from, To: s.to, Path: s.path}, Epoch: s.epoch})
		return true
	})
}

// limit is the queue's limit that is reached; empty: none is.
func (q *Info) limit(rows Reader) string {
	now, _ := GroupTime(rows)
	switch s := &q.Settings; {
	case s.MaxInFlight > 0 && q.Counts().Leased >= int64(s.MaxInFlight):
		return "max_in_flight"
	case s.Rate.Count > 0 && s.Rate.Room(time.Duration(now)*time.Millisecond, time.Duration(q.Next)) == 0:
		return "rate"
	}
	return ""
}

// ReadOldest finds the oldest message that may go out. It reads one row for each
// priority and tenant that a cell has, of the first 64 tenants, and no cell without ready messages.
func (q *Info) ReadOldest(rows Reader) {
	for i := range q.Shards {
		s := &q.Shards[i]
		for n := s.From; n <= s.To && s.Counts.Ready > 0; n++ {
			if c := readCell(rows, q.Number, n); c.counts.Ready > 0 {
				s.Oldest = earlier(s.Oldest, c.oldestReady(rows))
			}
		}
	}
}

// earlier is the earlier of two times; 0 is none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// oldestReady is since when the oldest of a cell's messages that may go out could
// have; 0: none may.
func (c *cell) oldestReady(rows Reader) (at int64) {
	var k keys
	for p := message.MaxPriority; p >= 0; p-- {
		lo, seq := slices.Clone(k.ready(Turn{Priority: byte(p)}, c.floors[p], 0)), uint64(0)
		rows.Scan(c.space, lo, []byte{rowReady + 1}, func(key, _ []byte) bool {
			p, seq = message.MaxPriority-int(key[1]), beUint64(key[2:]) // the next priority that there is
			return false
		})
		if seq == 0 {
			break
		}
		if x, ok := load(rows, &k, c, seq); ok {
			at = earlier(at, x.waitsSince())
		}
	}
	lo := []byte{rowTurn}
	for range maxTurnsAged {
		seq := uint64(0)
		rows.Scan(c.space, lo, []byte{rowTurn + 1}, func(key, _ []byte) bool {
			lo, seq = append(slices.Clone(key[:10]), 0xff), beUint64(key[10:]) // behind the tenant's others
			return false
		})
		if seq == 0 {
			break
		}
		if x, ok := load(rows, &k, c, seq); ok {
			at = earlier(at, x.waitsSince())
		}
	}
	return at
}

// waitsSince is since when a message that is ready waits to go out: it was sent, its
// time came, or it was given back or revived. What it waited for in the line of its key
// counts.
func (x *stored) waitsSince() int64 {
	since := max(x.SentAt, x.DueWall)
	if x.st == nil {
		return since
	}
	if n := len(x.st.history); n > 0 {
		since = max(since, x.st.history[n-1].EndedAt)
	}
	return max(since, x.st.dueWall)
}

// maxTurnsAged is of how many tenants of a cell the oldest message is looked for.
const maxTurnsAged = 64

// Totals adds up the queue's shards in this group.
func (q *Info) Totals() (t message.Totals) {
	for _, s := range q.Shards {
		t.Add(s.Totals)
	}
	return t
}

// Counts adds up the queue's shards in this group.
func (q *Info) Counts() (c message.Counts) {
	for _, s := range q.Shards {
		c.Add(s.Counts)
	}
	return c
}

// shardOf finds the shard that a cell belongs to.
func (q *Info) shardOf(cell int) (ShardInfo, bool) {
	for _, s := range q.Shards {
		if s.From <= cell && cell <= s.To {
			return s, true
		}
	}
	return ShardInfo{}, false
}

func readCell(rows Reader, number uint32, n int) *cell {
	c := &cell{queue: &queue{number: number}, number: n, space: spaceOf(number, n)}
	var k keys
	if row, ok := rows.Get(c.space, k.one(rowCell)); ok {
		c.decode(row)
	}
	return c
}

// GroupTime reads the group time and wall time of the last applied entry, ms.
func GroupTime(rows Reader) (groupTime, wall int64) {
	var k keys
	row, ok := rows.Get(groupSpace, k.one(rowGroup))
	if !ok {
		return 0, 0
	}
	m := decodeGroupMeta(row)
	return m.groupTime, m.wall
}

// Offers reads up to limit messages of a cell that may be handed out now and that
// have no tenant, by priority and arrival, from after a given one (nil: from the cell's floors).
func Offers(rows Reader, number uint32, n int, after *Ref, limit int) []Offer {
	var k keys
	var out []Offer
	c := readCell(rows, number, n)
	for p := message.MaxPriority; p >= 0 && len(out) < limit; p-- {
		from := c.floors[p]
		if after != nil {
			if byte(p) > after.Priority {
				continue
			}
			if byte(p) == after.Priority {
				from = max(from, after.Seq+1)
			}
		}
		lo := slices.Clone(k.ready(Turn{Priority: byte(p)}, from, 0))
		rows.Scan(c.space, lo, []byte{rowReady, byte(message.MaxPriority-p) + 1}, func(key, v []byte) bool {
			o := Offer{Ref: Ref{Cell: n, Priority: byte(p), Seq: beUint64(key[2:]), Counter: binary.BigEndian.Uint32(key[10:])}}
			if len(v) > 0 {
				o.Key = beUint64(v)
			}
			out = append(out, o)
			return len(out) < limit
		})
	}
	return out
}

// OffersOf reads up to limit messages of a tenant in a cell that may be handed out
// now, of one priority, by arrival, from after a given one (nil: from the first).
func OffersOf(rows Reader, number uint32, n int, t Turn, after *Ref, limit int) []Offer {
	var k keys
	var out []Offer
	from := uint64(0)
	if after != nil {
		from = after.Seq + 1
	}
	lo := slices.Clone(k.ready(t, from, 0))
	rows.Scan(spaceOf(number, n), lo, k.ready(t, math.MaxUint64, math.MaxUint32), func(key, v []byte) bool {
		o := Offer{Ref: Ref{Cell: n, Priority: t.Priority, Seq: beUint64(key[10:]), Counter: binary.BigEndian.Uint32(key[18:])}, Tenant: t.Tenant}
		if len(v) > 0 {
			o.Key = beUint64(v)
		}
		out = append(out, o)
		return len(out) < limit
	})
	return out
}

// Turns reads up to limit turns that have messages in a cell which may be handed
// out now, by priority and tenant, from after a given one (nil: from the first). It
// goes from one to the next, whatever each of them has.
func Turns(rows Reader, number uint32, n int, after *Turn, limit int) (out []Turn) {
	var k keys
	lo := []byte{rowTurn}
	for len(out) < limit {
		if after != nil {
			lo = append(slices.Clone(k.ready(*after, math.MaxUint64, math.MaxUint32)), 0)
		}
		after = nil
		rows.Scan(spaceOf(number, n), lo, []byte{rowTurn + 1}, func(key, _ []byte) bool {
			after = &Turn{Priority: message.MaxPriority - key[1], Tenant: beUint64(key[2:])}
			return false
		})
		if after == nil {
			break
		}
		out = append(out, *after)
	}
	return out
}

// Timers reads up to limit timers of a kind in a cell, soonest first, from after a
// given one (nil: from the first).
func Timers(rows Reader, number uint32, n int, kind TimerKind, after *TimerRef, limit int) []TimerRef {
	var k keys
	lo := slices.Clone(k.one(timerRows[kind]))
	if after != nil {
		lo = append(slices.Clone(k.timer(kind, after.Due, after.Seq, after.Counter)), 0)
	}
	var out []TimerRef
	rows.Scan(spaceOf(number, n), lo, []byte{timerRows[kind] + 1}, func(key, _ []byte) bool {
		out = append(out, TimerRef{Cell: n, Kind: kind, Due: int64(beUint64(key[1:])), Seq: beUint64(key[9:]), Counter: binary.BigEndian.Uint32(key[17:])})
		return len(out) < limit
	})
	return out
}

// Deadline is a lease with what ends it: a group time, or its session (At is 0).
type Deadline struct {
	LeaseRef
	At                   int64 // 0: none; with a session only when it is to be cancelled by force
	Session, Incarnation uint64
	Cancelling           bool // the worker is to let it go
	Ended                bool // the session has ended here: Expire ends the lease
	Worker               string
}

// Deadlines reads all leases of a cell.
func Deadlines(rows Reader, number uint32, n int) []Deadline {
	var out []Deadline
	rows.Scan(spaceOf(number, n), []byte{rowLease}, []byte{rowLease + 1}, func(key, v []byte) bool {
		l := decodeLease(v)
		out = append(out, Deadline{LeaseRef: LeaseRef{Cell: n, Seq: beUint64(key[1:]), Fence: beUint64(key[9:])}, At: l.deadline, Session: l.session, Incarnation: l.incarnation, Worker: l.worker})
		return true
	})
	var k keys
	for i := range out {
		d := &out[i]
		if d.Session != 0 {
			d.Ended = !liveSession(rows, &k, d.Session, d.Incarnation)
		}
		if row, ok := rows.Get(spaceOf(number, n), k.seq(rowState, d.Seq)); ok {
			st := decodeStanding(row)
			if d.Cancelling = st.cancelling; st.deadline > 0 {
				d.At = st.deadline
			}
		}
	}
	return out
}

// Detail is all that is known of a message.
type Detail struct {
	Head       `json:"head"`
	ID         message.ID
	Place      message.ID // where it stands: its id, unless it was sent elsewhere
	State      message.State
	Shard      string
	Body       []byte // Show only, and not of finished ones
	Attempts   int
	Deliveries int
	Deaths     int
	History    []Attempt
	DueWall    int64  // scheduled: about when, wall time, ms
	Worker     string // leased: who holds it
	LeasedAt   int64  // leased: since when, wall time, ms
	FinishedAt int64
	// Fence of the ack that finished it, and what was sent with that.
	Fence      uint64       `json:",omitempty"`
	FollowUps  []message.ID `json:",omitempty"`
	Cancelling bool         // leased: its worker is to let it go
	Leaving    bool         // dead, or a follow-up that is scheduled: it is on its way to another queue
	aside      bool         // scheduled: outside the line of its key
	Paused     bool
	// Pause of its key or tenant keeps a message that waits; nil: none does.
	Pause *message.Pause
	Limit string // of the queue, that a ready message waits for: max_in_flight, rate, rate_per_key
	// InTurn: others of the message's priority and cell are ready besides its tenant's,
	// so its tenant has a turn among them.
	InTurn bool
	// Blocker is why a ready message with a key may not go out: the key's
	// message that goes first.
	Blocker *Blocker
}

// Last is the last that befell the message since it was sent; 0: nothing did.
func (d *Detail) Last() Outcome {
	if len(d.History) == 0 {
		return 0
	}
	return d.History[len(d.History)-1].Outcome
}

// Blocker is the message that has the turn of a key.
type Blocker struct {
	ID      message.ID
	State   message.State
	Worker  string // who holds it, if it is leased
	DueWall int64  // when it is tried again, if it is scheduled
}

// Show reads a message and its body. False: not known here, or forgotten.
func Show(rows Reader, id message.ID) (*Detail, bool) {
	d, _ := Find(rows, id, Line{Queue: id.Queue(), Cell: id.Point().Cell()})
	return d, d != nil
}

// Find reads a message and its body in a cell: that of its id, or one that it went
// to. on is where it went on from there.
func Find(rows Reader, id message.ID, at Line) (found *Detail, on *Line) {
	q, ok := Queue(rows, at.Queue)
	if !ok {
		return nil, nil
	}
	var k keys
	c := &cell{queue: &queue{number: at.Queue}, number: at.Cell, space: spaceOf(at.Queue, at.Cell)}
	seq := id.Seq()
	if row, ok := rows.Get(c.space, k.foreign(id)); ok { // also one that came home
		seq = decodeForeign(row)
	} else if id.Queue() != at.Queue || id.Point().Cell() != at.Cell {
		return nil, nil
	}
	if row, ok := rows.Get(c.space, k.seq(rowForward, seq)); ok {
		f := decodeForward(row)
		return nil, &f.to
	}
	d, ok := detail(rows, &q, c, seq)
	if !ok || d.ID != id && d.Place != id {
		return nil, nil
	}
	if x, ok := load(rows, &k, c, seq); ok {
		d.Body = x.fullBody(rows, &k)
	}
	d.explain(rows, &q, c)
	return d, nil
}

// othersReady says that a cell has messages of a turn's priority which may be handed
// out and are not its tenant's.
func othersReady(rows Reader, c *cell, t Turn) bool {
	var k keys
	after := []byte{rowTurn, message.MaxPriority - t.Priority}
	if t.Tenant != 0 {
		if first := []byte{rowReady, message.MaxPriority - t.Priority}; anyRow(rows, c.space, first, nextPriority(first)) {
			return true
		}
		if anyRow(rows, c.space, after, k.turn(t)) {
			return true
		}
		after = slices.Clone(k.ready(t, math.MaxUint64, math.MaxUint32))
	}
	return anyRow(rows, c.space, after, nextPriority(after))
}

// nextPriority is behind the rows of a priority.
func nextPriority(row []byte) []byte { return []byte{row[0], row[1] + 1} }

func anyRow(rows Reader, space uint64, lo, hi []byte) (found bool) {
	rows.Scan(space, lo, hi, func(_, _ []byte) bool {
		found = true
		return false
	})
	return found
}

func detail(rows Reader, q *Info, c *cell, seq uint64) (*Detail, bool) {
	var k keys
	s, _ := q.shardOf(c.number)
	d := &Detail{Shard: s.Path, Paused: q.Paused}
	var st *standing
	if row, ok := rows.Get(c.space, k.seq(rowFinished, seq)); ok {
		f := decodeFinished(row)
		d.Head = Head{Seq: seq, Key: f.key, Hash: f.hash, Type: f.kind, Tenant: f.tenant, SentAt: f.sentAt, BodySize: f.bodySize, Dedup: f.dedup, Unique: f.unique, Foreign: f.foreign}
		d.State, d.Attempts, d.Deliveries, d.Deaths, d.History, d.FinishedAt = f.state(), f.attempts, f.deliveries, f.deaths, f.history, f.at
		d.Fence, d.FollowUps = f.fence, f.followUps
	} else {
		x, ok := load(rows, &k, c, seq)
		if !ok {
			return nil, false
		}
		d.Head, d.State = x.Head, x.state(rows, &k)
		d.DueWall = x.DueWall
		if d.State == message.Ready {
			d.Pause = message.PauseOf(q.Pauses, x.Key, x.Tenant)
		}
		if st = x.st; st != nil {
			d.Attempts, d.Deliveries, d.Deaths, d.History, d.DueWall = x.st.attempts, x.st.deliveries, x.st.deaths, x.st.history, x.st.dueWall
			d.Cancelling, d.aside, d.Leaving = x.st.cancelling, x.st.aside, x.st.leaving
		}
		if l, _, ok := currentLease(rows, &k, c, seq); ok {
			d.Worker, d.LeasedAt, d.Deliveries = l.worker, l.at, max(d.Deliveries, 1)
		}
	}
	x := &stored{Head: d.Head, cell: c, st: st}
	d.ID, d.Place = x.id(), x.place()
	return d, true
}

// explain finds what a ready message waits for.
func (d *Detail) explain(rows Reader, q *Info, c *cell) {
	if d.State != message.Ready {
		return
	}
	d.Limit = q.limit(rows)
	if d.keyed() {
		d.Blocker = blocker(rows, c, d)
		if p, _ := readKeyPace(rows, &keys{}, c, d.Hash); p.rests {
			d.Limit = "rate_per_key"
		}
	}
	d.InTurn = othersReady(rows, c, Turn{Priority: d.Priority, Tenant: d.TenantHash})
}

// blocker finds the message of d's key that goes before it; nil if d has the
// turn itself.
func blocker(rows Reader, c *cell, d *Detail) *Blocker {
	var k keys
	l := readLine(rows, &k, c, d.Hash)
	first := l.first
	if holder := l.holder(); holder != 0 {
		first = holder
	}
	x, ok := load(rows, &k, c, first)
	if !ok || first == d.Seq {
		return nil
	}
	b := &Blocker{ID: x.id(), State: x.state(rows, &k), DueWall: x.DueWall}
	if x.st != nil {
		b.DueWall = x.st.dueWall
	}
	if l, _, ok := currentLease(rows, &k, c, first); ok {
		b.Worker = l.worker
	}
	return b
}
