//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// While the disk is below its reserve sends are refused, leases and acks go on,
// and sends return with the space.
func TestDiskReserve(t *testing.T) {
	d, r := newDisk(t, 1<<30), &record{}
	p := start(t, d.data(), "--disk-reserve=128MiB")
	c := p.dial(t)
	createQueue(t, c)
	for i := range 500 {
		if err := sendOne(t.Context(), c, r, i%keys); err != nil {
			t.Fatal(err)
		}
	}
	give := d.fill(64 << 20)
	untilRefused(t, c, r)
	drain(t, p, r)
	if err := sendOne(t.Context(), c, r, 0); !errors.Is(err, client.ErrResourceExhausted) {
		t.Fatalf("after all was worked off, below the reserve: %v, want RESOURCE_EXHAUSTED", err)
	}
	give()
	untilAccepted(t, c, r)
	drain(t, p, r)
	p.stop(t)
}

// On a disk without a byte left the server goes on or ends with clear words; with
// some space it starts again and has everything that it confirmed.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	d, r := newDisk(t, 1<<30), &record{}
	p := start(t, d.data(), "--disk-reserve=1", smallLog)
	createQueue(t, p.dial(t))
	l := startLoad(t, p, r)
	<-time.After(time.Second)
	give := d.fill(1 << 20)
	select {
	case <-p.ended:
		if code := p.cmd.ProcessState.ExitCode(); code == 0 || !strings.Contains(p.said.String(), "no space left") {
			t.Errorf("on a full disk the server ended with code %d and\n%s\nwant a failure, and words about space", code, p.said)
		}
	case <-time.After(30 * time.Second):
		t.Log("the server goes on")
	}
	l.stop()
	p.kill()
	t.Log(r.summary())
	give()
	p = start(t, d.data(), smallReserve)
	fail(t, check(t, p, r))
	untilAccepted(t, p.dial(t), r)
	drain(t, p, r)
	p.stop(t)
}

// When the disk of one of three servers has no byte left, of that which leads the
// catalog or of another, it goes on or ends with clear words; the others go on, and
// with some space it comes back.
func TestDiskFullOfOne(t *testing.T) {
	t.Parallel()
	s, r := newServers(t, 3).onDisks(), &record{}
	s.args = append(s.args, "--disk-reserve=1")
	s.start()
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	for round := range max(2, (*rounds+4)/5) {
		loads := s.startLoads(r, s.dialOnly)
		<-time.After(time.Second)
		victim := (s.catalogLeader(c) + round%2) % 3
		give := s.disks[victim].fill(1 << 20)
		p := s.nodes[victim]
		select {
		case <-p.ended:
			if code := p.cmd.ProcessState.ExitCode(); code == 0 || !strings.Contains(p.said.String(), "no space left") {
				t.Errorf("on a full disk %s ended with code %d and\n%s\nwant a failure, and words about space", nodeName(victim), code, tail(p.said.String()))
			}
		case <-time.After(10 * time.Second):
			t.Logf("%s goes on", nodeName(victim))
		}
		s.goesOnWithout(victim)
		p.kill()
		give()
		s.launch(victim)
		s.ready(victim)
		s.agree(c, r, loads, fmt.Sprintf("full disk %d, of %s", round+1, nodeName(victim)))
	}
	drain(t, s.nodes[0], r)
	s.replicasAgree()
}

// goesOnWithout wants a send to be confirmed by the others soon.
func (s *servers) goesOnWithout(i int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := probe(ctx, s.dialOnly((i+1)%3), probes, "x"); err != nil {
		s.t.Errorf("the others do not go on without %s: %v", nodeName(i), err)
	}
}

// A server whose memory is short refuses sends, stays alive and bounded, and
// takes sends again.
func TestMemoryLimit(t *testing.T) {
	const limit, senders, size = 128 << 20, 64, 512 << 10
	p := start(t, t.TempDir(), fmt.Sprint("--memory-limit=", limit))
	createQueue(t, p.dial(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var (
		done                   sync.WaitGroup
		stored, refused, other atomic.Int64
		worst                  int64
	)
	for range senders {
		c := p.dial(t)
		done.Go(func() {
			for ctx.Err() == nil {
				_, err := c.Send(ctx, queue, client.Message{Body: make([]byte, size)})
				switch {
				case err == nil:
					stored.Add(1)
				case errors.Is(err, client.ErrResourceExhausted):
					refused.Add(1)
					pause(ctx)
				case ctx.Err() == nil:
					other.Add(1)
					t.Error(err)
					return
				}
			}
		})
	}
	eventually(t, "a send to be refused for want of memory", func() error {
		worst = max(worst, p.memory(t))
		if refused.Load() < 100 || stored.Load() < 500 {
			return fmt.Errorf("%d refused, %d stored", refused.Load(), stored.Load())
		}
		return nil
	})
	cancel()
	done.Wait()
	t.Logf("%d sends of %d KiB stored, %d refused; the server occupied at most %d MiB", stored.Load(), size>>10, refused.Load(), worst>>20)
	if worst > 4*limit {
		t.Errorf("with a limit of %d MiB the server occupied %d MiB", limit>>20, worst>>20)
	}
	untilAccepted(t, p.dial(t), &record{})
	q, err := p.dial(t).Queue(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	// Those that were called off may be there as well.
	if n := q.GetQueue().GetCounts().GetReady(); n < stored.Load()+1 || n > stored.Load()+1+senders {
		t.Errorf("%d messages are there, want the %d that were confirmed", n, stored.Load()+1)
	}
	p.stop(t)
}

// sendOne sends the next message of a key.
func sendOne(ctx context.Context, c *client.Client, r *record, key int) error {
	n := r.begin(key, 1)
	id, err := c.Send(ctx, queue, client.Message{Key: fmt.Sprint("key-", key), Body: body(key, n)})
	switch {
	case err == nil:
		r.confirm(key, n, id)
	case !errors.Is(err, client.ErrUnknownOutcome):
		r.refuse(key, n, err)
	}
	return err
}

func untilRefused(t *testing.T, c *client.Client, r *record) {
	t.Helper()
	eventually(t, "a send to be refused", func() error {
		switch err := sendOne(t.Context(), c, r, 0); {
		case errors.Is(err, client.ErrResourceExhausted):
			return nil
		case err != nil:
			return err
		}
		return errors.New("it was taken")
	})
}

func untilAccepted(t *testing.T, c *client.Client, r *record) {
	t.Helper()
	eventually(t, "a send to be taken", func() error { return sendOne(t.Context(), c, r, 0) })
}
