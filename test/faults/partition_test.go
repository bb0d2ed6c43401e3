//go:build faults

package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// network is a bridge in a namespace of its own, with a namespace for each
// server, and a link from here to the bridge, by which clients reach them. The
// addresses are of the range for benchmarks (RFC 2544).
type network struct {
	t      *testing.T
	name   string
	subnet string
}

// networks counts them: two tests may have one each.
var networks atomic.Int32

func newNetwork(t *testing.T, nodes int) *network {
	t.Helper()
	number := networks.Add(1)
	n := &network{t: t, name: fmt.Sprintf("cmd%d-%d", os.Getpid()%100_000, number), subnet: fmt.Sprintf("198.18.%d.", 77+number)}
	n.run("ip", "netns", "add", n.hub())
	t.Cleanup(func() { n.try("ip", "netns", "del", n.hub()) })
	n.in(n.hub(), "ip", "link", "add", "name", "hub", "type", "bridge")
	n.in(n.hub(), "ip", "link", "set", "hub", "up")
	n.run("ip", "link", "add", n.name, "type", "veth", "peer", "name", "here", "netns", n.hub())
	t.Cleanup(func() { n.try("ip", "link", "del", n.name) })
	n.in(n.hub(), "ip", "link", "set", "here", "master", "hub", "up")
	n.run("ip", "addr", "add", n.subnet+"254/24", "dev", n.name)
	n.run("ip", "link", "set", n.name, "up")
	for i := range nodes {
		ns := n.of(i)
		n.run("ip", "netns", "add", ns)
		t.Cleanup(func() { n.try("ip", "netns", "del", ns) })
		port := fmt.Sprint("to", i)
		n.in(n.hub(), "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		n.in(n.hub(), "ip", "link", "set", port, "master", "hub", "up")
		n.in(ns, "ip", "addr", "add", n.address(i)+"/24", "dev", "eth0")
		n.in(ns, "ip", "link", "set", "eth0", "up")
		n.in(ns, "ip", "link", "set", "lo", "up")
	}
	return n
}

func (n *network) hub() string     { return n.name + "-hub" }
func (n *network) of(i int) string { return fmt.Sprintf("%s-%d", n.name, i+1) }

func (n *network) address(i int) string { return fmt.Sprint(n.subnet, i+1) }

func (n *network) run(args ...string) {
	n.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (n *network) try(args ...string) { _ = exec.Command(args[0], args[1:]...).Run() }

func (n *network) in(ns string, args ...string) {
	n.t.Helper()
	n.run(append([]string{"ip", "netns", "exec", ns}, args...)...)
}

// cut loses what one server sends to another; the way back stays. heal ends it.
func (n *network) cut(from, to int) {
	n.in(n.of(from), "ip", "route", "add", "blackhole", n.address(to))
}

func (n *network) heal(from, to int) {
	n.in(n.of(from), "ip", "route", "del", "blackhole", n.address(to))
}

// While one server can reach no other, and no other it, the two others go on and
// it confirms nothing; when the network is whole again all of them agree.
func TestPartition(t *testing.T) {
	t.Parallel()
	s, r, random := newServers(t, 3).in(newNetwork(t, 3)).start(), &record{}, newRand()
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	for round := 1; round <= *rounds; round++ {
		loads := s.startLoads(r, s.dialOnly)
		<-time.After(between(random, 200*time.Millisecond, time.Second))
		lonely := random.IntN(3)
		heal := s.isolate(lonely)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if _, err := probe(ctx, s.dialOnly((lonely+1)%3), probes, "x"); err != nil {
			t.Errorf("round %d: the majority does not go on without %s: %v", round, nodeName(lonely), err)
		}
		cancel()
		<-time.After(3 * time.Second) // by now a leader in the minority has stepped down
		brief, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := s.dialOnly(lonely).Queue(brief, queue); err == nil {
			t.Errorf("round %d: %s is cut off and answers a linearizable read", round, nodeName(lonely))
		}
		cancel()
		heal()
		s.agree(c, r, loads, fmt.Sprintf("partition %d, of %s", round, nodeName(lonely)))
	}
	drain(t, s.nodes[0], r)
}

// While what one server sends to another is lost, and the way back is not, the
// cluster makes progress and does not elect one leader after the other.
func TestOneWayPartition(t *testing.T) {
	t.Parallel()
	s, r := newServers(t, 3).in(newNetwork(t, 3)).start(), &record{}
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	for from := range 3 {
		for to := range 3 {
			if from == to {
				continue
			}
			loads := s.startLoads(r, s.dialOnly)
			before := s.terms(c)
			s.network.cut(from, to)
			<-time.After(5 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if _, err := probe(ctx, s.dial(3-from-to), probes, "x"); err != nil {
				t.Errorf("%s does not reach %s: no progress: %v", nodeName(from), nodeName(to), err)
			}
			cancel()
			after := s.terms(c)
			s.network.heal(from, to)
			for group, term := range after {
				if more := term - before[group]; more > 3 {
					t.Errorf("%s did not reach %s for 5 s: group %d went through %d terms", nodeName(from), nodeName(to), group, more)
				}
			}
			s.agree(c, r, loads, fmt.Sprintf("a cut from %s to %s", nodeName(from), nodeName(to)))
		}
	}
	drain(t, s.nodes[0], r)
}

// A leader that is stopped for longer than an election takes, and goes on, is
// leader no more: what it confirms then is what the others have.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	s, r, random := startServers(t), &record{}, newRand()
	c := s.dial(0)
	createQueue(t, c)
	for round := 1; round <= *rounds; round++ {
		loads := s.startLoads(r, s.dialOnly)
		<-time.After(between(random, 200*time.Millisecond, time.Second))
		victim := s.leader(c, queue, fmt.Sprint("key-", random.IntN(keys)))
		goOn := s.pause(victim)
		<-time.After(between(random, time.Second, 5*time.Second))
		goOn()
		s.agree(c, r, loads, fmt.Sprintf("pause %d, of %s", round, nodeName(victim)))
	}
	drain(t, s.nodes[0], r)
}

// agree ends the loads and holds the record against what the servers have.
func (s *servers) agree(c *client.Client, r *record, loads []*load, after string) {
	s.t.Helper()
	s.serving()
	stopAll(loads)
	if wrong := r.compare(unfinished(s.t, c)); len(wrong) > 0 {
		s.t.Fatalf("after %s: %s\n(%s)", after, strings.Join(wrong, "\n"), r.summary())
	}
}

// serving waits until every server answers a linearizable read of every group.
func (s *servers) serving() {
	s.t.Helper()
	for i := range s.nodes {
		one := s.dialOnly(i)
		eventually(s.t, "every group to be served by "+nodeName(i), func() error {
			_, err := one.Queue(s.t.Context(), queue)
			return err
		})
	}
}

// terms are the groups' terms.
func (s *servers) terms(c *client.Client) map[uint32]uint64 {
	s.t.Helper()
	terms := map[uint32]uint64{}
	got, err := c.Server(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, g := range got.GetGroups() {
		terms[g.GetGroup()] = g.GetTerm()
	}
	return terms
}

// dialOnly makes a client of one server.
func (s *servers) dialOnly(i int) *client.Client {
	s.t.Helper()
	return s.nodes[i].dial(s.t)
}

// pause stops a server until it is let go on.
func (s *servers) pause(i int) (goOn func()) {
	s.t.Helper()
	signal := func(sig syscall.Signal) {
		if err := s.nodes[i].cmd.Process.Signal(sig); err != nil {
			s.t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// isolate cuts a server off from the others until it is healed.
func (s *servers) isolate(i int) (heal func()) {
	s.t.Helper()
	each := func(do func(from, to int)) {
		for other := range s.nodes {
			if other != i {
				do(i, other)
				do(other, i)
			}
		}
	}
	each(s.network.cut)
	return func() { each(s.network.heal) }
}
