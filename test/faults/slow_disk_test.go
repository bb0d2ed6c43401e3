//go:build faults

package faults

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// stalledLimit is --memory-limit of the servers of this test; a process may occupy
// a part more, because the limit counts what is in use.
const stalledLimit = 128 << 20

// The disk of a server that leads a shard needs 5 s for each sync, under load and
// with clients that go on to send it large messages: another leads its shards within
// 10 s, shards that others led go on, the server's memory stays bounded, and it
// comes back.
func TestStalledDisk(t *testing.T) {
	s, r := newServers(t, 3), &record{}
	s.args = append(s.args, fmt.Sprintf("--memory-limit=%dMiB", stalledLimit>>20))
	s.start()
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	s.spread(c)
	its := "x"
	victim := s.leader(c, probes, its)
	others := s.keyElsewhere(c, victim)
	healthy := s.dialOnly((victim + 1) % 3)
	loads := s.startLoads(r, s.dialOnly)
	<-time.After(time.Second)

	began := time.Now()
	goOn := s.nodes[victim].slowSyncs(t, 5*time.Second)
	flooding, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	direct := s.dialOnly(victim)
	for range 64 {
		clients.Go(func() {
			for flooding.Err() == nil {
				call, cancel := context.WithTimeout(flooding, 5*time.Second)
				_, _ = direct.Send(call, probes, client.Message{Key: its, Body: make([]byte, 512<<10)})
				cancel()
			}
		})
	}
	var elsewhere []time.Duration
	var most int64
	watched := make(chan struct{})
	clients.Go(func() {
		for {
			took, err := probe(flooding, healthy, probes, others)
			if err != nil {
				return
			}
			elsewhere, most = append(elsewhere, took), max(most, s.nodes[victim].memory(t))
			select {
			case <-watched:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	for { // a call that was under way when the lead passed on may wait for the old leader
		call, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := healthy.Send(call, probes, client.Message{Key: its})
		cancel()
		if err == nil {
			break
		}
	}
	resumed := time.Since(began)
	<-time.After(8 * time.Second) // more than a stall
	close(watched)
	stop()
	clients.Wait()
	goOn()
	s.agree(c, r, loads, "a disk stalled")
	slices.Sort(elsewhere)
	t.Logf("sends to the stalled server's shard resumed after %v; %d sends to a shard that another led took %v at the median, %v at the most; the stalled server occupied %d MiB at the most",
		resumed.Round(time.Millisecond), len(elsewhere), elsewhere[len(elsewhere)/2].Round(time.Millisecond), elsewhere[len(elsewhere)-1].Round(time.Millisecond), most>>20)
	if resumed > 10*time.Second {
		t.Errorf("sends resumed after %v", resumed)
	}
	if most > 3*stalledLimit {
		t.Errorf("the stalled server occupied %d MiB", most>>20)
	}
	s.voters()
	drain(t, s.nodes[victim], r)
	s.replicasAgree()
}

// spread waits until leaders have stayed where they are for longer than they are
// asked again to move.
func (s *servers) spread(c *client.Client) {
	s.t.Helper()
	var last []int32
	since := time.Now()
	eventually(s.t, "leaders that stay", func() error {
		nodes, err := c.Nodes(s.t.Context())
		if err != nil {
			return err
		}
		var leads []int32
		for _, n := range nodes {
			leads = append(leads, n.GetLeads())
		}
		if !slices.Equal(leads, last) {
			last, since = leads, time.Now()
		}
		if time.Since(since) < 6*time.Second {
			return fmt.Errorf("they lead %v", leads)
		}
		return nil
	})
}

// keyElsewhere is a key of the probes whose shard another server leads.
func (s *servers) keyElsewhere(c *client.Client, not int) string {
	s.t.Helper()
	for i := range 100 {
		if key := fmt.Sprint("key-", i); s.leader(c, probes, key) != not {
			return key
		}
	}
	s.t.Fatalf("%s leads everything", nodeName(not))
	return ""
}

// slowSyncs makes each fdatasync of the server's take so much longer, until it goes
// on.
func (p *process) slowSyncs(t *testing.T, by time.Duration) (goOn func()) {
	t.Helper()
	return p.trace(t, "-o", filepath.Join(t.TempDir(), "calls"), "-e", "trace=fdatasync", "-e", fmt.Sprintf("inject=fdatasync:delay_enter=%d", by.Microseconds()))
}
