package queue_test

import (
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// What a message says of wall time: when it is to be delivered, and when it
// expires. The clock of the model jumps, forward and back.

func (w *trial) wall() int64 { return 1_000_000 + w.now + w.skew }

func (w *trial) drawTimes(t *rapid.T, m *message.New) {
	at := func(s int) time.Time { return time.UnixMilli(w.wall()).Add(time.Duration(s) * time.Second).UTC() }
	if m.Delay == 0 && rapid.IntRange(0, 4).Draw(t, "deliver at") == 0 {
		m.DeliverAt = at(rapid.IntRange(-2, 4).Draw(t, "deliver in"))
	}
	if rapid.IntRange(0, 3).Draw(t, "expires") == 0 {
		m.Expires = at(rapid.IntRange(-1, 6).Draw(t, "expires in"))
	}
}

// refused says that a message expires before it could go out.
func (w *trial) refused(m *message.New) bool {
	ready := w.wall() + m.Delay.Milliseconds()
	if !m.DeliverAt.IsZero() {
		ready = max(ready, m.DeliverAt.UnixMilli())
	}
	return !m.Expires.IsZero() && m.Expires.UnixMilli() <= ready
}

// early says that a message is not to be delivered yet.
func (w *trial) early(k *known) bool {
	return !k.sent.DeliverAt.IsZero() && k.sent.DeliverAt.UnixMilli() > w.wall()
}

func (w *trial) overdue(k *known) bool {
	return !k.sent.Expires.IsZero() && !k.redriven && k.sent.Expires.UnixMilli() <= w.wall()
}

func (w *trial) waits(k *known) bool { return k.state == message.Ready || k.state == message.Scheduled }

// lapsed is how messages end whose time has passed.
func (w *trial) lapsed() message.State {
	if w.policy == message.ExpiredDead {
		return message.Dead
	}
	return message.Expired
}

// mayEnd takes in that a message has ended, as its queue wants it, or has not.
func (w *trial) mayEnd(t *rapid.T, k *known) {
	d, ok := queue.Show(w.rows, k.id)
	switch {
	case !ok && w.policy == message.ExpiredDrop: // the ring has forgotten it
	case ok && d.State == k.state:
		return
	case !ok || d.State != w.lapsed() || d.History[len(d.History)-1].Outcome != queue.Lapsed:
		t.Fatalf("%s, whose time has passed, is %+v", k.name, d)
	}
	k.state = w.lapsed()
}

// comeBack takes in that a lease passed its deadline.
func (w *trial) comeBack(k *known) {
	delete(w.current, k.id)
	k.attempts++
	k.back = true
}
