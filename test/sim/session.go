package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

const (
	ttl     = message.MinTTL
	beat    = ttl / 5
	trusted = ttl * 8 / 10
	// retake is how long a worker may be without any gateway.
	retake = 800 * time.Millisecond
)

// session is a worker's session, as an SDK keeps it: its heart beats beside the
// work, and stops the work 0.8 TTL after it sent the newest beat that was
// answered.
type session struct {
	k *worker

	mu         sync.Mutex
	life       *life // nil: none
	attachment message.Attachment
	at         *process // where it is attached
	number     uint64   // of the attachment
	beats      []time.Duration
	lost       time.Duration // when its stream broke
	frozen     time.Duration // until then the worker stands still
}

// life is one incarnation.
type life struct {
	ref message.SessionRef
	// until is when it stops by itself; 0: it has ended.
	until atomic.Int64
}

// trusts says until when the incarnation believes in what it holds.
func (l *life) trusts() time.Duration { return time.Duration(l.until.Load()) }

// stream names the stream that the session has now: incarnation and attachment.
func (s *session) stream() [2]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == nil || s.attachment == nil {
		return [2]uint64{}
	}
	return [2]uint64{s.k.incarnation, s.number}
}

// heart beats until ctx ends.
func (s *session) heart(ctx context.Context) {
	for s.k.w.pause(ctx, 200*time.Millisecond) {
		s.mu.Lock()
		if s.life != nil && s.k.w.now() >= s.frozen {
			s.tend()
		}
		s.mu.Unlock()
	}
}

// keep makes sure that the session is attached somewhere, and returns where; nil:
// not now.
func (s *session) keep(p *process) (*process, *life) {
	s.mu.Lock()
	if s.life != nil {
		s.tend()
	}
	if s.life != nil && s.attachment != nil {
		defer s.mu.Unlock()
		return s.at, s.life
	}
	opens := s.life == nil
	if opens {
		s.k.incarnation++
		s.number = 0
	}
	s.number++
	o := message.SessionOptions{Worker: s.k.name, Incarnation: s.k.incarnation, Attachment: s.number, TTL: ttl}
	s.mu.Unlock()
	sent := s.k.w.now()
	a, alive, err := do(p, s.k.name, 3*time.Second, func(ctx context.Context) (message.Attachment, error) { return p.gateway.OpenSession(ctx, o) })
	if !alive {
		return nil, nil
	}
	s.k.w.note("%s opens %d.%d at node %d: %v", s.k.name, o.Incarnation, o.Attachment, p.node.number, message.CodeOf(err))
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case message.CodeOf(err) == message.SessionEnded:
		s.end()
		return nil, nil
	case err != nil:
		return nil, nil
	case !opens && s.life == nil: // it took too long
		a.Close(false)
		return nil, nil
	case opens:
		s.life = &life{ref: a.Session()}
		s.life.until.Store(int64(sent + trusted))
	}
	s.at, s.attachment, s.beats = p, a, nil
	return s.at, s.life
}

// tend beats when it is time, hears answers, and stops the worker when it must.
// The lock is held, and there is a life.
func (s *session) tend() {
	now := s.k.w.now()
	if s.attachment != nil && s.at.dead.Load() {
		s.attachment, s.lost = nil, now
	}
	if s.attachment != nil {
		select {
		case n := <-s.attachment.Answered():
			if n >= 1 && int(n) <= len(s.beats) {
				s.life.until.Store(max(s.life.until.Load(), int64(s.beats[n-1]+trusted)))
			}
		default:
		}
		select {
		case <-s.attachment.Ended():
			s.end()
			return
		default:
		}
	}
	if now >= s.life.trusts() || s.attachment == nil && now-s.lost > retake {
		s.stop(false)
		return
	}
	if n := len(s.beats); s.attachment != nil && (n == 0 || now-s.beats[n-1] >= beat) {
		s.beats = append(s.beats, now)
		s.attachment.Beat(uint64(n + 1))
		if n%2 == 0 {
			tokens := s.k.w.tally.tokens(s.k)
			s.k.w.note("%s claims %d: %v", s.k.name, len(tokens), tokens)
			s.attachment.Claim(tokens)
		}
	}
}

// end ends the incarnation. The lock is held.
func (s *session) end() {
	if s.life != nil {
		s.life.until.Store(0)
		s.life = nil
		s.k.w.tally.count("deaths")
	}
	s.attachment = nil
}

// stop ends the stream and the incarnation. The lock is held.
func (s *session) stop(goodbye bool) {
	if s.attachment != nil && !s.at.dead.Load() {
		s.attachment.Close(goodbye)
	}
	s.end()
}

// kill kills the worker's process: its connection breaks.
func (s *session) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.k.w.note("%s is killed", s.k.name)
	s.stop(false)
}

// freeze stops the worker for a while.
func (s *session) freeze(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.k.w.note("%s is frozen for %v", s.k.name, d)
	s.frozen = s.k.w.now() + d
}
