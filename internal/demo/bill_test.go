package demo

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

var opening = time.Unix(1_000_000, 0)

// after is a time of the evening.
func after(d time.Duration) time.Time { return opening.Add(d) }

// told is a ledger that is told a story.
type told struct {
	*ledger
	now   time.Time
	fence uint64
}

func newTold() *told { return &told{ledger: newLedger(), now: opening} }

// order takes an order and confirms it.
func (s *told) order(customer string, number int, id string) {
	s.ask(ticket{customer, number}, s.now)
	s.confirm(ticket{customer, number}, id, s.now.Add(time.Millisecond))
}

func (s *told) say(kitchen, event, customer string, number int, id string, fence uint64) {
	s.report(kitchen, report{Event: event, ID: id, Fence: fence, order: order{Customer: customer, Number: number}}, s.now)
}

// deliver has a kitchen bake an order as it should.
func (s *told) deliver(kitchen, customer string, number int, id string) {
	s.fence++
	for _, event := range []string{begun, made, delivered} {
		s.say(kitchen, event, customer, number, id, s.fence)
	}
}

// What is on the bill after each story, and what is wrong with it. Each line but
// the first ones is a fault that the bill must not hide.
func TestBill(t *testing.T) {
	for _, c := range []struct {
		name  string
		story func(*told)
		early bool
		want  bill // of its counts, and begun and made
		wrong string
	}{
		{"all is well", func(s *told) {
			s.order("ada", 1, "a1")
			s.order("ada", 2, "a2")
			s.deliver("k1", "ada", 1, "a1")
			s.deliver("k2", "ada", 2, "a2")
		}, false, bill{taken: 2, delivered: 2}, ""},
		{"a killed kitchen's pizza is made again", func(s *told) {
			s.order("ada", 1, "a1")
			s.fence++
			s.say("k1", begun, "ada", 1, "a1", s.fence)
			s.say("k1", made, "ada", 1, "a1", s.fence)
			s.fence++
			s.say("k2", begun, "ada", 1, "a1", s.fence)
			s.deliver("k3", "ada", 1, "a1")
		}, false, bill{taken: 1, delivered: 1, begun: 1, made: 1}, ""},
		{"a killed kitchen could not say that its ack was accepted", func(s *told) {
			s.order("ada", 1, "a1")
			s.say("k1", begun, "ada", 1, "a1", 1)
			s.say("k1", made, "ada", 1, "a1", 1)
			s.found(ticket{"ada", 1}, eaten)
		}, false, bill{taken: 1, delivered: 1}, ""},
		{"a redriven order comes late", func(s *told) {
			s.order("ada", 1, "a1")
			s.order("ada", 2, "a2")
			s.say("k1", begun, "ada", 1, "a1", 1)
			s.say("k1", burnt, "ada", 1, "a1", 1)
			s.fence = 1
			s.deliver("k1", "ada", 2, "a2")
			s.redrive("a1")
			s.deliver("k1", "ada", 1, "a1")
		}, false, bill{taken: 2, delivered: 2, redriven: 1}, ""},
		{"a burnt order that nobody redrove is shown", func(s *told) {
			s.order("ada", 1, "a1")
			s.found(ticket{"ada", 1}, dead)
		}, false, bill{taken: 1, burnt: 1}, ""},
		{"a lost confirmation of an order that is there", func(s *told) {
			s.order("ada", 1, "")
			s.deliver("k1", "ada", 1, "a1")
		}, false, bill{taken: 1, delivered: 1, found: 1}, ""},
		{"a lost confirmation of an order that is not", func(s *told) {
			s.order("ada", 1, "")
			s.order("ada", 2, "a2")
			s.deliver("k1", "ada", 2, "a2")
		}, false, bill{taken: 1, delivered: 1, unclear: 1}, ""},
		{"early home", func(s *told) {
			s.order("ada", 1, "a1")
			s.found(ticket{"ada", 1}, waiting)
		}, true, bill{taken: 1, waiting: 1}, ""},

		{"nothing happened", func(*told) {}, false, bill{}, "no order was taken"},
		{"still waiting", func(s *told) {
			s.order("ada", 1, "a1")
			s.found(ticket{"ada", 1}, waiting)
		}, false, bill{taken: 1, waiting: 1}, "1 still waiting"},
		{"lost", func(s *told) {
			s.order("ada", 1, "a1")
			s.found(ticket{"ada", 1}, forgotten)
		}, true, bill{taken: 1, lost: 1}, "1 lost"},
		{"nobody could tell", func(s *told) { s.order("ada", 1, "a1") }, true, bill{taken: 1, lost: 1}, "1 lost"},
		{"accepted from two kitchens", func(s *told) {
			s.order("ada", 1, "a1")
			s.deliver("k1", "ada", 1, "a1")
			s.deliver("k2", "ada", 1, "a1")
		}, false, bill{taken: 1, delivered: 1, twice: 1}, "1 accepted twice"},
		{"stored twice", func(s *told) {
			s.order("ada", 1, "a1")
			s.say("k1", begun, "ada", 1, "a1-again", 1)
			s.fence++
			s.deliver("k2", "ada", 1, "a1")
		}, false, bill{taken: 1, delivered: 1, twice: 1, begun: 1}, "1 accepted twice"},
		{"out of order", func(s *told) {
			s.order("ada", 1, "a1")
			s.order("ada", 2, "a2")
			s.deliver("k1", "ada", 2, "a2")
			s.deliver("k1", "ada", 1, "a1")
		}, false, bill{taken: 2, delivered: 2, disorder: 1}, "1 out of order"},
		{"begun before the one before was settled", func(s *told) {
			s.order("ada", 1, "a1")
			s.order("ada", 2, "a2")
			s.say("k1", begun, "ada", 1, "a1", 1)
			s.fence = 1
			s.deliver("k2", "ada", 2, "a2")
			s.deliver("k2", "ada", 1, "a1")
		}, false, bill{taken: 2, delivered: 2, disorder: 1, begun: 1}, "1 out of order"},
		{"made although the customer was told no", func(s *told) {
			s.ask(ticket{"ada", 1}, s.now)
			s.deliver("k1", "ada", 1, "a1")
		}, true, bill{uncalled: 1}, "1 made that nobody was confirmed"},
		{"made although nobody ordered it", func(s *told) { s.deliver("k1", "ada", 1, "a1") }, true, bill{uncalled: 1}, "1 made that nobody was confirmed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTold()
			c.story(s)
			got := s.bill(c.early)
			wrong := got.wrong()
			if wrong != c.wrong && !strings.HasPrefix(wrong, c.wrong+", ") || (wrong == "") != (c.wrong == "") {
				t.Errorf("wrong: %q, want %q", wrong, c.wrong)
			}
			got.confirms, got.deaths, got.earlyHome = nil, nil, false
			if text, want := printed(&got), printed(&c.want); text != want {
				t.Errorf("the bill is\n%s\nwant\n%s", text, want)
			}
			if got.uncalled != c.want.uncalled {
				t.Errorf("uncalled: %d, want %d", got.uncalled, c.want.uncalled)
			}
		})
	}
}

func printed(b *bill) string {
	var out bytes.Buffer
	b.write(&out, opening)
	return out.String()
}

// The order in which the counter reads the lines of two kitchens does not matter.
func TestOrderIsByFence(t *testing.T) {
	s := newTold()
	s.order("ada", 1, "a1")
	s.order("ada", 2, "a2")
	s.fence = 1
	s.deliver("k2", "ada", 2, "a2")
	s.fence = 0
	s.deliver("k1", "ada", 1, "a1")
	if b := s.bill(false); b.disorder != 0 {
		t.Errorf("%d out of order, want none: the fences are in order", b.disorder)
	}
}

// A kitchen's death lasts until others have begun what it held. What it may have
// acked is waited for by nobody, but counts when it is begun again.
func TestDeathOfKitchen(t *testing.T) {
	s := newTold()
	for _, customer := range []string{"ada", "bruno", "carla", "dario"} {
		s.order(customer, 1, customer)
		s.say("k1", begun, customer, 1, customer, 1)
	}
	s.say("k1", made, "carla", 1, "carla", 1)
	s.say("k1", burnt, "dario", 1, "dario", 1)
	d := s.die("k1", false, after(time.Second))
	if d.held != 3 || d.over {
		t.Fatalf("it held %d, over: %t; want 3 and that it is not over", d.held, d.over)
	}
	if over := s.report("k2", report{begun, "ada", 2, order{Customer: "ada", Number: 1}}, after(2*time.Second)); over != nil {
		t.Error("it is over, and bruno waits")
	}
	if over := s.report("k2", report{begun, "bruno", 2, order{Customer: "bruno", Number: 1}}, after(3*time.Second)); over != d {
		t.Error("it is not over, and carla's may be eaten")
	}
	if got := d.cost(); got != "2.0 s until others had what it held (2)" {
		t.Errorf("the cost is %q", got)
	}
	s.report("k2", report{begun, "carla", 2, order{Customer: "carla", Number: 1}}, after(5*time.Second))
	if got := d.cost(); got != "4.0 s until others had what it held (3)" {
		t.Errorf("the cost is %q", got)
	}
}

// After a server's death the longest wait of a customer counts, from the death on,
// and it is over with the first order that was begun and confirmed after it.
func TestDeathOfServer(t *testing.T) {
	s := newTold()
	s.order("ada", 1, "a1")
	s.ask(ticket{"ada", 2}, after(900*time.Millisecond))
	d := s.die("node-1", true, after(time.Second))
	s.ask(ticket{"bruno", 1}, after(2*time.Second))
	if over := s.confirm(ticket{"ada", 2}, "a2", after(4*time.Second)); over != nil || d.wait != 3*time.Second {
		t.Errorf("over: %v, wait %s; want that it is not over, and 3s", over, d.wait)
	}
	if over := s.confirm(ticket{"bruno", 1}, "b1", after(4500*time.Millisecond)); over != d || d.wait != 3*time.Second {
		t.Errorf("over: %v, wait %s; want that it is, and 3s", over, d.wait)
	}
	s.ask(ticket{"ada", 3}, after(20*time.Second))
	s.confirm(ticket{"ada", 3}, "a3", after(30*time.Second))
	if d.wait != 3*time.Second {
		t.Errorf("a wait long after the death is put down to it: %s", d.wait)
	}
}

// An evening of any length has each thing happen, in time.
func TestProgram(t *testing.T) {
	for _, evening := range []time.Duration{MinFor, 12 * time.Second, 2 * time.Minute, MaxFor} {
		events, closing := program(evening)
		if n := len(events); n < 6 {
			t.Errorf("in %s %d things happen, want the 3 of the leader and the rush, and 3 kitchens killed", evening, n)
		}
		for i, e := range events {
			if e.at >= closing || i > 0 && e.at < events[i-1].at {
				t.Errorf("in %s, which closes at %s, event %d is at %s", evening, closing, i, e.at)
			}
		}
	}
}

// While the evening lasts, an order that burnt as often as it may is not on the way.
func TestSummary(t *testing.T) {
	s := newTold()
	for i, customer := range []string{"ada", "bruno", "carla"} {
		s.order(customer, 1, customer)
		for range min(i+1, burns) {
			s.fence++
			s.say("k1", begun, customer, 1, customer, s.fence)
			s.say("k1", burnt, customer, 1, customer, s.fence)
		}
	}
	s.redrive("carla")
	if got, want := s.summary(), "3 taken, 0 delivered, 2 on the way, 1 burnt"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
