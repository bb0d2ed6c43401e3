package gateway

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/liveness"
)

// A worker whose beats are missing gets nothing new, although it is not dead yet:
// what it was given would wait until it is. The gateway that has its stream knows
// it first. A worker without a stream asks for nothing anyway. One that is drained
// gets nothing more at all, also if it goes on asking, but for what was on its way.

// pulse is whether a worker may get something. The attachment's lock is held.
type pulse struct {
	heard time.Time
	// trust ends when the worker becomes suspect or is drained; nil: nobody has asked.
	trust context.Context
	end   context.CancelFunc
	// back is closed when it is heard again, and never if it is drained; nil: it is
	// neither suspect nor drained.
	back    chan struct{}
	drained bool
}

func (p *pulse) hear(now time.Time) {
	p.heard = now
	if p.back != nil && !p.drained {
		close(p.back)
		p.back = nil
	}
}

func (p *pulse) lose() {
	if p.back != nil {
		return
	}
	p.back = make(chan struct{})
	if p.trust != nil {
		p.end()
		p.trust = nil
	}
}

// drain has the worker get nothing more, however well it is heard, and tells it.
func (a *attachment) drain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pulse.drained {
		a.pulse.drained = true
		a.pulse.lose()
		close(a.draining)
	}
}

// doubt looks whether the worker may get nothing.
func (a *attachment) doubt(now time.Time) (barred bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.pulse.heard) >= liveness.SuspectAfter(a.ttl) {
		a.pulse.lose()
	}
	return a.pulse.back != nil
}

// trusted waits until the worker may get something; false: ctx ended before. Without a
// session everybody may.
func (a *attachment) trusted(ctx context.Context) bool {
	for a != nil && a.doubt(a.g.o.Clock.Now()) {
		a.mu.Lock()
		back := a.pulse.back
		a.mu.Unlock()
		if back == nil {
			return true
		}
		select {
		case <-back:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// within waits until the worker may get something, and is over with ctx, or when the
// worker becomes suspect or is drained. stop lets go of it. trusted is false if the one
// or the other has happened already.
func (a *attachment) within(ctx context.Context) (_ context.Context, stop func(), trusted bool) {
	trusted = a.trusted(ctx)
	ctx, cancel := context.WithCancel(ctx)
	if a == nil {
		return ctx, cancel, trusted
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pulse.back != nil {
		cancel()
		return ctx, cancel, false
	}
	if a.pulse.trust == nil {
		a.pulse.trust, a.pulse.end = context.WithCancel(context.Background()) //nolint:fatcontext // one follows the other, none is inside another
	}
	heard := context.AfterFunc(a.pulse.trust, cancel)
	return ctx, func() {
		heard()
		cancel()
	}, trusted
}
