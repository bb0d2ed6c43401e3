package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

// What a leader tells of its replicas: who has lacked much for long, and why.
func TestLagging(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	st := replica.Status{Group: 7, Replica: 1, Leading: true, Commit: 1000}
	for _, c := range []struct {
		what string
		p    replica.Progress
		want string
	}{
		{"it keeps up", replica.Progress{Replica: 2, Match: 1000, Active: true}, "[]"},
		{"for a moment", replica.Progress{Replica: 2, Match: 5, Active: true, Since: now.Add(-behindAfter + 1)}, "[]"},
		{"too slow", replica.Progress{Replica: 2, Match: 5, Active: true, Since: now.Add(-behindAfter)}, "[{7 2 995 5s slow}]"},
		{"it can't install", replica.Progress{Replica: 2, Active: true, Snapshot: true, Since: now.Add(-time.Minute)}, "[{7 2 1000 1m0s snapshot}]"},
		{"cut off", replica.Progress{Replica: 2, Match: 1000, Since: now.Add(-time.Minute)}, "[{7 2 0 1m0s silent}]"},
		{"cut off in a snapshot", replica.Progress{Replica: 2, Match: 1000, Snapshot: true, Since: now.Add(-time.Minute)}, "[{7 2 0 1m0s silent}]"},
		{"ahead of what is committed", replica.Progress{Replica: 2, Match: 1002, Since: now.Add(-time.Minute)}, "[{7 2 0 1m0s silent}]"},
		{"the leader itself", replica.Progress{Replica: 1, Since: now.Add(-time.Minute)}, "[]"},
	} {
		if got := fmt.Sprint(lagging(st, []replica.Progress{c.p}, now)); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// A node that is cut off while the others go on is told of by any of them: with the
// group, how much it lacks, since when and why. When it is back and has caught up,
// nothing is told of it.
func TestNodesTellWhoIsBehind(t *testing.T) {
	var w wires
	ms := startWired(t, 3, &w)
	voters(t, ms[0], 3)
	if _, _, err := ms[0].Gateway().CreateQueue(t.Context(), "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	q, _ := ms[0].view.Load().Queue("orders")
	group := q.Shard(0).Group
	cut := ms[0]
	if leadsHere(cut, group) {
		cut = ms[1]
	}
	began := time.Now()
	heal := w.isolate(cut)
	const lacks = 300
	for range lacks {
		if rs, err := ms[2].Gateway().Send(t.Context(), "orders", []message.New{{Body: []byte("x")}}); err != nil || rs[0].Err != nil {
			t.Fatalf("%v, %v", err, rs)
		}
	}
	for _, m := range ms {
		if m == cut {
			continue
		}
		eventually(t, m.name+" tells of "+cut.name, func() bool {
			for _, b := range m.info(cut.name).Behind {
				if b.Group == group {
					return b.Why == message.BehindSilent && b.Entries >= lacks && !b.Since.Before(began) && time.Since(b.Since) >= behindAfter && b.Leader != "" && b.Leader != cut.name
				}
			}
			return false
		})
		for _, other := range ms {
			if other != cut && len(m.info(other.name).Behind) > 0 {
				t.Errorf("%s tells of %s %+v", m.name, other.name, m.info(other.name).Behind)
			}
		}
	}
	heal()
	eventually(t, "nobody is behind", func() bool { return len(ms[2].info(cut.name).Behind) == 0 && len(cut.info(cut.name).Behind) == 0 })
}
