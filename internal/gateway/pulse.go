package gateway

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/liveness"
)

// A worker whose beats are missing gets nothing new, although it is not dead yet:
// what it was given would wait until it is. The gateway that has its stream knows
// it first. A worker without a stream asks for nothing anyway.

// pulse is whether a worker is heard. The attachment's lock is held.
type pulse struct {
	heard time.Time
	// trust ends when the worker becomes suspect; nil: nobody has asked.
	trust context.Context
	end   context.CancelFunc
	// back is closed when it is heard again; nil: it is not suspect.
	back chan struct{}
}

func (p *pulse) hear(now time.Time) {
	p.heard = now
	if p.back != nil {
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

// doubt looks whether the worker is suspect.
func (a *attachment) doubt(now time.Time) (suspect bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.pulse.heard) >= liveness.SuspectAfter(a.ttl) {
		a.pulse.lose()
	}
	return a.pulse.back != nil
}

// trusted waits until the worker is not suspect; false: ctx ended before. Without a
// session nobody is.
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

// within is over with ctx, or when the worker becomes suspect. stop lets go of it.
func (a *attachment) within(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	if a == nil {
		return ctx, cancel
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pulse.trust == nil {
		a.pulse.trust, a.pulse.end = context.WithCancel(context.Background()) //nolint:fatcontext // one follows the other, none is inside another
	}
	heard := context.AfterFunc(a.pulse.trust, cancel)
	return ctx, func() {
		heard()
		cancel()
	}
}
