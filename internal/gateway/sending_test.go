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
		"a dedup id and a unique key":  {DedupID: "d", UniqueKey: "u"},
		"a conflict without unique":    {OnConflict: message.ConflictReject},
		"an unknown conflict":          {UniqueKey: "u", OnConflict: 3},
		"a dedup id that is no text":   {DedupID: "\xff"},
		"a unique key that is no text": {UniqueKey: "\xff"},
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
	if c := counts(t, g, "q"); c.Ready != 18 {
		t.Errorf("%+v", c)
	}
}

// TestRepeats: dedup ids and unique keys find what they repeat through a whole
// node, also after a split, and messages keep their ids.
func TestRepeats(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 1)
	var msgs []message.New
	for i := range 20 {
		name := string(rune('a' + i))
		msgs = append(msgs, message.New{DedupID: name}, message.New{UniqueKey: name}, message.New{Key: name, DedupID: "x", UniqueKey: "y"})
	}
	first, err := g.Send(t.Context(), "q", msgs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.SplitShard(t.Context(), "q", "0"); err != nil {
		t.Fatal(err)
	}
	for i := range msgs {
		if msgs[i].UniqueKey != "" {
			msgs[i].OnConflict = message.ConflictExisting
		}
	}
	again, err := g.Send(t.Context(), "q", msgs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range msgs {
		if first[i].Err != nil || first[i].Existing || again[i].Err != nil || !again[i].Existing || again[i].ID != first[i].ID {
			t.Errorf("%+v: first %+v, then %+v", msgs[i], first[i], again[i])
		}
	}
	if c := counts(t, g, "q"); c.Ready != int64(len(msgs)) {
		t.Errorf("%+v", c)
	}
	for _, d := range receive(t, g, "q", 100, time.Second) {
		if r := settle(t, g, d, message.Ack); r.Err != nil {
			t.Error(r.Err)
		}
		shown, _, err := g.Show(t.Context(), d.ID, message.ReadOptions{}, 0)
		if err != nil || shown.State != message.Finished || shown.DedupID+shown.UniqueKey == "" {
			t.Errorf("%+v, %v", shown, err)
		}
	}
	rs, err := g.Send(t.Context(), "q", msgs[1:2])
	if err != nil || rs[0].Err != nil || rs[0].Existing {
		t.Errorf("the unique key of a finished message: %+v, %v", rs, err)
	}
}
