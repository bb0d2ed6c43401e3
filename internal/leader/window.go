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

// window holds the first of a cell's messages that may go out, of those without a
// tenant or of one turn, by priority and arrival: a part of their ready rows without
// those for which a lease is proposed.
type window struct {
	offers []queue.Offer // in order
	// whole: offers are all there are. Else the rows after end were not read yet.
	whole bool
	end   *queue.Ref // nil: nothing was read yet
	// filling: rows after end are being read; what is offered meanwhile waits in
	// late, because nobody knows whether the read saw it.
	filling bool
	late    []queue.Offer
	// floor is where the first read from the cell's floor found its first row,
	// for the next lease to carry.
	floor *queue.Floor

	// Of a turn: where it is, how many are read at a time, and whether its line knows
	// that it wants rows.
	cell   *cell
	turn   queue.Turn
	size   int // 0: windowFill
	hungry bool
}

func (w *window) sizes() (low, read, most int) {
	if w.size == 0 {
		return windowLow, windowFill, windowMax
	}
	return w.size / 4, w.size, 4 * w.size
}

func order(a, b queue.Ref) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Seq, b.Seq))
}

// offer takes in a message that became ready.
func (w *window) offer(o queue.Offer) {
	switch {
	case w.whole || (w.end != nil && order(o.Ref, *w.end) <= 0):
		w.insert(o)
	case w.filling:
		w.late = append(w.late, o)
	}
}

func (w *window) insert(o queue.Offer) {
	if n := len(w.offers); n == 0 || order(w.offers[n-1].Ref, o.Ref) < 0 {
		w.offers = append(w.offers, o)
	} else if i, found := w.find(o.Ref); found {
		w.offers[i] = o // seen before, with an older counter
	} else {
		w.offers = slices.Insert(w.offers, i, o)
	}
	if _, _, most := w.sizes(); len(w.offers) > most {
		w.offers = w.offers[:most]
		w.whole, w.end = false, new(w.offers[most-1].Ref)
	}
}

// find finds the message at r's place, or where it would be.
func (w *window) find(r queue.Ref) (i int, found bool) {
	return slices.BinarySearchFunc(w.offers, r, func(o queue.Offer, r queue.Ref) int { return order(o.Ref, r) })
}

// withdraw takes a message out that may not go out any more.
func (w *window) withdraw(r queue.Ref) {
	if i, found := w.find(r); found && w.offers[i].Ref == r {
		w.offers = slices.Delete(w.offers, i, i+1)
	}
	w.late = slices.DeleteFunc(w.late, func(l queue.Offer) bool { return l.Ref == r })
}

// wantsFill says that rows should be read now.
func (w *window) wantsFill() bool {
	low, _, _ := w.sizes()
	return !w.whole && !w.filling && len(w.offers) < low
}

// fill takes in what was read after a former end, as many as it reads at a time at
// the most.
func (w *window) fill(after *queue.Ref, read []queue.Offer) {
	w.filling = false
	if w.end == after {
		_, size, _ := w.sizes()
		w.whole = len(read) < size
		if !w.whole {
			w.end = new(read[len(read)-1].Ref)
		}
		for _, o := range read {
			w.insert(o)
		}
	} // else the window was cut meanwhile: between its end and what was read rows are missing
	late := w.late
	w.late = nil
	for _, o := range late {
		w.offer(o)
	}
}

// pop takes the first message out.
func (w *window) pop() queue.Offer {
	o := w.offers[0]
	w.offers = w.offers[1:]
	return o
}
