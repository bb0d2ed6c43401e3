package leader

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

func (r *rig) configure(version uint64, s message.Settings) {
	r.t.Helper()
	r.propose((&queue.Configure{Queue: 1, Version: version, Settings: s.WithDefaults()}).Command())
}

// waits lets a worker wait for up to n messages.
func (r *rig) waits(worker string, n int) *Call {
	c := NewCall(1, message.ReceiveOptions{Max: n, Lease: time.Minute, Worker: worker}, 1)
	r.Wait(c)
	r.propose(queue.Tick()) // behind what Wait has proposed
	return c
}

// has says how much a call has been given.
func (c *Call) has() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// A queue with max_in_flight hands out the next message when one that is leased
// ends, and not before; another leader counts what the rows say.
func TestMaxInFlight(t *testing.T) {
	r := newRig(t)
	r.configure(2, message.Settings{MaxInFlight: 3})
	r.send(10, 0)
	first := r.receive(10, time.Minute)
	if len(first) != 3 {
		t.Fatalf("%d messages went out with max_in_flight 3", len(first))
	}
	r.restart()
	second := r.waits("v", 5)
	if n := second.has(); n != 0 {
		t.Fatalf("%d messages went out while 3 are leased", n)
	}
	r.settle(first[:1], message.Nack, 0)
	r.propose(queue.Tick())
	if n := second.has(); n != 1 {
		t.Fatalf("%d messages went out after one of 3 leases ended", n)
	}
	r.want("at the limit", 7, 0, 3)
	third := r.waits("v", 5)
	r.settle(first[1:], message.Ack, 0)
	r.propose(queue.Tick())
	if n := third.has(); n == 0 {
		t.Fatal("nothing went out after two of 3 leases ended")
	}
}

// A queue with a rate hands out so many messages in a span of time, whoever leads.
func TestRate(t *testing.T) {
	for _, c := range []struct {
		rate  message.Rate
		step  time.Duration
		steps int // 10 s
		want  int
	}{
		{message.Rate{Count: 1, Per: time.Second}, 250 * time.Millisecond, 40, 10},
		{message.Rate{Count: 10, Per: time.Second}, 70 * time.Millisecond, 143, 100}, // each is late
	} {
		t.Run(strconv.Itoa(c.rate.Count), func(t *testing.T) {
			r := newRig(t)
			r.configure(2, message.Settings{Rate: c.rate})
			r.send(200, 0)
			total := 0
			for i := range c.steps {
				if i%20 == 1 {
					r.restart()
				}
				call := r.waits("w", 50)
				r.step(c.step)
				call.close()
				total += call.has()
			}
			if total < c.want*9/10 || total > c.want+1 {
				t.Fatalf("%d messages went out in 10 s, want %d", total, c.want)
			}
		})
	}
}

// With a rate_per_key so many messages of each key go out in a span of time, whoever
// leads; a key whose time has come does not wait for another.
func TestRatePerKey(t *testing.T) {
	for _, c := range []struct {
		rate  message.Rate
		step  time.Duration
		steps int // 10 s
		want  int
	}{
		{message.Rate{Count: 1, Per: time.Second}, 250 * time.Millisecond, 40, 10},
		{message.Rate{Count: 40, Per: time.Second}, Every, 200, 400},
		{message.Rate{Count: 10, Per: time.Second}, 70 * time.Millisecond, 143, 100}, // each is late
	} {
		t.Run(strconv.Itoa(c.rate.Count), func(t *testing.T) {
			r := newRig(t)
			r.configure(2, message.Settings{RatePerKey: c.rate})
			r.sendKeys(450, "a", "b")
			total := map[string]int{}
			for i := range c.steps {
				if i%20 == 19 {
					r.restart()
				}
				call := NewCall(1, message.ReceiveOptions{Max: 100, PerKey: message.MaxPerKey, Lease: time.Minute, Worker: "w"}, 1)
				r.Wait(call)
				r.step(c.step)
				call.close()
				got, _ := call.Collect(t.Context())
				for _, x := range got {
					total[x.Head.Key]++
				}
				r.settle(got, message.Ack, 0)
			}
			for _, key := range []string{"a", "b"} {
				if n := total[key]; n < c.want*9/10 || n > c.want+5 {
					t.Errorf("%d messages of key %s went out in 10 s, want %d", n, key, c.want)
				}
			}
		})
	}
}

// A rate that was raised counts at once, and for the keys that wait by the old one as well,
// also if the leader changes before it could see to them.
func TestRaisedRate(t *testing.T) {
	slow, fast := message.Rate{Count: 1, Per: 24 * time.Hour}, message.Rate{Count: 10, Per: time.Second}
	for name, then := range map[string]message.Settings{
		"none": {}, "none, another leader": {},
		"fast": {Rate: fast, RatePerKey: fast}, "fast, another leader": {Rate: fast, RatePerKey: fast},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.configure(2, message.Settings{Rate: slow, RatePerKey: slow})
			r.sendKeys(3, "a")
			_, got := r.receiveKeys(1, 1)
			r.settle(got, message.Ack, 0)
			call := r.waits("w", 1)
			r.step(time.Second)
			if call.has() > 0 {
				t.Fatal("a message went out before its time")
			}
			call.close()
			r.configure(3, then)
			if strings.HasSuffix(name, "leader") {
				r.restart()
			}
			call = r.waits("w", 1)
			for range 4 {
				r.step(Every)
			}
			if call.has() != 1 {
				t.Fatal("nothing goes out by a rate that has passed by the new one")
			}
		})
	}
}

// With assign single one worker gets everything, also after another leader took
// over, until it neither holds nor waits for anything.
func TestSingle(t *testing.T) {
	r := newRig(t)
	r.configure(2, message.Settings{Assign: message.AssignSingle})
	a, b := r.waits("a", 2), r.waits("b", 2)
	r.send(6, 0)
	r.step(0)
	if a.has() == 0 || b.has() != 0 {
		t.Fatalf("a has %d messages and b %d", a.has(), b.has())
	}
	r.restart()
	b = r.waits("b", 9)
	r.step(10 * time.Second)
	if b.has() != 0 {
		t.Fatalf("b stands by and has %d messages", b.has())
	}
	held, _ := a.Collect(t.Context())
	r.settle(held, message.Ack, 0)
	r.step(standBy / 2)
	if b.has() != 0 {
		t.Fatal("b is active while a may be between two receives")
	}
	r.step(standBy)
	r.step(Every)
	if b.has() == 0 {
		t.Fatal("a has gone and b stands by")
	}
	if err, _ := r.propose((&queue.Split{Queue: 1, From: 0, To: 0, Epoch: 1, At: 0}).Command()).(*message.Error); err == nil || err.Code != message.InvalidArgument {
		t.Fatalf("a split: %v", err)
	}
}

// A purge takes everything out of the leader's mind as well.
func TestPurge(t *testing.T) {
	r := newRig(t)
	r.send(5, 0)
	r.send(1, time.Second)
	r.receive(2, time.Second)
	r.propose((&queue.Purge{Queue: 1}).Command())
	r.want("after the purge", 0, 0, 0)
	r.step(2 * time.Second)
	r.mu.Lock()
	leased, timed, load := len(r.leases.by), len(r.timed), r.queues[1].workers.load
	r.mu.Unlock()
	if leased+timed+load != 0 {
		t.Fatalf("the leader knows of %d leases, %d timers and a load of %d", leased, timed, load)
	}
	r.send(1, 0)
	if got := r.receive(5, time.Second); len(got) != 1 {
		t.Fatalf("%d messages, want the one that was sent after the purge", len(got))
	}
}
