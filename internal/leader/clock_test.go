package leader

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// One leader's clock jumps by a day for one entry, its wall clock alone or all of
// it, then another leads, or the clock is right again: no lease, delay or dedup
// window ends more than the one second early that a pause counts, none ends late,
// and a delay of a second that is set afterwards is over within two.
func TestClockThatJumpsForOneEntry(t *testing.T) {
	const day = 24 * time.Hour
	whole := func(r *rig, d time.Duration) { r.clock.add(d) }
	wall := func(r *rig, d time.Duration) { r.clock.jump(d) }
	for _, c := range []struct {
		name string
		jump func(*rig, time.Duration)
		by   time.Duration
		dies bool
	}{
		{"the wall clock is ahead, and the leader dies", wall, day, true},
		{"the wall clock is ahead", wall, day, false},
		{"the wall clock is behind, and the leader dies", wall, -day, true},
		{"the wall clock is behind", wall, -day, false},
		{"all of the clock is ahead, and the leader dies", whole, day, true},
		{"all of the clock is ahead", whole, day, false},
		{"all of the clock is behind, and the leader dies", whole, -day, true},
		{"all of the clock is behind", whole, -day, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.propose((&queue.Configure{Queue: 1, Version: 2, Settings: message.Settings{DedupWindow: 30 * time.Second}.WithDefaults(), Shards: []queue.Bounds{{From: 0, To: 0, Path: "0"}}}).Command())
			r.step(time.Second)
			r.send(1, 0)
			r.receive(1, 20*time.Second)
			r.send(1, 25*time.Second)
			first := r.sendAs("once")
			at := r.clock.Now().Add(40 * time.Second)
			r.sendOne(message.New{DeliverAt: at})

			c.jump(r, c.by)
			r.step(0) // the entry; deliver_at goes by the leader's clock
			c.jump(r, -c.by)
			if c.dies {
				r.restart()
			}
			early := int64(0) // ready for whoever trusts the clock: deliver_at alone
			if c.by > 0 {
				early = 1
			}
			r.want("after the jump", 1+early, 2-early, 1)

			pass := func(seconds int) {
				for range seconds {
					r.step(time.Second)
				}
			}
			r.send(1, time.Second)
			pass(2)
			r.want("a delay that was set afterwards is over", 2+early, 2-early, 1)
			pass(16)
			r.want("18 of 20 s of the lease", 2+early, 2-early, 1)
			pass(3)
			r.want("21 s", 3+early, 2-early, 0)
			pass(2)
			r.want("23 of 25 s of the delay", 3+early, 2-early, 0)
			pass(3)
			r.want("26 s", 4+early, 1-early, 0)
			pass(2)
			if again := r.sendAs("once"); again != first {
				t.Error("28 of 30 s of the dedup window: the message is stored again")
			}
			pass(3)
			if again := r.sendAs("once"); again == first {
				t.Error("31 s: the dedup window has not ended")
			}
			pass(8)
			r.want("39 of 40 s to deliver_at", 5+early, 1-early, 0)
			pass(2)
			r.want("41 s", 6, 0, 0)
		})
	}
}

// sendAs sends a message with a dedup id, and returns the id that it has.
func (r *rig) sendAs(dedup string) message.ID {
	r.t.Helper()
	res := r.propose((&queue.Send{Queue: 1, Messages: []queue.Sent{{New: message.New{DedupID: dedup}}}}).Command()).([]message.SendResult)[0]
	if res.Err != nil {
		r.t.Fatal(res.Err)
	}
	return res.ID
}
