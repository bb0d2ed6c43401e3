package queue

import (
	"encoding/binary"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Command is one encoded command: its fields, and its bodies apart, so that
// they are copied once, into the entry.
type Command struct {
	Head   []byte
	Bodies [][]byte
}

// An entry is what the leader puts into the log: commands that met in one
// moment, and the leader's clocks, because replicas never read one.
//
//	format (1) | flags (1) | group time | wall time | number of commands
//	per command: type (1) | lane (1: none) | length | fields
//	number of bodies | their lengths | the bodies
//
// Bodies come last and are named by their ordinal, so whoever does not need
// them need not pass over them.
const (
	entryFormat = 1
	laneNone    = 0 // a lone voter with its gateway in the process numbers nothing (design 4)
)

// Command types. The numbers are in every log: they are never used again.
const (
	cmdSend      = 1
	cmdLease     = 2
	cmdSettle    = 3
	cmdExpire    = 4
	cmdWake      = 5
	cmdRedrive   = 6
	cmdConfigure = 7
	cmdDrop      = 8
	cmdTick      = 9
)

// AppendEntry joins commands to one entry. groupTime and wall are milliseconds.
// C is Command under any name: the host of the replica carries it under its own.
func AppendEntry[C ~struct {
	Head   []byte
	Bodies [][]byte
}](b []byte, groupTime, wall int64, joined []C) []byte {
	b = append(b, entryFormat, 0)
	b = putInt(putInt(b, groupTime), wall)
	b = binary.AppendUvarint(b, uint64(len(joined)))
	bodies := 0
	for _, j := range joined {
		c := Command(j)
		b = append(b, c.Head[0], laneNone)
		b = putString(b, c.Head[1:])
		bodies += len(c.Bodies)
	}
	b = binary.AppendUvarint(b, uint64(bodies))
	for _, j := range joined {
		c := Command(j)
		for _, body := range c.Bodies {
			b = binary.AppendUvarint(b, uint64(len(body)))
		}
	}
	for _, j := range joined {
		c := Command(j)
		for _, body := range c.Bodies {
			b = append(b, body...)
		}
	}
	return b
}

// entry is a decoded entry.
type entry struct {
	groupTime, wall int64
	commands        decoder // n commands
	n               int
	bodies          [][]byte
}

// decodeEntry checks the frame of an entry; the commands are read as they are
// applied.
func decodeEntry(b []byte, bodies [][]byte) (e entry, err error) {
	d := decoder{b: b}
	if d.byte() != entryFormat || d.byte() != 0 {
		d.fail()
	}
	e.groupTime, e.wall = d.int(), d.int()
	e.n = d.count(3)
	e.commands.b = d.b
	for range e.n {
		d.byte()
		d.byte()
		d.bytes()
	}
	e.commands.b = e.commands.b[:len(e.commands.b)-len(d.b)]
	n := d.count(1)
	lengths := d
	for range n {
		d.uint()
	}
	for range n {
		bodies = append(bodies, d.take(lengths.uint()))
	}
	e.bodies = bodies
	return e, d.end("an entry")
}

// Send stores messages. Each names its cell, or by its key its point.
type Send struct {
	Queue    uint32
	Messages []Sent
}

// Sent is one message of a Send.
type Sent struct {
	Cell int             // without a key: where the sender's lane is
	Hash message.KeyHash // with a key
	message.New
}

const (
	sentKeyed = 1 << iota
	sentDelayed
	sentTyped
	sentAttributed
)

// Command encodes c.
func (c *Send) Command() Command {
	size := 16
	for i := range c.Messages {
		m := &c.Messages[i]
		size += 40 + len(m.Key) + len(m.Type) + 4*len(m.Attributes)
	}
	b := append(make([]byte, 0, size), cmdSend)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = binary.AppendUvarint(b, uint64(len(c.Messages)))
	bodies := make([][]byte, len(c.Messages))
	for i := range c.Messages {
		m := &c.Messages[i]
		var flags byte
		if m.Key != "" {
			flags |= sentKeyed
		}
		if m.Delay > 0 {
			flags |= sentDelayed
		}
		if m.Type != "" {
			flags |= sentTyped
		}
		if len(m.Attributes) > 0 {
			flags |= sentAttributed
		}
		b = append(b, flags)
		if flags&sentKeyed != 0 {
			b = appendHash(b, m.Hash)
			b = putString(b, m.Key)
		} else {
			b = append(b, byte(m.Cell))
		}
		if flags&sentDelayed != 0 {
			b = putInt(b, millis(m.Delay))
		}
		if flags&sentTyped != 0 {
			b = putString(b, m.Type)
		}
		if flags&sentAttributed != 0 {
			b = appendAttributes(b, m.Attributes)
		}
		bodies[i] = m.Body
	}
	return Command{Head: b, Bodies: bodies}
}

func (m *Sent) decode(d *decoder) {
	flags := d.byte()
	*m = Sent{}
	if flags&sentKeyed != 0 {
		m.Hash = message.KeyHash{Hi: d.fixed64(), Lo: d.fixed64()}
		m.Key = d.string()
		m.Cell = m.Hash.Point().Cell()
	} else if m.Cell = int(d.byte()); m.Cell >= message.Cells {
		d.fail()
		m.Cell = 0
	}
	if flags&sentDelayed != 0 {
		m.Delay = time.Duration(d.int()) * time.Millisecond
	}
	if flags&sentTyped != 0 {
		m.Type = d.string()
	}
	if flags&sentAttributed != 0 {
		m.Attributes = decodeAttributes(d)
	}
}

// millis rounds up: nothing runs earlier than it was asked to.
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// Lease hands messages to a worker. The leader chose them; Apply checks that
// each may still go out.
type Lease struct {
	Queue   uint32
	Worker  string
	Session uint64
	Length  time.Duration
	// MaxBytes of the answer: leasing ends before the message that exceeds it,
	// unless that is the first.
	MaxBytes int
	Items    []Ref
	Floors   []Floor
}

// Ref names a message as somebody saw it: Apply refuses it if it has changed.
type Ref struct {
	Cell     int
	Priority byte
	Seq      uint64
	Counter  uint32
}

// Floor says that a cell had no ready message of a priority before Seq when
// the entry at Index had been applied.
type Floor struct {
	Cell     int
	Priority byte
	Seq      uint64
	Index    uint64
}

// Leased is a message that was handed out.
type Leased struct {
	ID         message.ID
	Ref        Ref
	Fence      uint64
	Attempts   int   // failed ones
	Deliveries int   // this one counted
	Deadline   int64 // group time, ms
	Head       Head
	Body       []byte
}

// LeaseResult is the answer to a Lease. Of the first Looked items, those that
// are not leased had changed since they were chosen; the others were left alone
// because of MaxBytes.
type LeaseResult struct {
	Leased []Leased
	Looked int
	Err    *message.Error // QUEUE_NOT_FOUND, UNAVAILABLE (paused): nothing was leased
}

// Command encodes c.
func (c *Lease) Command() Command {
	b := append(make([]byte, 0, 64+len(c.Worker)+16*len(c.Items)), cmdLease)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = putString(b, c.Worker)
	b = binary.AppendUvarint(b, c.Session)
	b = putInt(putInt(b, millis(c.Length)), int64(c.MaxBytes))
	b = binary.AppendUvarint(b, uint64(len(c.Items)))
	for _, r := range c.Items {
		b = r.append(b)
	}
	b = binary.AppendUvarint(b, uint64(len(c.Floors)))
	for _, f := range c.Floors {
		b = append(b, byte(f.Cell), f.Priority)
		b = binary.AppendUvarint(binary.AppendUvarint(b, f.Seq), f.Index)
	}
	return Command{Head: b}
}

func (r Ref) append(b []byte) []byte {
	b = append(b, byte(r.Cell), r.Priority)
	return binary.AppendUvarint(binary.AppendUvarint(b, r.Seq), uint64(r.Counter))
}

func decodeRef(d *decoder) Ref {
	r := Ref{Cell: int(d.byte()), Priority: d.byte(), Seq: d.uint(), Counter: uint32(d.uint())}
	if r.Cell >= message.Cells || r.Priority > message.MaxPriority {
		d.fail()
		return Ref{}
	}
	return r
}

// Settle ends or changes leases.
type Settle struct {
	Settlements []message.Settlement
}

// Command encodes c.
func (c *Settle) Command() Command {
	b := append(make([]byte, 0, 16+48*len(c.Settlements)), cmdSettle)
	b = binary.AppendUvarint(b, uint64(len(c.Settlements)))
	for i := range c.Settlements {
		s := &c.Settlements[i]
		at := s.Token.At()
		b = append(b, byte(s.Action))
		b = append(b, at[:]...)
		b = binary.AppendUvarint(b, s.Token.Fence)
		b = binary.AppendUvarint(b, s.Token.Session)
		b = putString(b, s.Error)
		b = binary.AppendUvarint(b, settleDelay(s))
		b = putInt(b, millis(s.Lease))
	}
	return Command{Head: b}
}

// settleDelay writes a delay as milliseconds + 1, and none as 0.
func settleDelay(s *message.Settlement) uint64 {
	if !s.HasDelay {
		return 0
	}
	return uint64(millis(s.Delay)) + 1
}

// settlement is a Settlement as Apply sees it.
type settlement struct {
	action   message.Action
	at       message.ID
	fence    uint64
	session  uint64
	err      string
	delay    int64 // ms
	hasDelay bool
	lease    int64 // ms
}

func (s *settlement) decode(d *decoder) {
	s.action = message.Action(d.byte())
	copy(s.at[:], d.take(16))
	s.fence, s.session, s.err = d.uint(), d.uint(), d.string()
	delay := d.uint()
	s.hasDelay = delay > 0
	s.delay = int64(max(delay, 1) - 1)
	s.lease = d.int()
}

// LeaseRef names one lease.
type LeaseRef struct {
	Cell       int
	Seq, Fence uint64
}

// Expire ends leases whose deadline has passed by group time; Apply looks.
type Expire struct {
	Queue  uint32
	Leases []LeaseRef
}

// Command encodes c.
func (c *Expire) Command() Command {
	b := append(make([]byte, 0, 16+16*len(c.Leases)), cmdExpire)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = binary.AppendUvarint(b, uint64(len(c.Leases)))
	for _, l := range c.Leases {
		b = binary.AppendUvarint(binary.AppendUvarint(append(b, byte(l.Cell)), l.Seq), l.Fence)
	}
	return Command{Head: b}
}

// TimerRef names one timer row.
type TimerRef struct {
	Cell    int
	Due     int64 // group time, ms
	Seq     uint64
	Counter uint32
}

// Wake makes scheduled messages ready that are due by group time; Apply looks.
type Wake struct {
	Queue  uint32
	Timers []TimerRef
}

// Command encodes c.
func (c *Wake) Command() Command {
	b := append(make([]byte, 0, 16+16*len(c.Timers)), cmdWake)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = binary.AppendUvarint(b, uint64(len(c.Timers)))
	for _, t := range c.Timers {
		b = putInt(append(b, byte(t.Cell)), t.Due)
		b = binary.AppendUvarint(binary.AppendUvarint(b, t.Seq), uint64(t.Counter))
	}
	return Command{Head: b}
}

// Redrive revives dead messages where they are.
type Redrive struct {
	IDs           []message.ID
	ResetAttempts bool
}

// RedriveResult is the answer for one message: nil, or MESSAGE_NOT_FOUND,
// NOT_DEAD, WRONG_SHARD.
type RedriveResult = *message.Error

// Command encodes c.
func (c *Redrive) Command() Command {
	b := append(make([]byte, 0, 16+16*len(c.IDs)), cmdRedrive, 0)
	if c.ResetAttempts {
		b[1] = 1
	}
	b = binary.AppendUvarint(b, uint64(len(c.IDs)))
	for _, id := range c.IDs {
		b = append(b, id[:]...)
	}
	return Command{Head: b}
}

// Configure brings a queue's settings into the group, and the queue itself
// with its shards if the group does not have it. An older version than the
// group has changes nothing.
type Configure struct {
	Queue    uint32
	Version  uint64 // of the queue in the catalog
	Settings message.Settings
	Paused   bool
	Shards   []Bounds // those that are in this group
}

// Bounds is a shard as a run of cells, both included.
type Bounds struct {
	From, To int
	Path     string // its id in its queue: 0, 0.1, …
}

// Command encodes c.
func (c *Configure) Command() Command {
	b := append(make([]byte, 0, 64), cmdConfigure)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = (&settingsRow{version: c.Version, settings: c.Settings, paused: c.Paused}).append(b)
	b = binary.AppendUvarint(b, uint64(len(c.Shards)))
	for _, s := range c.Shards {
		b = putString(append(b, byte(s.From), byte(s.To)), s.Path)
	}
	return Command{Head: b}
}

// Drop deletes a queue from the group with every message in it.
type Drop struct{ Queue uint32 }

// Command encodes c.
func (c *Drop) Command() Command {
	return Command{Head: binary.AppendUvarint([]byte{cmdDrop}, uint64(c.Queue))}
}

// Tick stamps group time where nothing else does.
func Tick() Command { return Command{Head: []byte{cmdTick}} }
