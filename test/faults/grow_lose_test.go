//go:build faults

package faults

import (
	"errors"
	"flag"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// grown is how large the backlog is that is there while a cluster grows.
var grown = flag.Int("grown", 20_000, "messages of the backlog that is there while a cluster grows, and then drained")

// The queues whose rates are compared: one that had a large backlog, and one that
// never had. Both are in all groups, so that both go the same ways.
const (
	formerlyLarge = "large"
	alwaysSmall   = "small"
)

// A cluster grows from one node to four under load and with a backlog. Its first
// node is killed, removed, and comes back; another comes back on an old copy of its
// directory. Neither votes again, nobody is sent snapshots without end, and when the
// backlog is drained messages are leased as fast as from a queue that never had one.
func TestGrowAndLose(t *testing.T) {
	s, r := newServers(t, 4), &record{}
	s.launch(0)
	s.ready(0)
	first := s.dialOnly(0)
	createQueue(t, first)
	for _, q := range []string{formerlyLarge, alwaysSmall} {
		if _, err := first.CreateQueue(t.Context(), q, client.QueueOptions{Shards: 16}); err != nil {
			t.Fatal(err)
		}
	}
	load := startPart(t, s.dialOnly(0), r, 0, 2)
	for i := range s.nodes {
		if i > 0 {
			s.launch(i)
			s.ready(i)
		}
		sendMany(t, first, formerlyLarge, *grown/len(s.nodes))
	}
	c := s.dialOnly(3)
	more := startPart(t, s.dialOnly(3), r, 1, 2)
	s.voters()

	s.nodes[0].kill()
	load.stop()
	eventually(t, "the killed node to be removed", func() error { return c.RemoveNode(t.Context(), nodeName(0), false) })
	s.voters()
	s.undisturbed(c, 0, "was removed from the cluster")

	s.nodes[1].stop(t)
	old, newer := filepath.Join(t.TempDir(), "old"), s.data[1]
	if err := os.CopyFS(old, os.DirFS(s.data[1])); err != nil {
		t.Fatal(err)
	}
	s.launch(1)
	s.ready(1)
	s.voters()
	s.nodes[1].kill()
	s.data[1] = old
	s.undisturbed(c, 1, "old copy")
	s.data[1] = newer
	s.launch(1)
	s.ready(1)
	s.voters()

	more.stop()
	s.settled()
	fail(t, r.compare(unfinished(t, c)))
	drain(t, s.nodes[3], r)
	began := time.Now()
	n := receiveAll(t, c, formerlyLarge, *grown/len(s.nodes)*len(s.nodes))
	t.Logf("drained %d in %v", n, time.Since(began).Round(time.Millisecond))
	sameRate(t, c)
}

// undisturbed starts a server that must end with words, and sees that no group had
// an election meanwhile: it did not vote. On a busy machine there may be one for
// another reason, but not each time.
func (s *servers) undisturbed(c *client.Client, i int, words string) {
	s.t.Helper()
	var before, after map[uint32]uint64
	for range 3 {
		before = s.terms(c)
		s.launch(i)
		code, err := s.nodes[i].exit(readyWithin)
		if said := s.nodes[i].said.String(); err != nil || code == 0 || !strings.Contains(said, words) {
			s.t.Fatalf("%s came back: code %d, %v\n%s\nwant a failure and %q", nodeName(i), code, err, tail(said), words)
		}
		if after = s.terms(c); maps.Equal(before, after) {
			return
		}
	}
	s.t.Errorf("each time that %s came back groups had elections: terms %v, then %v", nodeName(i), before, after)
}

var snapshotsLine = regexp.MustCompile(`(?m)^comanda_snapshots_received_total (\S+)$`)

// snapshots are how many snapshots each server that runs has installed.
func (s *servers) snapshots() map[string]int {
	s.t.Helper()
	counts := map[string]int{}
	for i, p := range s.nodes {
		resp, err := http.Get("http://" + p.addr + "/metrics")
		if err != nil {
			continue // it was removed
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		m := snapshotsLine.FindSubmatch(text)
		if err != nil || m == nil {
			s.t.Fatalf("%s tells of no snapshots: %v", nodeName(i), err)
		}
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			s.t.Fatal(err)
		}
		counts[nodeName(i)] = int(n)
	}
	return counts
}

// settled sees that no server goes on to be sent snapshots: each had as many as it
// was given replicas, some of them twice, and there come no more.
func (s *servers) settled() {
	s.t.Helper()
	got, err := s.dialOnly(3).Server(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	counts := s.snapshots()
	s.t.Logf("snapshots installed: %v, of %d groups", counts, len(got.GetGroups()))
	for node, n := range counts {
		if n > 3*len(got.GetGroups()) {
			s.t.Errorf("%s was sent %d snapshots of %d groups", node, n, len(got.GetGroups()))
		}
	}
	<-time.After(3 * time.Second)
	if now := s.snapshots(); !maps.Equal(now, counts) {
		s.t.Errorf("snapshots go on although nothing joins or moves: %v, 3 s later %v", counts, now)
	}
}

// sendMany sends n small messages.
func sendMany(t *testing.T, c *client.Client, q string, n int) {
	t.Helper()
	for n > 0 {
		batch := make([]client.Message, min(n, 1000))
		for i := range batch {
			batch[i].Body = []byte("one of many")
		}
		results, err := c.SendBatch(t.Context(), q, batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		n -= len(batch)
	}
}

// receiveAll takes and acks messages until there were n.
func receiveAll(t *testing.T, c *client.Client, q string, n int) (got int) {
	t.Helper()
	for got < n {
		ds := receiveSome(t, c, q, 1000)
		ackAll(t, c, ds)
		got += len(ds)
	}
	return got
}

func ackAll(t *testing.T, c *client.Client, ds []*client.Delivery) {
	t.Helper()
	settlements := make([]client.Settlement, len(ds))
	for i, d := range ds {
		settlements[i] = client.Settlement{Token: d.Token(), Action: client.ActionAck}
	}
	results, err := c.Settle(t.Context(), settlements)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func receiveSome(t *testing.T, c *client.Client, q string, most int) []*client.Delivery {
	t.Helper()
	ds, err := c.Receive(t.Context(), q, client.ReceiveOptions{Max: most, Wait: 20 * time.Second, Lease: time.Minute, Worker: "grown"})
	if err != nil || len(ds) == 0 {
		t.Fatalf("nothing came from %s: %v", q, err)
	}
	return ds
}

// sameRate compares how fast messages are leased from the two queues, in turns, so
// that what else the machine does concerns both. The median of the turns' ratios
// counts, of three tries: others can spoil one.
func sameRate(t *testing.T, c *client.Client) {
	t.Helper()
	var median float64
	for range 3 {
		var ratios []float64
		for range 11 {
			large, small := leaseTime(t, c, formerlyLarge), leaseTime(t, c, alwaysSmall)
			ratios = append(ratios, float64(small)/float64(large))
		}
		slices.Sort(ratios)
		median = ratios[len(ratios)/2]
		t.Logf("lease rate of the drained queue by that of the small one: median %.2f, all %.2f", median, ratios)
		if median >= 0.8 {
			return
		}
	}
	t.Errorf("from the queue that had a large backlog messages are leased at %.2f of the rate of the other", median)
}

// leaseTime is how long it takes to lease a few hundred messages from a queue that
// has no others.
func leaseTime(t *testing.T, c *client.Client, q string) (took time.Duration) {
	t.Helper()
	const few = 320
	sendMany(t, c, q, few)
	var leased []*client.Delivery
	for len(leased) < few {
		began := time.Now()
		ds := receiveSome(t, c, q, 20)
		took += time.Since(began)
		leased = append(leased, ds...)
	}
	ackAll(t, c, leased)
	return took
}
