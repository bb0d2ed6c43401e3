package queue_test

import (
	"slices"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// redrives is what the model knows of redrives that are operations.
type redrives struct {
	operation uint64
	at        map[int]queue.Progress // by cell
	steps     []queue.RedriveSome    // all that were taken: each may come again
	revived   map[message.ID]bool    // by the operation
}

// redriveSome takes a step of an operation, or one that came before takes place again.
func (w *trial) redriveSome(t *rapid.T) {
	r := &w.redrives
	if r.operation == 0 || rapid.IntRange(0, 5).Draw(t, "operation") == 0 {
		r.operation++
		r.at, r.revived = map[int]queue.Progress{}, map[message.ID]bool{}
	}
	if len(r.steps) > 0 && rapid.IntRange(0, 2).Draw(t, "late") == 0 {
		w.lateStep(t, rapid.SampledFrom(r.steps).Draw(t, "step"))
		return
	}
	if len(w.order) == 0 {
		return
	}
	cell := rapid.SampledFrom(w.order).Draw(t, "near").id.Point().Cell()
	ask := queue.DeadQuery{Queue: 1, Cell: cell, Operation: r.operation, Limit: rapid.IntRange(1, 3).Draw(t, "limit")}
	ask.Filter.Type = rapid.SampledFrom([]string{"", "bake"}).Draw(t, "type")
	ask.Filter.Tenant = rapid.SampledFrom([]string{"", "", "t"}).Draw(t, "tenant")
	dead := (&queue.Query{Dead: &ask}).Run(w.rows).Dead
	if dead.Progress != r.at[cell] {
		t.Fatalf("operation %d is at %+v in cell %d, want %+v", r.operation, dead.Progress, cell, r.at[cell])
	}
	var want []*known
	for _, k := range w.order {
		if k.state == message.Dead && k.id.Point().Cell() == cell && k.id.Seq() > dead.Progress.After && (ask.Filter.Type == "" || k.sent.Type == ask.Filter.Type) && (ask.Filter.Tenant == "" || k.sent.Tenant == ask.Filter.Tenant) {
			want = append(want, k)
		}
	}
	slices.SortFunc(want, func(a, b *known) int { return int(a.id.Seq()) - int(b.id.Seq()) })
	want = want[:min(ask.Limit, len(want))]
	if !slices.EqualFunc(want, dead.Messages, func(k *known, d queue.DeadRef) bool { return k.id.Seq() == d.Seq }) {
		t.Fatalf("the dead of cell %d behind %d with %s are %+v", cell, dead.Progress.After, ask.Filter.String(), dead.Messages)
	}
	if dead.Through == 0 {
		return
	}
	step := queue.RedriveSome{Queue: 1, Cell: cell, Operation: r.operation, After: dead.Progress.After, Through: dead.Through, Messages: dead.Messages}
	step.ResetAttempts = rapid.Bool().Draw(t, "reset")
	next := queue.Progress{After: dead.Through, Redriven: dead.Progress.Redriven, Skipped: dead.Progress.Skipped}
	for _, k := range want {
		if w.holder(&k.sent) != nil {
			next.Skipped++
			continue
		}
		if r.revived[k.id] {
			t.Fatalf("operation %d revives %s twice", r.operation, k.name)
		}
		r.revived[k.id] = true
		next.Redriven++
		k.state, k.redriven, k.back = message.Ready, true, true
		if step.ResetAttempts {
			k.attempts, k.deaths = 0, 0
		}
	}
	if p := w.apply(t, step.Command())[0]; p != next {
		t.Fatalf("%+v answered %+v, want %+v", step, p, next)
	}
	r.at[cell] = next
	r.steps = append(r.steps, step)
}

// lateStep takes place after the cell has gone on: it does nothing, which the model
// sees after it.
func (w *trial) lateStep(t *rapid.T, step queue.RedriveSome) {
	r := &w.redrives
	p := w.apply(t, step.Command())[0].(queue.Progress)
	at, begun := r.at[step.Cell]
	if step.Operation == r.operation && p != at {
		t.Fatalf("a late step is answered with %+v, want %+v", p, at)
	}
	if step.Operation < r.operation && begun && (p.Err == nil || p.Err.Code != message.Conflict) {
		t.Fatalf("a step of operation %d is answered with %+v while %d is under way", step.Operation, p, r.operation)
	}
}
