package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Acks with follow-ups for queues in every group, while servers stop and start again and
// the acked queue's shard is split: each arrives once, those of a key in the order of the
// acks, which were of one key; and each is found by the id that its ack was answered with,
// on its way and after.
func TestFollowUpsCrossGroups(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	ctx := t.Context()
	gw := ms[0].Gateway()
	if _, _, err := gw.CreateQueue(ctx, "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	far, _ := apartFrom(t, gw, "orders")
	if _, _, err := gw.CreateQueue(ctx, "wide", message.Settings{}, 4); err != nil {
		t.Fatal(err)
	}
	targets := []string{far, "wide", "wide"}
	sent := map[message.ID]int{}
	n := 0
	ack := func(acks int) {
		t.Helper()
		for range acks {
			if rs, err := gw.Send(ctx, "orders", []message.New{{Key: "alice"}}); err != nil || rs[0].Err != nil {
				t.Fatal(rs, err)
			}
			got, err := gw.Receive(ctx, "orders", message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "w"})
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			token, err := gw.OpenToken(got[0].Token)
			if err != nil {
				t.Fatal(err)
			}
			s := message.Settlement{Token: token, Action: message.Ack}
			for i, name := range targets {
				s.FollowUps = append(s.FollowUps, message.FollowUp{Queue: name, New: message.New{Key: fmt.Sprint("k", i), Body: fmt.Append(nil, n+i)}})
			}
			rs, err := gw.Settle(ctx, []message.Settlement{s})
			if err != nil || rs[0].Err != nil || len(rs[0].FollowUps) != len(targets) {
				t.Fatal(rs, err)
			}
			for i, id := range rs[0].FollowUps {
				sent[id] = n + i
				if s, _, err := gw.Show(ctx, id, message.ReadOptions{}, 0); err != nil || s.ID != id || s.State != message.Scheduled && s.State != message.Ready {
					t.Fatalf("a follow-up that was confirmed is shown as %+v, %v", s, err)
				}
			}
			n += len(targets)
		}
	}
	ack(5)
	ms[2].stop()
	ack(5)
	ms[2].start()
	voters(t, ms[0], 3)
	if _, err := gw.SplitShard(ctx, "orders", "0"); err != nil {
		t.Fatal(err)
	}
	ack(5)
	ms[1].stop()
	ms[1].start()
	voters(t, ms[0], 3)
	ack(5)
	last := map[string]int{}
	for _, name := range []string{far, "wide"} {
		eventually(t, "all have arrived in "+name, func() bool {
			info, _, err := gw.Queue(ctx, name, message.ReadOptions{})
			return err == nil && info.Counts.Ready == int64(map[string]int{far: 20, "wide": 40}[name])
		})
		for left := map[string]int{far: 20, "wide": 40}[name]; left > 0; left-- {
			got, err := gw.Receive(ctx, name, message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "w"})
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			d, body := got[0], 0
			if _, err := fmt.Sscan(string(d.Body), &body); err != nil || fmt.Sprint("k", body%3) != d.Key {
				t.Fatalf("message %s with body %s of key %s: %v", d.ID, d.Body, d.Key, err)
			}
			if want, ok := sent[d.ID]; !ok || want != body {
				t.Fatalf("message %s with body %d, want %d", d.ID, body, want)
			}
			delete(sent, d.ID)
			if body < last[d.Key] {
				t.Errorf("message %d of key %s after %d", body, d.Key, last[d.Key])
			}
			last[d.Key] = body
			token, err := gw.OpenToken(d.Token)
			if err != nil {
				t.Fatal(err)
			}
			if rs, err := gw.Settle(ctx, []message.Settlement{{Token: token, Action: message.Ack}}); err != nil || rs[0].Err != nil {
				t.Fatal(rs, err)
			}
		}
	}
	if len(sent) > 0 {
		t.Errorf("%d have not arrived", len(sent))
	}
}
