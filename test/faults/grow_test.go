//go:build faults

package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// A cluster grows from one node to four under load, the first node is drained,
// removed and stopped, and comes back refused: nothing confirmed is lost, doubled
// or out of order, and each group has three voters in the end.
func TestGrow(t *testing.T) {
	t.Parallel()
	s, r := newServers(t, 4), &record{}
	s.launch(0)
	s.ready(0)
	first := s.nodes[0].dial(t)
	createQueue(t, first)
	load := startPart(t, first, r, 0, 2)
	for i := 1; i < len(s.nodes); i++ {
		<-time.After(time.Second)
		s.launch(i)
		s.ready(i)
	}
	last := s.nodes[3].dial(t)
	more := startPart(t, s.nodes[3].dial(t), r, 1, 2)
	<-time.After(2 * time.Second)
	if _, err := last.DrainNode(t.Context(), nodeName(0), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first node to hold nothing", func() error { return holdsNothing(t, last, nodeName(0)) })
	load.stop()
	if err := last.RemoveNode(t.Context(), nodeName(0), false); err != nil {
		t.Fatal(err)
	}
	code, err := s.nodes[0].exit(readyWithin)
	if err != nil || code == 0 {
		t.Errorf("the removed node ended with code %d, %v: want a failure that says why", code, err)
	}
	if said := s.nodes[0].said.String(); !strings.Contains(said, "was removed from the cluster") {
		t.Errorf("the removed node says\n%s", said)
	}
	again := launch(t, serverBinary, s.data[0], "--node-name", nodeName(0), "--cluster-listen", s.peers[0])
	if code, err := again.exit(readyWithin); err != nil || code == 0 {
		t.Errorf("the removed node came back: code %d, %v\n%s", code, err, again.said)
	}
	more.stop()
	eventually(t, "three voters in every group", func() error {
		got, err := last.Server(t.Context())
		if err != nil {
			return err
		}
		for _, g := range got.GetGroups() {
			if g.GetVoters() != 3 || g.GetLeader() == "" {
				return fmt.Errorf("group %d has %d, led by %q", g.GetGroup(), g.GetVoters(), g.GetLeader())
			}
		}
		return nil
	})
	fail(t, r.compare(unfinished(t, last)))
	drain(t, s.nodes[3], r)
}

func holdsNothing(t *testing.T, c *client.Client, name string) error {
	nodes, err := c.Nodes(t.Context())
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.GetName() == name && (n.GetLeads() > 0 || n.GetReplicas() > 0) {
			return fmt.Errorf("it leads %d and holds %d", n.GetLeads(), n.GetReplicas())
		}
	}
	return nil
}
