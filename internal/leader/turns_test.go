package leader

import (
	"cmp"
	"encoding/binary"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

var backlog = flag.Int("tenant-backlog", 3_000, "messages of the tenant that others come after")

func (r *rig) sendOf(tenant string, n int) {
	r.t.Helper()
	for n > 0 {
		c := queue.Send{Queue: 1, Messages: make([]queue.Sent, min(n, 1_000))}
		n -= len(c.Messages)
		for i := range c.Messages {
			m := &c.Messages[i]
			m.Tenant, m.Type = tenant, tenant
			if tenant != "" {
				m.TenantHash = message.HashTenant(&message.Secret{}, tenant)
			}
		}
		r.propose(c.Command())
	}
}

// One tenant sends very much, and then another one a little: that one does not wait
// until the first is done, also under a new leader. Without tenants it does.
func TestTenantsInTurn(t *testing.T) {
	r := newRig(t)
	r.sendOf("a", *backlog)
	r.receive(1, time.Hour) // the leader has a's in mind
	r.sendOf("b", 10)
	r.sendOf("", 10)
	received := func(n int) (got string) {
		for _, x := range r.receive(n, time.Hour) {
			got += cmp.Or(x.Head.Tenant, "-")
		}
		return got
	}
	for range 2 {
		got := received(12)
		r.restart()
		if strings.Count(got, "a") != 4 || strings.Count(got, "b") != 4 || strings.Count(got, "-") != 4 {
			t.Fatalf("12 messages went out in this order: %s", got)
		}
	}
	if got := received(12); strings.Count(got, "b") != 2 || strings.Count(got, "-") != 2 {
		t.Fatalf("when two were left of each: %s", got)
	}
	if got := received(100); got != strings.Repeat("a", 100) {
		t.Fatalf("when one tenant was left: %s", got)
	}

	r = newRig(t)
	r.send(*backlog, 0)
	r.send(10, 0)
	for _, x := range r.receive(100, time.Hour) {
		if x.Head.Seq > uint64(*backlog) {
			t.Fatal("without tenants a later message went first")
		}
	}
}

// More tenants than a leader has in mind: all get their turn, and a tenant that never
// has nothing holds up nobody.
func TestMoreTenantsThanAreKept(t *testing.T) {
	const tenants = 2*maxTurns + maxTurns/2
	r := newRig(t)
	r.sendOf("busy", 4*tenants)
	for i := 0; i < tenants; {
		c := queue.Send{Queue: 1}
		for ; len(c.Messages) < 500 && i < tenants; i++ {
			name := fmt.Sprint(i)
			c.Messages = append(c.Messages, queue.Sent{TenantHash: message.HashTenant(&message.Secret{}, name), New: message.New{Tenant: name}})
		}
		r.propose(c.Command())
	}
	busy, others := 0, map[string]bool{}
	for range 2 * tenants / 100 {
		got := r.receive(100, time.Hour)
		for _, x := range got {
			if x.Head.Tenant == "busy" {
				busy++
			} else {
				others[x.Head.Tenant] = true
			}
		}
	}
	if len(others) != tenants {
		t.Fatalf("%d of %d tenants had their turn while one had %d messages", len(others), tenants, busy)
	}
	r.mu.Lock()
	kept := len(r.queues[1].cells[0].turns.by)
	r.mu.Unlock()
	if kept > maxTurns {
		t.Fatalf("%d turns are kept in mind", kept)
	}
}

// Whatever is offered, withdrawn, taken and read in whatever order: every message
// goes out once, and of those that may go out it is the tenant's whose turn it is.
func TestTurnsAgainstRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTurnTrial()
		t.Repeat(map[string]func(*rapid.T){
			"send": w.send, "sends": w.send, "flood": w.flood, "return": w.comeBack, "withdraw": w.withdraw,
			"take": w.take, "ask": w.ask, "look": w.look, "learn": w.learn, "purge": w.purge,
		})
		w.drain(t)
	})
}

type turnTrial struct {
	l     *line
	rows  []queue.Offer // the ready rows
	taken []queue.Offer
	stale map[queue.Ref]bool // see windowTrial
	seq   uint64
	reads []*pendingRead
}

// pendingRead is a read that was begun.
type pendingRead struct {
	fill   *fillJob
	search *searchJob
	looked bool
	offers []queue.Offer
	turns  []queue.Turn
}

func newTurnTrial() *turnTrial {
	l := &line{number: 1, workers: newWorkers(), cells: []*cell{newCell(1, 0), newCell(1, 1)}}
	l.workers.get("w", time.Time{}).wait(NewCall(1, message.ReceiveOptions{Max: 1, Worker: "w"}, 1), time.Time{})
	return &turnTrial{l: l, stale: map[queue.Ref]bool{}}
}

func turnRows(a, b queue.Offer) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Seq, b.Seq))
}

func (w *turnTrial) appear(o queue.Offer) {
	i, _ := slices.BinarySearchFunc(w.rows, o, turnRows)
	w.rows = slices.Insert(w.rows, i, o)
	w.l.offer(w.l.cell(o.Cell), o)
}

func (w *turnTrial) sendTo(t *rapid.T, n, tenants int) {
	cell, priority := rapid.IntRange(0, 1).Draw(t, "cell"), byte(rapid.IntRange(0, 1).Draw(t, "priority"))
	tenant := uint64(rapid.IntRange(0, tenants).Draw(t, "tenant"))
	for range n {
		w.seq++
		w.appear(queue.Offer{Ref: queue.Ref{Cell: cell, Priority: priority, Seq: w.seq}, Key: w.seq, Tenant: tenant})
	}
}

func (w *turnTrial) send(t *rapid.T) { w.sendTo(t, rapid.IntRange(1, 3).Draw(t, "n"), 4) }
func (w *turnTrial) flood(t *rapid.T) {
	if len(w.rows) > 3_000 {
		t.Skip("there are enough")
	}
	w.sendTo(t, rapid.IntRange(50, 2_500).Draw(t, "n"), 2)
}

func (w *turnTrial) comeBack(t *rapid.T) {
	if len(w.taken) == 0 {
		t.Skip("nothing is leased")
	}
	i := rapid.IntRange(0, len(w.taken)-1).Draw(t, "lease")
	o := w.taken[i]
	w.taken = slices.Delete(w.taken, i, i+1)
	o.Counter++
	w.appear(o)
}

func (w *turnTrial) withdraw(t *rapid.T) {
	if len(w.rows) == 0 {
		t.Skip("there are no rows")
	}
	i := rapid.IntRange(0, len(w.rows)-1).Draw(t, "row")
	o := w.rows[i]
	w.rows = slices.Delete(w.rows, i, i+1)
	w.l.withdraw(w.l.cell(o.Cell), o)
	w.stale[o.Ref] = true
}

func (w *turnTrial) take(t *rapid.T) {
	for range rapid.SampledFrom([]int{1, 10, 700}).Draw(t, "n") {
		if at := w.l.first(); at != nil {
			w.leased(t, w.l.pop(at))
		}
	}
}

// leased is a lease: the row goes.
func (w *turnTrial) leased(t *rapid.T, o queue.Offer) {
	if !w.remove(o) {
		if !w.stale[o.Ref] {
			t.Fatalf("%+v goes out and has no row", o)
		}
		return
	}
	w.taken = append(w.taken, o)
}

func (w *turnTrial) has(o queue.Offer) bool {
	i, found := slices.BinarySearchFunc(w.rows, o, turnRows)
	return found && w.rows[i] == o
}

func (w *turnTrial) remove(o queue.Offer) bool {
	i, found := slices.BinarySearchFunc(w.rows, o, turnRows)
	if !found || w.rows[i] != o {
		return false
	}
	w.rows = slices.Delete(w.rows, i, i+1)
	return true
}

func (w *turnTrial) ask(*rapid.T) {
	for _, f := range w.l.fills() {
		w.reads = append(w.reads, &pendingRead{fill: &f})
	}
	for _, s := range w.l.searches() {
		w.reads = append(w.reads, &pendingRead{search: &s})
	}
}

func (w *turnTrial) look(t *rapid.T) {
	if len(w.reads) == 0 {
		t.Skip("nobody asked")
	}
	w.lookInto(rapid.SampledFrom(w.reads).Draw(t, "read"))
}

func (w *turnTrial) lookInto(p *pendingRead) {
	if p.looked {
		return
	}
	p.looked = true
	if s := p.search; s != nil {
		for _, o := range w.rows {
			if o.Cell == s.cell.number && o.Tenant != 0 && !slices.Contains(p.turns, o.Turn()) {
				p.turns = append(p.turns, o.Turn())
			}
		}
		return
	}
	for _, o := range w.rows {
		at := p.fill.window
		_, size, _ := at.sizes()
		if o.Cell != p.fill.cell.number || len(p.offers) == size || (at.cell == nil) != (o.Tenant == 0) || at.cell != nil && o.Turn() != at.turn {
			continue
		}
		if p.fill.after == nil || order(o.Ref, *p.fill.after) > 0 {
			p.offers = append(p.offers, o)
		}
	}
}

func (w *turnTrial) learn(t *rapid.T) {
	if len(w.reads) == 0 {
		t.Skip("nobody asked")
	}
	w.learnFrom(rapid.IntRange(0, len(w.reads)-1).Draw(t, "read"))
}

func (w *turnTrial) learnFrom(i int) {
	p := w.reads[i]
	w.reads = slices.Delete(w.reads, i, i+1)
	w.lookInto(p)
	if p.search != nil {
		w.l.found(*p.search, p.turns)
	} else {
		w.l.filled(*p.fill, p.offers)
	}
}

func (w *turnTrial) purge(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "purge") > 0 {
		t.Skip("seldom")
	}
	w.rows, w.taken = nil, nil
	for i, c := range w.l.cells {
		w.l.forgetTurns(c)
		w.l.cells[i] = newCell(1, c.number)
	}
}

// rest reads until nothing more is wanted.
func (w *turnTrial) rest() {
	for w.ask(nil); len(w.reads) > 0; w.ask(nil) {
		for len(w.reads) > 0 {
			w.learnFrom(0)
		}
	}
}

func (w *turnTrial) drain(t *rapid.T) {
	w.rest()
	w.stale = map[queue.Ref]bool{}
	for _, c := range w.l.cells { // what was seen and withdrawn since
		for _, o := range slices.Clone(c.window.offers) {
			if !w.has(o) {
				w.l.withdraw(c, o)
			}
		}
		for _, at := range inTurns(c.turns) {
			for _, o := range slices.Clone(at.offers) {
				if !w.has(o) {
					w.l.withdraw(c, o)
				}
			}
		}
	}
	w.rest()
	for n := 0; len(w.rows) > 0; n++ {
		at := w.l.first()
		if at == nil {
			t.Fatalf("%d messages are left, and none is in mind: %+v", len(w.rows), w.rows[0])
		}
		if n < 100 {
			if want := w.next(); at.offers[0] != want {
				t.Fatalf("%+v goes out, and the turn is %+v's", at.offers[0], want)
			}
		}
		if o := w.l.pop(at); !w.remove(o) {
			t.Fatalf("%+v goes out and has no row", o)
		}
		w.rest()
	}
	if at := w.l.first(); at != nil {
		t.Fatalf("%+v is left over", at.offers)
	}
	for _, c := range w.l.cells {
		if len(c.turns.by) > 0 || !c.turns.whole {
			t.Fatalf("cell %d remembers %d turns, whole: %t", c.number, len(c.turns.by), c.turns.whole)
		}
	}
}

// next is what the promise says.
func (w *turnTrial) next() queue.Offer {
	p := w.rows[0].Priority // they are in order
	last := w.l.order.last[p]
	return slices.MinFunc(w.rows, func(a, b queue.Offer) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Tenant-last-1, b.Tenant-last-1), cmp.Compare(a.Seq, b.Seq))
	})
}

func inTurns(t *turns) (ws []*window) {
	for _, w := range t.by {
		ws = append(ws, w)
	}
	slices.SortFunc(ws, func(a, b *window) int { return slices.Compare(turnKey(a), turnKey(b)) })
	return ws
}

func turnKey(w *window) []byte {
	return binary.BigEndian.AppendUint64([]byte{w.turn.Priority}, w.turn.Tenant)
}
