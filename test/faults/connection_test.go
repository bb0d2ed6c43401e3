//go:build faults

package faults

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// Workers whose connections break every 500 ms keep their messages as long as they
// come back in time. Who does not is fenced: no message has two holders.
func TestFlappingWorkers(t *testing.T) {
	t.Parallel()
	s := startServers(t)
	c, p := s.dial(0), newProxy(t, s.nodes[1].addr)
	const held, cuts = 20, 20
	victims, ids := s.holding(c, p.addr(), held)
	others := startCrew(t, crew{Servers: s.addresses(0), Queue: queue, Name: "other", Count: held})
	ticks := time.NewTicker(500 * time.Millisecond)
	defer ticks.Stop()
	for range cuts {
		<-ticks.C
		p.cut()
	}
	if p.cuts < cuts*held/2 {
		t.Errorf("%d connections were cut, want %d at least: the workers were hardly connected", p.cuts, cuts*held/2)
	}
	kept := s.wantOneHolder(c, ids, victims, others)
	if kept == 0 {
		t.Error("no worker kept its message, although each was back at once")
	}
	t.Logf("%d connections of %d workers cut in 10 s: %d messages stayed with their workers, %d are others'", p.cuts, held, kept, held-kept)
}

// A server is stopped, its workers' connections break, and they go to another one.
// When it goes on it reports them lost, long after they were taken back: they live.
func TestLateReportOfBrokenConnection(t *testing.T) {
	s := startServers(t)
	c := s.dial(0)
	gateway := (s.catalogLeader(c) + 1) % 3
	old, next := newProxy(t, s.nodes[gateway].addr), newProxy(t, s.nodes[(gateway+1)%3].addr)
	next.admit(false)
	const held = 10
	workers, ids := s.holding(c, old.addr()+","+next.addr(), held)
	next.admit(true)
	<-time.After(3 * time.Second) // by now both servers have connections of each
	goOn := s.pause(gateway)
	old.admit(false)
	old.cut()
	<-time.After(2 * time.Second)
	var back []string // in time
	for _, id := range ids {
		if !workers.cancelled(id) {
			back = append(back, id)
		}
	}
	if len(back) == 0 {
		t.Fatalf("no worker was taken back in time\n%s", tail(workers.said.String()))
	}
	goOn()
	<-time.After(3 * time.Second) // others would have their messages after 1 s
	for _, id := range back {
		if workers.cancelled(id) {
			t.Errorf("the worker of %s was taken back, and lost it by the late report of the other server", id)
		}
	}
	workers.release()
	answers := workers.settled(t, held)
	for _, id := range back {
		if answers[id] != "done" {
			t.Errorf("the ack of %s was answered: %s", id, answers[id])
		}
		wantDeaths(t, c, id, 0)
	}
	t.Logf("%d of %d workers were taken back in time, and live", len(back), held)
}

// holding starts workers that hold a message each.
func (s *servers) holding(c *client.Client, servers string, n int) (workers *hands, ids []string) {
	s.t.Helper()
	if _, err := c.CreateQueue(s.t.Context(), queue, client.QueueOptions{Shards: 4}); err != nil {
		s.t.Fatal(err)
	}
	sent, err := c.SendBatch(s.t.Context(), queue, make([]client.Message, n))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range sent {
		ids = append(ids, m.ID)
	}
	workers = startCrew(s.t, crew{Servers: servers, Queue: queue, Name: "victim", Count: n})
	workers.holds(s.t, n)
	return workers, ids
}

// wantOneHolder lets the workers ack, first those that had the messages, and wants
// each message to have been acked by one: by a worker that kept it, or, where that
// is fenced, by another. It returns how many were kept.
func (s *servers) wantOneHolder(c *client.Client, ids []string, first, others *hands) (kept int) {
	s.t.Helper()
	first.release()
	answers := first.settled(s.t, len(ids))
	for _, id := range ids {
		if answers[id] == "done" {
			kept++
		}
	}
	others.holds(s.t, len(ids)-kept)
	others.release()
	second := others.settled(s.t, len(ids)-kept)
	for _, id := range ids {
		switch deaths := int32(0); {
		case answers[id] == "done":
			wantDeaths(s.t, c, id, deaths)
		case lost(answers[id]) && second[id] == "done":
			wantDeaths(s.t, c, id, deaths+1)
		default:
			s.t.Errorf("the acks of %s were answered: %s, and %s", id, answers[id], second[id])
		}
	}
	return kept
}
