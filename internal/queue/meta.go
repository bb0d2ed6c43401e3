package queue

import (
	"encoding/binary"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// groupMeta is the group's own row.
type groupMeta struct {
	command   uint64 // command version: Apply branches on it, never on the binary
	groupTime int64  // of the last entry, ms
	wall      int64  // of the last entry, ms since 1970
	catalog   uint64 // highest version that a session came with; 0: none did
}

// commandVersion is what this binary writes into a new group.
const commandVersion = 1

func (m *groupMeta) append(b []byte) []byte {
	b = putInt(putInt(binary.AppendUvarint(b, m.command), m.groupTime), m.wall)
	if m.catalog > 0 {
		b = binary.AppendUvarint(b, m.catalog)
	}
	return b
}

func decodeGroupMeta(row []byte) groupMeta {
	d := decoder{b: row}
	m := groupMeta{command: d.uint(), groupTime: d.int(), wall: d.int()}
	if len(d.b) > 0 {
		m.catalog = d.uint()
	}
	must(d.end("the group row"))
	return m
}

// settingsRow is a queue's settings as this group was told.
type settingsRow struct {
	version  uint64
	settings message.Settings
	paused   bool
	// deadLetter is where its dead go.
	deadLetter Target
	pauses     pauses
}

const (
	settingsPaused      = 1 << iota
	settingsDeaths      // max_worker_deaths follows the others
	settingsSkip        // on_failure is skip
	settingsExpiredDead // on_expired is dead
	settingsLimits      // max_in_flight and rate follow
	settingsSingle      // assign is single
	settingsWindow      // dedup_window follows: it is not the default
	settingsDeadLetter  // where its dead go follows
)

// Flags, too, in the byte behind them, of the backoff's kind.
const (
	settingsPauses     = 1 << 7 // pauses of keys and tenants follow
	settingsRatePerKey = 1 << 6 // rate_per_key follows
	settingsMore       = settingsPauses | settingsRatePerKey
)

func (s *settingsRow) append(b []byte) []byte {
	b = binary.AppendUvarint(b, s.version)
	flags := byte(settingsDeaths)
	if s.paused {
		flags |= settingsPaused
	}
	if s.settings.OnFailure == message.SkipKey {
		flags |= settingsSkip
	}
	if s.settings.DedupWindow != message.DefaultDedupWindow {
		flags |= settingsWindow
	}
	if s.settings.OnExpired == message.ExpiredDead {
		flags |= settingsExpiredDead
	}
	limited := s.settings.MaxInFlight > 0 || s.settings.Rate.Count > 0
	if limited {
		flags |= settingsLimits
	}
	if s.settings.Assign == message.AssignSingle {
		flags |= settingsSingle
	}
	if s.deadLetter.Queue != 0 {
		flags |= settingsDeadLetter
	}
	kind := byte(s.settings.Backoff.Kind)
	if len(s.pauses.list) > 0 {
		kind |= settingsPauses
	}
	if s.settings.RatePerKey.Count > 0 {
		kind |= settingsRatePerKey
	}
	b = append(b, flags, kind)
	for _, v := range []int64{
		int64(s.settings.MaxAttempts), int64(s.settings.KeepFinished), int64(s.settings.MaxMessageBytes),
		millis(s.settings.KeepFinishedFor), millis(s.settings.Backoff.Initial), millis(s.settings.Backoff.Max),
	} {
		b = putInt(b, v)
	}
	b = appendDelays(b, s.settings.Backoff.List)
	b = putInt(b, int64(s.settings.MaxWorkerDeaths))
	if limited {
		b = appendRate(putInt(b, int64(s.settings.MaxInFlight)), s.settings.Rate)
	}
	if flags&settingsWindow != 0 {
		b = putInt(b, millis(max(s.settings.DedupWindow, 0)))
	}
	if s.deadLetter.Queue != 0 {
		b = s.deadLetter.append(b)
	}
	if len(s.pauses.list) > 0 {
		b = s.pauses.append(b)
	}
	if s.settings.RatePerKey.Count > 0 {
		b = appendRate(b, s.settings.RatePerKey)
	}
	return b
}

func decodeSettings(d *decoder) (s settingsRow) {
	s.version = d.uint()
	flags := d.byte()
	s.paused = flags&settingsPaused != 0
	s.settings.OnFailure = message.BlockKey
	if flags&settingsSkip != 0 {
		s.settings.OnFailure = message.SkipKey
	}
	s.settings.OnExpired = message.ExpiredDrop
	if flags&settingsExpiredDead != 0 {
		s.settings.OnExpired = message.ExpiredDead
	}
	s.settings.Assign = message.AssignAll
	if flags&settingsSingle != 0 {
		s.settings.Assign = message.AssignSingle
	}
	b := &s.settings.Backoff
	kind := d.byte()
	b.Kind = message.BackoffKind(kind &^ settingsMore)
	s.settings.MaxAttempts, s.settings.KeepFinished, s.settings.MaxMessageBytes = int(d.int()), int(d.int()), int(d.int())
	s.settings.KeepFinishedFor, b.Initial, b.Max = d.millis(), d.millis(), d.millis()
	b.List = decodeDelays(d)
	s.settings.MaxWorkerDeaths = message.DefaultWorkerDeaths
	if flags&settingsDeaths != 0 {
		s.settings.MaxWorkerDeaths = int(d.int())
	}
	if flags&settingsLimits != 0 {
		s.settings.MaxInFlight = int(d.int())
		s.settings.Rate = decodeRate(d)
	}
	s.settings.DedupWindow = message.DefaultDedupWindow
	if flags&settingsWindow != 0 {
		if s.settings.DedupWindow = d.millis(); s.settings.DedupWindow == 0 {
			s.settings.DedupWindow = message.NoDedup
		}
	}
	if flags&settingsDeadLetter != 0 {
		s.deadLetter = decodeTarget(d)
	}
	if kind&settingsPauses != 0 {
		s.pauses = decodePauses(d)
	}
	if kind&settingsRatePerKey != 0 {
		s.settings.RatePerKey = decodeRate(d)
	}
	if !knownBackoff(b) {
		d.fail()
	}
	return s
}

// knownBackoff says that backoff can compute with b.
func knownBackoff(b *message.Backoff) bool {
	return b.Kind <= message.BackoffList && (b.Kind == message.BackoffList) == (len(b.List) > 0)
}

func appendRate(b []byte, r message.Rate) []byte {
	return putInt(putInt(b, int64(r.Count)), millis(r.Per))
}

func decodeRate(d *decoder) message.Rate {
	r := message.Rate{Count: int(d.int()), Per: d.millis()}
	if r.Count < 0 || r.Count > message.MaxRate || (r.Count > 0) != (r.Per > 0) {
		d.fail()
	}
	return r
}

func appendDelays(b []byte, delays []time.Duration) []byte {
	b = binary.AppendUvarint(b, uint64(len(delays)))
	for _, d := range delays {
		b = putInt(b, millis(d))
	}
	return b
}

func decodeDelays(d *decoder) (delays []time.Duration) {
	for range d.count(1) {
		delays = append(delays, d.millis())
	}
	return delays
}

// shard is a run of a queue's cells, the unit of order and of splitting. One
// counter gives sequence numbers and fences: they grow for every key for ever,
// because a split copies it to both halves.
type shard struct {
	from, to int // cells, both included
	epoch    uint64
	counter  uint64
	path     string
	dirty    bool
}

func (s *shard) append(b []byte) []byte {
	b = append(b, byte(s.to))
	b = binary.AppendUvarint(binary.AppendUvarint(b, s.epoch), s.counter)
	return putString(b, s.path)
}

func decodeShard(from int, row []byte) *shard {
	d := decoder{b: row}
	s := &shard{from: from, to: int(d.byte()), epoch: d.uint(), counter: d.uint(), path: d.string()}
	must(d.end("a shard row"))
	return s
}

// next gives the next number of the shard's counter.
func (s *shard) next() uint64 {
	s.counter++
	s.dirty = true
	return s.counter
}

// full says that the counter has come to its end.
func (s *shard) full() bool { return s.counter >= message.MaxSequence-1 }

// cell is one of a queue's ranges of points; all rows of its messages lie in
// one space.
type cell struct {
	queue  *queue
	shard  *shard
	number int
	space  uint64
	counts message.Counts
	// floors: no ready row of the priority lies before it. low is the oldest
	// message that became ready again since a floor was raised by a scan that
	// had seen all of them, 0 if none did, and lowered the entry of the last one.
	floors  [message.MaxPriority + 1]uint64
	low     uint64
	lowered uint64
	// The ring of finished messages: chunk rows head to tail-1. oldest is the
	// group time of the chunk at head; finishing is the chunk of this entry.
	head, tail uint64
	oldest     int64
	finishing  []uint64
	dirty      bool
	dedups     uint64 // dedup rows
	paced      uint64 // keys that have a pace
	totals     message.Totals
	// Messages that are to leave and their bytes; rows of messages that left, of those
	// that came, and of cells that they come from.
	outbox, outboxBytes         int64
	forwards, foreigns, inboxes int64
	// held spares settlements the reads: messages that were leased since the
	// machine was loaded, maxHeld at the most. One that is not in it is read from
	// its rows.
	held map[uint64]*held
}

const maxHeld = 1 << 14 // in a cell

func (c *cell) append(b []byte) []byte {
	for _, v := range []int64{c.counts.Ready, c.counts.Scheduled, c.counts.Leased, c.counts.Dead, c.counts.Finished} {
		b = putInt(b, v)
	}
	b = binary.AppendUvarint(binary.AppendUvarint(b, c.head), c.tail)
	b = binary.AppendUvarint(binary.AppendUvarint(putInt(b, c.oldest), c.low), c.lowered)
	n := 0
	for _, f := range c.floors {
		if f > 0 {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for p, f := range c.floors {
		if f > 0 {
			b = binary.AppendUvarint(append(b, byte(p)), f)
		}
	}
	away, t := c.forwards+c.foreigns+c.inboxes+c.outbox, &c.totals
	if c.dedups > 0 || away > 0 || c.paced > 0 || *t != (message.Totals{}) {
		b = binary.AppendUvarint(b, c.dedups)
		b = binary.AppendUvarint(binary.AppendUvarint(b, t.Sent), t.Delivered)
		b = binary.AppendUvarint(binary.AppendUvarint(b, t.Finished), t.Failed)
	}
	if away > 0 || c.paced > 0 {
		for _, v := range []int64{c.outbox, c.outboxBytes, c.forwards, c.foreigns, c.inboxes} {
			b = putInt(b, v)
		}
	}
	if c.paced > 0 {
		b = binary.AppendUvarint(b, c.paced)
	}
	return b
}

func (c *cell) decode(row []byte) {
	d := decoder{b: row}
	c.counts = message.Counts{Ready: d.int(), Scheduled: d.int(), Leased: d.int(), Dead: d.int(), Finished: d.int()}
	c.head, c.tail, c.oldest, c.low, c.lowered = d.uint(), d.uint(), d.int(), d.uint(), d.uint()
	for range d.count(2) {
		if p := d.byte(); int(p) < len(c.floors) {
			c.floors[p] = d.uint()
		} else {
			d.fail()
		}
	}
	if len(d.b) > 0 {
		c.dedups = d.uint()
	}
	if len(d.b) > 0 {
		c.totals = message.Totals{Sent: d.uint(), Delivered: d.uint(), Finished: d.uint(), Failed: d.uint()}
	}
	if len(d.b) > 0 {
		c.outbox, c.outboxBytes, c.forwards, c.foreigns, c.inboxes = d.int(), d.int(), d.int(), d.int(), d.int()
	}
	if len(d.b) > 0 {
		c.paced = d.uint()
	}
	must(d.end("a cell row"))
}

// queue is what the group knows of a queue.
type queue struct {
	number uint32
	settingsRow
	next   int64                // by its rate: when one more message is due to go out; group time, ns
	shards []*shard             // those that are in this group, by their first cell
	cells  [message.Cells]*cell // of those shards, once touched
}

// owner is the shard of this group that a cell belongs to; nil if none.
func (q *queue) owner(cell int) *shard {
	for _, s := range q.shards {
		if s.from <= cell && cell <= s.to {
			return s
		}
	}
	return nil
}
