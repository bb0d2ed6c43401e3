package gateway_test

import (
	"context"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Who waits for the end of a message is told of it at once, whatever ends it, and
// of nothing before.
func TestWaitForTheEnd(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{MaxAttempts: 2, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: time.Millisecond}}, 2)
	lease := func() message.Delivery { return receive(t, g, "orders", 1, 20*time.Second)[0] }
	for _, c := range []struct {
		name string
		x    message.New
		want message.State
		end  func(message.ID)
	}{
		{"ack", message.New{}, message.Finished, func(message.ID) { settle(t, g, lease(), message.Ack) }},
		{"ack of a key", message.New{Key: "k"}, message.Finished, func(message.ID) { settle(t, g, lease(), message.Ack) }},
		{"reject", message.New{}, message.Dead, func(message.ID) { settle(t, g, lease(), message.Reject) }},
		{"two failures", message.New{}, message.Dead, func(message.ID) {
			settle(t, g, lease(), message.Nack)
			settle(t, g, lease(), message.Nack)
		}},
		{"cancel while ready", message.New{}, message.Cancelled, func(id message.ID) { cancel(t, g, id) }},
		{"cancel while scheduled", message.New{Delay: time.Hour}, message.Cancelled, func(id message.ID) { cancel(t, g, id) }},
		{"it expires", message.New{Expires: time.Now().Add(2 * time.Second)}, message.Expired, func(message.ID) {}},
	} {
		id := send(t, g, "orders", c.x)[0]
		got := make(chan message.Shown, 1)
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		go func() {
			s, _, err := g.Show(ctx, id, message.ReadOptions{}, message.MaxWait)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			got <- s
		}()
		select {
		case s := <-got:
			t.Errorf("%s: told before its end that it is %s", c.name, s.State)
		case <-time.After(20 * time.Millisecond): // it most likely waits by now; if not, it sees the end when it comes
			c.end(id)
			if s := <-got; s.State != c.want {
				t.Errorf("%s: it is %s, want %s", c.name, s.State, c.want)
			}
		}
		stop()
	}
}

func cancel(t *testing.T, g interface {
	Cancel(context.Context, []message.ID, message.CancelOptions) ([]message.SettleResult, error)
}, id message.ID,
) {
	t.Helper()
	if rs, err := g.Cancel(t.Context(), []message.ID{id}, message.CancelOptions{}); err != nil || rs[0].Err != nil {
		t.Fatal(rs, err)
	}
}

// One that does not end is shown as it is when the wait is over; one that has ended
// at once; and what is not known is refused.
func TestWaitIsOver(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 1)
	id := send(t, g, "orders", message.New{})[0]
	if s, _, err := g.Show(t.Context(), id, message.ReadOptions{}, 30*time.Millisecond); err != nil || s.State != message.Ready {
		t.Errorf("%s, %v", s.State, err)
	}
	cancel(t, g, id)
	if s, _, err := g.Show(t.Context(), id, message.ReadOptions{Stale: time.Minute}, message.MaxWait); err != nil || s.State != message.Cancelled {
		t.Errorf("%s, %v", s.State, err)
	}
	if _, _, err := g.Show(t.Context(), id, message.ReadOptions{}, message.MaxWait+1); message.CodeOf(err) != message.InvalidArgument {
		t.Error(err)
	}
	unknown := message.NewID(id.Queue(), id.Point(), id.Seq()+99)
	if _, _, err := g.Show(t.Context(), unknown, message.ReadOptions{}, message.MaxWait); message.CodeOf(err) != message.MessageNotFound {
		t.Error(err)
	}
	gone := send(t, g, "orders", message.New{})[0]
	ended := make(chan error, 1)
	go func() {
		_, _, err := g.Show(t.Context(), gone, message.ReadOptions{}, message.MaxWait)
		ended <- err
	}()
	if err := g.DeleteQueue(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; message.CodeOf(err) != message.MessageNotFound {
		t.Errorf("after its queue was deleted: %v", err)
	}
}
