package leader

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
)

// skip lets the group's time stand where a former leader has brought it.
func (r *rig) skip(d time.Duration) { r.stamps.begin(r.machine.GroupTime() + d.Milliseconds()) }

// A lease of 12 hours ends after 12 hours, and not a second before.
func TestLongLeaseEndsInTime(t *testing.T) {
	r := newRig(t)
	r.send(1, 0)
	r.receive(1, message.MaxLease)
	r.skip(message.MaxLease - 10*time.Second)
	for range 9 {
		r.step(time.Second)
	}
	r.want("a second before", 0, 0, 1)
	r.step(time.Second)
	r.want("in time", 1, 0, 0)
}

// An extended lease ends when it says, also under a new leader.
func TestExtendedLeaseEndsInTime(t *testing.T) {
	r := newRig(t)
	r.send(1, 0)
	got := r.receive(1, 2*time.Second)
	r.step(time.Second)
	r.settle(got, message.Extend, 5*time.Second)
	r.restart()
	for range 4 {
		r.step(time.Second)
	}
	r.want("a second before", 0, 0, 1)
	r.step(time.Second)
	r.step(time.Second) // the new leader's first stamp measures nothing
	r.want("in time", 1, 0, 0)
}

// A message that was delayed by 30 days is ready after 30 days, also under a
// new leader.
func TestLongDelayEndsInTime(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for _, restarted := range []bool{false, true} {
		r := newRig(t)
		r.send(1, month)
		r.send(1, month+time.Second)
		if restarted {
			r.restart()
			r.step(0)
		}
		r.skip(month - 5*time.Second)
		for range 4 {
			r.step(time.Second)
		}
		r.want("a second before", 0, 2, 0)
		r.step(time.Second)
		r.want("in time", 1, 1, 0)
		r.step(time.Second)
		r.want("the second one", 2, 0, 0)
	}
}

// A leader that was paused for a day ends no lease early: its pause counts as a
// second at the most.
func TestPauseExpiresNobody(t *testing.T) {
	r := newRig(t)
	r.send(1, 0)
	r.receive(1, 3*time.Second)
	r.step(24 * time.Hour)
	r.step(24 * time.Hour)
	r.want("after two pauses", 0, 0, 1)
	r.step(time.Second)
	r.want("after the third second", 1, 0, 0)
}

// A clock that is advanced by hand was meant to go as far as it went.
func TestStampsOfAManualClock(t *testing.T) {
	c := clock.NewManual()
	s := stamps{clock: c}
	s.begin(5_000)
	c.Advance(time.Hour)
	if got, _ := s.next(); got != 3_605_000 {
		t.Errorf("an hour later it is %d", got)
	}
	if got, _ := s.next(); got != 3_605_000 {
		t.Errorf("then it stands still at %d", got)
	}
}

// Group time grows by the clock, a second a stamp at the most, without losing
// what is below a millisecond, and goes on where a former leader's stood.
func TestStamps(t *testing.T) {
	clock := newHand()
	s := stamps{clock: clock}
	s.begin(5_000)
	for _, c := range []struct {
		step time.Duration
		want int64
	}{
		{0, 5_000},
		{time.Hour, 6_000},
		{time.Millisecond, 6_001},
		{600 * time.Microsecond, 6_001},
		{600 * time.Microsecond, 6_002},
		{800 * time.Microsecond, 6_003},
		{time.Second, 7_003},
		{0, 7_003},
		{-time.Hour, 7_003},
		{time.Second, 8_003},
	} {
		clock.add(c.step)
		if now, _ := s.now(); now != c.want {
			t.Errorf("after %s it would be %d, want %d", c.step, now, c.want)
		}
		if got, wall := s.next(); got != c.want || wall != clock.Now().UnixMilli() {
			t.Errorf("after %s: %d and %d, want %d", c.step, got, wall, c.want)
		}
	}
	// Others lead for a while: neither what was stamped here last nor how long ago
	// that was counts any more.
	s.end()
	clock.add(300 * time.Millisecond)
	if got, _ := s.next(); got != 0 {
		t.Errorf("who does not lead stamps %d", got)
	}
	s.begin(6_500)
	if got, _ := s.next(); got != 6_500 {
		t.Errorf("the next term begins at %d", got)
	}
}

// Deadlines come out by time, those of a queue together, wherever they were
// moved to; a lease that has ended does not.
func TestDeadlines(t *testing.T) {
	l := leases{by: map[leaseKey]*deadline{}}
	key := func(queue uint32, seq uint64) leaseKey { return leaseKey{queue: queue, seq: seq} }
	for seq := range uint64(6) {
		l.set(key(1, seq), 7, int64(100-10*seq)) // 100, 90, … 50
	}
	l.set(key(2, 1), 7, 55)
	l.set(key(1, 9), 7, 0)  // bound to a session
	l.set(key(1, 0), 7, 45) // sooner
	l.set(key(1, 5), 7, 95) // extended
	if l.end(key(1, 3), 6) != nil {
		t.Error("another lease's fence ended it")
	}
	if l.end(key(1, 3), 7) == nil {
		t.Error("it did not end")
	}
	take := func(now int64, limit int, want ...leaseKey) {
		t.Helper()
		got := l.due(now, limit)
		if len(got) != len(want) {
			t.Fatalf("%d are due at %d, want %d", len(got), now, len(want))
		}
		for i := range got {
			if got[i].key != want[i] {
				t.Errorf("at %d: %v, want %v", now, got[i].key, want[i])
			}
		}
	}
	take(44, 10)
	take(60, 10, key(1, 0)) // and then another queue's
	take(60, 10, key(2, 1))
	take(60, 10, key(1, 4))
	take(1_000, 2, key(1, 2), key(1, 1))
	take(1_000, 2, key(1, 5))
	take(1_000, 2)
	if len(l.by) != 7 || len(l.queue) != 0 {
		t.Errorf("%d leases, %d of them watched", len(l.by), len(l.queue))
	}
}
