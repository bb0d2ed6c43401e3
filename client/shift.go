package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	settleAgain  = 200 * time.Millisecond // after a settlement failed for a passing reason
	flushTimeout = 5 * time.Second        // for the last settlements, and for the end of the stream
)

// shift is one Run of a worker. It stops when Run's context ends, when it was
// idle or had its number of messages, or when the server refuses it; it is over
// when it has stopped, no handler runs, and all is settled.
type shift struct {
	w      *Worker
	base   context.Context // of handlers: Run's values, but not its end
	wake   chan struct{}   // has room for one: look again at what there is to do
	cut    context.Context // ends with Run, or when a drain has taken too long
	cutOff context.CancelFunc
	drain  context.CancelFunc // as if Run's context had ended

	mu        sync.Mutex
	jobs      map[*RawJob]bool // whose handlers run
	granted   int              // credits that the server has and did not use yet
	taken     int              // messages begun so far
	number    uint64           // of the newest settlement sent
	outbox    []*posted        // goes out with the next requests
	sent      map[uint64]*posted
	ahead     []uint64  // of each request that is not answered, the number of its last settlement
	later     []*posted // failed for a passing reason
	unsettled int       // ends of leases that the server did not answer for good
	answered  []answer  // of those, what Worker.Settled is to be told
	stopping  bool
	attached  bool
	failure   error // what Run returns
	broken    error // why the last stream ended
	idle      *time.Timer
	session   session
}

// posted is a settlement on its way.
type posted struct {
	job *RawJob
	at  time.Time // when it was posted
	Settlement
	refused error // of a nack: why the server refused the ack in whose place it is
}

// answer is what the server said for good to the end of a lease.
type answer struct {
	job *RawJob
	err error
}

func newShift(ctx context.Context, w *Worker) *shift {
	s := &shift{
		w: w, base: context.WithoutCancel(ctx), wake: make(chan struct{}, 1),
		jobs: map[*RawJob]bool{}, sent: map[uint64]*posted{},
		session: newSession(w),
	}
	s.cut, s.cutOff = context.WithCancel(s.base)
	return s
}

func (s *shift) run(ctx context.Context) error {
	ctx, s.drain = context.WithCancel(ctx)
	defer s.drain()
	var watch sync.WaitGroup
	watch.Go(func() { s.drainAfter(ctx) })
	defer watch.Wait()
	defer s.cutOff()
	defer s.endSession()
	if s.w.IdleTimeout > 0 {
		s.idle = time.AfterFunc(s.w.IdleTimeout, s.stopIfIdle)
		defer s.idle.Stop()
	}
	pause := backoffBase
	for {
		began := time.Now()
		err := s.attend()
		news, served := s.detach(err)
		switch {
		case refused(err):
			s.stop(err) // Run returns it
		case news:
			s.w.Logger.WarnContext(ctx, "the worker's stream ended", slog.String("queue", s.w.Queue), slog.Any("error", err))
		}
		if s.finished() {
			return s.flush()
		}
		if served || time.Since(began) > backoffMax {
			pause = backoffBase
		}
		s.pause(pause)
		pause = min(2*pause, backoffMax)
	}
}

// drainAfter stops the shift when ctx ends, and then bounds how long it takes.
func (s *shift) drainAfter(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.cut.Done():
		return
	}
	s.stop(nil)
	t := time.NewTimer(s.w.DrainTimeout)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.cut.Done():
		return
	}
	s.mu.Lock()
	for j := range s.jobs {
		j.cancel(ErrDrainTimeout)
	}
	s.mu.Unlock()
	t.Reset(flushTimeout)
	select {
	case <-t.C:
		s.cutOff()
	case <-s.cut.Done():
	}
}

// refused says that the server will never take this worker as it is.
func refused(err error) bool {
	switch CodeOf(err) {
	case CodeInvalidArgument, CodeQueueNotFound, CodeUnimplemented, CodePermissionDenied, CodeForeignOrigin:
		return true
	default:
		return false
	}
}

// pause waits before the next connection, but not when there is nothing left
// to connect for.
func (s *shift) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for !s.finished() {
		select {
		case <-t.C:
			return
		case <-s.wake:
		}
	}
}

// stop begins no more messages. Run returns failure, the first one that is not nil.
func (s *shift) stop(failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked(failure)
}

func (s *shift) stopLocked(failure error) {
	s.stopping = true
	if s.failure == nil {
		s.failure = failure
	}
	s.nudge()
}

func (s *shift) stopIfIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.jobs) > 0 || s.stopping {
		return
	}
	var failure error
	x := &s.session
	switch {
	case x.attached || x.ttl == 0 && s.attached && s.taken > 0: // the latter by a server that knows no heartbeats
	case s.attached && time.Since(x.wanted) < connectTimeout:
		s.idle.Reset(s.w.IdleTimeout) // a server may be about to take it
		return
	case s.broken != nil:
		failure = s.broken
	default:
		failure = &Error{Code: CodeUnreachable, Message: "no server took the worker in " + s.w.IdleTimeout.String()}
	}
	s.stopLocked(failure)
}

func (s *shift) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// finished says that the shift has stopped, no handler runs, and what is not
// settled need not wait for another stream. While a server may still take the
// session back it must: the messages are others' soon after a stream broke, and
// a settlement without one would come too late.
func (s *shift) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping || len(s.jobs) > 0 {
		return false
	}
	x := &s.session
	return s.unsettled == 0 || s.failure != nil || s.cut.Err() != nil || x.ttl == 0 || x.lapsed || !time.Now().Before(x.end())
}

// begin starts the handler of a delivery, or gives it back if there is no slot
// for it any more. The lock is held.
func (s *shift) begin(h held) {
	j := &RawJob{held: h, shift: s}
	if lease := h.Lease(); lease > 0 || s.session.ttl == 0 {
		j.lease = cmp.Or(lease, s.w.Lease)
		j.deadline = time.Now().Add(j.lease)
	} else {
		j.session = s.session.incarnation
	}
	s.granted--
	if s.stopping || s.granted < 0 || (j.session != 0 && s.session.lapsed) {
		s.granted = max(0, s.granted)
		s.end(j, Settlement{Token: h.Token(), Action: ActionRelease})
		return
	}
	j.ctx, j.cancel = context.WithCancelCause(s.base)
	if j.session == 0 {
		j.timer = time.AfterFunc(j.lease/3, j.renew)
	}
	s.jobs[j] = true
	s.taken++
	if s.taken == s.w.MaxMessages {
		s.stopLocked(nil)
	}
	if s.idle != nil {
		s.idle.Stop()
	}
	go func() {
		err := errors.New("the handler ended its goroutine (runtime.Goexit, as t.FailNow does)")
		defer func() { s.finish(j, err) }()
		err = s.w.Handler(j.ctx, j)
	}()
}

// finish posts what a handler's error says about its message.
func (s *shift) finish(j *RawJob, err error) {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkSession()
	if j.timer != nil {
		j.timer.Stop()
	}
	delete(s.jobs, j)
	switch {
	case j.fenced: // whatever we say about it, the server would refuse it
		s.answer(j, ErrLeaseLost)
	case err != nil && j.stopped():
		s.end(j, Settlement{Token: j.Token(), Action: ActionRelease})
	default:
		st := settlementOf(j.Token(), err)
		if st.Action == ActionAck {
			st.FollowUps = j.followUps
		}
		if err := st.check(); err != nil { // it would break the stream
			st = settlementOf(j.Token(), err)
		}
		s.end(j, st)
	}
	j.cancel(nil)
	if len(s.jobs) == 0 && s.idle != nil {
		s.idle.Reset(s.w.IdleTimeout)
	}
	s.nudge()
}

// end posts the settlement that ends a lease. The lock is held.
func (s *shift) end(j *RawJob, st Settlement) {
	s.unsettled++
	s.post(&posted{job: j, at: time.Now(), Settlement: st})
}

func (s *shift) post(p *posted) {
	s.outbox = append(s.outbox, p)
	s.nudge()
}

// settled takes the server's answer to p. The lock is held.
func (s *shift) settled(p *posted, err error) {
	if p.Action == ActionExtend {
		p.job.extended(p, err)
		return
	}
	if passing(err) && p.job.current() {
		s.later = append(s.later, p)
		if len(s.later) == 1 {
			time.AfterFunc(settleAgain, s.settleLater)
		}
		return
	}
	if err != nil && len(p.FollowUps) > 0 { // nothing was sent, and the lease stays: the attempt has failed
		s.post(&posted{job: p.job, at: time.Now(), refused: err, Settlement: Settlement{Token: p.Token, Action: ActionNack, Error: err.Error()}})
		return
	}
	s.unsettled--
	if p.refused != nil {
		err = p.refused
	}
	s.answer(p.job, err)
	if err != nil {
		s.w.Logger.WarnContext(s.base, "a message was handled but not settled: it may be handled again",
			slog.String("id", p.job.ID()), slog.String("action", p.Action.String()), slog.Any("error", err))
	}
	s.nudge()
}

// answer notes that nothing more will become of a message whose handler ran. The
// lock is held.
func (s *shift) answer(j *RawJob, err error) {
	if s.w.Settled != nil && j.ctx != nil {
		s.answered = append(s.answered, answer{j, err})
	}
}

// tell passes on what was answered. It is called without the lock.
func (s *shift) tell() {
	s.mu.Lock()
	answered := s.answered
	s.answered = nil
	s.mu.Unlock()
	for _, a := range answered {
		s.w.Settled(a.job, a.err)
	}
}

func (s *shift) settleLater() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outbox = append(s.outbox, s.later...)
	s.later = nil
	s.nudge()
}

// unanswered takes every settlement that the server did not answer, oldest
// first. The lock is held.
func (s *shift) unanswered() []*posted {
	var ps []*posted
	for _, n := range slices.Sorted(maps.Keys(s.sent)) {
		ps = append(ps, s.sent[n])
	}
	ps = slices.Concat(ps, s.later, s.outbox)
	clear(s.sent)
	s.later, s.outbox = nil, nil
	return ps
}

// flush settles without a stream what is left at the end.
func (s *shift) flush() error {
	ctx, cancel := context.WithTimeout(s.base, flushTimeout)
	defer cancel()
	for {
		s.mu.Lock()
		ps := slices.DeleteFunc(s.unanswered(), func(p *posted) bool { return p.Action == ActionExtend })
		failure := s.failure
		s.mu.Unlock()
		if len(ps) == 0 {
			return failure
		}
		ss := make([]Settlement, len(ps))
		for i, p := range ps {
			ss[i] = p.Settlement
		}
		results, err := s.w.Client.Settle(ctx, ss)
		if ctx.Err() != nil {
			return errors.Join(failure, fmt.Errorf("%d messages were handled but not settled, they may be handled again: %w", len(ps), err))
		}
		s.mu.Lock()
		for i, p := range ps {
			s.settled(p, results[i].Err)
		}
		again := len(s.later) > 0
		s.mu.Unlock()
		s.tell()
		if again {
			select {
			case <-time.After(settleAgain):
			case <-ctx.Done():
			}
		}
	}
}
