// Package slowlog tells of operations for which a client waited long, and where
// the time went, as far as this node saw it.
package slowlog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/clock"
)

// maxLines is how many lines are written a second; what is slow then is slow for
// all, and the log should not make it worse.
const maxLines = 10

// Log writes a line about each slow operation. A nil *Log watches none.
type Log struct {
	clock     clock.Clock
	log       *slog.Logger
	threshold time.Duration

	mu     sync.Mutex
	second time.Time // in which lines were written
	lines  int
	left   int // operations without a line since the last one
}

// New makes a log of the operations that take at least threshold; nil if that is
// not above 0.
func New(c clock.Clock, l *slog.Logger, threshold time.Duration) *Log {
	if threshold <= 0 {
		return nil
	}
	return &Log{clock: c, log: l, threshold: threshold}
}

// Operation is one for which a client waits. Its methods may be called by any
// goroutine. A nil *Operation is not watched.
type Operation struct {
	log            *Log
	protocol, name string
	began          time.Time

	mu        sync.Mutex
	queue     string
	wish      time.Duration
	served    time.Time // when the wait that was wished was last over; zero: nobody has said
	proposals int
	slowest   proposal
	answered  time.Time // when the last proposal was
}

// proposal is a command that was put into a group's log for the operation.
type proposal struct {
	group  uint64
	took   time.Duration
	stages Stages
}

// Stages are the parts of a proposal; all 0: it was made by another node, or has
// no outcome.
type Stages struct {
	Wait   time.Duration // until it was in an entry of the log
	Commit time.Duration // from then until a majority had the entry on disk
	Apply  time.Duration // from then until its rows were written
}

type key struct{}

// Begin begins to watch an operation; what is done for it gets the context.
func (l *Log) Begin(ctx context.Context, protocol, name string) (context.Context, *Operation) {
	if l == nil {
		return ctx, nil
	}
	o := &Operation{log: l, protocol: protocol, name: name, began: l.clock.Now()}
	return context.WithValue(ctx, key{}, o), o
}

// Of is the operation for which something is done, nil if none is watched.
func Of(ctx context.Context) *Operation {
	o, _ := ctx.Value(key{}).(*Operation)
	return o
}

// Queue notes the queue that the operation is about, the first if there are many.
func (o *Operation) Queue(name string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queue == "" {
		o.queue = name
	}
}

// Wish notes that the client wishes to wait for so long: it does not make the
// operation slow.
func (o *Operation) Wish(d time.Duration) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wish = d
}

// Served notes that there is something for the client, which waits by its wish no longer.
func (o *Operation) Served() {
	if o == nil {
		return
	}
	now := o.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.served = now
}

// waited is how long the client waited by its wish. Where nobody has said, all of it.
func (o *Operation) waited() time.Duration {
	if o.served.IsZero() {
		return o.wish
	}
	return min(o.wish, o.served.Sub(o.began))
}

// Now is the time, for Proposed.
func (o *Operation) Now() (t time.Time) {
	if o == nil {
		return t
	}
	return o.log.clock.Now()
}

// Proposed notes that a proposal that began at some time is over. The line tells
// of the slowest.
func (o *Operation) Proposed(group uint64, began time.Time, s Stages) {
	if o == nil {
		return
	}
	now := o.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.proposals++
	o.answered = now
	if took := now.Sub(began); o.proposals == 1 || took > o.slowest.took {
		o.slowest = proposal{group, took, s}
	}
}

// End writes a line if the operation was slow; code is OK or an error's.
func (o *Operation) End(code string) {
	if o == nil {
		return
	}
	now := o.Now()
	took := now.Sub(o.began)
	o.mu.Lock()
	defer o.mu.Unlock()
	waited := o.waited()
	if took-waited < o.log.threshold {
		return
	}
	left, ok := o.log.room(now)
	if !ok {
		return
	}
	line := []any{"protocol", o.protocol, "op", o.name, "queue", o.queue, "code", code, "took", took}
	if waited > 0 {
		line = append(line, "wish", waited)
	}
	if p := &o.slowest; o.proposals > 0 {
		line = append(line, "proposals", o.proposals, "group", p.group, "proposal", p.took)
		if p.stages != (Stages{}) {
			line = append(line, "wait", p.stages.Wait, "commit", p.stages.Commit, "apply", p.stages.Apply)
		}
		line = append(line, "reply", now.Sub(o.answered))
	}
	if left > 0 {
		line = append(line, "left_out", left)
	}
	o.log.log.Warn("an operation was slow", line...)
}

// room says that a line may be written now, and how many were left out since the
// last one.
func (l *Log) room(now time.Time) (left int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.second) >= time.Second {
		l.second, l.lines = now, 0
	}
	if l.lines >= maxLines {
		l.left++
		return 0, false
	}
	l.lines++
	left, l.left = l.left, 0
	return left, true
}
