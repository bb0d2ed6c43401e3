package node

import (
	"context"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

var deadOnes = flag.Int("dead", 400, "messages of kind A that TestRedriveOutlivesItsRunner has die, and half as many of kind B")

// die sends messages that die at their first attempt.
func die(t *testing.T, gw *gateway.Gateway, name, kind string, n int) {
	t.Helper()
	for n > 0 {
		batch := make([]message.New, min(n, message.MaxBatch))
		for i := range batch {
			batch[i] = message.New{Type: kind, Retry: &message.Retry{MaxAttempts: 1}}
		}
		rs, err := gw.Send(t.Context(), name, batch)
		for _, r := range rs {
			if err == nil && r.Err != nil {
				err = r.Err
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		n -= len(batch)
		for left := len(batch); left > 0; {
			got, err := gw.Receive(t.Context(), name, message.ReceiveOptions{Max: left, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "w"})
			if err != nil {
				t.Fatal(err)
			}
			ss := make([]message.Settlement, len(got))
			for i := range got {
				ss[i] = message.Settlement{Action: message.Nack}
				if ss[i].Token, err = gw.OpenToken(got[i].Token); err != nil {
					t.Fatal(err)
				}
			}
			if len(ss) == 0 {
				continue
			}
			if _, err := gw.Settle(t.Context(), ss); err != nil {
				t.Fatal(err)
			}
			left -= len(got)
		}
	}
}

// inState counts the messages of a state by type and, of each, how often it was
// redriven.
func inState(t *testing.T, gw *gateway.Gateway, name string, s message.State) (byType map[string]int, redriven map[message.ID]int) {
	t.Helper()
	byType, redriven = map[string]int{}, map[message.ID]int{}
	for page := ""; ; {
		l, err := gw.List(t.Context(), name, message.ListOptions{State: s, Max: message.MaxBatch, Page: page})
		if err != nil {
			t.Fatal(err)
		}
		for i := range l.Messages {
			m := &l.Messages[i]
			byType[m.Type]++
			if s != message.Ready {
				continue
			}
			shown, _, err := gw.Show(t.Context(), m.ID, message.ReadOptions{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range shown.Timeline {
				if e.Event == "redriven" {
					redriven[m.ID]++
				}
			}
		}
		if page = l.NextPage; page == "" {
			return byType, redriven
		}
	}
}

// A redrive says how many messages it chose before it begins. It is paused and goes
// on; the node that runs it stops half-way, and another one ends it: each message
// that was chosen lives again, none was revived twice, and no other was touched.
func TestRedriveOutlivesItsRunner(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	ctx := t.Context()
	victim := catalogLeader(t, ms)
	other := ms[0]
	if victim == other {
		other = ms[1]
	}
	gw := other.Gateway()
	if _, _, err := gw.CreateQueue(ctx, "orders", message.Settings{}, 2); err != nil {
		t.Fatal(err)
	}
	a, b := *deadOnes, *deadOnes/2
	die(t, gw, "orders", "A", a/2)
	die(t, gw, "orders", "B", b)
	die(t, gw, "orders", "A", a-a/2)
	r := message.Redrive{Filter: message.DeadFilter{Type: "A"}, Rate: max(a/4, 1)}
	plan, err := gw.RedriveQueue(ctx, "orders", r, "ann", true)
	if err != nil || plan.Count != a || plan.Operation != nil {
		t.Fatalf("a dry run: %+v, %v", plan, err)
	}
	if plan, err = gw.RedriveQueue(ctx, "orders", r, "ann", false); err != nil || plan.Count != a || plan.Operation.Chosen != int64(a) || plan.Operation.Redriven != 0 || !strings.Contains(plan.Operation.Title, `type "A"`) {
		t.Fatalf("%+v, %v", plan, err)
	}
	id := plan.Operation.ID
	look := func() (o message.OperationInfo) {
		eventually(t, "the operation is shown", func() (ok bool) {
			asking, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			o, err = gw.Operation(asking, id)
			return err == nil
		})
		return o
	}
	if _, err := gw.RedriveQueue(ctx, "orders", message.Redrive{}, "ann", false); message.CodeOf(err) != message.Conflict {
		t.Errorf("a second one of the same queue: %v", err)
	}
	eventually(t, "some are redriven", func() bool { return look().Redriven > 0 })
	if o, err := gw.PauseOperation(ctx, id, true, "ann"); err != nil || o.State != "paused" {
		t.Fatalf("%+v, %v", o, err)
	}
	if o, err := gw.PauseOperation(ctx, id, false, "ann"); err != nil || o.State != "running" {
		t.Fatalf("%+v, %v", o, err)
	}
	victim.stop()
	if o := look(); o.Redriven >= int64(a) {
		t.Fatalf("it was over before its node stopped: %+v", o)
	}
	eventually(t, "it has ended", func() bool { return look().State != "running" })
	if o := look(); o.State != "done" || o.Redriven != int64(a) || o.Skipped != 0 || o.Err != nil {
		t.Errorf("%+v", o)
	}
	ready, redriven := inState(t, gw, "orders", message.Ready)
	if ready["A"] != a || len(ready) != 1 {
		t.Errorf("ready are %v", ready)
	}
	for id, n := range redriven {
		if n != 1 {
			t.Errorf("message %s was redriven %d times", id, n)
		}
	}
	if dead, _ := inState(t, gw, "orders", message.Dead); dead["B"] != b || len(dead) != 1 {
		t.Errorf("dead are %v", dead)
	}
	if plan, err := gw.RedriveQueue(ctx, "orders", r, "ann", false); err != nil || plan.Count != 0 || plan.Operation != nil {
		t.Errorf("of nothing: %+v, %v", plan, err)
	}
}
