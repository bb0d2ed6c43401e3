//go:build faults

package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// SIGTERM under load ends the server soon and with code 0. What was confirmed is
// there, leases outlive the stop, and none counts as a failed attempt.
func TestStop(t *testing.T) {
	t.Parallel()
	random, dir, r := newRand(), t.TempDir(), &record{}
	p := start(t, dir)
	createQueue(t, p.dial(t))
	for range *rounds {
		held := hold(t, p, 5)
		l := startLoad(t, p, r)
		<-time.After(between(random, 50*time.Millisecond, 500*time.Millisecond))
		p.stop(t)
		l.stop()
		p = start(t, dir)
		fail(t, check(t, p, r))
		c := p.dial(t)
		for _, d := range held {
			settleHeld(t, c, d)
		}
	}
	drain(t, p, r)
	p.stop(t)
}

const holdQueue = "held"

// hold leases messages for longer than the test.
func hold(t *testing.T, p *process, n int) []*client.Delivery {
	t.Helper()
	c := p.dial(t)
	if _, err := c.CreateQueue(t.Context(), holdQueue, client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SendBatch(t.Context(), holdQueue, make([]client.Message, n)); err != nil {
		t.Fatal(err)
	}
	ds, err := c.Receive(t.Context(), holdQueue, client.ReceiveOptions{Max: n, Lease: time.Hour})
	if err != nil || len(ds) != n {
		t.Fatalf("%d of %d messages leased: %v", len(ds), n, err)
	}
	return ds
}

// settleHeld acks by a token from before the stop.
func settleHeld(t *testing.T, c *client.Client, d *client.Delivery) {
	t.Helper()
	m, err := c.Show(t.Context(), d.ID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if s := m.GetMessage(); s.GetState() != "leased" || s.GetAttempts() != 0 || s.GetWorkerDeaths() != 0 {
		t.Errorf("a message that was leased when the server stopped is %s, with %d failed attempts", s.GetState(), s.GetAttempts())
	}
	if err := c.Ack(t.Context(), d.Token()); err != nil {
		t.Errorf("ack after the stop: %v", err)
	}
}

// A worker that is told to stop gives back what it did not begin, finishes what
// it began, and none of it counts as a failed attempt.
func TestWorkerDrains(t *testing.T) {
	const messages = 100
	p := start(t, t.TempDir())
	c := p.dial(t)
	createQueue(t, c)
	sent, err := c.SendBatch(t.Context(), queue, make([]client.Message, messages))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	draining := make(chan struct{})
	w := client.Worker{Client: c, Queue: queue, Concurrency: 8, Handler: func(context.Context, *client.RawJob) error {
		stop()
		<-draining
		return nil
	}}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-ctx.Done()
	close(draining)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	states := map[string]int{}
	for _, s := range sent {
		m, err := c.Show(t.Context(), s.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		states[m.GetMessage().GetState()]++
		if n := m.GetMessage().GetAttempts(); n != 0 {
			t.Errorf("message %s counts %d failed attempts", s.ID, n)
		}
	}
	if states["finished"] == 0 || states["finished"]+states["ready"] != messages {
		t.Errorf("after the drain the messages are %v, want finished or ready", states)
	}
	p.stop(t)
}

// A start after kill -9 with many messages waiting finds them all. How long it
// takes is printed; -waiting 1000000 gives the figure of docs/reliability.md.
func TestStartWithBacklog(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	c := p.dial(t)
	createQueue(t, c)
	batch := make([]client.Message, 1000)
	for i := range batch {
		batch[i].Body = make([]byte, 256)
	}
	stored := int64(0)
	for stored < int64(*waiting) {
		if _, err := c.SendBatch(t.Context(), queue, batch); err != nil {
			t.Fatal(err)
		}
		stored += int64(len(batch))
	}
	p.kill()
	began := time.Now()
	p = start(t, dir)
	took := time.Since(began)
	q, err := p.dial(t).Queue(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	if n := q.GetQueue().GetCounts().GetReady(); n != stored {
		t.Errorf("%d messages wait, want %d", n, stored)
	}
	fmt.Printf("start after kill -9 with %d messages of 256 bytes waiting: %v\n", stored, took.Round(time.Millisecond))
	p.stop(t)
}
