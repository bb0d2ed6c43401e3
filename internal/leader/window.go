package leader

import (
	"cmp"
	"slices"

	"github.com/comanda-mq/comanda/internal/queue"
)

// Sizes of a cell's window of messages that may go out.
const (
	windowMax  = 4_096 // kept at most
	windowFill = 1_000 // read at a time
	windowLow  = 250   // below it more is read
)

// window holds the first of a cell's messages that may go out, by priority and
// arrival: a part of the cell's ready rows without those for which a lease is
// proposed.
type window struct {
	refs []queue.Ref // in order
	// whole: refs are all there are. Else the rows after end were not read yet.
	whole bool
	end   *queue.Ref // nil: nothing was read yet
	// filling: rows after end are being read; what is offered meanwhile waits in
	// late, because nobody knows whether the read saw it.
	filling bool
	late    []queue.Ref
	// floor is where the first read from the cell's floor found its first row,
	// for the next lease to carry.
	floor *queue.Floor
}

func order(a, b queue.Ref) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Seq, b.Seq))
}

// offer takes in a message that became ready.
func (w *window) offer(r queue.Ref) {
	switch {
	case w.whole || (w.end != nil && order(r, *w.end) <= 0):
		w.insert(r)
	case w.filling:
		w.late = append(w.late, r)
	}
}

func (w *window) insert(r queue.Ref) {
	if n := len(w.refs); n == 0 || order(w.refs[n-1], r) < 0 {
		w.refs = append(w.refs, r)
	} else if i, found := slices.BinarySearchFunc(w.refs, r, order); found {
		w.refs[i] = r // seen before, with an older counter
	} else {
		w.refs = slices.Insert(w.refs, i, r)
	}
	if len(w.refs) > windowMax {
		w.refs = w.refs[:windowMax]
		w.whole, w.end = false, new(w.refs[windowMax-1])
	}
}

// withdraw takes a message out that may not go out any more.
func (w *window) withdraw(r queue.Ref) {
	same := func(a, b queue.Ref) bool { return order(a, b) == 0 && a.Counter == b.Counter }
	if i, found := slices.BinarySearchFunc(w.refs, r, order); found && same(w.refs[i], r) {
		w.refs = slices.Delete(w.refs, i, i+1)
	}
	w.late = slices.DeleteFunc(w.late, func(l queue.Ref) bool { return same(l, r) })
}

// wantsFill says that rows should be read now.
func (w *window) wantsFill() bool { return !w.whole && !w.filling && len(w.refs) < windowLow }

// fill takes in what was read after a former end, windowFill at the most.
func (w *window) fill(after *queue.Ref, read []queue.Ref) {
	w.filling = false
	if w.end == after {
		w.whole = len(read) < windowFill
		if !w.whole {
			w.end = new(read[len(read)-1])
		}
		for _, r := range read {
			w.insert(r)
		}
	} // else the window was cut meanwhile: between its end and what was read rows are missing
	late := w.late
	w.late = nil
	for _, r := range late {
		w.offer(r)
	}
}

// pop takes the first message out.
func (w *window) pop() queue.Ref {
	r := w.refs[0]
	w.refs = w.refs[1:]
	return r
}
