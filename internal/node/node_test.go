package node_test

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/node"
)

// A message is sent, survives a restart, and is leased and acked.
func TestMessageSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	start := func() *node.Node {
		n, err := node.Start(t.Context(), node.Config{DataDir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := start()
	g := n.Gateway()
	if _, _, err := g.CreateQueue(t.Context(), "orders", message.Settings{}, 4); err != nil {
		t.Fatal(err)
	}
	var msgs []message.New
	for i := range 20 {
		msgs = append(msgs, message.New{Body: fmt.Appendf(nil, "m%d", i), Key: fmt.Sprint(i % 5)})
	}
	sent, err := g.Send(t.Context(), "orders", msgs)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	n = start()
	g = n.Gateway()
	for seen := 0; seen < 20; {
		got, err := g.Receive(t.Context(), "orders", message.ReceiveOptions{Max: 10, Wait: time.Second, Lease: time.Minute, Worker: "w"})
		if err != nil || len(got) == 0 {
			info, _, _ := g.Queue(t.Context(), "orders", message.ReadOptions{})
			t.Fatal(len(got), err, seen, info)
		}
		for _, d := range got {
			tok, err := g.OpenToken(d.Token)
			if err != nil {
				t.Fatal(err)
			}
			r, err := g.Settle(t.Context(), []message.Settlement{{Token: tok, Action: message.Ack}})
			if err != nil || r[0].Err != nil {
				t.Fatal(err, r)
			}
			seen++
		}
	}
	s, _, err := g.Show(t.Context(), sent[0].ID, message.ReadOptions{}, 0)
	if err != nil || s.State != message.Finished || len(s.Timeline) != 3 {
		t.Fatal(s, err)
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
