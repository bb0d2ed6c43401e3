package demo

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// bill is what the evening comes to.
type bill struct {
	taken     int // confirmed, or there although their confirmation was lost
	delivered int
	burnt     int // dead at the end
	waiting   int // in the queue at the end
	lost      int // taken, and nowhere
	twice     int // orders that were accepted twice, or stored twice
	disorder  int // pizzas that were begun before an earlier one of their customer was settled
	uncalled  int // pizzas that nobody ordered, or whose customer was told no

	found     int // taken, although their confirmation was lost
	unclear   int // confirmations lost, of orders that no kitchen has seen
	refused   int // customers that were asked to try again, and did
	redriven  int
	begun     int // pizzas that were in the oven when a kitchen was killed or lost its lease
	made      int // and those that were out of it, and not acked
	confirms  []time.Duration
	deaths    []death
	earlyHome bool // Ctrl-C: what waits is not held against us
}

// bill adds up what is known.
func (l *ledger) bill(earlyHome bool) bill {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := bill{refused: l.refused, confirms: slices.Sorted(slices.Values(l.confirms)), earlyHome: earlyHome}
	for _, d := range l.deaths {
		b.deaths = append(b.deaths, *d)
	}
	for _, e := range l.orders {
		b.add(e)
	}
	b.disorder = disorder(l.orders)
	return b
}

func (b *bill) add(e *entry) {
	if len(e.ids()) > 1 || e.accepted() > 1 {
		b.twice++
	}
	for _, w := range e.leases {
		switch {
		case w.made && !w.accepted && e.accepted() > 0:
			b.made++
		case !w.made && !w.burnt:
			b.begun++
		}
	}
	if !e.taken() {
		switch {
		case len(e.leases) > 0:
			b.uncalled++
		case e.unsure:
			b.unclear++
		}
		return
	}
	b.taken++
	if e.unsure {
		b.found++
	}
	if e.redriven {
		b.redriven++
	}
	switch e.fate() {
	case eaten:
		b.delivered++
	case dead:
		b.burnt++
	case waiting:
		b.waiting++
	case forgotten, unknown:
		b.lost++
	}
}

// disorder counts the pizzas that were begun after a later order of their customer.
// Each lease of a key has a higher fence than the ones before, so in the order of
// fences the numbers of a customer's orders never fall. Two kinds of orders have no
// place of their own: one that was redriven comes late on purpose, and one whose
// confirmation was lost was not before the next when that was begun.
func disorder(orders map[ticket]*entry) (n int) {
	type step struct {
		customer string
		fence    uint64
		number   int
	}
	var steps []step
	for t, e := range orders {
		if e.redriven || e.unsure {
			continue
		}
		for l := range e.leases {
			steps = append(steps, step{t.customer, l.fence, t.number})
		}
	}
	slices.SortFunc(steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(a.customer, b.customer), cmp.Compare(a.fence, b.fence))
	})
	for i, s := range steps[min(1, len(steps)):] {
		if before := steps[i]; before.customer == s.customer && before.number > s.number {
			n++
		}
	}
	return n
}

// summary tells how things stand, by what the kitchens have reported.
func (l *ledger) summary() string {
	b := l.bill(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	charred := 0
	for _, e := range l.orders {
		if e.taken() && !e.redriven && e.accepted() == 0 && e.burnt() >= burns {
			charred++
		}
	}
	return fmt.Sprintf("%d taken, %d delivered, %d on the way, %d burnt", b.taken, b.delivered, b.taken-b.delivered-charred, charred)
}

// wrong says what must not be on the bill, empty if all is well.
func (b *bill) wrong() string {
	var faults []string
	check := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	check(b.taken == 0 && !b.earlyHome, "no order was taken")
	check(b.lost > 0, "%d lost", b.lost)
	check(b.twice > 0, "%d accepted twice", b.twice)
	check(b.disorder > 0, "%d out of order", b.disorder)
	check(b.uncalled > 0, "%d made that nobody was confirmed", b.uncalled)
	check(b.waiting > 0 && !b.earlyHome, "%d still waiting", b.waiting)
	check(b.taken != b.delivered+b.burnt+b.waiting, "%d taken, but %d delivered, %d burnt and %d waiting", b.taken, b.delivered, b.burnt, b.waiting)
	return strings.Join(faults, ", ")
}

// write prints the bill; times of deaths count from opening.
func (b *bill) write(out io.Writer, opening time.Time) {
	line := func(what string, n int, format string, args ...any) {
		text := fmt.Sprintf("  %-15s %6d  ", what, n) + fmt.Sprintf(format, args...)
		_, _ = fmt.Fprintln(out, strings.TrimRight(text, " "))
	}
	_, _ = fmt.Fprint(out, "\nThe bill\n")
	line("taken", b.taken, "confirmed after %s at the median, %s at the most", quantile(b.confirms, 50), quantile(b.confirms, 100))
	if b.found+b.unclear > 0 {
		line("", b.found, "of them although their confirmation was lost; %d more that no kitchen has seen", b.unclear)
	}
	if b.refused > 0 {
		line("asked again", b.refused, "while no server led the orders; surely not stored, so the customer repeated it")
	}
	line("delivered", b.delivered, "")
	line("burnt", b.burnt, "at the end; %d were, and then redriven", b.redriven)
	if b.waiting > 0 {
		line("waiting", b.waiting, "still in the queue")
	}
	line("lost", b.lost, "")
	line("accepted twice", b.twice, "")
	line("out of order", b.disorder, "")
	line("begun again", b.begun, "in the oven when a kitchen was killed or lost its lease")
	line("made again", b.made, "ready, but their ack had not come through")
	if len(b.deaths) > 0 {
		_, _ = fmt.Fprint(out, "  longest wait after each death\n")
	}
	for _, d := range b.deaths {
		_, _ = fmt.Fprintf(out, "  %8s  %-10s %s\n", seconds(d.at.Sub(opening)), d.who, d.cost())
	}
}

// cost says in words what a death cost.
func (d *death) cost() string {
	switch {
	case d.server:
		return seconds(d.wait) + " for a confirmation"
	case d.held == 0:
		return "it held nothing"
	case len(d.left) == d.held:
		return fmt.Sprintf("0 s: it held %d, all of them acked", d.held)
	}
	return fmt.Sprintf("%s until others had what it held (%d)", seconds(d.wait), d.held-len(d.left))
}

// seconds is d for people, to the tenth.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// quantile is the value that percent of the sorted durations do not exceed.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100].Round(100 * time.Microsecond)
}
