package leader

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// A window shows the first of the ready rows, whatever is offered, withdrawn,
// taken and read in whatever order: nothing that is before its end is missing,
// nothing stands twice, and of what comes after, reading goes on at the end.
func TestWindowAgainstSortedRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWindowTrial()
		t.Repeat(map[string]func(*rapid.T){
			"":         w.check,
			"offer":    w.offer,
			"flood":    w.flood,
			"return":   w.comeBack,
			"withdraw": w.withdraw,
			"take":     w.take,
			"takeMore": w.take,
			"ask":      w.ask,
			"read":     w.read,
			"fill":     w.fill,
		})
		w.drain(t)
	})
}

type windowTrial struct {
	window
	rows  []queue.Ref // the ready rows, in order
	taken []queue.Ref // leased: they may come back
	// stale are withdrawn while rows were being read: the read may have seen
	// them, and a lease of them comes to nothing.
	stale map[queue.Ref]bool
	seq   uint64
	after *queue.Ref  // of the read that is under way
	seen  []queue.Ref // by it; nil: not yet
}

func newWindowTrial() *windowTrial { return &windowTrial{stale: map[queue.Ref]bool{}} }

// appear are rows that are made, with no others between them, and then offered.
func (w *windowTrial) appear(rs ...queue.Ref) {
	i, _ := slices.BinarySearchFunc(w.rows, rs[0], order)
	w.rows = slices.Insert(w.rows, i, rs...)
	for _, r := range rs {
		w.window.offer(offered(r))
	}
}

// offered is the offer of a row: each has a key of its own.
func offered(r queue.Ref) queue.Offer { return queue.Offer{Ref: r, Key: r.Seq} }

func (w *windowTrial) send(t *rapid.T, n int) {
	priority := byte(rapid.IntRange(0, message.MaxPriority).Draw(t, "priority"))
	rs := make([]queue.Ref, n)
	for i := range rs {
		w.seq++
		rs[i] = queue.Ref{Priority: priority, Seq: w.seq}
	}
	w.appear(rs...)
}

func (w *windowTrial) offer(t *rapid.T) { w.send(t, rapid.IntRange(1, 3).Draw(t, "n")) }

func (w *windowTrial) flood(t *rapid.T) {
	if len(w.rows) > 2*windowMax {
		t.Skip("there are enough")
	}
	w.send(t, rapid.IntRange(500, windowMax+100).Draw(t, "n"))
}

// comeBack is a lease that ends: the last, the first or any of them.
func (w *windowTrial) comeBack(t *rapid.T) {
	if len(w.taken) == 0 {
		t.Skip("nothing is leased")
	}
	i := rapid.SampledFrom([]int{0, len(w.taken) - 1, len(w.taken) / 2}).Draw(t, "lease")
	r := w.taken[i]
	w.taken = slices.Delete(w.taken, i, i+1)
	r.Counter++
	w.appear(r)
}

func (w *windowTrial) withdraw(t *rapid.T) {
	if len(w.rows) == 0 {
		t.Skip("there are no rows")
	}
	i := rapid.IntRange(0, len(w.rows)-1).Draw(t, "row")
	r := w.rows[i]
	w.rows = slices.Delete(w.rows, i, i+1)
	w.window.withdraw(r)
	if w.seen != nil {
		w.stale[r] = true
	}
}

func (w *windowTrial) take(t *rapid.T) {
	gone := map[queue.Ref]bool{}
	for range min(len(w.offers), rapid.SampledFrom([]int{1, 10, 700, 1_000}).Draw(t, "n")) {
		gone[w.pop().Ref] = true
	}
	w.leased(gone)
}

// leased is a lease: the rows go.
func (w *windowTrial) leased(gone map[queue.Ref]bool) {
	w.rows = slices.DeleteFunc(w.rows, func(r queue.Ref) bool {
		if gone[r] {
			w.taken = append(w.taken, r)
		}
		return gone[r]
	})
}

// ask, read and fill are what the leader does when its window runs low; between
// them anything may happen.
func (w *windowTrial) ask(t *rapid.T) {
	if !w.wantsFill() {
		t.Skip("enough is there")
	}
	w.filling, w.after = true, w.end
}

func (w *windowTrial) read(t *rapid.T) {
	if !w.filling || w.seen != nil {
		t.Skip("nobody asked")
	}
	from := 0
	if w.after != nil {
		var found bool
		if from, found = slices.BinarySearchFunc(w.rows, *w.after, order); found {
			from++
		}
	}
	w.seen = append([]queue.Ref{}, w.rows[from:min(len(w.rows), from+windowFill)]...)
}

func (w *windowTrial) fill(t *rapid.T) {
	if w.seen == nil {
		t.Skip("nothing was read")
	}
	read := make([]queue.Offer, len(w.seen))
	for i, r := range w.seen {
		read[i] = offered(r)
	}
	w.window.fill(w.after, read)
	w.seen = nil
}

func (w *windowTrial) check(t *rapid.T) {
	if len(w.offers) > windowMax {
		t.Fatalf("%d are in the window", len(w.offers))
	}
	got := queue.Refs(w.offers)
	if !slices.IsSortedFunc(got, order) {
		t.Fatal("out of order")
	}
	for _, o := range w.offers {
		if o.Key != o.Seq {
			t.Fatalf("%v has the key of another one", o)
		}
	}
	if w.filling {
		return
	}
	want := w.rows
	if !w.whole {
		to := 0
		if w.end != nil {
			var found bool
			if to, found = slices.BinarySearchFunc(w.rows, *w.end, order); found {
				to++
			}
		}
		want = w.rows[:to]
	}
	if len(w.stale) > 0 {
		got = slices.DeleteFunc(got, func(r queue.Ref) bool { return w.stale[r] })
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d rows up to the end at %v, %d in the window; first difference: %v", len(want), w.end, len(got), firstDifference(want, got))
	}
}

func firstDifference(want, got []queue.Ref) (at [2]*queue.Ref) {
	for i := range max(len(want), len(got)) {
		if i < len(want) {
			at[0] = &want[i]
		}
		if i < len(got) {
			at[1] = &got[i]
		}
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			break
		}
	}
	return at
}

// drain takes everything out: in order, and all that is there.
func (w *windowTrial) drain(t *rapid.T) {
	var last *queue.Ref
	gone := map[queue.Ref]bool{}
	for {
		if w.filling || w.wantsFill() {
			w.leased(gone)
			clear(gone)
			if !w.filling {
				w.ask(t)
			}
			if w.seen == nil {
				w.read(t)
			}
			w.fill(t)
			w.check(t)
			continue
		}
		if len(w.offers) == 0 {
			break
		}
		r := w.pop().Ref
		if last != nil && order(*last, r) >= 0 {
			t.Fatalf("%v came after %v", r, *last)
		}
		last = &r
		gone[r] = true
	}
	w.leased(gone)
	if len(w.rows) > 0 {
		t.Fatalf("%d were never handed out, the first is %v", len(w.rows), w.rows[0])
	}
}
