//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// servers is a cluster of three processes on this machine.
type servers struct {
	t     *testing.T
	dir   string
	peers []string // where they reach one another
	nodes []*process
	// network has a namespace for each; nil: all are here.
	network *network
}

func nodeName(i int) string { return fmt.Sprint("node-", i+1) }

// startServers starts three servers, and returns when each group has a voter on
// each of them.
func startServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{t: t, dir: t.TempDir(), nodes: make([]*process, 3)}
	t.Cleanup(s.tell)
	for range s.nodes {
		s.peers = append(s.peers, freeAddr(t))
	}
	for i := range s.nodes {
		s.launch(i)
		s.ready(i)
	}
	s.voters()
	return s
}

// tell shows what the servers said when a test has failed.
func (s *servers) tell() {
	if !s.t.Failed() {
		return
	}
	for i, p := range s.nodes {
		if p != nil {
			said := p.said.String()
			s.t.Logf("%s said:\n%s", nodeName(i), said[max(0, len(said)-4<<10):])
		}
	}
}

// voters waits until each group has a voter on each server.
func (s *servers) voters() {
	s.t.Helper()
	c := s.dial(0)
	eventually(s.t, "three voters in every group", func() error {
		got, err := c.Server(s.t.Context())
		if err != nil {
			return err
		}
		for _, g := range got.GetGroups() {
			if g.GetVoters() != 3 {
				return fmt.Errorf("group %d has %d", g.GetGroup(), g.GetVoters())
			}
		}
		return nil
	})
}

// launch starts a server, also again.
func (s *servers) launch(i int) {
	s.t.Helper()
	args := []string{"--node-name", nodeName(i), "--cluster-listen", s.peers[i], smallLog}
	if i > 0 {
		args = append(args, "--join", s.peers[0])
	}
	if s.network != nil {
		args = append(args, "--listen", address(i)+":7400", "--insecure")
		p := launchAs(s.t, []string{"ip", "netns", "exec", s.network.of(i), serverBinary}, filepath.Join(s.dir, nodeName(i)), args...)
		p.addr = address(i) + ":7400"
		s.nodes[i] = p
		return
	}
	if old := s.nodes[i]; old != nil {
		args = append(args, "--listen", old.addr)
		s.nodes[i] = launch(s.t, serverBinary, filepath.Join(s.dir, nodeName(i)), args...)
		s.nodes[i].addr = old.addr
		return
	}
	s.nodes[i] = launch(s.t, serverBinary, filepath.Join(s.dir, nodeName(i)), args...)
}

func (s *servers) ready(i int) {
	s.t.Helper()
	if err := s.nodes[i].ready(); err != nil {
		s.t.Fatal(err)
	}
}

// dial makes a client of all servers that asks the i-th first.
func (s *servers) dial(i int) *client.Client {
	s.t.Helper()
	var addrs []string
	for n := range s.nodes {
		addrs = append(addrs, s.nodes[(i+n)%len(s.nodes)].addr)
	}
	c, err := client.New(strings.Join(addrs, ","))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// probes is a queue beside that of the load.
const probes = "probes"

func (s *servers) createProbes(c *client.Client) {
	s.t.Helper()
	if _, err := c.CreateQueue(s.t.Context(), probes, client.QueueOptions{Shards: 4}); err != nil {
		s.t.Fatal(err)
	}
}

// leader is the server that leads a key's shard.
func (s *servers) leader(c *client.Client, queue, key string) int {
	s.t.Helper()
	at := -1
	eventually(s.t, "a leader of the shard of "+key, func() error {
		l, err := c.Locate(s.t.Context(), queue, key)
		if err != nil {
			return err
		}
		for i := range s.nodes {
			if nodeName(i) == l.GetLeader() {
				at = i
				return nil
			}
		}
		return fmt.Errorf("it is %q", l.GetLeader())
	})
	return at
}

// probe sends to a key, one message after the other, and returns how long after
// the start of the probe the first was confirmed whose call began after it.
func probe(ctx context.Context, c *client.Client, q, key string) (time.Duration, error) {
	began := time.Now()
	for {
		_, err := c.Send(ctx, q, client.Message{Key: key, Body: []byte("probe")})
		if err == nil {
			return time.Since(began), nil
		}
		if ctx.Err() != nil {
			return 0, errors.Join(err, ctx.Err())
		}
	}
}

// The node that leads a shard is killed again and again under load: nothing
// confirmed is lost or doubled, keys keep their order, and sends to the shard go
// on within seconds.
func TestKillLeader(t *testing.T) {
	s, r, random := startServers(t), &record{}, newRand()
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	var gaps []time.Duration
	for round := 1; round <= *rounds; round++ {
		var loads []*load
		for i := range s.nodes {
			loads = append(loads, startPart(t, s.dial(i), r, i, len(s.nodes)))
		}
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
		for _, l := range loads {
			l.stop()
		}
		if wrong := r.compare(unfinished(t, c)); len(wrong) > 0 {
			t.Fatalf("after kill %d, of %s: %s\n(%s)", round, nodeName(victim), strings.Join(wrong, "\n"), r.summary())
		}
	}
	slices.Sort(gaps)
	t.Logf("%d kills: sends resumed after %v at the median, %v at the most", len(gaps), gaps[len(gaps)/2], gaps[len(gaps)-1])
	drain(t, s.nodes[0], r)
}

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
		for range held {
			id, err := c.Send(t.Context(), queue, client.Message{Body: []byte("x")})
			if err != nil {
				t.Fatal(err)
			}
			ids[id] = true
		}
		worker := exec.Command(serverBinary, "work", queue, "--server", s.nodes[round%3].addr, "--concurrency", fmt.Sprint(held), "--exec", "sleep 1000", "--worker", "victim")
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the worker to hold all", func() error {
			q, err := c.Queue(t.Context(), queue)
			if err == nil && q.GetQueue().GetCounts().GetLeased() != held {
				err = fmt.Errorf("it holds %d", q.GetQueue().GetCounts().GetLeased())
			}
			return err
		})
		var mu sync.Mutex
		got := map[string]bool{}
		last := make(chan struct{})
		var all time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		rescuer := &client.Worker{Client: s.dial((round + 1) % 3), Queue: queue, Concurrency: held, Name: "rescuer"}
		killed := time.Now()
		rescuer.Handler = func(_ context.Context, j *client.Job) error {
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
		if err := worker.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = worker.Wait()
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
			m, err := c.Show(t.Context(), id, 0)
			if err != nil {
				t.Fatal(err)
			}
			if x := m.GetMessage(); x.GetWorkerDeaths() != 1 || x.GetAttempts() != 0 || x.GetState() != "finished" {
				t.Fatalf("message %s: %d worker deaths, %d attempts, %s", id, x.GetWorkerDeaths(), x.GetAttempts(), x.GetState())
			}
		}
	}
	slices.Sort(times)
	t.Logf("%d kills of a worker with %d messages: others had all of them after %v at the median, %v at the 99th percentile",
		len(times), held, times[len(times)/2], times[min(len(times)-1, len(times)*99/100)])
}

// catalogLeader is the server that leads the catalog.
func (s *servers) catalogLeader(c *client.Client) int {
	s.t.Helper()
	at := -1
	eventually(s.t, "a leader of the catalog", func() error {
		got, err := c.Server(s.t.Context())
		if err != nil {
			return err
		}
		for i := range s.nodes {
			if got.GetGroups()[0].GetLeader() == nodeName(i) {
				at = i
				return nil
			}
		}
		return fmt.Errorf("it is %q", got.GetGroups()[0].GetLeader())
	})
	return at
}

// The node that leads the catalog, and with it the monitor of workers, is killed
// again and again: no worker loses its messages, no handler is cancelled, and the
// leases are settled by their tokens in the end.
func TestKillCatalogLeader(t *testing.T) {
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
		Handler: func(ctx context.Context, j *client.Job) error {
			begun <- j.ID()
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
		Settled: func(_ *client.Job, err error) { done <- err },
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

// A worker that is stopped for longer than its TTL finds its handlers cancelled
// when it goes on, and what it then acks is fenced: others have its messages.
func TestStoppedWorker(t *testing.T) {
	s := startServers(t)
	c := s.dial(0)
	if _, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	const ttl = 5 * time.Second
	for _, stop := range []struct {
		share float64 // of the TTL
		lost  bool
	}{{0.5, false}, {1.1, true}} {
		id, err := c.Send(t.Context(), queue, client.Message{Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		said := &output{}
		worker := exec.Command(serverBinary, "work", queue, "--server", s.nodes[0].addr, "--ttl", ttl.String(), "--exec", "sleep 12; echo finished", "--worker", "stopped")
		worker.Stdout, worker.Stderr = said, said
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the message to be leased", func() error {
			m, err := c.Show(t.Context(), id, 0)
			if err == nil && m.GetMessage().GetState() != "leased" {
				err = errors.New(m.GetMessage().GetState())
			}
			return err
		})
		if err := worker.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(stop.share * float64(ttl)))
		if err := worker.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the message to be settled", func() error {
			m, err := c.Show(t.Context(), id, 0)
			if err == nil && m.GetMessage().GetState() != "finished" {
				err = errors.New(m.GetMessage().GetState())
			}
			return err
		})
		m, err := c.Show(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.GetMessage().GetWorkerDeaths() > 0; got != stop.lost {
			t.Errorf("stopped for %v of the TTL: %d worker deaths\n%s", stop.share, m.GetMessage().GetWorkerDeaths(), said)
		}
		if a := m.GetMessage().GetAttempts(); a != 0 {
			t.Errorf("stopped for %v of the TTL: %d attempts, want 0", stop.share, a)
		}
		_ = worker.Process.Kill()
		_ = worker.Wait()
	}
}
