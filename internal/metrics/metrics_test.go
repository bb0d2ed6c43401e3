package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/clock"
)

// scrape returns the lines that begin with a name.
func scrape(t *testing.T, m *Metrics, name string) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("a scrape is answered with %d: %s", w.Code, w.Body)
	}
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, name) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func want(t *testing.T, got []string, lines ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(lines, "\n") {
		t.Errorf("a scrape tells\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func TestTraffic(t *testing.T) {
	m := New(clock.System(), func() Report { return Report{} })
	m.Queue("orders").Sent(3)
	m.Queue("orders").Sent(0)
	m.Queue("orders").Delivered(2 * time.Second)
	m.Queue("orders").Delivered(-1)
	m.Queue("orders").Settled("ack")
	m.Queue("orders").Processed(3 * time.Second)
	m.Queue("orders").Processed(-time.Second)
	m.Queue("orders").Retried()
	m.Queue("orders").Dead()
	m.Queue("orders").Expired()
	m.Queue("orders").Redriven()
	m.Begin("rest", "Send").End("QUEUE_NOT_FOUND")
	want(t, scrape(t, m, "comanda_messages_sent_total"), `comanda_messages_sent_total{queue="orders"} 3`)
	want(t, scrape(t, m, "comanda_messages_delivered_total"), `comanda_messages_delivered_total{queue="orders"} 2`)
	want(t, scrape(t, m, "comanda_message_wait_seconds_sum"), `comanda_message_wait_seconds_sum{queue="orders"} 2`)
	want(t, scrape(t, m, "comanda_message_processing_seconds_sum"), `comanda_message_processing_seconds_sum{queue="orders"} 3`)
	want(t, scrape(t, m, "comanda_message_processing_seconds_count"), `comanda_message_processing_seconds_count{queue="orders"} 2`)
	want(t, scrape(t, m, "comanda_messages_settled_total"), `comanda_messages_settled_total{action="ack",queue="orders"} 1`)
	for _, name := range []string{"retried", "dead", "expired", "redriven"} {
		name = "comanda_messages_" + name + "_total"
		want(t, scrape(t, m, name), name+`{queue="orders"} 1`)
	}
	want(t, scrape(t, m, "comanda_requests_total"), `comanda_requests_total{code="QUEUE_NOT_FOUND",op="Send",protocol="rest"} 1`)

	m.Forget("orders")
	m.Forget("never was")
	want(t, scrape(t, m, "comanda_messages_"))
	m.Queue("orders").Sent(1) // created again
	want(t, scrape(t, m, "comanda_messages_sent_total"), `comanda_messages_sent_total{queue="orders"} 1`)
}

// Many queues do not make the answer long: the largest keep their names, the rest
// is added up.
func TestQueuesWithoutLabels(t *testing.T) {
	var r Report
	for i := range MaxQueues + 2 {
		r.Queues = append(r.Queues, Queue{Name: fmt.Sprint("q", i), Counts: map[string]int64{"ready": int64(i + 1)}})
	}
	r.Queues = append(r.Queues, Queue{Name: other, Counts: map[string]int64{"ready": 1_000_000}})
	m := New(clock.System(), func() Report { return r })
	lines := scrape(t, m, "comanda_messages{")
	if len(lines) != MaxQueues+1 {
		t.Errorf("%d queues are told in %d lines", MaxQueues+3, len(lines))
	}
	want(t, scrape(t, m, `comanda_messages{queue="_other"`), `comanda_messages{queue="_other",state="ready"} 1.000003e+06`)
	want(t, scrape(t, m, `comanda_messages{queue="q0"`))
	want(t, scrape(t, m, `comanda_messages{queue="q201"`), `comanda_messages{queue="q201",state="ready"} 202`)

	for i := range MaxQueues + 2 {
		m.Queue(fmt.Sprint("q", i)).Sent(1)
	}
	want(t, scrape(t, m, `comanda_messages_sent_total{queue="_other"`), `comanda_messages_sent_total{queue="_other"} 2`)
	m.Forget("q0")
	m.Queue("new").Sent(1)
	want(t, scrape(t, m, `comanda_messages_sent_total{queue="new"`), `comanda_messages_sent_total{queue="new"} 1`)
}

// Ages and the time to drain are of a queue, and of the rest the longest.
func TestAges(t *testing.T) {
	m := New(clock.System(), func() Report {
		return Report{
			Queues:  []Queue{{Name: "a", Counts: map[string]int64{"ready": 1}, Leaving: 2, Oldest: 3 * time.Second, Drain: 60}, {Name: "b", Counts: map[string]int64{"ready": 0}}},
			Commits: Times{[]uint64{1, 0}, time.Microsecond}, Applies: Times{[]uint64{0, 1}, time.Second},
		}
	})
	want(t, scrape(t, m, "comanda_messages_leaving"), `comanda_messages_leaving{queue="a"} 2`, `comanda_messages_leaving{queue="b"} 0`)
	want(t, scrape(t, m, "comanda_oldest_message_seconds"), `comanda_oldest_message_seconds{queue="a"} 3`, `comanda_oldest_message_seconds{queue="b"} 0`)
	want(t, scrape(t, m, "comanda_time_to_drain_seconds"), `comanda_time_to_drain_seconds{queue="a"} 60`, `comanda_time_to_drain_seconds{queue="b"} 0`)
	want(t, scrape(t, m, "comanda_commit_seconds_count"), `comanda_commit_seconds_count 1`)
	want(t, scrape(t, m, "comanda_apply_seconds_sum"), `comanda_apply_seconds_sum 1`)
}

func TestSyncTimes(t *testing.T) {
	m := New(clock.System(), func() Report { return Report{Syncs: []uint64{0, 2, 1, 4}, SyncTime: time.Second} })
	want(t, scrape(t, m, "comanda_log_sync_seconds"),
		`comanda_log_sync_seconds_bucket{le="1e-06"} 0`, `comanda_log_sync_seconds_bucket{le="2e-06"} 2`, `comanda_log_sync_seconds_bucket{le="4e-06"} 3`,
		`comanda_log_sync_seconds_bucket{le="+Inf"} 7`, `comanda_log_sync_seconds_sum 1`, `comanda_log_sync_seconds_count 7`)
}

// Where nothing is to be counted there is no registry.
func TestNothingIsCounted(*testing.T) {
	var m *Metrics
	m.Begin("grpc", "Send").End("OK")
	m.Queue("orders").Sent(1)
	m.Queue("orders").Delivered(0)
	m.Queue("orders").Settled("ack")
	m.Queue("orders").Processed(0)
	m.Queue("orders").Retried()
	m.Queue("orders").Dead()
	m.Queue("orders").Expired()
	m.Queue("orders").Redriven()
	m.Forget("orders")
}
