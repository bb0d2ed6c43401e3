package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/client"
)

const (
	replicas    = 3
	startWithin = time.Minute // a server, also on a busy machine
	pollEvery   = 50 * time.Millisecond
	// Ports are tried below those that systems give to outgoing connections, so that
	// a server that was killed finds its own free again.
	firstPort, lastPort = 20_000, 30_000
)

// servers are the shop's cluster.
type servers struct {
	binary, dir string
	failed      func(error)
	listen      []string // where clients reach them
	peers       []string // where they reach one another
	nodes       []*process
}

func nodeName(i int) string { return fmt.Sprint("node-", i+1) }

// addresses are those of all servers, for a client.
func (s *servers) addresses() string { return strings.Join(s.listen, ",") }

// form starts the servers, and returns when each group has a voter on all of them.
func (s *servers) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	ports, err := freePorts(ctx, 2*replicas)
	if err != nil {
		return err
	}
	s.listen, s.peers = ports[:replicas], ports[replicas:]
	for i := range replicas {
		if err := s.launch(i); err != nil {
			return err
		}
		if err := s.ready(ctx, i); err != nil {
			return err
		}
	}
	c, err := client.New(s.addresses())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing is under way any more
	return until(ctx, "three voters in every group", func() error {
		got, err := c.Server(ctx)
		if err != nil {
			return err
		}
		for _, g := range got.GetGroups() {
			if g.GetVoters() != replicas {
				return fmt.Errorf("group %d has %d", g.GetGroup(), g.GetVoters())
			}
		}
		return nil
	})
}

// launch starts a server, also again on what it has stored.
func (s *servers) launch(i int) error {
	args := []string{
		"serve", "--node-name", nodeName(i), "--data-dir", filepath.Join(s.dir, nodeName(i)),
		"--listen", s.listen[i], "--cluster-listen", s.peers[i], "--disk-reserve", "64MiB",
	}
	if i > 0 {
		args = append(args, "--join", s.peers[0])
	}
	p, err := start(nodeName(i), s.binary, nil, s.failed, args...)
	if err != nil {
		return err
	}
	if i == len(s.nodes) {
		s.nodes = append(s.nodes, p)
	} else {
		s.nodes[i] = p
	}
	return nil
}

// ready waits until a server serves.
func (s *servers) ready(ctx context.Context, i int) error {
	p := s.nodes[i]
	return until(ctx, p.name+" to serve", func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.listen[i]+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return errors.Join(err, errors.New(p.said.String()))
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// leader finds the server that leads the shard of a key.
func (s *servers) leader(ctx context.Context, c *client.Client, key string) (at int, err error) {
	err = until(ctx, "a leader of the orders", func() error {
		l, err := c.Locate(ctx, queue, key)
		if err != nil {
			return err
		}
		for at = range s.nodes {
			if nodeName(at) == l.GetLeader() {
				return nil
			}
		}
		return fmt.Errorf("it is %q", l.GetLeader())
	})
	return at, err
}

// until tries again and again, and gives up at the end of ctx.
func until(ctx context.Context, what string, try func() error) error {
	ticks := time.NewTicker(pollEvery)
	defer ticks.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		}
	}
}

// freePorts finds n addresses on loopback that nobody listens on.
func freePorts(ctx context.Context, n int) (addrs []string, err error) {
	var config net.ListenConfig
	for len(addrs) < n {
		l, failed := config.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+rand.N(lastPort-firstPort)))
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), failed)
		}
		if failed == nil {
			addrs = append(addrs, l.Addr().String())
			defer func() { err = errors.Join(err, l.Close()) }() // not before all are found: none is taken twice
		}
	}
	return addrs, nil
}
