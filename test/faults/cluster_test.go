//go:build faults

package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// The node that leads a shard is killed again and again under load: nothing
// confirmed is lost or doubled, keys keep their order, and sends to the shard go
// on within seconds.
func TestKillLeader(t *testing.T) {
	t.Parallel()
	s, r, random := startServers(t), &record{}, newRand()
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	var gaps []time.Duration
	for round := 1; round <= *rounds; round++ {
		loads := s.startLoads(r, s.dial)
		<-time.After(between(random, 200*time.Millisecond, 1500*time.Millisecond))
		key := fmt.Sprint("key-", random.IntN(1000))
		victim := s.leader(c, probes, key)
		s.nodes[victim].kill()
		gap, err := probe(t.Context(), s.dial((victim+1)%3), probes, key)
		if err != nil {
			t.Fatal(err)
		}
		gaps = append(gaps, gap)
		<-time.After(between(random, 0, time.Second))
		s.launch(victim)
		s.ready(victim)
		stopAll(loads)
		if wrong := r.compare(unfinished(t, c)); len(wrong) > 0 {
			t.Fatalf("after kill %d, of %s: %s\n(%s)", round, nodeName(victim), strings.Join(wrong, "\n"), r.summary())
		}
	}
	slices.Sort(gaps)
	t.Logf("%d kills: sends resumed after %v at the median, %v at the most", len(gaps), gaps[len(gaps)/2], gaps[len(gaps)-1])
	drain(t, s.nodes[0], r)
}

// The node that leads the catalog, and with it the monitor of workers, is killed
// again and again: no worker loses its messages, no handler is cancelled, and the
// leases are settled by their tokens in the end.
func TestKillCatalogLeader(t *testing.T) {
	t.Parallel()
	s := startServers(t)
	c := s.dial(0)
	if _, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{Shards: 4}); err != nil {
		t.Fatal(err)
	}
	const held = 20
	for range held {
		if _, err := c.Send(t.Context(), queue, client.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	release, ctx := make(chan struct{}), t.Context()
	begun, done := make(chan string, 10*held), make(chan error, 10*held)
	w := &client.Worker{
		Client: s.dial(1), Queue: queue, Concurrency: held, MaxMessages: held,
		Handler: func(ctx context.Context, j *client.RawJob) error {
			begun <- j.ID()
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
		Settled: func(_ *client.RawJob, err error) { done <- err },
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for range held {
		<-begun
	}
	for round := 1; round <= *rounds; round++ {
		victim := s.catalogLeader(c)
		s.nodes[victim].kill()
		<-time.After(500 * time.Millisecond)
		s.launch(victim)
		s.ready(victim)
	}
	select {
	case id := <-begun:
		t.Fatalf("message %s was handed out again although its worker lives", id)
	case err := <-done:
		t.Fatalf("a handler was cancelled: %v", err)
	default:
	}
	close(release)
	for range held {
		if err := <-done; err != nil {
			t.Errorf("an ack was refused: %v", err)
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
