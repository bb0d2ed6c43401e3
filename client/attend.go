package client

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// spareSettlements may be unanswered, besides a few for each slot, before the
// worker takes nothing new.
const spareSettlements = 1_000

type workStream = grpc.BidiStreamingClient[comandav1.WorkRequest, comandav1.WorkResponse]

// attend works on one stream until it breaks, and says why, or until the shift
// is over. It is the only sender; one goroutine reads.
func (s *shift) attend() error {
	ctx, cancel := context.WithCancel(s.cut)
	defer cancel()
	stream, err := s.w.Client.messages.Work(ctx)
	if err != nil {
		return callError(err, false)
	}
	var broken error
	read := make(chan struct{})
	go func() {
		defer close(read)
		broken = s.read(stream)
	}()
	defer func() {
		cancel()
		<-read
	}()
	req, over := s.attach(), false
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
func (s *shift) attach() *comandav1.WorkRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached = true
	if len(s.jobs) == 0 && s.idle != nil {
		s.idle.Reset(s.w.IdleTimeout)
	}
	return &comandav1.WorkRequest{
		Open:    &comandav1.WorkOpen{Queues: []string{s.w.Queue}, Worker: s.w.Name, Lease: optional(s.w.Lease)},
		Credits: s.grant(),
	}
}

// detach keeps what a broken stream did not answer for the next one. news says
// that it broke for another reason than the one before.
func (s *shift) detach(broken error) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = broken != nil && (s.broken == nil || s.broken.Error() != broken.Error())
	s.attached, s.broken = false, broken
	s.granted = 0
	s.outbox = s.unanswered()
	return news
}

// grant counts the slots that the server does not know of yet. The lock is held.
func (s *shift) grant() uint32 {
	if s.stopping || s.unsettled >= spareSettlements+4*s.w.Concurrency {
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

// next makes a request of what waits, nil if nothing does. over says that the
// shift is.
func (s *shift) next() (req *comandav1.WorkRequest, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping && len(s.jobs) == 0 && s.unsettled == 0 {
		return nil, true
	}
	if s.holds() {
		return nil, false
	}
	n := min(len(s.outbox), maxCallItems)
	credits := s.grant()
	if n == 0 && credits == 0 {
		return nil, false
	}
	req = &comandav1.WorkRequest{Credits: credits, Settlements: make([]*comandav1.NumberedSettlement, n)}
	for i, p := range s.outbox[:n] {
		s.number++
		s.sent[s.number] = p
		req.Settlements[i] = &comandav1.NumberedSettlement{Number: s.number, Settlement: p.proto()}
	}
	rest := copy(s.outbox, s.outbox[n:])
	clear(s.outbox[rest:])
	s.outbox = s.outbox[:rest]
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

func (s *shift) take(resp *comandav1.WorkResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range resp.GetSettled() {
		p := s.sent[r.GetNumber()]
		if p == nil {
			continue
		}
		delete(s.sent, r.GetNumber())
		s.settled(p, itemError(r.GetResult().GetError()))
		if len(s.sent) == 0 {
			s.nudge()
		}
	}
	for _, d := range resp.GetDeliveries() {
		s.begin(held{d})
	}
}
