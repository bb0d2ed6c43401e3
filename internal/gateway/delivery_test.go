package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

// What can't be cancelled or purged is refused, and stays what it was.
func TestCancelAndPurgeRefused(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 1)
	sent := send(t, g, "orders", message.New{Body: []byte("done")}, message.New{Body: []byte("dead")}, message.New{Body: []byte("waits")})
	done, dead, waits := sent[0], sent[1], sent[2]
	for _, d := range receive(t, g, "orders", 2, message.MaxWait) {
		action := message.Ack
		if d.ID == dead {
			action = message.Reject
		}
		if r := settle(t, g, d, action); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	unknown := message.NewID(done.Queue(), done.Point(), 1<<30)
	for _, c := range []struct {
		what string
		ids  []message.ID
		o    message.CancelOptions
		says string
	}{
		{"negative grace", []message.ID{waits}, message.CancelOptions{Force: true, Grace: -1}, "0s to 1h0m0s"},
		{"long grace", []message.ID{waits}, message.CancelOptions{Force: true, Grace: message.MaxGrace + 1}, "0s to 1h0m0s"},
		{"grace without force", []message.ID{waits}, message.CancelOptions{Grace: time.Second}, "grace is for force only"},
		{"nothing", nil, message.CancelOptions{}, "1 to 1000"},
		{"too many", make([]message.ID, message.MaxBatch+1), message.CancelOptions{}, "1 to 1000"},
	} {
		if _, err := g.Cancel(t.Context(), c.ids, c.o); message.CodeOf(err) != message.InvalidArgument || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
	rs, err := g.Cancel(t.Context(), []message.ID{done, dead, unknown, message.NewID(done.Queue()+9, done.Point(), 1), waits}, message.CancelOptions{Force: true, Grace: message.MaxGrace})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		code  message.Code
		state message.State
	}{{message.Ended, message.Finished}, {message.Ended, message.Dead}, {message.MessageNotFound, 0}, {message.QueueNotFound, 0}, {"", message.Cancelled}} {
		code := message.Code("")
		if rs[i].Err != nil {
			code = rs[i].Err.Code
		}
		if code != want.code || rs[i].State != want.state {
			t.Errorf("result %d is %+v, want %+v", i, rs[i], want)
		}
	}
	if err := g.PurgeQueue(t.Context(), "other"); message.CodeOf(err) != message.QueueNotFound || !strings.Contains(err.Error(), "comanda queue create other") {
		t.Errorf("purge of an unknown queue: %v", err)
	}
	if c := counts(t, g, "orders"); c.Dead != 1 || c.Finished != 2 || c.Ready != 0 {
		t.Errorf("counts: %+v", c)
	}
}

// TestReasons makes the reasons of delivery come true: why a message waits, in words.
func TestReasons(t *testing.T) {
	for what, c := range map[string]struct {
		settings message.Settings
		// first is done with the first of two messages, which is leased.
		first func(t *testing.T, g *gateway.Gateway, d message.Delivery)
		// of is the message that is asked for.
		of   int
		says string
	}{
		"in flight": {message.Settings{MaxInFlight: 1}, nil, 1, "as many messages of the queue are leased as may be: 1 (max_in_flight)"},
		"rate":      {message.Settings{Rate: message.Rate{Count: 1, Per: time.Hour}}, nil, 1, "the queue hands out no more than 1 messages in 1h0m0s (rate)"},
		"the rate stands after the ack": {
			message.Settings{Rate: message.Rate{Count: 1, Per: time.Hour}},
			func(t *testing.T, g *gateway.Gateway, d message.Delivery) { settle(t, g, d, message.Ack) },
			1, "the queue hands out no more than 1 messages in 1h0m0s (rate)",
		},
		"in flight is over with the ack": {
			message.Settings{MaxInFlight: 1},
			func(t *testing.T, g *gateway.Gateway, d message.Delivery) { settle(t, g, d, message.Ack) },
			1, "ready: it waits for a worker to take it",
		},
		"single":      {message.Settings{Assign: message.AssignSingle}, nil, 1, "ready: it waits for the one worker that gets the queue's messages; others stand by (assign single)"},
		"no limit":    {message.Settings{}, nil, 1, "ready: the queue's one worker is busy"},
		"is leased":   {message.Settings{}, nil, 0, ""},
		"to be ended": {message.Settings{}, cancelFirst, 0, "leased: its worker was asked to give it back, for it is to be cancelled"},
		"has ended": {message.Settings{}, func(t *testing.T, g *gateway.Gateway, d message.Delivery) {
			cancelFirst(t, g, d)
			settle(t, g, d, message.Release)
		}, 0, ""},
	} {
		t.Run(what, func(t *testing.T) {
			g := start(t)
			create(t, g, "orders", c.settings, 1)
			ids := send(t, g, "orders", message.New{Body: []byte("first")}, message.New{Body: []byte("second")})
			ds := receive(t, g, "orders", 1, message.MaxWait)
			if c.first != nil {
				c.first(t, g, ds[0])
			}
			if ds[0].ID != ids[0] {
				ids[0], ids[1] = ids[1], ids[0]
			}
			s, _, err := g.Show(t.Context(), ids[c.of], message.ReadOptions{}, 0)
			if err != nil || s.Reason != c.says {
				t.Errorf("%s is %s: %q, %v; want %q", s.Body, s.State, s.Reason, err, c.says)
			}
		})
	}
}

func cancelFirst(t *testing.T, g *gateway.Gateway, d message.Delivery) {
	t.Helper()
	if rs, err := g.Cancel(t.Context(), []message.ID{d.ID}, message.CancelOptions{}); err != nil || rs[0].State != message.Leased {
		t.Fatalf("cancel: %+v, %v", rs, err)
	}
}
