package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// maxGuests is how many accepted connections there may be that are not links of
// a known node: handshakes under way, visits and streams. Others are closed.
const maxGuests = 256

// retryAccept is the pause after an accept that failed, for example because no
// file descriptor was left.
const retryAccept = 100 * time.Millisecond

// accept serves connections until the listener is closed; only close does that.
func (p *Peers) accept() error {
	if p.o.Listener == nil {
		<-p.ctx.Done()
		return nil
	}
	for p.ctx.Err() == nil {
		raw, err := p.o.Listener.Accept()
		switch {
		case err == nil:
			if !p.spawn(func() { p.serve(raw) }) {
				_ = raw.Close()
			}
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connections of other nodes: %w", err)
		default:
			p.o.Logger.Warn("did not accept a connection", "error", err)
			p.pause(retryAccept)
		}
	}
	return nil
}

func (p *Peers) pause(d time.Duration) {
	ticks, stop := p.o.Clock.Tick(d)
	defer stop()
	select {
	case <-ticks:
	case <-p.ctx.Done():
	}
}

// serve is one accepted connection, from its handshake to its end.
func (p *Peers) serve(raw net.Conn) {
	out := &outbox{}
	out.init()
	c := newConn(raw, out, &p.stats)
	if err := p.enter(c); err != nil {
		p.stats.refused.Add(1)
		c.cut(err)
		return
	}
	from, err := p.welcome(c)
	if err != nil {
		p.stats.refused.Add(1)
		p.o.Logger.Warn("refused a connection", "from", raw.RemoteAddr(), "node", from.Node, "cluster", from.Cluster, "error", err)
		p.hangUp(c, err)
		return
	}
	var pump sync.WaitGroup
	pump.Go(c.pump)
	switch from.purpose {
	case forCalls:
		p.settle(c, from.Identity)
		p.answerCalls(c, from.Node)
	case forVisit:
		p.answerCalls(c, from.Node)
	case forStream:
		p.takeStream(c, from.Node)
	}
	pump.Wait()
}

var errCrowded = errors.New("too many connections are in their handshake, visits or streams")

// enter tracks an accepted connection, as a guest.
func (p *Peers) enter(c *conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return errStopped
	}
	if p.guests >= maxGuests {
		return errCrowded
	}
	p.guests++
	c.guest = true
	p.conns[c] = struct{}{}
	return nil
}

// settle makes a guest the one connection on which a node calls us, in the place
// of an older one whose end this side has not noticed yet.
func (p *Peers) settle(c *conn, who Identity) {
	p.mu.Lock()
	older := p.callerOf(who.Node)
	c.guest, c.caller = false, who
	p.guests--
	l := p.links[who.Node]
	p.mu.Unlock()
	if older != nil {
		older.cut(errNewer)
	}
	if l != nil {
		l.wake()
	}
}

// callerOf is the connection on which a node calls us; nil: there is none. p.mu is
// held.
func (p *Peers) callerOf(node uint64) *conn {
	for c := range p.conns {
		if c.caller.Node == node {
			return c
		}
	}
	return nil
}

// The other process of a node's id has its end noticed within rivalPauses pauses,
// or is heard: together they are shorter than the newcomer's patience.
const (
	rivalPause  = 100 * time.Millisecond
	rivalPauses = 15
)

// rival refuses a process that comes with the id of a node that calls us from
// another process: its directory is a copy, and has forgotten what the original
// has confirmed since. A process that starts again comes after the end of the one
// before, which may be noticed late.
func (p *Peers) rival(who Identity) *message.Error {
	var old *conn
	var reads int64
	for range rivalPauses {
		p.mu.Lock()
		c := p.callerOf(who.Node)
		same := c == nil || c.caller.Boot == who.Boot
		p.mu.Unlock()
		if same {
			return nil
		}
		if c != old {
			old, reads = c, c.reads.Load()
		}
		p.pause(rivalPause)
	}
	if old.reads.Load() == reads {
		return message.Errorf(message.Unavailable, "node %d is connected from another process, which is not heard just now: try again", who.Node)
	}
	return message.Errorf(message.Conflict, "node %d is connected from another process, which lives: two servers run on copies of one data directory; stop this one, and let it join anew with an empty --data-dir", who.Node)
}

// callee answers the calls of one connection.
type callee struct {
	p       *Peers
	c       *conn
	from    uint64
	ctx     context.Context
	running sync.WaitGroup

	mu    sync.Mutex
	calls map[uint64]context.CancelCauseFunc // by id, those whose handler runs
	bytes int                                // of their requests
}

// answerCalls serves a connection until it ends and its handlers have returned.
func (p *Peers) answerCalls(c *conn, from uint64) {
	ctx, cancel := context.WithCancelCause(p.ctx)
	s := &callee{p: p, c: c, from: from, ctx: ctx, calls: map[uint64]context.CancelCauseFunc{}}
	err := s.listen()
	p.hangUp(c, err)
	cancel(err)
	s.running.Wait()
	p.o.Logger.InfoContext(ctx, "a connection of another node has ended", "peer", from, "error", c.out.reason())
}

func (s *callee) listen() error {
	for {
		f, err := s.c.next()
		if err != nil {
			return err
		}
		switch f.kind {
		case framePing:
		case frameMessages:
			if s.from == 0 {
				return errForeign
			}
			batch, err := decodeMessages(f.payload)
			if err != nil {
				return err
			}
			s.p.stats.messagesReceived.Add(uint64(len(batch)))
			s.p.o.Handler.Messages(s.from, batch)
		case frameRequest:
			if err := s.request(f); err != nil {
				return err
			}
		case frameHurry:
			s.cancel(f.id, context.Canceled)
		case frameCancel:
			s.cancel(f.id, errGaveUp)
		default:
			return fmt.Errorf("%w: kind %d was not expected", errMalformed, f.kind)
		}
	}
}

// request starts the handler of a call.
func (s *callee) request(f frame) error {
	left, request, err := takeTimeLeft(f.payload)
	if err != nil {
		return err
	}
	most := MaxCalls
	if s.from == 0 {
		most = 1 // it asks to be let in
	}
	s.mu.Lock()
	if len(s.calls) >= most || len(s.calls) > 0 && s.bytes+len(request) > MaxQueued {
		s.mu.Unlock()
		return s.c.answer(f.id, nil, message.Errorf(message.ResourceExhausted,
			"node %d answers too many calls of node %d: try again later", s.p.o.Self.Node, s.from))
	}
	ctx, cancel := withTimeLeft(s.ctx, left)
	s.calls[f.id] = cancel
	s.bytes += len(request)
	s.mu.Unlock()
	s.running.Go(func() {
		answer, err := s.p.o.Handler.Call(ctx, s.from, request)
		cancel(nil)
		s.mu.Lock()
		delete(s.calls, f.id)
		s.bytes -= len(request)
		s.mu.Unlock()
		_ = s.c.answer(f.id, answer, err) // if the connection has ended, nobody listens
	})
	return nil
}

// cancel ends the context of a call.
func (s *callee) cancel(id uint64, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.calls[id]; cancel != nil {
		cancel(cause)
	}
}
