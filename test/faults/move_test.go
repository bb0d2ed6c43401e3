//go:build faults

package faults

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// A shard moves from node to node under load, and each time a server is killed
// half-way: the one that runs the move, the one that the shard moves to, the one
// that leads it. The move ends all the same once the server is back; nothing
// confirmed is lost or doubled, and keys keep their order.
func TestMove(t *testing.T) {
	t.Parallel()
	s, r, random := startServers(t), &record{}, newRand()
	s.peers = append(s.peers, freeAddr(t))
	s.data = append(s.data, filepath.Join(t.TempDir(), nodeName(3)))
	s.nodes = append(s.nodes, nil)
	s.launch(3)
	s.ready(3)
	c := s.dial(0)
	createQueue(t, c)
	s.voters()
	const shard = "0.2"
	for round := 1; round <= *rounds; round++ {
		var loads []*load
		for i := range s.nodes {
			loads = append(loads, startPart(t, s.dial(i), r, i, len(s.nodes)))
		}
		from, to := s.places(c, shard)
		<-time.After(between(random, 100*time.Millisecond, 500*time.Millisecond))
		o, err := c.MoveShard(t.Context(), queue, shard, nodeName(to))
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(between(random, 0, 800*time.Millisecond))
		victim := []int{s.catalogLeader(c), to, from}[(round-1)%3]
		s.nodes[victim].kill()
		<-time.After(between(random, 0, time.Second))
		s.launch(victim)
		s.ready(victim)
		eventually(t, "the move to end", func() error {
			now, err := c.Operation(t.Context(), o.GetId())
			if err != nil {
				return err
			}
			if now.GetState() == "running" {
				return fmt.Errorf("it waits %s", now.GetWaits())
			}
			o = now
			return nil
		})
		if o.GetState() != "done" {
			t.Errorf("the move to %s: %s", nodeName(to), o)
		}
		// An election may give the lead to another for a moment, as where a server waits
		// for its disk or for a processor; it comes back to where the shard was moved.
		eventually(t, "the lead to be where it was moved", func() error {
			if at, _ := s.places(c, shard); at != to {
				return fmt.Errorf("it is at %s, not %s", nodeName(at), nodeName(to))
			}
			return nil
		})
		for _, l := range loads {
			l.stop()
		}
		if wrong := r.compare(unfinished(t, c)); len(wrong) > 0 {
			t.Fatalf("after move %d, to %s, and the kill of %s: %s\n(%s)", round, nodeName(to), nodeName(victim), strings.Join(wrong, "\n"), r.summary())
		}
	}
	drain(t, s.nodes[0], r)
}

// places tells which server leads a shard, and one that has no replica of it.
func (s *servers) places(c *client.Client, path string) (leads, without int) {
	s.t.Helper()
	eventually(s.t, "a leader of the shard", func() error {
		l, err := c.Shards(s.t.Context(), queue, 0, "")
		if err != nil {
			return err
		}
		leads, without = -1, -1
		for _, x := range l.GetShards() {
			if x.GetId() != queue+"/"+path {
				continue
			}
			for i := range s.nodes {
				switch {
				case x.GetLeader() == nodeName(i):
					leads = i
				case !slices.Contains(x.GetFollowers(), nodeName(i)):
					without = i
				}
			}
		}
		if leads < 0 || without < 0 {
			return errors.New("it is not known")
		}
		return nil
	})
	return leads, without
}
