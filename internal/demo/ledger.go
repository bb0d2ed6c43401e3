package demo

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// outage is for how long after a server's death a customer's wait is put down to it.
const outage = 10 * time.Second

// ticket names an order.
type ticket struct {
	customer string
	number   int
}

// lease is one kitchen's right to one order. Its fence is higher than those of all
// earlier leases of the customer's orders.
type lease struct {
	id    string
	fence uint64
}

// work is what a kitchen reported about a lease.
type work struct {
	kitchen                     string
	made, burnt, accepted, over bool
}

// fate is what became of an order.
type fate string

const (
	unknown   fate = ""
	eaten     fate = "delivered"
	dead      fate = "burnt"
	waiting   fate = "waiting"
	forgotten fate = "lost"
)

// held says that the kitchen has the order, for all that is known. It may have got
// rid of one that burnt, which then waits for its next attempt or its redrive.
func (w *work) held() bool { return w != nil && !w.over && !w.burnt }

// entry is what is known about an order.
type entry struct {
	id       string // that the counter got
	asked    time.Time
	unsure   bool // the confirmation was lost
	redriven bool
	leases   map[lease]*work
	told     fate // by the servers
}

// taken says that the shop owes this order: it was confirmed, or its confirmation
// was lost and it is there.
func (e *entry) taken() bool { return e.id != "" || e.unsure && len(e.leases) > 0 }

// ids are those under which the order is known: more than one is one too many.
func (e *entry) ids() []string {
	ids := map[string]bool{}
	if e.id != "" {
		ids[e.id] = true
	}
	for l := range e.leases {
		ids[l.id] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// newest is what is known about the newest lease, nil if there was none.
func (e *entry) newest() (w *work) {
	var fence uint64
	for l, x := range e.leases {
		if l.fence >= fence {
			fence, w = l.fence, x
		}
	}
	return w
}

func (e *entry) accepted() (n int) {
	for _, w := range e.leases {
		if w.accepted {
			n++
		}
	}
	return n
}

func (e *entry) burnt() (n int) {
	for _, w := range e.leases {
		if w.burnt {
			n++
		}
	}
	return n
}

func (e *entry) fate() fate {
	if e.accepted() > 0 {
		return eaten
	}
	return e.told
}

// death is one of a kitchen or of a server.
type death struct {
	who  string
	at   time.Time
	held int // orders in the hands of a kitchen
	// left are those of them that nobody has begun again. What was made may be
	// delivered: the kitchen was killed before it could say so.
	left   map[ticket]*work
	server bool
	over   bool
	wait   time.Duration // the longest of an order, or of a customer, so far
}

// ledger keeps what the counter and the kitchens say.
type ledger struct {
	mu       sync.Mutex
	orders   map[ticket]*entry
	deaths   []*death
	confirms []time.Duration // how long each customer waited
	refused  int             // customers that were asked to try again
}

func newLedger() *ledger { return &ledger{orders: map[ticket]*entry{}} }

// ask notes that a customer orders.
func (l *ledger) ask(t ticket, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders[t] = &entry{asked: now, leases: map[lease]*work{}}
}

// again notes that an order was surely not stored, so that the customer repeats it.
func (l *ledger) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
}

// confirm notes the answer to an order: its id, or "" if the confirmation was lost.
// over is a server's death whose first order this is to be begun and confirmed after.
func (l *ledger) confirm(t ticket, id string, now time.Time) (over *death) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.orders[t]
	e.id, e.unsure = id, id == ""
	if id != "" {
		l.confirms = append(l.confirms, now.Sub(e.asked))
	}
	for _, d := range l.deaths {
		if !d.server || now.Before(d.at) || e.asked.Sub(d.at) > outage {
			continue
		}
		from := e.asked
		if from.Before(d.at) {
			from = d.at
		}
		d.wait = max(d.wait, now.Sub(from))
		if !d.over && id != "" && e.asked.After(d.at) {
			d.over, over = true, d
		}
	}
	return over
}

// report notes what a kitchen says. over is a kitchen's death after which this was
// the last order to be begun by another one.
func (l *ledger) report(kitchen string, r report, now time.Time) (over *death) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := ticket{r.Customer, r.Number}
	e := l.orders[t]
	if e == nil { // nobody ordered this
		e = &entry{asked: now, leases: map[lease]*work{}}
		l.orders[t] = e
	}
	key := lease{r.ID, r.Fence}
	w := e.leases[key]
	if w == nil {
		w = &work{kitchen: kitchen}
		e.leases[key] = w
	}
	switch r.Event {
	case begun:
		over = l.takenOver(t, kitchen, now)
	case made:
		w.made = true
	case burnt:
		w.burnt = true
	case delivered:
		w.accepted, w.over = true, true
	case ended:
		w.over = true
	}
	return over
}

// takenOver notes that a kitchen has begun an order that a dead one may have held.
func (l *ledger) takenOver(t ticket, kitchen string, now time.Time) (over *death) {
	for _, d := range l.deaths {
		if _, ok := d.left[t]; !ok || d.who == kitchen {
			continue
		}
		delete(d.left, t)
		d.wait = max(d.wait, now.Sub(d.at))
		if !d.over && d.rest() == 0 {
			d.over, over = true, d
		}
	}
	return over
}

// rest counts the orders that others must still begin: all but those that the
// kitchen may have acked.
func (d *death) rest() (n int) {
	for _, w := range d.left {
		if !w.made {
			n++
		}
	}
	return n
}

// held counts the orders in the hands of each kitchen.
func (l *ledger) held() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := map[string]int{}
	for _, e := range l.orders {
		if w := e.newest(); w.held() {
			held[w.kitchen]++
		}
	}
	return held
}

// die notes a death: for a kitchen after its last report.
func (l *ledger) die(who string, server bool, at time.Time) *death {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &death{who: who, at: at, server: server, left: map[ticket]*work{}}
	for t, e := range l.orders {
		if w := e.newest(); w.held() && w.kitchen == who {
			d.left[t] = w
		}
	}
	d.held = len(d.left)
	d.over = !server && d.rest() == 0
	l.deaths = append(l.deaths, d)
	return d
}

// redrive notes that dead orders go back in line: they come late, and that is right.
func (l *ledger) redrive(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.orders {
		if slices.Contains(e.ids(), id) {
			e.redriven = true
		}
	}
}

// open lists the ids of the orders that nobody has reported delivered.
func (l *ledger) open() map[ticket]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	open := map[ticket]string{}
	for t, e := range l.orders {
		if e.taken() && e.fate() == unknown {
			open[t] = e.ids()[0]
		}
	}
	return open
}

// found notes what the servers say about an order.
func (l *ledger) found(t ticket, f fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders[t].told = f
}
