package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/operation"
	"github.com/comanda-mq/comanda/internal/queue"
)

// redrive revives dead messages of a queue again and again until ctx ends: those that a
// filter chooses, where they are or in another queue. Some of the operations that do it
// are paused for a while, and some are cancelled.
func (w *world) redrive(name string) {
	who := "redriver of " + name
	r := w.rand(who)
	for w.pause(w.ctx, time.Duration(r.Int64N(int64(2*time.Second)))) {
		p := w.anyNode(r)
		if p == nil {
			continue
		}
		x := message.Redrive{ResetAttempts: r.IntN(2) == 0, Rate: []int{0, 0, 3}[r.IntN(3)]}
		switch r.IntN(6) {
		case 0:
			x.Filter.Key = someKey(r, r.IntN(producers))
		case 1:
			x.Filter.Tenant = someTenant(r)
		case 2:
			x.Filter.Reason = queue.Nacked.String()
		case 3:
			x.Filter.Reason = queue.Rejected.String()
		}
		if r.IntN(3) == 0 {
			x.To = queues[r.IntN(len(queues))].name
		}
		plan, _, err := do(p, who, sendWithin, func(ctx context.Context) (message.RedrivePlan, error) {
			return p.gateway.RedriveQueue(ctx, name, x, "ann", false)
		})
		w.note("%s: %d chosen %v", who, plan.Count, message.CodeOf(err))
		if err == nil && plan.Operation != nil {
			w.meddle(who, r, plan.Operation.ID)
		}
	}
	// A pause that had no answer may be done after it was taken back.
	for !w.over.Load() {
		w.pause(context.Background(), time.Second)
		if p := w.anyNode(r); p != nil {
			for _, o := range p.view.Load().Operations() {
				if o.Kind == operation.RedriveKind && o.State == catalog.Paused {
					w.stop(who, r, o.ID, false)
				}
			}
		}
	}
}

// meddle pauses an operation for a while, or cancels it, or leaves it alone.
func (w *world) meddle(who string, r *rand.Rand, id uint64) {
	switch r.IntN(4) {
	case 0:
		w.stop(who, r, id, true)
		w.pause(w.ctx, time.Duration(r.Int64N(int64(2*time.Second))))
		w.stop(who, r, id, false)
	case 1:
		_ = w.insist(who, r, func(ctx context.Context, p *process) error {
			_, err := p.gateway.CancelOperation(ctx, id, "ann")
			return err
		})
	}
}

// stop pauses an operation, or lets it go on. One that has ended can't be paused.
func (w *world) stop(who string, r *rand.Rand, id uint64, paused bool) {
	_ = w.insist(who, r, func(ctx context.Context, p *process) error {
		_, err := p.gateway.PauseOperation(ctx, id, paused, "ann")
		return err
	})
}

// revival is a redrive, from when the catalog has it until it has ended.
type revival struct {
	operation.Redrive
	ends int  // of leases, when it was begun
	over bool // it is done
}

// redrives looks at the redrives in a catalog: when one is done, all that it chose have
// been revived.
func (l *logs) redrives(v *catalog.View) {
	for _, o := range v.Operations() {
		x := l.revivals[o.ID]
		switch {
		case o.Kind != operation.RedriveKind:
		case x == nil:
			x = &revival{ends: l.ends}
			if err := json.Unmarshal(o.Args, &x.Redrive); err != nil {
				l.w.fail("redrive %d can't be read: %v", o.ID, err)
			}
			l.revivals[o.ID] = x
		case o.State == catalog.Done && !x.over:
			l.done(o.ID, x)
		}
	}
}

// done checks that nothing which a redrive chose is as dead as it was.
func (l *logs) done(id uint64, x *revival) {
	x.over = true
	for _, m := range l.messages {
		if m.ended == message.Dead && !m.purged && m.over <= x.ends && x.chose(m) && l.w.tally.single(m.payload) == "" {
			l.w.fail("redrive %d is done, and message %s, which it chose, is dead since before", id, m.id)
		}
	}
	l.w.tally.count("redrives")
}

// chose says that a redrive was to revive a message that was dead.
func (x *revival) chose(m *stored) bool {
	return x.Queue == m.place.Queue() && m.place.Seq() <= x.Through[m.at.Cell] && x.Filter.Matches("", m.key, m.tenant, nil, m.died.String(), 0)
}

// revived looks which of a group's dead messages a redrive has revived: each was chosen,
// and is revived once. One that goes to another queue leaves now, as if it had died now.
func (l *logs) revived(g *groupLog) {
	var dead []*stored
	for at, m := range l.messages {
		if at == nameOf(m.place) && m.ended == message.Dead && !m.purged && l.homes[spaceOf(m.at)] == g {
			dead = append(dead, m)
		}
	}
	slices.SortFunc(dead, func(a, b *stored) int { return slices.Compare(a.place[:], b.place[:]) })
	for _, m := range dead {
		at := m.at
		d, on := l.show(m.id, at)
		if on == nil && d.State == message.Dead && !d.Leaving {
			continue
		}
		id, x := l.reviver(g, at)
		switch {
		case x == nil:
			l.w.fail("message %s was dead and is not, and nobody has revived it", m.id)
			return
		case !x.chose(m):
			l.w.fail("message %s was revived by redrive %d, which did not choose it", m.id, id)
		case m.revived == id:
			l.w.fail("message %s was revived by redrive %d twice", m.id, id)
		}
		m.ended, m.revived = 0, id
		if on != nil || d.Leaving {
			l.ends++
			m.over = l.ends
			continue
		}
		l.stand(m)
		l.alone(m)
		l.w.tally.count("revived")
	}
}

// reviver is the redrive that was the last to take a step in a cell.
func (l *logs) reviver(g *groupLog, at queue.Line) (id uint64, x *revival) {
	for id, x := range l.revivals {
		q := queue.Query{Dead: &queue.DeadQuery{Queue: at.Queue, Cell: at.Cell, Operation: id}}
		if q.Run(g.rows).Dead.Progress.After > 0 {
			return id, x
		}
	}
	return 0, nil
}
