package node_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/node"
)

func startNode(t *testing.T) *node.Node {
	t.Helper()
	n, err := node.Start(t.Context(), node.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	return call(t, http.MethodGet, url, "")
}

func call(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// What is documented is told, what is told is documented, and it is true.
func TestMetrics(t *testing.T) {
	n := startNode(t)
	g := n.Gateway()
	if _, _, err := g.CreateQueue(t.Context(), "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Send(t.Context(), "orders", []message.New{{}, {}, {}}); err != nil {
		t.Fatal(err)
	}
	ds, err := g.Receive(t.Context(), "orders", message.ReceiveOptions{Max: 2, Wait: 10 * time.Second, Lease: time.Minute, Worker: "w"})
	if err != nil || len(ds) != 2 {
		t.Fatal(ds, err)
	}
	token, err := g.OpenToken(ds[0].Token)
	if err != nil {
		t.Fatal(err)
	}
	if rs, err := g.Settle(t.Context(), []message.Settlement{{Token: token, Action: message.Ack}}); err != nil || rs[0].Err != nil {
		t.Fatal(rs, err)
	}
	url := "http://" + n.Addr().String()
	if code, body := get(t, url+"/v1/queues/none"); code != http.StatusNotFound {
		t.Fatal(code, body)
	}
	code, text := get(t, url+"/metrics")
	if code != http.StatusOK {
		t.Fatal(code, text)
	}
	for _, line := range []string{
		`comanda_messages{queue="orders",state="ready"} 1`,
		`comanda_messages{queue="orders",state="leased"} 1`,
		`comanda_messages{queue="orders",state="finished"} 1`,
		`comanda_messages_leaving{queue="orders"} 0`,
		`comanda_messages_sent_total{queue="orders"} 3`,
		`comanda_messages_delivered_total{queue="orders"} 2`,
		`comanda_messages_settled_total{action="ack",queue="orders"} 1`,
		`comanda_message_wait_seconds_count{queue="orders"} 2`,
		`comanda_message_processing_seconds_count{queue="orders"} 1`,
		`comanda_requests_total{code="QUEUE_NOT_FOUND",op="GetQueue",protocol="rest"} 1`,
		`comanda_group_leading{group="1"} 1`,
		`comanda_nodes{state="alive"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := func(pattern, text string) (names []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return names
	}
	told, documented := names(`(?m)^# TYPE (comanda_\w+) `, text), names("(?m)^\\| `(comanda_\\w+)` ", string(doc))
	if !slices.Equal(told, documented) {
		t.Errorf("told:\n%s\nin docs/metrics.md:\n%s", strings.Join(told, "\n"), strings.Join(documented, "\n"))
	}
}

// What becomes of messages is counted where their shard is led, and workers' slots where
// the catalog is.
func TestTotals(t *testing.T) {
	n := startNode(t)
	g := n.Gateway()
	send := func(queue string, m message.New) message.ID {
		if _, _, err := g.CreateQueue(t.Context(), queue, message.Settings{MaxAttempts: 2}, 1); err != nil {
			t.Fatal(err)
		}
		rs, err := g.Send(t.Context(), queue, []message.New{m})
		if err != nil || rs[0].Err != nil {
			t.Fatal(rs, err)
		}
		return rs[0].ID
	}
	send("late", message.New{Expires: time.Now().Add(2 * time.Second)})
	id := send("orders", message.New{})
	for range 2 {
		ds, err := g.Receive(t.Context(), "orders", message.ReceiveOptions{Max: 1, Wait: 10 * time.Second, Lease: time.Minute, Worker: "w"})
		if err != nil || len(ds) != 1 {
			t.Fatal(ds, err)
		}
		token, err := g.OpenToken(ds[0].Token)
		if err != nil {
			t.Fatal(err)
		}
		if rs, err := g.Settle(t.Context(), []message.Settlement{{Token: token, Action: message.Nack, HasDelay: true}}); err != nil || rs[0].Err != nil {
			t.Fatal(rs, err)
		}
	}
	if errs, err := g.Redrive(t.Context(), []message.ID{id}, false); err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	worker, err := g.OpenSession(t.Context(), message.SessionOptions{Worker: "w", Incarnation: 1, Attachment: 1, TTL: time.Minute, Slots: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close(true)
	missing := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, text := get(t, "http://"+n.Addr().String()+"/metrics")
		missing = ""
		for _, line := range []string{
			`comanda_messages_retried_total{queue="orders"} 1`,
			`comanda_messages_dead_total{queue="orders"} 1`,
			`comanda_messages_expired_total{queue="late"} 1`,
			`comanda_messages_redriven_total{queue="orders"} 1`,
			`comanda_worker_slots 7`,
		} {
			if !strings.Contains(text, line+"\n") {
				missing = line
			}
		}
		if missing == "" {
			return
		}
	}
	t.Errorf("missing: %s", missing)
}

func TestReadyTellsWhatItLookedAt(t *testing.T) {
	n := startNode(t)
	url := "http://" + n.Addr().String()
	if code, text := get(t, url+"/readyz"); code != http.StatusOK || text != "ok\n" {
		t.Error(code, text)
	}
	code, text := get(t, url+"/readyz?verbose")
	if code != http.StatusOK {
		t.Error(code, text)
	}
	rest := text
	for _, line := range []string{"ok: group 1 is led by", "ok: group 2 is led by", "ok: group 3 is led by", "ok: group 4 is led by", "ok: group 5 is led by", "ok: the disk has", "ok: the server uses"} {
		var found bool
		if _, rest, found = strings.Cut(rest, line); !found {
			t.Errorf("%q is missing, or not in its place, in:\n%s", line, text)
		}
	}
}
