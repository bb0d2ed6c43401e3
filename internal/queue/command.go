package queue

import (
	"encoding/binary"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Send stores messages. Each names its cell, or by its key its point.
type Send struct {
	Queue    uint32
	Messages []Sent
	// Atomic: all of them or none. They are in one shard.
	Atomic bool
}

// Sent is one message of a Send.
type Sent struct {
	Cell       int             // without a key: where the sender's lane is
	Hash       message.KeyHash // with a key
	TenantHash uint64          // with a tenant, not 0
	// Of the dedup id and the unique key, each within the key.
	DedupHash, UniqueHash message.KeyHash
	message.New
}

// minSent is the least that a Sent takes: flags, and a cell or a key.
const minSent = 2

// Flags of a Sent, a uvarint: one byte for what is used most.
const (
	sentKeyed = 1 << iota
	sentDelayed
	sentTyped
	sentAttributed
	sentPriority
	sentRetry
	sentDeliverAt
	sentExpires
	sentDedup
	sentUnique
	sentExisting // on_conflict
	sentTenant
)

// Command encodes c.
func (c *Send) Command() Command {
	size := 16
	for i := range c.Messages {
		m := &c.Messages[i]
		size += 40 + len(m.Key) + len(m.Type) + len(m.Tenant) + 4*len(m.Attributes)
	}
	kind := byte(cmdSend)
	if c.Atomic {
		kind = cmdSendAtomic
	}
	b := append(make([]byte, 0, size), kind, laneNone)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = binary.AppendUvarint(b, uint64(len(c.Messages)))
	bodies := make([][]byte, len(c.Messages))
	for i := range c.Messages {
		m := &c.Messages[i]
		b = m.append(b)
		bodies[i] = m.Body
	}
	return Command{Head: b, Bodies: bodies}
}

// append writes all but the body.
func (m *Sent) append(b []byte) []byte {
	flags := m.flags()
	b = binary.AppendUvarint(b, flags)
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
	if flags&sentPriority != 0 {
		b = append(b, byte(m.Priority))
	}
	if flags&sentRetry != 0 {
		b = appendRetry(b, m.Retry)
	}
	if flags&sentDeliverAt != 0 {
		b = putTime(b, m.DeliverAt)
	}
	if flags&sentExpires != 0 {
		b = putTime(b, m.Expires)
	}
	if flags&sentDedup != 0 {
		b = putString(appendHash(b, m.DedupHash), m.DedupID)
	}
	if flags&sentUnique != 0 {
		b = putString(appendHash(b, m.UniqueHash), m.UniqueKey)
	}
	if flags&sentTenant != 0 {
		b = putString(binary.BigEndian.AppendUint64(b, m.TenantHash), m.Tenant)
	}
	return b
}

func (m *Sent) flags() (flags uint64) {
	for flag, set := range [...]bool{
		m.Key != "", m.Delay > 0, m.Type != "", len(m.Attributes) > 0, m.Priority > 0, m.Retry != nil,
		!m.DeliverAt.IsZero(), !m.Expires.IsZero(), m.DedupID != "", m.UniqueKey != "", m.OnConflict == message.ConflictExisting,
		m.Tenant != "",
	} {
		if set {
			flags |= 1 << flag
		}
	}
	return flags
}

func (m *Sent) decode(d *decoder) {
	flags := d.uint()
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
	if flags&sentPriority != 0 {
		if m.Priority = int(d.byte()); m.Priority > message.MaxPriority {
			d.fail()
			m.Priority = 0
		}
	}
	if flags&sentRetry != 0 {
		m.Retry = decodeRetry(d)
	}
	if flags&sentDeliverAt != 0 {
		m.DeliverAt = d.time()
	}
	if flags&sentExpires != 0 {
		m.Expires = d.time()
	}
	if flags&sentDedup != 0 {
		m.DedupHash, m.DedupID = d.hash(), d.string()
	}
	if flags&sentUnique != 0 {
		m.UniqueHash, m.UniqueKey = d.hash(), d.string()
	}
	if flags&sentExisting != 0 {
		m.OnConflict = message.ConflictExisting
	}
	if flags&sentTenant != 0 {
		if m.TenantHash, m.Tenant = d.fixed64(), d.string(); m.TenantHash == 0 || m.Tenant == "" {
			d.fail()
			m.TenantHash, m.Tenant = 0, ""
		}
	}
	if m.Key == "" && (m.DedupID != "" || m.UniqueKey != "") {
		m.Cell = placed(m.dedup(), m.unique()).Point().Cell()
	}
	if flags >= sentTenant<<1 {
		d.fail() // of a newer version
	}
}

// millis rounds up: nothing runs earlier than it was asked to.
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// Lease hands messages to a worker. The leader chose them; Apply checks that
// each may still go out.
type Lease struct {
	Queue  uint32
	Worker string
	// Session, unless it is zero, holds the leases instead of a deadline. The
	// first Lease of a session attaches it to the group.
	Session Session
	Length  time.Duration // without a session
	// MaxBytes of the answer: leasing ends before the message that exceeds it,
	// unless that is the first.
	MaxBytes int
	Items    []Ref
	Floors   []Floor
	// PerKey is how many messages of one key may go out, and Extra how many more than
	// Items in all.
	PerKey, Extra int
}

// Ref names a message as somebody saw it: Apply refuses it if it has changed.
type Ref struct {
	Cell     int
	Priority byte
	Seq      uint64
	Counter  uint32
}

// Offer is a message that may be handed out.
type Offer struct {
	Ref
	// Key is the upper half of its key's hash, for whoever chooses; 0: no key.
	Key uint64
	// Tenant is its tenant's number; 0: it has none.
	Tenant uint64
}

// Turn is what one tenant has ready of one priority. Higher priorities go first;
// within one the tenants take turns, and messages without one are as another tenant's.
type Turn struct {
	Priority byte
	Tenant   uint64 // 0: no tenant
}

// Turn is where the offer belongs.
func (o *Offer) Turn() Turn { return Turn{Priority: o.Priority, Tenant: o.Tenant} }

// Refs are what a Lease of offers names.
func Refs(offers []Offer) []Ref {
	refs := make([]Ref, len(offers))
	for i := range offers {
		refs[i] = offers[i].Ref
	}
	return refs
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
	Place      message.ID // where it stands, if that is not its id; zero: it is
	Ref        Ref
	Fence      uint64
	Attempts   int   // failed ones
	Deliveries int   // this one counted
	Deadline   int64 // group time, ms; 0: bound to a session
	Head       Head
	Body       []byte
}

// At is where the message stands.
func (x *Leased) At() message.ID {
	if x.Place != (message.ID{}) {
		return x.Place
	}
	return x.ID
}

// LeaseResult is the answer to a Lease: messages of Items, then the later ones of their
// keys. Of the first Looked items, those that
// are not leased had changed since they were chosen; the others were left alone
// because of MaxBytes.
type LeaseResult struct {
	Leased []Leased
	Looked int
	// Err: nothing was leased. WRONG_SHARD; UNAVAILABLE: the queue is paused, or
	// the session was looked up in too old a catalog; SESSION_ENDED;
	// RESOURCE_EXHAUSTED: too many sessions.
	Err *message.Error
}

// Command encodes c.
func (c *Lease) Command() Command {
	b := append(make([]byte, 0, 64+len(c.Worker)+16*len(c.Items)), cmdLease, laneNone)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = putString(b, c.Worker)
	b = c.Session.append(b)
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
	if c.Extra > 0 {
		b = putInt(putInt(b, int64(c.PerKey)), int64(c.Extra))
	}
	return Command{Head: b}
}

func (c *Lease) decode(d *decoder) {
	c.Queue, c.Worker, c.Session = uint32(d.uint()), d.string(), decodeSession(d)
	c.Length, c.MaxBytes = time.Duration(d.int())*time.Millisecond, int(d.int())
	c.Items = make([]Ref, 0, d.count(4))
	for range cap(c.Items) {
		c.Items = append(c.Items, decodeRef(d))
	}
	c.Floors = make([]Floor, d.count(4))
	for i := range c.Floors {
		c.Floors[i] = Floor{Cell: int(d.byte()), Priority: d.byte(), Seq: d.uint(), Index: d.uint()}
	}
	if len(d.b) > 0 {
		if c.PerKey, c.Extra = int(d.int()), int(d.int()); c.PerKey < 1 || c.PerKey > message.MaxPerKey || c.Extra < 0 {
			d.fail()
		}
	}
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
	// FollowUps are those of each of the settlements, with their places; nil: none has
	// any.
	FollowUps [][]FollowUp
}

// Command encodes c.
func (c *Settle) Command() Command {
	kind := byte(cmdSettle)
	if c.FollowUps != nil {
		kind = cmdSettleSend
	}
	b := append(make([]byte, 0, 16+48*len(c.Settlements)), kind, laneNone)
	b = binary.AppendUvarint(b, uint64(len(c.Settlements)))
	var bodies [][]byte
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
		if kind == cmdSettleSend {
			b, bodies = appendFollowUps(b, bodies, c.FollowUps[i])
		}
	}
	return Command{Head: b, Bodies: bodies}
}

// settleDelay writes a delay as milliseconds + 1, and none as 0.
func settleDelay(s *message.Settlement) uint64 {
	if !s.HasDelay {
		return 0
	}
	return uint64(millis(s.Delay)) + 1
}

// minSettlement is the least that a settlement takes: action, id and five
// numbers.
const minSettlement = 22

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
	// followUps have no bodies before they are taken from the entry.
	followUps []FollowUp
}

func (s *settlement) decode(d *decoder, kind byte) {
	s.action = message.Action(d.byte())
	copy(s.at[:], d.take(16))
	s.fence, s.session, s.err = d.uint(), d.uint(), d.string()
	delay := d.uint()
	s.hasDelay = delay > 0
	s.delay = int64(max(delay, 1) - 1)
	s.lease = d.int()
	s.followUps = s.followUps[:0]
	if kind == cmdSettleSend {
		s.decodeFollowUps(d)
	}
}

// LeaseRef names one lease.
type LeaseRef struct {
	Cell       int
	Seq, Fence uint64
}

// Expire ends leases whose deadline has passed by group time, or whose session
// has ended; Apply looks.
type Expire struct {
	Queue  uint32
	Leases []LeaseRef
}

// Command encodes c.
func (c *Expire) Command() Command { return leaseRefs(cmdExpire, c.Queue, c.Leases) }

// ReleaseLeases gives back what nobody knows to hold, without counting an
// attempt: leases whose answer was lost on its way to the worker.
type ReleaseLeases struct {
	Queue  uint32
	Leases []LeaseRef
}

// Command encodes c.
func (c *ReleaseLeases) Command() Command { return leaseRefs(cmdReleaseLeases, c.Queue, c.Leases) }

func leaseRefs(kind byte, number uint32, leases []LeaseRef) Command {
	b := append(make([]byte, 0, 16+16*len(leases)), kind, laneNone)
	b = binary.AppendUvarint(b, uint64(number))
	b = binary.AppendUvarint(b, uint64(len(leases)))
	for _, l := range leases {
		b = binary.AppendUvarint(binary.AppendUvarint(append(b, byte(l.Cell)), l.Seq), l.Fence)
	}
	return Command{Head: b}
}

func decodeLeaseRefs(d *decoder) (number uint32, leases []LeaseRef) {
	number = uint32(d.uint())
	leases = make([]LeaseRef, d.count(3))
	for i := range leases {
		l := LeaseRef{Cell: int(d.byte()), Seq: d.uint(), Fence: d.uint()}
		if l.Cell >= message.Cells {
			d.fail()
		}
		leases[i] = l
	}
	return number, leases
}

// TimerKind says what a timer row waits for.
type TimerKind byte

// The kinds of timers.
const (
	TimerDelay   TimerKind = 0 // a delay or a backoff ends: group time
	TimerDeliver TimerKind = 1 // a message is ready: wall time
	TimerExpire  TimerKind = 2 // a message expires: wall time
	TimerWindow  TimerKind = 3 // a dedup id counts no more: group time
	TimerPace    TimerKind = 4 // a key has rested, or its pace counts no more: group time
	TimerKinds             = 5
)

// Wall says that timers of the kind go by wall time, not by group time.
func (k TimerKind) Wall() bool { return k == TimerDeliver || k == TimerExpire }

// TimerRef names one timer row.
type TimerRef struct {
	Cell    int
	Kind    TimerKind
	Due     int64 // ms, in the time of its kind
	Seq     uint64
	Counter uint32
}

// Wake makes scheduled messages ready that are due, and ends those that expire;
// Apply looks.
type Wake struct {
	Queue  uint32
	Timers []TimerRef
}

// Command encodes c.
func (c *Wake) Command() Command {
	b := append(make([]byte, 0, 16+16*len(c.Timers)), cmdWake, laneNone)
	b = binary.AppendUvarint(b, uint64(c.Queue))
	b = binary.AppendUvarint(b, uint64(len(c.Timers)))
	for _, t := range c.Timers {
		b = putInt(append(b, byte(t.Cell)|byte(t.Kind)<<4), t.Due)
		b = binary.AppendUvarint(binary.AppendUvarint(b, t.Seq), uint64(t.Counter))
	}
	return Command{Head: b}
}

func (c *Wake) decode(d *decoder) {
	c.Queue = uint32(d.uint())
	c.Timers = make([]TimerRef, d.count(4))
	for i := range c.Timers {
		at := d.byte()
		t := TimerRef{Cell: int(at % message.Cells), Kind: TimerKind(at / message.Cells), Due: d.int(), Seq: d.uint(), Counter: uint32(d.uint())}
		if t.Kind >= TimerKinds {
			d.fail()
		}
		c.Timers[i] = t
	}
}

// Redrive revives dead messages where they are.
type Redrive struct {
	IDs           []message.ID
	ResetAttempts bool // and worker deaths
}

// RedriveResult is the answer for one message: nil, or MESSAGE_NOT_FOUND,
// NOT_DEAD, WRONG_SHARD.
type RedriveResult = *message.Error

// Command encodes c.
func (c *Redrive) Command() Command {
	var reset byte
	if c.ResetAttempts {
		reset = 1
	}
	b := append(make([]byte, 0, 16+16*len(c.IDs)), cmdRedrive, laneNone, reset)
	return Command{Head: appendIDs(b, c.IDs)}
}

func (c *Redrive) decode(d *decoder) {
	c.ResetAttempts = d.byte() != 0
	c.IDs = decodeIDs(d)
}
