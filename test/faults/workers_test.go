//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// A worker that is killed while it holds messages loses all of them to others, at
// once, with higher fences; no attempt counts, one death does.
func TestKillWorker(t *testing.T) {
	s := startServers(t)
	c := s.dial(0)
	const held = 200
	if _, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{Shards: 4}); err != nil {
		t.Fatal(err)
	}
	var times []time.Duration
	for round := 1; round <= *rounds; round++ {
		ids := map[string]bool{}
		sent, err := c.SendBatch(t.Context(), queue, make([]client.Message, held))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range sent {
			ids[m.ID] = true
		}
		victim := startCrew(t, crew{Servers: s.nodes[round%3].addr, Queue: queue, Name: "victim", Count: 1, Each: held, Deaf: true})
		victim.holds(t, held)
		var mu sync.Mutex
		got := map[string]bool{}
		last := make(chan struct{})
		var all time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		rescuer := &client.Worker{Client: s.dial((round + 1) % 3), Queue: queue, Concurrency: held, Name: "rescuer"}
		killed := time.Now()
		rescuer.Handler = func(_ context.Context, j *client.RawJob) error {
			mu.Lock()
			defer mu.Unlock()
			got[j.ID()] = true
			if j.Attempt() != 1 || !ids[j.ID()] {
				t.Errorf("message %s comes as attempt %d, want 1", j.ID(), j.Attempt())
			}
			if len(got) == held {
				all = time.Since(killed)
				close(last)
			}
			return nil
		}
		victim.kill()
		ended := make(chan error, 1)
		go func() { ended <- rescuer.Run(ctx) }()
		select {
		case <-last:
		case <-time.After(time.Minute):
			t.Fatalf("a minute after the worker was killed, others have %d of its %d messages", len(got), held)
		}
		times = append(times, all)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		for id := range ids {
			wantDeaths(t, c, id, 1)
		}
	}
	slices.Sort(times)
	t.Logf("%d kills of a worker with %d messages: others had all of them after %v at the median, %v at the 99th percentile",
		len(times), held, times[len(times)/2], times[min(len(times)-1, len(times)*99/100)])
}

// A thousand workers that hold a message each die at the same moment: others get
// all the messages, one death counts and no attempt, and the servers go on.
func TestKillThousandWorkers(t *testing.T) {
	s := startServers(t)
	c := s.dial(0)
	if _, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{Shards: 4}); err != nil {
		t.Fatal(err)
	}
	const processes, each = 4, 250
	for round := 1; round <= (*rounds+9)/10; round++ {
		sent, err := c.SendBatch(t.Context(), queue, make([]client.Message, processes*each))
		if err != nil {
			t.Fatal(err)
		}
		var crews []*hands
		for i := range processes {
			crews = append(crews, startCrew(t, crew{Servers: s.addresses(i), Queue: queue, Name: fmt.Sprint("victim-", round, "-", i), Count: each, Deaf: true}))
		}
		for _, h := range crews {
			h.holds(t, each)
		}
		for _, h := range crews {
			h.signal(t, syscall.SIGKILL)
		}
		killed := time.Now()
		s.rescue(processes*each, 100)
		t.Logf("%d workers killed: others had done all their messages after %v", processes*each, time.Since(killed).Round(time.Millisecond))
		for _, m := range sent {
			wantDeaths(t, c, m.ID, 1)
		}
	}
	nodes, err := c.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.GetState() != "alive" {
			t.Errorf("%s is %s", n.GetName(), n.GetState())
		}
	}
}

// rescue has so many messages worked off, by workers at all servers.
func (s *servers) rescue(messages, concurrency int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	done := make(chan string, messages)
	ended := make(chan error, len(s.nodes))
	for i := range s.nodes {
		w := &client.Worker{
			Client: s.dial(i), Queue: queue, Concurrency: concurrency, Name: "rescuer",
			Handler: func(_ context.Context, j *client.RawJob) error {
				if j.Attempt() != 1 {
					s.t.Errorf("message %s comes as attempt %d, want 1", j.ID(), j.Attempt())
				}
				return nil
			},
			Settled: func(j *client.RawJob, err error) {
				if err == nil {
					done <- j.ID()
				}
			},
		}
		go func() { ended <- w.Run(ctx) }()
	}
	limit := time.After(time.Minute)
	for n := range messages {
		select {
		case <-done:
		case <-limit:
			s.t.Fatalf("after a minute others have done %d of %d messages; there are\n%s", n, messages, s.sample())
		}
	}
	cancel()
	for range s.nodes {
		if err := <-ended; err != nil {
			s.t.Fatal(err)
		}
	}
}

// sample tells of some unfinished messages what they went through.
func (s *servers) sample() string {
	var b strings.Builder
	for id := range unfinished(s.t, s.dial(0)) {
		m, err := s.dial(0).Show(s.t.Context(), id, 0)
		if fmt.Fprintln(&b, m.GetMessage(), err); b.Len() > 4<<10 {
			break
		}
	}
	return b.String()
}

// wantDeaths wants a message to be finished after so many deaths of its workers,
// without an attempt that failed.
func wantDeaths(t *testing.T, c *client.Client, id string, deaths int32) {
	t.Helper()
	m, err := c.Show(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	if x := m.GetMessage(); x.GetWorkerDeaths() != deaths || x.GetAttempts() != 0 || x.GetState() != "finished" || x.GetDeliveries() != deaths+1 {
		t.Errorf("message %s: %d deliveries, %d worker deaths, %d attempts, %s; want %d deaths and no attempt",
			id, x.GetDeliveries(), x.GetWorkerDeaths(), x.GetAttempts(), x.GetState(), deaths)
	}
}

// A worker that is stopped for longer than its TTL finds its handlers cancelled
// when it goes on, and what it then acks is fenced: others have its messages. One
// that is back in time keeps them; in between it is the one or the other, as the
// servers say.
func TestStoppedWorker(t *testing.T) {
	t.Parallel()
	s := startServers(t)
	const ttl = 5 * time.Second
	for _, stop := range []struct {
		share      float64 // of the TTL
		kept, lost bool    // may be
	}{{0.5, true, false}, {0.9, true, true}, {1.1, false, true}, {3, false, true}} {
		t.Run(fmt.Sprint(stop.share), func(t *testing.T) {
			t.Parallel()
			c, queue := s.dial(0), fmt.Sprint("stopped-", stop.share)
			if _, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{}); err != nil {
				t.Fatal(err)
			}
			id, err := c.Send(t.Context(), queue, client.Message{Body: []byte("x")})
			if err != nil {
				t.Fatal(err)
			}
			stopped := startCrew(t, crew{Servers: s.addresses(0), Queue: queue, Name: "stopped", Count: 1, TTL: ttl})
			stopped.holds(t, 1)
			other := startCrew(t, crew{Servers: s.addresses(1), Queue: queue, Name: "other", Count: 1, TTL: ttl})
			stopped.signal(t, syscall.SIGSTOP)
			<-time.After(time.Duration(stop.share * float64(ttl)))
			if !stop.kept { // before the sleeper wakes
				other.holds(t, 1)
			}
			stopped.signal(t, syscall.SIGCONT)
			if !stop.kept {
				eventually(t, "its handler to be cancelled", func() error {
					if !stopped.cancelled(id) {
						return errors.New(tail(stopped.said.String()))
					}
					return nil
				})
			}
			stopped.release()
			answer := stopped.settled(t, 1)[id]
			t.Logf("stopped for %v of the TTL, the ack was answered: %s", stop.share, answer)
			var deaths int32
			switch {
			case answer == "done" && stop.kept:
			case stop.lost && lost(answer):
				other.holds(t, 1)
				other.release()
				if answer := other.settled(t, 1)[id]; answer != "done" {
					t.Errorf("the ack of who has the message now was answered: %s", answer)
				}
				deaths = 1
			default:
				t.Errorf("want done: %t, FENCED: %t", stop.kept, stop.lost)
			}
			wantDeaths(t, c, id, deaths)
		})
	}
}
