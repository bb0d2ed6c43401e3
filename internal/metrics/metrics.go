// Package metrics holds what a node counts and the names under which /metrics
// tells it, for Prometheus. Units are base units and stand at the end of a name
// (seconds, bytes), counters end in _total. No id, key or session is ever a
// label, and at most MaxQueues queues are: the rest share the label "_other".
//
// There are two kinds. What happens is counted where it happens, by a call.
// What is so is asked for at each scrape: the node gives a Report.
//
// A nil *Metrics counts nothing.
package metrics

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/comanda-mq/comanda/internal/clock"
)

// MaxQueues is how many queues have labels of their own. Without a limit, many
// queues make an answer that takes longer than the time between two scrapes.
const MaxQueues = 200

// other is the label of all further queues, and of one that has this name.
const other = "_other"

// maxScrapes is how many answers are made at a time; further ones are refused.
const maxScrapes = 4

// Metrics counts. Its methods may be called by any goroutine.
type Metrics struct {
	clock     clock.Clock
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	took      *prometheus.HistogramVec
	sent      *prometheus.CounterVec
	delivered *prometheus.CounterVec
	settled   *prometheus.CounterVec
	retried   *prometheus.CounterVec
	dead      *prometheus.CounterVec
	expired   *prometheus.CounterVec
	redriven  *prometheus.CounterVec
	waited    *prometheus.HistogramVec
	processed *prometheus.HistogramVec

	mu     sync.Mutex
	queues map[string]*Traffic // those with labels of their own
	others *Traffic
}

// New makes a registry that asks report at each scrape.
func New(clock clock.Clock, report func() Report) *Metrics {
	seconds := prometheus.ExponentialBucketsRange(0.000_25, 60, 19)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds}, labels)
	}
	m := &Metrics{
		clock:     clock,
		registry:  prometheus.NewRegistry(),
		requests:  counter("comanda_requests_total", "Calls that clients made of this node, by how they ended (OK or an error's code).", "protocol", "op", "code"),
		took:      histogram("comanda_request_seconds", "How long calls took; those that wait for messages include the wait.", "protocol", "op"),
		sent:      counter("comanda_messages_sent_total", "Messages that were confirmed through this node.", "queue"),
		delivered: counter("comanda_messages_delivered_total", "Messages that went out to workers through this node, repeats included.", "queue"),
		settled:   counter("comanda_messages_settled_total", "Leases that were settled through this node, by what the worker said.", "queue", "action"),
		retried:   counter("comanda_messages_retried_total", "Attempts that failed, or whose worker died, and that another one follows, in shards that this node leads.", "queue"),
		dead:      counter("comanda_messages_dead_total", "Messages that became dead in shards that this node leads.", "queue"),
		expired:   counter("comanda_messages_expired_total", "Messages whose own time to expire passed in shards that this node leads.", "queue"),
		redriven:  counter("comanda_messages_redriven_total", "Dead messages that were revived, or sent on to another queue, in shards that this node leads.", "queue"),
		waited:    histogram("comanda_message_wait_seconds", "Time from a message's sending to its first delivery through this node, delays included.", "queue"),
		processed: histogram("comanda_message_processing_seconds", "Time from a delivery to its ack, nack or reject, of messages in shards that this node leads.", "queue"),
		queues:    map[string]*Traffic{},
	}
	m.registry.MustRegister(m.requests, m.took, m.sent, m.delivered, m.settled, m.retried, m.dead, m.expired, m.redriven,
		m.waited, m.processed, reporter(report), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// Call is a client's call that has begun.
type Call struct {
	m            *Metrics
	protocol, op string
	began        time.Time
}

// Begin begins to measure a client's call.
func (m *Metrics) Begin(protocol, op string) Call {
	if m == nil {
		return Call{}
	}
	return Call{m, protocol, op, m.clock.Now()}
}

// End counts the call; code is OK or an error's.
func (c Call) End(code string) {
	if c.m == nil {
		return
	}
	c.m.requests.WithLabelValues(c.protocol, c.op, code).Inc()
	c.m.took.WithLabelValues(c.protocol, c.op).Observe(c.m.clock.Now().Sub(c.began).Seconds())
}

// Traffic counts what happens in one queue through this node, or where this node leads.
// A nil *Traffic counts nothing.
type Traffic struct {
	sent, delivered, retried, dead, expired, redriven prometheus.Counter

	settled           *prometheus.CounterVec
	waited, processed prometheus.Observer
}

// Queue is where a queue's traffic is counted.
func (m *Metrics) Queue(name string) *Traffic {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.queues[name]
	if t == nil && len(m.queues) >= MaxQueues {
		name, t = other, m.others
	}
	if t == nil {
		t = &Traffic{
			sent: m.sent.WithLabelValues(name), delivered: m.delivered.WithLabelValues(name),
			retried: m.retried.WithLabelValues(name), dead: m.dead.WithLabelValues(name),
			expired: m.expired.WithLabelValues(name), redriven: m.redriven.WithLabelValues(name),
			settled: m.settled.MustCurryWith(prometheus.Labels{"queue": name}), waited: m.waited.WithLabelValues(name),
			processed: m.processed.WithLabelValues(name),
		}
		if name == other {
			m.others = t
		} else {
			m.queues[name] = t
		}
	}
	return t
}

// Sent counts n confirmed messages.
func (t *Traffic) Sent(n int) {
	if t != nil {
		t.sent.Add(float64(n))
	}
}

// Delivered counts a delivery; wait is how long the message had waited for its
// first one, less than 0 for a repeat.
func (t *Traffic) Delivered(wait time.Duration) {
	if t == nil {
		return
	}
	t.delivered.Inc()
	if wait >= 0 {
		t.waited.Observe(wait.Seconds())
	}
}

// Settled counts a lease that was settled by an action.
func (t *Traffic) Settled(action string) {
	if t != nil {
		t.settled.WithLabelValues(action).Inc()
	}
}

// Retried counts a failed attempt that another one follows.
func (t *Traffic) Retried() {
	if t != nil {
		t.retried.Inc()
	}
}

// Dead counts a message that became dead.
func (t *Traffic) Dead() {
	if t != nil {
		t.dead.Inc()
	}
}

// Expired counts a message whose own time to expire passed, also if it is dead then.
func (t *Traffic) Expired() {
	if t != nil {
		t.expired.Inc()
	}
}

// Redriven counts a dead message that was revived, or goes to another queue.
func (t *Traffic) Redriven() {
	if t != nil {
		t.redriven.Inc()
	}
}

// Processed counts how long a worker had a message that it settled. Leaders' clocks
// differ, so it may be less than nothing, which is none.
func (t *Traffic) Processed(d time.Duration) {
	if t != nil {
		t.processed.Observe(max(d, 0).Seconds())
	}
}

// Forget drops what was counted of a queue that was deleted.
func (m *Metrics) Forget(queue string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.queues[queue] == nil {
		return
	}
	delete(m.queues, queue)
	of := prometheus.Labels{"queue": queue}
	for _, counter := range []*prometheus.CounterVec{m.sent, m.delivered, m.settled, m.retried, m.dead, m.expired, m.redriven} {
		counter.DeletePartialMatch(of)
	}
	m.waited.DeletePartialMatch(of)
	m.processed.DeletePartialMatch(of)
}
