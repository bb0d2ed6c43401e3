package leader

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

func (r *rig) sendOne(m message.New) {
	r.t.Helper()
	if res := r.propose((&queue.Send{Queue: 1, Messages: []queue.Sent{{New: m}}}).Command()).([]message.SendResult)[0]; res.Err != nil {
		r.t.Fatal(res.Err)
	}
}

// What is to be delivered at a time is ready at that time by the clock, also under
// a new leader and after a pause, which group time does not count; when the clock is
// put back, it waits longer.
func TestDeliverAtGoesByTheClock(t *testing.T) {
	const month = 30 * 24 * time.Hour
	r := newRig(t)
	at := r.clock.Now().Add(month)
	r.sendOne(message.New{DeliverAt: at})
	r.sendOne(message.New{DeliverAt: at.Add(3 * time.Second)})
	r.restart()
	r.step(month - time.Second)
	r.want("a second before", 0, 2, 0)
	r.step(time.Second)
	r.want("in time", 1, 1, 0)
	r.step(-time.Hour)
	r.step(5 * time.Second)
	r.want("after the clock went back", 1, 1, 0)
	r.step(time.Hour)
	r.want("when it is there again", 2, 0, 0)
}

// A timer is not lost when the clock goes back between the leader's look and the
// entry that it proposes.
func TestClockThatGoesBackDuringAWake(t *testing.T) {
	r := newRig(t)
	at := r.clock.Now().Add(time.Minute)
	r.sendOne(message.New{DeliverAt: at})
	r.clock.add(time.Minute)
	r.mu.Lock()
	wake, _ := r.wakeable(0)
	r.mu.Unlock()
	r.clock.add(-time.Second)
	for _, w := range wake {
		r.wake(w)
	}
	r.propose(queue.Tick())
	r.want("when the clock has gone back", 0, 1, 0)
	r.step(time.Second)
	r.want("a second later", 1, 0, 0)
}

// A message expires by the clock, waiting or scheduled, also under a new leader.
func TestExpiresGoesByTheClock(t *testing.T) {
	r := newRig(t)
	at := r.clock.Now().Add(time.Hour)
	r.sendOne(message.New{Expires: at})
	r.sendOne(message.New{Delay: 59 * time.Minute, Expires: at})
	r.sendOne(message.New{Expires: at.Add(time.Hour)})
	r.restart()
	r.step(time.Hour - time.Second)
	r.want("a second before", 2, 1, 0)
	r.step(time.Second)
	r.want("in time", 1, 0, 0)
}
