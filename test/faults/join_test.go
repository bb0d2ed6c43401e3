//go:build faults

package faults

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A directory of one cluster that is told to join another stays what it is.
func TestJoinWrongCluster(t *testing.T) {
	dir, r := t.TempDir(), &record{}
	fillDirectory(t, dir, r)
	other := newServers(t, 1)
	other.launch(0)
	other.ready(0)
	p := start(t, dir, "--join", other.peers[0])
	mine, err := p.dial(t).Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := other.dial(0).Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.dial(0).Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 1 || mine.GetClusterId() == theirs.GetClusterId() {
		t.Errorf("the other cluster has %d nodes, want its own alone", len(nodes))
	}
	drain(t, p, r)
}

// A copy of the directory of a server that runs is started: it has forgotten what the
// original has confirmed since, so it is refused and ends, and the original goes on.
func TestNodeIDUsedTwice(t *testing.T) {
	t.Parallel()
	s, r := startServers(t), &record{}
	c := s.dial(0)
	createQueue(t, c)
	loads := s.startLoads(r, s.dialOnly)
	<-time.After(time.Second)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(s.data[2])); err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Second)
	twin := launch(t, serverBinary, copied, "--node-name", nodeName(2), "--cluster-listen", freeAddr(t))
	code, err := twin.exit(readyWithin)
	if err != nil || code == 0 || !strings.Contains(twin.said.String(), "two servers run on copies") {
		t.Errorf("the copy ended with code %d, %v, and\n%s\nwant a failure and words about copies", code, err, tail(twin.said.String()))
	}
	s.agree(c, r, loads, "a copy of a directory was started")
	drain(t, s.nodes[2], r)
	s.replicasAgree()
}

// A server whose disk was wiped and that joins again under its name and address is
// refused as long as the cluster has it; once it is removed it comes in as a new
// one, and gets its copies of what is there.
func TestWipedDiskJoins(t *testing.T) {
	t.Parallel()
	s, r := startServers(t), &record{}
	c := s.dial(0)
	createQueue(t, c)
	for i := range 200 {
		if err := sendOne(t.Context(), c, r, i%keys); err != nil {
			t.Fatal(err)
		}
	}
	const wiped = 2
	s.nodes[wiped].kill()
	remove(t, s.data[wiped], "")
	s.launch(wiped)
	code, err := s.nodes[wiped].exit(readyWithin)
	if said := s.nodes[wiped].said.String(); err != nil || code == 0 || !strings.Contains(said, "comanda node remove "+nodeName(wiped)) {
		t.Fatalf("a wiped server that joins under a name that is there: code %d, %v\n%s\nwant a failure and what to do", code, err, said)
	}
	if err := c.RemoveNode(t.Context(), nodeName(wiped), false); err != nil {
		t.Fatal(err)
	}
	s.launch(wiped)
	s.ready(wiped)
	s.voters()
	s.nodes[0].kill() // what is confirmed is on the new one too
	eventually(t, "the two to serve", func() error {
		_, err := s.dialOnly(wiped).Queue(t.Context(), queue)
		return err
	})
	fail(t, r.compare(unfinished(t, s.dialOnly(wiped))))
	drain(t, s.nodes[wiped], r)
}
