package leader

import (
	"cmp"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Of how many turns a cell's messages are kept in mind, and below how many more are
// looked for.
const (
	maxTurns = 1_000
	lowTurns = maxTurns / 2
)

// turns are a cell's tenants that have messages which may go out, each priority by
// itself, with a window for each. What has no window may have rows, unless whole.
type turns struct {
	by map[queue.Turn]*window
	// whole: no other turn has rows.
	whole bool
	// over: there are more turns than are kept. One that was served is let go then, so
	// that others come to be known: end is the last one found; nil: look from the first.
	over bool
	end  *queue.Turn
	// searching: rows are being looked through. missed: since that began with the first
	// row, a turn was let go or not taken.
	searching, missed bool
}

func newTurns() *turns { return &turns{by: map[queue.Turn]*window{}} }

// wantsSearch says that rows should be looked through now.
func (t *turns) wantsSearch() bool { return !t.whole && !t.searching && len(t.by) < lowTurns }

// searchJob looks for the next turns of a cell.
type searchJob struct {
	cell  *cell
	turns *turns // a later purge gives the cell others
	after *queue.Turn
	limit int
}

// found takes in what a search found, which ended early if there were no more.
func (l *line) found(j searchJob, read []queue.Turn) {
	t := j.turns
	t.searching = false
	if len(read) < j.limit {
		t.end = nil
		if !t.missed {
			t.whole, t.over = true, false
		}
	} else {
		t.end, t.over = new(read[len(read)-1]), true
	}
	if j.cell.turns != t {
		return
	}
	for _, turn := range read {
		if t.by[turn] == nil && !l.pauses.tenants[turn.Tenant] {
			l.addTurn(j.cell, turn, &window{})
		}
	}
}

// addTurn gives a turn of a cell its window.
func (l *line) addTurn(c *cell, turn queue.Turn, w *window) *window {
	w.cell, w.turn = c, turn
	w.size = max(windowFill/(len(c.turns.by)+1), minTurnFill)
	c.turns.by[turn] = w
	l.order.add(w)
	l.hunger(w)
	return w
}

// minTurnFill is how many messages of a turn are read at a time, at the least.
const minTurnFill = 16

// letTurnGo forgets a turn of a cell.
func (l *line) letTurnGo(w *window) {
	delete(w.cell.turns.by, w.turn)
	l.order.remove(w)
	if !w.whole || len(w.offers) > 0 {
		w.cell.turns.missed = true
	}
}

// forgetTurns forgets all turns of a cell.
func (l *line) forgetTurns(c *cell) {
	for _, w := range c.turns.by {
		l.order.remove(w)
	}
	c.turns = newTurns()
}

// offer takes in a message that became ready.
func (l *line) offer(c *cell, o queue.Offer) {
	if l.pauses.holds(o) {
		return
	}
	if o.Tenant == 0 {
		c.window.offer(o)
		return
	}
	t, turn := c.turns, o.Turn()
	w := t.by[turn]
	switch {
	case w != nil:
	case len(t.by) >= maxTurns && !l.makeRoom(c, turn.Priority):
		t.whole, t.over, t.missed = false, true, true
		return
	default:
		w = l.addTurn(c, turn, &window{whole: t.whole})
	}
	w.offer(o)
}

// makeRoom lets a turn of a lower priority go, if there is one.
func (l *line) makeRoom(c *cell, priority byte) bool {
	w := l.order.lowest(c, priority)
	if w == nil {
		return false
	}
	c.turns.whole, c.turns.over = false, true
	l.letTurnGo(w)
	return true
}

// withdraw takes a message out that may not go out any more.
func (l *line) withdraw(c *cell, o queue.Offer) {
	if o.Tenant == 0 {
		c.window.withdraw(o.Ref)
	} else if w := c.turns.by[o.Turn()]; w != nil {
		w.withdraw(o.Ref)
		l.settleTurn(w)
	}
}

// settleTurn forgets a turn that has nothing left, and has more read of one that runs
// low.
func (l *line) settleTurn(w *window) {
	if w.whole && len(w.offers) == 0 {
		l.letTurnGo(w)
	} else {
		l.hunger(w)
	}
}

// hunger notes a window of a turn that wants rows.
func (l *line) hunger(w *window) {
	if !w.hungry && w.wantsFill() {
		w.hungry = true
		l.hungry = append(l.hungry, w)
	}
}

// first is the window whose first message is the next to go out: of the highest
// priority that there is, that of the tenant whose turn it is.
func (l *line) first() (first *window) {
	for _, c := range l.cells {
		if w := c.window; len(w.offers) > 0 && (first == nil || order(w.offers[0].Ref, first.offers[0].Ref) < 0) {
			first = w
		}
	}
	return l.order.next(first)
}

// pop takes the first message of a window out, and its tenant has had its turn.
func (l *line) pop(w *window) queue.Offer {
	o := w.pop()
	l.order.served(o.Turn())
	if o.Tenant != 0 {
		l.settleTurn(w)
		if t := w.cell.turns; t.over && t.by[w.turn] == w {
			l.letTurnGo(w)
		}
	}
	return o
}

// available is how many messages may go out, as far as they are in mind.
func (l *line) available() (n int) {
	for _, c := range l.cells {
		n += len(c.window.offers)
	}
	return n + l.order.available()
}

// turnOrder is whose turn it is, over all cells of a line. It is kept in memory only:
// a new leader begins anew, which costs nobody more than one turn.
type turnOrder struct {
	// tenants of each priority that have windows, by their number.
	tenants [message.MaxPriority + 1][]tenant
	last    [message.MaxPriority + 1]uint64 // who had the last turn
}

// tenant has windows of one priority in one or more cells.
type tenant struct {
	number  uint64
	windows []*window
}

func (t *turnOrder) find(turn queue.Turn) (i int, found bool) {
	return slices.BinarySearchFunc(t.tenants[turn.Priority], turn.Tenant, func(e tenant, n uint64) int { return cmp.Compare(e.number, n) })
}

func (t *turnOrder) add(w *window) {
	at := &t.tenants[w.turn.Priority]
	i, found := t.find(w.turn)
	if !found {
		*at = slices.Insert(*at, i, tenant{number: w.turn.Tenant})
	}
	(*at)[i].windows = append((*at)[i].windows, w)
}

func (t *turnOrder) remove(w *window) {
	at := &t.tenants[w.turn.Priority]
	i, found := t.find(w.turn)
	if !found {
		return
	}
	e := &(*at)[i]
	if e.windows = slices.DeleteFunc(e.windows, func(o *window) bool { return o == w }); len(e.windows) == 0 {
		*at = slices.Delete(*at, i, i+1)
	}
}

// next is the first window of the tenant whose turn it is; none is the first of those
// without a tenant, whose number is 0.
func (t *turnOrder) next(none *window) *window {
	for p := message.MaxPriority; p >= 0; p-- {
		here := none != nil && int(none.offers[0].Priority) == p
		if w := t.nextOf(p, here); w != nil {
			return w
		}
		if here {
			return none
		}
	}
	return nil
}

// nextOf is the tenant after the one that had the last turn, round and round; nil:
// none, or those without a tenant, if they have something here.
func (t *turnOrder) nextOf(p int, here bool) *window {
	all := t.tenants[p]
	from, found := t.find(queue.Turn{Priority: byte(p), Tenant: t.last[p]})
	if found {
		from++
	}
	for i := range all {
		if i += from; i >= len(all) {
			if i -= len(all); i == 0 && here {
				return nil // 0 comes before all others
			}
		}
		if w := all[i].first(); w != nil {
			return w
		}
	}
	return nil
}

// first is the tenant's window with the oldest message.
func (e *tenant) first() (first *window) {
	for _, w := range e.windows {
		if len(w.offers) > 0 && (first == nil || w.offers[0].Seq < first.offers[0].Seq) {
			first = w
		}
	}
	return first
}

func (t *turnOrder) served(turn queue.Turn) { t.last[turn.Priority] = turn.Tenant }

// lowest is a window of a cell whose priority is the lowest, and lower than a given
// one; nil: none is.
func (t *turnOrder) lowest(c *cell, priority byte) *window {
	for p := range priority {
		for _, e := range t.tenants[p] {
			for _, w := range e.windows {
				if w.cell == c {
					return w
				}
			}
		}
	}
	return nil
}

// available stops counting where more makes no difference.
func (t *turnOrder) available() (n int) {
	for p := range t.tenants {
		for i := range t.tenants[p] {
			for _, w := range t.tenants[p][i].windows {
				n += len(w.offers)
			}
			if n >= windowMax {
				return n
			}
		}
	}
	return n
}
