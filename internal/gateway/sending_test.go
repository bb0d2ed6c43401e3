package gateway_test

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// TestPriority: in a shard the higher priority goes first, whichever cell its
// message lies in.
func TestPriority(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 1)
	var msgs []message.New
	for i := range 40 {
		m := message.New{Body: []byte{byte(i)}, Priority: i % 10}
		if i%2 == 1 {
			m.Key = string(rune('a' + i)) // another cell
		}
		msgs = append(msgs, m)
	}
	ids := send(t, g, "q", msgs...)
	last := message.MaxPriority
	for range ids {
		d := receive(t, g, "q", 1, time.Second)[0]
		if p := int(d.Body[0]) % 10; p > last {
			t.Fatalf("priority %d was handed out after %d", p, last)
		} else {
			last = p
		}
	}
}

// TestOwnRetry: what a message says of its retry goes before its queue's, and
// what it does not say is its queue's.
func TestOwnRetry(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{MaxAttempts: 3, Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: time.Hour}}, 1)
	for _, x := range []struct {
		retry *message.Retry
		want  message.State
	}{
		{nil, message.Scheduled},
		{&message.Retry{MaxAttempts: 1}, message.Dead},
		{&message.Retry{Backoff: message.Backoff{Kind: message.BackoffList, List: []time.Duration{0}}}, message.Ready},
	} {
		id := send(t, g, "q", message.New{Priority: 9, Retry: x.retry})[0]
		d := receive(t, g, "q", 1, time.Second)[0]
		if r := settle(t, g, d, message.Nack); d.ID != id || r.State != x.want {
			t.Errorf("after a failed attempt of %+v: %+v, want %s", x.retry, r, x.want)
		}
		shown, _, err := g.Show(t.Context(), id, message.ReadOptions{}, 0)
		if err != nil || shown.Priority != 9 || (shown.Retry == nil) != (x.retry == nil) {
			t.Errorf("%+v, %v", shown, err)
		}
		if x.want == message.Ready {
			receive(t, g, "q", 1, time.Second)
		}
	}
}

// TestRefusedSends is the table of what a send refuses; nothing of it is stored.
func TestRefusedSends(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 1)
	for name, m := range map[string]message.New{
		"a priority above 9":           {Priority: 10},
		"a priority below 0":           {Priority: -1},
		"too many attempts":            {Retry: &message.Retry{MaxAttempts: 1001}},
		"fewer than no attempts":       {Retry: &message.Retry{MaxAttempts: -1}},
		"a backoff list without delay": {Retry: &message.Retry{Backoff: message.Backoff{Kind: message.BackoffList}}},
		"an unknown backoff":           {Retry: &message.Retry{Backoff: message.Backoff{Kind: 9}}},
		"a backoff longer than years":  {Retry: &message.Retry{Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: message.MaxDelay + 1}}},
		"a delay and a time":           {Delay: time.Second, DeliverAt: time.Now().Add(time.Hour)},
		"a time before 1970":           {DeliverAt: time.Unix(-1, 0)},
		"an end before the begin":      {DeliverAt: time.Now().Add(time.Hour), Expires: time.Now().Add(time.Minute)},
		"an end before the delay's":    {Delay: time.Hour, Expires: time.Now().Add(time.Minute)},
		"an end that has passed":       {Expires: time.Now().Add(-time.Second)},
		"an end after the year 9999":   {Expires: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		rs, err := g.Send(t.Context(), "q", []message.New{m, {}})
		if err != nil || rs[0].Err == nil || rs[0].Err.Code != message.InvalidArgument || rs[1].Err != nil {
			t.Errorf("%s: %+v, %v", name, rs, err)
		}
	}
	if c := counts(t, g, "q"); c.Ready != 13 {
		t.Errorf("%+v", c)
	}
}
