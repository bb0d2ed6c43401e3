//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// servers is a cluster of three processes on this machine.
type servers struct {
	t      *testing.T
	binary string
	data   []string // the directory of each
	peers  []string // where they reach one another
	nodes  []*process
	args   []string // more of them, for each
	disks  []*disk  // nil: the directories are on this machine's
	// network has a namespace for each; nil: all are here.
	network *network
}

func nodeName(i int) string { return fmt.Sprint("node-", i+1) }

// newServers are n servers that are not started yet, with directories here.
func newServers(t *testing.T, n int) *servers {
	s := &servers{t: t, binary: serverBinary, nodes: make([]*process, n)}
	t.Cleanup(s.tell)
	dir := t.TempDir()
	for i := range s.nodes {
		s.data = append(s.data, filepath.Join(dir, nodeName(i)))
		s.peers = append(s.peers, freeAddr(t))
	}
	return s
}

// in gives each server a namespace of a network.
func (s *servers) in(n *network) *servers {
	s.network = n
	for i := range s.nodes {
		s.peers[i] = n.address(i) + ":7401"
	}
	return s
}

// startServers starts three servers, and returns when each group has a voter on
// each of them.
func startServers(t *testing.T) *servers {
	t.Helper()
	return newServers(t, 3).start()
}

// start starts the servers one after the other, and returns when each group has a
// voter on each of them.
func (s *servers) start() *servers {
	s.t.Helper()
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
			s.t.Logf("%s said:\n%s", nodeName(i), tail(p.said.String()))
		}
	}
}

// voters waits until each group has three voters, all of them alive.
func (s *servers) voters() {
	s.t.Helper()
	c := s.dial(0)
	eventually(s.t, "three voters in every group", func() error {
		got, err := c.Server(s.t.Context())
		if err != nil {
			return err
		}
		for _, g := range got.GetGroups() {
			if g.GetVoters() != 3 || g.GetAliveVoters() != 3 {
				return fmt.Errorf("group %d has %d, %d alive", g.GetGroup(), g.GetVoters(), g.GetAliveVoters())
			}
		}
		return nil
	})
}

// launch starts a server, also again.
func (s *servers) launch(i int) {
	s.t.Helper()
	args := []string{"--node-name", nodeName(i), "--cluster-listen", s.peers[i], smallLog}
	args = append(args, s.args...)
	if i > 0 {
		args = append(args, "--join", s.peers[0])
	}
	var addr string
	command := []string{s.binary}
	switch {
	case s.network != nil:
		addr, command = s.network.address(i)+":7400", []string{"nsenter", "--net=/run/netns/" + s.network.of(i), s.binary}
		args = append(args, "--insecure")
	case s.nodes[i] != nil:
		addr = s.nodes[i].addr
	default:
		addr = freeAddr(s.t)
	}
	s.nodes[i] = launchAs(s.t, command, s.data[i], append(args, "--listen", addr)...)
	s.nodes[i].addr = addr
}

func (s *servers) ready(i int) {
	s.t.Helper()
	if err := s.nodes[i].ready(); err != nil {
		s.t.Fatal(err)
	}
}

// addresses are those of all servers, the i-th first.
func (s *servers) addresses(i int) string {
	var addrs []string
	for n := range s.nodes {
		addrs = append(addrs, s.nodes[(i+n)%len(s.nodes)].addr)
	}
	return strings.Join(addrs, ",")
}

// dial makes a client of all servers that asks the i-th first.
func (s *servers) dial(i int) *client.Client {
	s.t.Helper()
	c, err := client.New(s.addresses(i))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// startLoads lets a load loose that has a part at each server, by a client of its
// own.
func (s *servers) startLoads(r *record, dial func(int) *client.Client) (loads []*load) {
	s.t.Helper()
	for i := range s.nodes {
		loads = append(loads, startPart(s.t, dial(i), r, i, len(s.nodes)))
	}
	return loads
}

func stopAll(loads []*load) {
	for _, l := range loads {
		l.stop()
	}
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
