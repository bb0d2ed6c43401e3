package queue

import (
	"encoding/binary"

	"github.com/comanda-mq/comanda/internal/message"
)

// Outcome is how an attempt ended, or what else befell a message.
type Outcome byte

// The outcomes.
const (
	Acked    Outcome = 1
	Nacked   Outcome = 2
	Rejected Outcome = 3
	Released Outcome = 4 // given back, not counted
	Expired  Outcome = 5 // the lease's deadline passed; a failed attempt
	Redriven Outcome = 6
	// WorkerLost: the session of the lease ended; not a failed attempt.
	WorkerLost Outcome = 7
	// Lapsed: the message's own time to expire passed.
	Lapsed Outcome = 8
	// Cancelled: nobody wants the message done any more.
	Cancelled Outcome = 9
	// Moved: the message came from another queue.
	Moved Outcome = 10
	// Undelivered: it was to go to another queue, and stays.
	Undelivered Outcome = 11
)

var outcomes = [...]string{
	Acked: "acked", Nacked: "nacked", Rejected: "rejected", Released: "released", Expired: "expired",
	Redriven: "redriven", WorkerLost: "worker_lost", Lapsed: "lapsed", Cancelled: "cancelled", Moved: "moved", Undelivered: "undelivered",
}

// String is the outcome's word, as timelines and filters have it.
func (o Outcome) String() string {
	if int(o) < len(outcomes) {
		return outcomes[o]
	}
	return ""
}

// Attempt is one line of a message's history. Times are wall time, ms.
type Attempt struct {
	Outcome  Outcome
	From     uint32 // Moved: number of the queue that it came from; 0: not known
	Number   int    // failed attempts before it, + 1
	LeasedAt int64
	EndedAt  int64
	Worker   string
	Error    string
}

// standing is the state row: what has changed of a message since it was sent.
// A message that is sent, leased once and acked never has one.
type standing struct {
	counter    uint32 // grows with every change of the row
	state      message.State
	due        int64 // scheduled: group time at which it is ready
	dueWall    int64 // about due by wall time; it stays when the message is ready
	deadline   int64 // leased: an extended deadline, group time; 0: the lease's own
	attempts   int
	deliveries int
	deaths     int
	history    []Attempt // oldest first, the last MaxHistory
	cancelling bool      // leased: it ends with its lease
	aside      bool      // it waits for its next attempt outside the line of its key
	leaving    bool      // it is in the outbox
	unexpiring bool      // it was redriven: expires counts no more
	// bound is where a follow-up is to live, which was made here by an ack. It is
	// scheduled as long as it is on its way, and dead if it can't get there. It is in no
	// line and has no timer.
	bound Target
}

func (s *standing) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.counter))
	b = append(b, byte(s.state))
	for _, v := range []int64{s.due, s.dueWall, s.deadline, int64(s.attempts), int64(s.deliveries), int64(s.deaths)} {
		b = putInt(b, v)
	}
	b = appendHistory(b, s.history)
	if flags := s.flags(); flags != 0 {
		b = append(b, flags)
	}
	if s.bound.Queue != 0 {
		b = s.bound.append(b)
	}
	return b
}

// Flags at the end of a state row that has any.
const (
	standingAside = 1 << iota
	standingUnexpiring
	standingCancelling
	standingLeaving
	standingBound // for where follows
)

func (s *standing) flags() (flags byte) {
	if s.aside {
		flags |= standingAside
	}
	if s.unexpiring {
		flags |= standingUnexpiring
	}
	if s.cancelling {
		flags |= standingCancelling
	}
	if s.leaving {
		flags |= standingLeaving
	}
	if s.bound.Queue != 0 {
		flags |= standingBound
	}
	return flags
}

func decodeStanding(row []byte) *standing {
	d := decoder{b: row}
	s := &standing{counter: uint32(d.uint()), state: message.State(d.byte())}
	s.due, s.dueWall, s.deadline = d.int(), d.int(), d.int()
	s.attempts, s.deliveries, s.deaths = int(d.int()), int(d.int()), int(d.int())
	s.history = decodeHistory(&d)
	if len(d.b) > 0 {
		flags := d.byte()
		s.aside, s.unexpiring, s.cancelling = flags&standingAside != 0, flags&standingUnexpiring != 0, flags&standingCancelling != 0
		s.leaving = flags&standingLeaving != 0
		if flags&standingBound != 0 {
			s.bound = decodeTarget(&d)
		}
	}
	must(d.end("a state row"))
	return s
}

// remember adds a line, forgetting the oldest above the limit.
func (s *standing) remember(a Attempt) {
	s.history = append(s.history, a)
	if over := len(s.history) - message.MaxHistory; over > 0 {
		s.history = s.history[over:]
	}
}

func appendHistory(b []byte, as []Attempt) []byte {
	b = binary.AppendUvarint(b, uint64(len(as)))
	for _, a := range as {
		b = append(b, byte(a.Outcome))
		number := int64(a.Number)
		if a.Outcome == Moved { // which has none
			number = int64(a.From)
		}
		b = putInt(putInt(putInt(b, number), a.LeasedAt), a.EndedAt)
		b = putString(putString(b, a.Worker), a.Error)
	}
	return b
}

func decodeHistory(d *decoder) []Attempt {
	n := d.count(6)
	if n == 0 {
		return nil
	}
	as := make([]Attempt, 0, n)
	for range n {
		a := Attempt{Outcome: Outcome(d.byte()), Number: int(d.int()), LeasedAt: d.int(), EndedAt: d.int(), Worker: d.string(), Error: d.string()}
		if a.Outcome == Moved {
			a.From, a.Number = uint32(a.Number), 0
		}
		as = append(as, a)
	}
	return as
}

// lease is a lease row: one worker's right to one message.
type lease struct {
	session     uint64 // 0: bound to its deadline
	incarnation uint64 // of the session
	deadline    int64  // group time, ms
	length      int64  // ms, as asked for
	at          int64  // wall time, ms
	worker      string
}

func (l *lease) append(b []byte) []byte {
	b = binary.AppendUvarint(b, l.session)
	if l.session != 0 {
		b = binary.AppendUvarint(b, l.incarnation)
	}
	b = putInt(putInt(putInt(b, l.deadline), l.length), l.at)
	return putString(b, l.worker)
}

func decodeLease(row []byte) lease {
	d := decoder{b: row}
	l := lease{session: d.uint()}
	if l.session != 0 {
		l.incarnation = d.uint()
	}
	l.deadline, l.length, l.at, l.worker = d.int(), d.int(), d.int(), d.string()
	must(d.end("a lease row"))
	return l
}

// finished is the header that stays in the ring after a message is done.
type finished struct {
	fence      uint64 // of the lease that was acked
	at         int64  // wall time, ms
	sentAt     int64
	key        string
	hash       message.KeyHash // only with a key
	kind       string          // the message's type
	bodySize   int
	attempts   int
	deliveries int
	history    []Attempt // its last line is how it ended
	deaths     int
	// For the message's point.
	dedup, unique *Mark
	tenant        string
	foreign       message.ID // as in a Head
	followUps     []message.ID
}

// state is how the message ended.
func (f *finished) state() message.State {
	if n := len(f.history); n > 0 {
		if last := f.history[n-1].Outcome; last == Lapsed {
			return message.Expired
		} else if last == Cancelled {
			return message.Cancelled
		}
	}
	return message.Finished
}

// id is what the message that ended at place is called.
func (f *finished) id(place message.ID) message.ID {
	if f.foreign != (message.ID{}) {
		return f.foreign
	}
	return place
}

func (f *finished) append(b []byte) []byte {
	b = binary.AppendUvarint(b, f.fence)
	b = putInt(putInt(b, f.at), f.sentAt)
	b = putString(b, f.key)
	if f.key != "" {
		b = appendHash(b, f.hash)
	}
	b = putInt(putString(b, f.kind), int64(f.bodySize))
	b = putInt(putInt(b, int64(f.attempts)), int64(f.deliveries))
	b = appendHistory(b, f.history)
	away := f.foreign != (message.ID{}) || len(f.followUps) > 0
	if f.deaths > 0 || f.dedup != nil || f.unique != nil || f.tenant != "" || away {
		b = putInt(b, int64(f.deaths))
	}
	if f.dedup != nil || f.unique != nil || f.tenant != "" || away {
		b = f.unique.append(f.dedup.append(b))
	}
	if f.tenant != "" || away {
		b = putString(b, f.tenant)
	}
	if away {
		b = append(b, f.foreign[:]...)
	}
	if len(f.followUps) > 0 {
		b = appendIDs(b, f.followUps)
	}
	return b
}

func decodeFinished(row []byte) finished {
	d := decoder{b: row}
	f := finished{fence: d.uint(), at: d.int(), sentAt: d.int(), key: d.string()}
	if f.key != "" {
		f.hash = message.KeyHash{Hi: d.fixed64(), Lo: d.fixed64()}
	}
	f.kind, f.bodySize = d.string(), int(d.int())
	f.attempts, f.deliveries = int(d.int()), int(d.int())
	f.history = decodeHistory(&d)
	if len(d.b) > 0 {
		f.deaths = int(d.int())
	}
	if len(d.b) > 0 {
		f.dedup, f.unique = decodeMark(&d), decodeMark(&d)
	}
	if len(d.b) > 0 {
		f.tenant = d.string()
	}
	if len(d.b) > 0 {
		copy(f.foreign[:], d.take(16))
	}
	if len(d.b) > 0 {
		f.followUps = decodeIDs(&d)
	}
	must(d.end("a finished row"))
	return f
}
