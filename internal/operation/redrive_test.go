package operation

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
)

// RedriveSome is Cluster.RedriveSome: as the cell's group does it. Each message is
// its number, and even ones can't live.
func (w *world) RedriveSome(_ context.Context, s RedriveSome) (p RedriveProgress, err error) {
	err = w.call(func() error {
		switch {
		case s.Operation < w.redriving:
			return message.Errorf(message.Conflict, "operation %d revives messages here", w.redriving)
		case s.Operation > w.redriving:
			w.redriving, w.at = s.Operation, [message.Cells]uint64{}
		}
		at := &w.at[s.Cell]
		for range s.Limit {
			if *at == s.Through {
				break
			}
			*at++
			w.revived[fmt.Sprint(s.Operation, " ", s.Cell, " ", *at)]++
		}
		p = RedriveProgress{Redriven: (*at + 1) / 2, Skipped: *at / 2, Done: *at == s.Through}
		return nil
	})
	return p, err
}

func (w *world) redrive(r message.Redrive, through map[int]uint64) uint64 {
	o := Redrive{Queue: w.queue, Name: "orders", Redrive: r}
	for cell, n := range through {
		o.Through[cell], o.Count = n, o.Count+int(n)
	}
	return w.do(catalog.Command{BeginOperation: o.Begin(fmt.Sprint(o))}).Operation.ID
}

// A runner that dies before or after any of its calls has its effect leaves the rest
// to the next: each message is come to once, and what is told of it is right.
func TestRedrive(t *testing.T) {
	calls := 0
	for well, last := 0, false; !last; well++ {
		for _, effect := range []bool{false, true} {
			w := newWorld(t)
			id := w.redrive(message.Redrive{}, map[int]uint64{0: 2500, 7: 1, 15: 1000})
			w.well, w.effect = well, effect
			o := w.run(id)
			if i := told(o); o.State != catalog.Done || i.Chosen != 3501 || i.Redriven != 1751 || i.Skipped != 1750 {
				t.Fatalf("%s: %+v", o.State, i)
			}
			if len(w.revived) != 3501 {
				t.Fatalf("%d messages were come to", len(w.revived))
			}
			for what, n := range w.revived {
				if n != 1 {
					t.Fatalf("%s was come to %d times", what, n)
				}
			}
			last = w.well >= 0
			calls = max(calls, well)
		}
	}
	if calls < 10 {
		t.Fatalf("a redrive took %d calls", calls)
	}
}

// With a rate no more are revived than time has passed, and a pause is not made up
// for.
func TestRedriveHasARate(t *testing.T) {
	w := newWorld(t)
	clk := clock.NewManual()
	id := w.redrive(message.Redrive{Rate: 10}, map[int]uint64{3: 1000})
	r := New(w, clk, slog.New(slog.DiscardHandler))
	revived := func(after time.Duration) int {
		t.Helper()
		clk.Advance(after)
		for again := true; again; {
			var err error
			if again, err = r.step(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		return int(told(w.operation(id)).Redriven)
	}
	begin := revived(0) // up to a second's worth
	for i, want := range []int{0, 2, 5, 7} {
		if got := revived([]time.Duration{0, 250 * time.Millisecond}[min(i, 1)]) - begin; got > want+1 || got < want-1 {
			t.Errorf("after %d quarters of a second %d are revived, want about %d", i, got, want)
		}
	}
	if got := revived(time.Hour) - begin; got > 7+1+10 {
		t.Errorf("after an hour %d are revived at once", got)
	}
	w.do(catalog.Command{PauseOperation: &catalog.PauseOperation{ID: id, Paused: true}})
	before := revived(0)
	if got := revived(time.Second); got != before {
		t.Errorf("while it is paused %d are revived", got-before)
	}
	w.do(catalog.Command{PauseOperation: &catalog.PauseOperation{ID: id}})
	if got := revived(time.Second); got == before {
		t.Error("it does not go on")
	}
}

// What ends a redrive early, and for what it waits, is told in words.
func TestRedriveTellsWhy(t *testing.T) {
	for _, c := range []struct {
		what   string
		happen func(w *world, id uint64)
		state  catalog.OperationState
		code   message.Code
		words  string
	}{
		{"deleted", func(w *world, _ uint64) {
			w.do(catalog.Command{DeleteQueue: &catalog.DeleteQueue{Name: "orders"}})
		}, catalog.Failed, message.QueueNotFound, "deleted"},
		{"cancelled", func(w *world, id uint64) {
			w.do(catalog.Command{CancelOperation: &catalog.CancelOperation{ID: id}})
		}, catalog.Cancelled, "", ""},
		{"another", func(w *world, id uint64) { w.redriving = id + 1 }, catalog.Failed, message.Conflict, "revives messages here"},
		{"unreachable", func(w *world, _ uint64) { w.well = 0 }, catalog.Running, "", "for the group of cell 1"},
	} {
		w := newWorld(t)
		id := w.redrive(message.Redrive{}, map[int]uint64{1: 10})
		c.happen(w, id)
		_ = runner(w).Step(t.Context(), id)
		o := w.operation(id)
		var code message.Code
		said := o.Waits
		if o.Error != nil {
			code, said = o.Error.Code, o.Error.Text
		}
		if o.State != c.state || code != c.code || !strings.Contains(said, c.words) {
			t.Errorf("%s: %s, %s: %q", c.what, o.State, code, said)
		}
	}
}

func told(o *catalog.Operation) (info message.OperationInfo) {
	Tell(o, &info)
	return info
}
