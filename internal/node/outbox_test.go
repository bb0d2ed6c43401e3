package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

// apartFrom makes a queue that lies in another group than the one with this name.
func apartFrom(t *testing.T, gw *gateway.Gateway, name string) (other string, group uint64) {
	t.Helper()
	for i := range dataGroups + 1 {
		other := fmt.Sprint("graveyard-", i)
		if _, _, err := gw.CreateQueue(t.Context(), other, message.Settings{}, 1); err != nil {
			t.Fatal(err)
		}
		q, _ := gw.View().Queue(other)
		if from, ok := gw.View().Queue(name); !ok || from.Shards[0].Group != q.Shards[0].Group {
			return other, q.Shards[0].Group
		}
	}
	t.Fatal("all queues lie in one group")
	return "", 0
}

// The dead of a queue go to another one in another group, while servers stop and start
// again: each arrives once, in the order of its key, and is found, handed out, settled,
// redriven and cancelled by its id. What was to go to a queue that was deleted stays.
func TestDeadLettersCrossGroups(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	ctx := t.Context()
	gw := ms[0].Gateway()
	if _, _, err := gw.CreateQueue(ctx, "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	to, _ := apartFrom(t, gw, "orders")
	if _, err := gw.UpdateQueue(ctx, "orders", message.Settings{MaxAttempts: 1, DeadLetterTo: to}, 0, false); err != nil {
		t.Fatal(err)
	}
	var ids []message.ID
	for i := range 20 {
		rs, err := gw.Send(ctx, "orders", []message.New{{Key: fmt.Sprint(i % 3), Body: fmt.Append(nil, i), UniqueKey: fmt.Sprint("u", i)}})
		if err != nil || rs[0].Err != nil {
			t.Fatal(rs, err)
		}
		ids = append(ids, rs[0].ID)
	}
	reject := func(n int) {
		t.Helper()
		for n > 0 {
			got, err := gw.Receive(ctx, "orders", message.ReceiveOptions{Max: n, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "w"})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range got {
				token, err := gw.OpenToken(d.Token)
				if err != nil {
					t.Fatal(err)
				}
				if rs, err := gw.Settle(ctx, []message.Settlement{{Token: token, Action: message.Reject, Error: "no"}}); err != nil || rs[0].Err != nil {
					t.Fatal(rs, err)
				}
				n--
			}
		}
	}
	reject(10)
	ms[2].stop()
	ms[2].start()
	voters(t, ms[0], 3)
	reject(10)
	ms[1].stop()
	ms[1].start()
	voters(t, ms[0], 3)
	arrived := func(name string, s message.State) (list []message.Shown) {
		l, err := gw.List(ctx, name, message.ListOptions{State: s, Max: 100})
		if err != nil {
			return nil
		}
		return l.Messages
	}
	eventually(t, "all have arrived", func() bool { return len(arrived(to, message.Ready)) == len(ids) })
	// They are there a moment before their own group hears so.
	parted := func(name string) {
		t.Helper()
		eventually(t, "none is left in "+name, func() bool {
			l, err := gw.List(ctx, name, message.ListOptions{State: message.Dead, Max: 100})
			return err == nil && len(l.Messages) == 0
		})
	}
	parted("orders")
	shown, _, err := gw.Show(ctx, ids[3], message.ReadOptions{}, 0)
	if err != nil || shown.ID != ids[3] || shown.Queue != to || shown.State != message.Ready {
		t.Errorf("it is shown as %+v, %v", shown, err)
	}
	last := map[string]int{}
	seen := map[message.ID]bool{}
	var settled message.Token
	for len(seen) < len(ids) {
		got, err := gw.Receive(ctx, to, message.ReceiveOptions{Max: 100, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "w"})
		if err != nil || len(got) == 0 {
			t.Fatal(got, err)
		}
		for _, d := range got {
			var n int
			if _, err := fmt.Sscan(string(d.Body), &n); err != nil || ids[n] != d.ID || seen[d.ID] || n < last[d.Key] {
				t.Fatalf("message %s with body %s of key %s after %d: %v", d.ID, d.Body, d.Key, last[d.Key], err)
			}
			last[d.Key], seen[d.ID] = n, true
			token, err := gw.OpenToken(d.Token)
			if err != nil {
				t.Fatal(err)
			}
			action := message.Ack
			switch n {
			case 3:
				settled = token
			case 7:
				action = message.Reject
			}
			if rs, err := gw.Settle(ctx, []message.Settlement{{Token: token, Action: action}}); err != nil || rs[0].Err != nil {
				t.Fatal(rs, err)
			}
		}
	}
	if errs, err := gw.Redrive(ctx, []message.ID{ids[7]}, true); err != nil || errs[0] != nil {
		t.Errorf("redriven where it is: %v, %v", errs, err)
	}
	// What is refused is called by the id that the caller knows.
	for _, id := range []message.ID{ids[7], ids[3]} { // ready, finished
		if errs, err := gw.Redrive(ctx, []message.ID{id}, false); err != nil || errs[0] == nil || errs[0].Code != message.NotDead || !strings.Contains(errs[0].Text, id.String()) {
			t.Errorf("redriven though it is not dead: %v, %v, want NOT_DEAD of %s", errs, err, id)
		}
	}
	if rs, err := gw.Settle(ctx, []message.Settlement{{Token: settled, Action: message.Nack}}); err != nil || rs[0].Err == nil || !strings.Contains(rs[0].Err.Text, ids[3].String()) {
		t.Errorf("settled again: %+v, %v, want a refusal that names %s", rs, err, ids[3])
	}
	if rs, err := gw.Cancel(ctx, []message.ID{ids[7]}, message.CancelOptions{}); err != nil || rs[0].Err != nil || rs[0].State != message.Cancelled {
		t.Errorf("cancelled where it is: %+v, %v", rs, err)
	}

	// What is dead over there comes home by a redrive, and goes there again when it dies.
	moves := ""
	for _, home := range []bool{true, false} {
		from, into, state := to, "orders", message.Ready
		if !home {
			from, into = "orders", to
			reject(3)
		} else {
			die(t, gw, to, "home", 3)
			plan, err := gw.RedriveQueue(ctx, from, message.Redrive{To: into}, "ann", false)
			if err != nil || plan.Count != 3 {
				t.Fatalf("%+v, %v", plan, err)
			}
		}
		eventually(t, "they are in "+into, func() bool { return len(arrived(into, state)) == 3 })
		parted(from)
		moves += from + " to " + into + ", "
		for _, m := range arrived(into, state) {
			s, _, err := gw.Show(ctx, m.ID, message.ReadOptions{}, 0)
			if err != nil || s.ID != m.ID || s.Queue != into || s.State != state {
				t.Errorf("it is shown as %+v, %v", s, err)
			}
			if told := movesOf(s); told != moves {
				t.Errorf("its timeline tells of moves %swant %s", told, moves)
			}
		}
	}

	if err := gw.DeleteQueue(ctx, to); err != nil {
		t.Fatal(err)
	}
	rs, err := gw.Send(ctx, "orders", []message.New{{Body: []byte("x")}})
	if err != nil || rs[0].Err != nil {
		t.Fatal(rs, err)
	}
	reject(1)
	eventually(t, "it stays, and says why", func() bool {
		s, _, err := gw.Show(ctx, rs[0].ID, message.ReadOptions{}, 0)
		return err == nil && s.State == message.Dead && s.Timeline[len(s.Timeline)-2].Event == "undelivered"
	})
}

// movesOf are the queues that a message has gone through, as its timeline has them.
func movesOf(s message.Shown) (moves string) {
	for _, e := range s.Timeline {
		if e.Event == "moved" {
			moves += e.From + " to " + e.To + ", "
		}
	}
	return moves
}
