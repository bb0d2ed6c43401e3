package client

import (
	"log/slog"
	"sync/atomic"
	"time"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

const (
	minTTL = 5 * time.Second
	maxTTL = 5 * time.Minute
	// takeBack is how long handlers go on without any server that has the session;
	// the server reroutes their messages a second after a connection broke.
	takeBack = 800 * time.Millisecond
)

// OnDisconnect says what a broken connection means for a worker.
type OnDisconnect = comandav1.OnDisconnect

// What the server does when a worker's connection breaks.
const (
	OnDisconnectReroute = comandav1.OnDisconnect_ON_DISCONNECT_REROUTE // after 1 s others get its messages
	OnDisconnectWait    = comandav1.OnDisconnect_ON_DISCONNECT_WAIT    // only after its TTL
)

// newest is the newest incarnation that a worker of this process has had.
var newest atomic.Uint64

// newIncarnation is above all that were used under the worker's name, here and
// in the processes before: they count by the wall clock.
func newIncarnation() uint64 {
	for {
		last := newest.Load()
		if n := max(uint64(time.Now().UnixNano()), last+1); newest.CompareAndSwap(last, n) {
			return n
		}
	}
}

// session is what a worker knows about its session. Others get its messages when
// the server has heard nothing for the TTL. The worker counts from the moment at
// which it sent what the server heard, and stops its handlers before the server
// can have counted to the end. All of it is under the shift's lock.
type session struct {
	wait        bool // OnDisconnectWait
	incarnation uint64
	attachment  uint64        // of the newest stream
	ttl         time.Duration // 0: the session was never opened
	opening     time.Time     // when the newest stream asked for the session
	wanted      time.Time     // when a stream first did since a server had it; zero: one has it
	attached    bool          // and whether its server has taken it up
	broken      time.Time     // since when no server has the session; zero: one has it
	hangUp      func(error)   // ends the newest stream

	number uint64 // of the newest heartbeat
	due    bool   // the next one is to be sent
	beats  []sentBeat
	heard  time.Time // when the newest answered one was sent
	lapsed bool      // heard is too long ago: the handlers were stopped

	farewell, dismissed bool // goodbye was said on the newest stream, and answered

	beat, stop *time.Timer
}

// sentBeat is a heartbeat on its way; the oldest stands first.
type sentBeat struct {
	number uint64
	at     time.Time // no later than it was sent
}

func newSession(w *Worker) session {
	return session{wait: w.OnDisconnect == OnDisconnectWait, incarnation: newIncarnation()}
}

// end is when handlers must have stopped.
func (x *session) end() time.Time {
	end := x.heard.Add(x.ttl * 4 / 5)
	if t := x.broken.Add(takeBack); !x.broken.IsZero() && !x.wait && t.Before(end) {
		return t
	}
	return end
}

// openSession asks for the session in a stream's first request. The lock is held.
func (s *shift) openSession(req *comandav1.WorkRequest, hangUp func(error)) {
	x := &s.session
	s.checkSession()
	x.attachment++
	x.hangUp, x.opening, x.beats = hangUp, time.Now(), nil
	if x.wanted.IsZero() {
		x.wanted = x.opening
	}
	x.farewell, x.dismissed = false, false
	req.Open.Incarnation, req.Open.Attachment = x.incarnation, x.attachment
	req.Open.Ttl, req.Open.OnDisconnect = optional(s.w.TTL), s.w.OnDisconnect
	req.Open.Slots = uint32(s.w.Concurrency)
	s.addBeat(req)
}

// addBeat makes req a heartbeat; every second one names what the worker holds. The
// lock is held.
func (s *shift) addBeat(req *comandav1.WorkRequest) {
	x := &s.session
	x.due = false
	x.number++
	x.beats = append(x.beats, sentBeat{x.number, time.Now()})
	req.Beat = x.number
	if x.number%2 == 0 {
		req.Holds = s.held()
	}
}

// held lists the tokens whose leases the server must not end: those of running
// handlers, and those that are settled as far as we are concerned, but perhaps
// not yet there. The lock is held.
func (s *shift) held() []string {
	tokens := make([]string, 0, len(s.jobs)+s.unsettled)
	for j := range s.jobs {
		tokens = append(tokens, j.Token())
	}
	add := func(p *posted) {
		if p.Action != ActionExtend {
			tokens = append(tokens, p.Token)
		}
	}
	for _, p := range s.sent {
		add(p)
	}
	for _, p := range s.later {
		add(p)
	}
	for _, p := range s.outbox {
		add(p)
	}
	return tokens
}

// takenUp notes that the stream's server has the session. The lock is held.
func (s *shift) takenUp(ttl time.Duration) {
	x := &s.session
	if x.ttl == 0 {
		x.heard = x.opening
	}
	x.ttl, x.attached, x.broken, x.wanted = ttl, true, time.Time{}, time.Time{}
	x.beat = time.AfterFunc(ttl/5, s.heartbeat)
	if len(s.jobs) == 0 && s.idle != nil {
		s.idle.Reset(s.w.IdleTimeout) // it counts from here
	}
	s.watchSession()
}

// heardBeat notes that the server has answered the heartbeats up to number. The
// lock is held.
func (s *shift) heardBeat(number uint64) {
	x := &s.session
	for len(x.beats) > 0 && x.beats[0].number <= number {
		x.heard = x.beats[0].at
		x.beats = x.beats[1:]
	}
	if x.lapsed && time.Now().Before(x.end()) {
		x.lapsed = false
		s.nudge() // there are slots to fill
	}
	s.watchSession()
}

// leaveSession notes that the stream has ended because of err. The lock is held.
func (s *shift) leaveSession(err error) {
	x := &s.session
	if x.attached {
		x.attached, x.broken = false, time.Now()
		x.beat.Stop()
	}
	x.hangUp, x.due = nil, false
	if code := CodeOf(err); code == CodeSessionEnded || code == CodeConflict {
		s.loseJobs(err)
		if x.stop != nil { // else no server has told that it was opened
			x.stop.Stop()
		}
		*x = newSession(s.w)
		return
	}
	s.watchSession()
}

// heartbeat is called when the next one is due.
func (s *shift) heartbeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &s.session
	if !x.attached {
		return
	}
	s.checkSession()
	x.due = true
	x.beat.Reset(x.ttl / 5)
	s.nudge()
}

// watchSession sets the timer for the worker's own stop, or, when that has come,
// for giving up a server that takes the session and answers no heartbeat. The lock is held.
func (s *shift) watchSession() {
	x := &s.session
	if x.stop != nil {
		x.stop.Stop()
	}
	if x.ttl == 0 {
		return
	}
	in := time.Until(x.end())
	if x.lapsed {
		in = x.ttl * 4 / 5
	}
	x.stop = time.AfterFunc(in, s.sessionSilent)
}

// sessionSilent is called when the newest answered heartbeat is too old: perhaps
// another server is heard.
func (s *shift) sessionSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkSession()
	if x := &s.session; x.lapsed && x.attached {
		x.hangUp(&Error{Code: CodeUnavailable, Message: "the server has not answered heartbeats since " + x.heard.Format(time.TimeOnly)})
	}
}

// checkSession stops the handlers once the session may be over. It is called
// wherever a process that was stopped may go on, because its timers may be late.
// The lock is held.
func (s *shift) checkSession() {
	x := &s.session
	if x.ttl == 0 || x.lapsed || time.Now().Before(x.end()) {
		return
	}
	x.lapsed = true
	s.loseJobs(nil)
}

// loseJobs stops the handlers whose messages are, or will be, others'. With the
// server's word for it nothing more is said about them. The lock is held.
func (s *shift) loseJobs(word error) {
	n := 0
	for j := range s.jobs {
		if j.session == 0 {
			continue
		}
		n++
		j.fenced = j.fenced || word != nil
		j.cancel(ErrLeaseLost)
	}
	if n+s.unsettled > 0 {
		s.w.Logger.WarnContext(s.base, "the worker lost its session: its handlers are stopped, and what it has not settled is others'",
			slog.String("queue", s.w.Queue), slog.Int("handlers", n), slog.Int("unsettled", s.unsettled), slog.Any("error", word))
	}
}

// endSession stops the timers.
func (s *shift) endSession() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range []*time.Timer{s.session.beat, s.session.stop} {
		if t != nil {
			t.Stop()
		}
	}
}
