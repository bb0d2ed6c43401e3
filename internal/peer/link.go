package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"sync"
	"time"
)

// link keeps at most one line to one node, and opens it when somebody has
// something for that node.
//
//	        demand              connected             broken
//	idle ───────────► connecting ────────► open ───────────────► resting ──► idle
//	                       └────────── failed ──────────────────►   50 ms … 2 s
//
// What comes while it is connecting waits; while it is resting it is told why.
type link struct {
	p      *Peers
	node   uint64
	ctx    context.Context // ends with Run, or when the node is not known any more
	drop   context.CancelCauseFunc
	wanted chan struct{} // one slot: there is a line to connect
	rested chan struct{} // one slot: the node is there again, rest no longer
	said   string        // the refusal that was told last; run's

	mu   sync.Mutex
	line *line // nil: idle or resting
	down error // why it is resting
	open bool
}

func newLink(p *Peers, node uint64) *link {
	ctx, drop := context.WithCancelCause(p.ctx)
	return &link{p: p, node: node, ctx: ctx, drop: drop, wanted: make(chan struct{}, 1), rested: make(chan struct{}, 1)}
}

// demand returns the line, which may still have to be connected.
func (l *link) demand() (*line, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.line != nil:
		return l.line, nil
	case l.down != nil:
		return nil, notSent(nodeName(l.node), l.down)
	}
	l.line = newLine(nodeName(l.node))
	l.wanted <- struct{}{} // has room: there was no line
	return l.line, nil
}

func (l *link) connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// current changes what demand returns.
func (l *link) current(ln *line, open bool, down error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line, l.open, l.down = ln, open, down
}

// run connects and connects again, until ctx ends.
func (l *link) run() {
	failures := 0
	for {
		select {
		case <-l.wanted:
		case <-l.ctx.Done():
			l.shut()
			return
		}
		if l.talk(failures == 0) {
			failures = 0
		} else {
			failures++
		}
		l.rest(restFor(l.p.o.Self.Node, l.node, failures))
	}
}

// talk connects the line and serves it until it breaks; it returns whether it
// was connected.
func (l *link) talk(first bool) (connected bool) {
	l.mu.Lock()
	ln := l.line
	l.mu.Unlock()
	log := l.p.o.Logger.With("peer", l.node)
	c, err := l.connect(ln)
	if connected = err == nil; connected {
		log.Info("connected")
		l.current(ln, true, nil)
		kept := context.AfterFunc(l.ctx, func() { c.cut(context.Cause(l.ctx)) })
		l.p.converse(c, ln)
		kept()
		err = ln.reason()
	}
	said := l.said
	if l.said = ""; !connected {
		if r, ok := errors.AsType[*Refusal](err); ok {
			l.said = r.Error() // perhaps this side's, of which the other can't tell anybody
		}
	}
	if connected || first || l.said != said && l.said != "" { // else it was said
		log.Warn("not connected", "error", err)
	}
	l.current(nil, false, err)
	l.p.end(ln, err)
	return connected
}

func (l *link) connect(ln *line) (*conn, error) {
	addr, ok := l.p.o.Address(l.node)
	if !ok {
		return nil, errUnknown
	}
	c, _, err := l.p.connect(l.ctx, addr, hello{purpose: forCalls, expects: l.node}, &ln.outbox)
	return c, err
}

// rest waits before the next attempt.
func (l *link) rest(d time.Duration) {
	ticks, stop := l.p.o.Clock.Tick(d)
	defer stop()
	select {
	case <-ticks:
	case <-l.rested:
	case <-l.ctx.Done():
		return // down stays: run shuts the link
	}
	l.current(nil, false, nil)
}

// wake ends a rest: the node has just connected to us.
func (l *link) wake() {
	select {
	case l.rested <- struct{}{}:
	default:
	}
}

// shut turns away everybody for good.
func (l *link) shut() {
	why := context.Cause(l.ctx)
	l.mu.Lock()
	ln := l.line
	l.line, l.open, l.down = nil, false, why
	l.mu.Unlock()
	if ln != nil {
		l.p.end(ln, why)
	}
}

const (
	minRest = 50 * time.Millisecond
	maxRest = 2 * time.Second
)

// restFor doubles with each failure. It differs by a fifth up and down from one
// pair of nodes to the next, so that a node that comes back is not met by all
// others at once.
func restFor(self, node uint64, failures int) time.Duration {
	d := min(minRest<<min(failures, 10), maxRest)
	h := fnv.New64a()
	_ = binary.Write(h, binary.BigEndian, [...]uint64{self, node, uint64(failures)}) // a hash takes all
	return d*4/5 + time.Duration(h.Sum64()%uint64(d*2/5))
}
