package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"google.golang.org/grpc"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// spareSettlements may be unanswered, besides a few for each slot, before the
// worker takes nothing new.
const spareSettlements = 1_000

// maxAhead requests with settlements may be unanswered: as many as the server
// reads ahead of its answers, or a heartbeat would wait behind them.
const maxAhead = 8

// maxRequestBytes of settlements are in a request, unless one alone is larger: the server
// takes twice as much.
const maxRequestBytes = 1 << 20

type workStream = grpc.BidiStreamingClient[comandav1.WorkRequest, comandav1.WorkResponse]

// attend works on one stream until it breaks, and says why, or until the shift
// is over. It is the only sender; one goroutine reads.
func (s *shift) attend() error {
	ctx, hangUp := context.WithCancelCause(s.cut)
	defer hangUp(nil)
	stream, err := s.w.Client.messages.Work(ctx)
	if err != nil {
		return callError(err, false)
	}
	var broken error
	read := make(chan struct{})
	go func() {
		defer close(read)
		broken = s.read(stream)
		var e *Error
		if errors.As(context.Cause(ctx), &e) {
			broken = e // we hung up
		}
	}()
	defer func() {
		hangUp(nil)
		<-read
	}()
	req, over := s.attach(hangUp), false
	for !over {
		if req == nil {
			select {
			case <-s.wake:
				runtime.Gosched() // handlers that are about to end go along
			case <-read:
				return broken
			}
		} else if err := stream.Send(req); err != nil {
			<-read // Send says only that it is over, the reader gets the reason
			return broken
		}
		req, over = s.next()
	}
	_ = stream.CloseSend()
	select { // what the server sent before it knew is given back by flush
	case <-read:
	case <-time.After(flushTimeout):
	}
	return nil
}

// attach makes the first request of a stream.
func (s *shift) attach(hangUp func(error)) *comandav1.WorkRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached = true
	req := &comandav1.WorkRequest{
		Open: &comandav1.WorkOpen{Queues: []string{s.w.Queue}, Worker: s.w.Name, Lease: optional(s.w.Lease)},
	}
	s.openSession(req, hangUp)
	req.Credits = s.grant()
	return req
}

// detach keeps what a broken stream did not answer for the next one. news says
// that it broke for another reason than the one before, served that it had the
// session.
func (s *shift) detach(broken error) (news, served bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = broken != nil && (s.broken == nil || s.broken.Error() != broken.Error())
	s.attached, s.broken = false, broken
	s.granted, s.ahead = 0, nil
	s.outbox = s.unanswered()
	served = s.session.attached
	s.leaveSession(broken)
	return news, served
}

// grant counts the slots that the server does not know of yet. The lock is held.
func (s *shift) grant() uint32 {
	if s.stopping || s.session.lapsed || s.unsettled >= spareSettlements+4*s.w.Concurrency {
		return 0
	}
	n := s.w.Concurrency - len(s.jobs) - s.granted
	if s.w.MaxMessages > 0 {
		n = min(n, s.w.MaxMessages-s.taken-s.granted)
	}
	n = max(0, n)
	s.granted += n
	return uint32(n)
}

// holds says that what waits should wait on, while an answer is under way: what
// is done meanwhile goes out as one, and the server makes one entry of it. A
// quarter of the slots is enough for a second request, so that the server has
// always something to do (at a half, producers ran ahead of consumers:
// docs/performance.md, W2). The lock is held.
func (s *shift) holds() bool {
	return len(s.sent) > 0 && 4*len(s.outbox) < s.w.Concurrency
}

// fitting is how many of what waits go out together: one at least.
func fitting(ps []*posted) (n int) {
	bytes := 0
	for n < min(len(ps), maxCallItems) {
		if bytes += settlementSize(&ps[n].Settlement); bytes > maxRequestBytes && n > 0 {
			break
		}
		n++
	}
	return n
}

// next makes a request of what waits, nil if nothing does. over says that the
// shift is.
func (s *shift) next() (req *comandav1.WorkRequest, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := &s.session; s.stopping && len(s.jobs) == 0 && s.unsettled == 0 {
		switch {
		case !x.attached || x.dismissed:
			return nil, true
		case !x.farewell:
			x.farewell = true
			return &comandav1.WorkRequest{Goodbye: true}, false
		}
	}
	var n int
	var credits uint32
	if !s.holds() {
		credits = s.grant()
		if len(s.ahead) < maxAhead {
			n = fitting(s.outbox)
		}
	}
	if n == 0 && credits == 0 && !s.session.due {
		return nil, false
	}
	req = &comandav1.WorkRequest{Credits: credits, Settlements: make([]*comandav1.NumberedSettlement, n)}
	for i, p := range s.outbox[:n] {
		s.number++
		s.sent[s.number] = p
		req.Settlements[i] = &comandav1.NumberedSettlement{Number: s.number, Settlement: p.proto()}
	}
	if n > 0 {
		s.ahead = append(s.ahead, s.number)
	}
	rest := copy(s.outbox, s.outbox[n:])
	clear(s.outbox[rest:])
	s.outbox = s.outbox[:rest]
	if s.session.due {
		s.addBeat(req)
	}
	return req, false
}

// read takes what the server sends until the stream ends, and says why it did.
func (s *shift) read(stream workStream) error {
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &Error{Code: CodeUnreachable, Message: "the server ended the worker's stream"}
		}
		if err != nil {
			return callError(err, false)
		}
		s.take(resp)
		s.tell()
	}
}

// cancelJobs stops the handlers of messages that somebody cancels. The lock is held.
func (s *shift) cancelJobs(tokens []string) {
	if len(tokens) == 0 {
		return
	}
	for j := range s.jobs {
		if slices.Contains(tokens, j.Token()) {
			j.cancel(ErrCancelled)
		}
	}
}

// drained is called when somebody has the worker drain. The lock is held.
func (s *shift) drained() {
	if !s.stopping {
		s.w.Logger.InfoContext(s.base, "the worker is drained, as the server says: it finishes what it has", slog.String("queue", s.w.Queue))
	}
	s.stopLocked(nil) // before the next delivery
	s.drain()
}

func (s *shift) take(resp *comandav1.WorkResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkSession()
	if ttl := resp.GetTtl().AsDuration(); ttl > 0 && !s.session.attached {
		s.takenUp(ttl)
	}
	if n := resp.GetBeat(); n > 0 {
		s.heardBeat(n)
	}
	if resp.GetGoodbye() {
		s.session.dismissed = true
		s.nudge()
	}
	s.cancelJobs(resp.GetCancelled())
	if resp.GetDraining() {
		s.drained()
	}
	full := len(s.ahead) == maxAhead
	for _, r := range resp.GetSettled() {
		p := s.sent[r.GetNumber()]
		if p == nil {
			continue
		}
		delete(s.sent, r.GetNumber())
		for len(s.ahead) > 0 && s.ahead[0] <= r.GetNumber() {
			s.ahead = s.ahead[1:]
		}
		s.settled(p, itemError(r.GetResult().GetError()))
		if len(s.sent) == 0 {
			s.nudge()
		}
	}
	if full && len(s.ahead) < maxAhead {
		s.nudge()
	}
	for _, d := range resp.GetDeliveries() {
		s.begin(held{d})
	}
}
