package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
)

// member is one node of a cluster in this process; its disk stays when it ends.
type member struct {
	t    *testing.T
	name string
	fs   vfs.FS
	join []string
	wire *wires // to the others; nil: it is never cut
	*Node
}

func (m *member) start() {
	m.t.Helper()
	var log *slog.Logger
	if os.Getenv("NODE_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("me", m.name)
	}
	listen := "127.0.0.1:0"
	if m.Node != nil {
		listen = m.ClusterAddr()
	}
	c := Config{
		FS: m.fs, DataDir: "data", NodeName: m.name, Join: m.join, LogSegment: smallSegment, DiskReserve: 1, Logger: log,
		Listen: "127.0.0.1:0", ClusterListen: listen,
	}
	if m.wire != nil {
		c.Dial = m.wire.dial(m)
	}
	n, err := Start(m.t.Context(), c)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Node = n
	if m.wire != nil {
		m.wire.knows(m)
	}
}

func (m *member) stop() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Stop(ctx); err != nil && message.CodeOf(err) != message.NodeRemoved { // which ends by itself
		m.t.Error(err)
	}
}

// startCluster starts n nodes, of which the first founds the cluster.
func startCluster(t *testing.T, n int) []*member { return startWired(t, n, nil) }

func startWired(t *testing.T, n int, w *wires) []*member {
	t.Helper()
	var ms []*member
	for i := range n {
		m := &member{t: t, name: fmt.Sprintf("node-%d", i+1), fs: vfs.NewMem(), wire: w}
		if i > 0 {
			m.join = []string{ms[0].ClusterAddr()}
		}
		m.start()
		t.Cleanup(m.stop)
		ms = append(ms, m)
	}
	return ms
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("it did not come: %s", what)
		}
	}
}

// voters waits until every group has n voters.
func voters(t *testing.T, m *member, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("every group has %d voters", n), func() bool {
		for _, g := range m.view.Load().Groups() {
			if len(g.Confirmed.Voters) != n || len(g.Replicas) != n {
				return false
			}
		}
		return true
	})
}

// Three nodes become one cluster: every group has a voter on each, any node
// serves any request, and the cluster goes on when one of them stops.
func TestThreeNodes(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[1], 3)
	ctx := t.Context()
	if _, _, err := ms[0].Gateway().CreateQueue(ctx, "orders", message.Settings{}, 4); err != nil {
		t.Fatal(err)
	}
	sent := map[message.ID]bool{}
	send := func(m *member, key string) {
		t.Helper()
		rs, err := m.Gateway().Send(ctx, "orders", []message.New{{Body: []byte("x"), Key: key}})
		if err == nil && rs[0].Err != nil {
			err = rs[0].Err
		}
		if err != nil {
			t.Fatalf("send at %s: %v", m.name, err)
		}
		sent[rs[0].ID] = true
	}
	take := func(m *member) {
		t.Helper()
		ds, err := m.Gateway().Receive(ctx, "orders", message.ReceiveOptions{Max: 10, Wait: 20 * time.Second, Lease: time.Minute, Worker: m.name})
		if err != nil {
			t.Fatalf("receive at %s: %v", m.name, err)
		}
		for _, d := range ds {
			tok, err := m.Gateway().OpenToken(d.Token)
			if err != nil {
				t.Fatal(err)
			}
			rs, err := m.Gateway().Settle(ctx, []message.Settlement{{Token: tok, Action: message.Ack}})
			if err == nil && rs[0].Err != nil {
				err = rs[0].Err
			}
			if err != nil {
				t.Fatalf("settle at %s: %v", m.name, err)
			}
			if !sent[d.ID] {
				t.Fatalf("%s came twice or from nowhere", d.ID)
			}
			delete(sent, d.ID)
		}
	}
	for i := range 30 {
		send(ms[i%3], fmt.Sprint("k", i))
	}
	for i := 0; len(sent) > 0; i++ {
		take(ms[i%3])
	}
	for i := range 30 {
		send(ms[i%3], fmt.Sprint("k", i))
	}
	halves, err := ms[1].Gateway().SplitShard(ctx, "orders", "0.2")
	if err != nil {
		t.Fatal(err)
	}
	if len(halves) != 2 || halves[0].ID != "orders/0.2.0" || halves[1].ID != "orders/0.2.1" {
		t.Fatalf("halves %+v", halves)
	}
	ms[0].stop()
	for i := range 30 {
		send(ms[1+i%2], fmt.Sprint("k", i))
	}
	for i := 0; len(sent) > 0; i++ {
		take(ms[1+i%2])
	}
	ms[0].start()
	send(ms[0], "back")
	take(ms[0])
}

// A node that runs on an old copy of its directory has forgotten what it once
// confirmed: the others do not talk to it, and it ends with words.
func TestOldCopyOfADirectoryIsRefused(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	third := ms[2]
	third.stop()
	old := third.fs
	third.fs = copyOf(t, old)
	third.start()
	eventually(t, "the others know the third node again", func() bool {
		return ms[0].transport.peers.Load().Connected(third.id)
	})
	third.stop()
	third.start()
	eventually(t, "the others know the third node again", func() bool {
		return ms[0].transport.peers.Load().Connected(third.id)
	})
	third.stop()
	_, err := Start(t.Context(), Config{FS: old, DataDir: "data", NodeName: "old", Listen: "127.0.0.1:0", ClusterListen: third.ClusterAddr(), LogSegment: smallSegment, DiskReserve: 1})
	if message.CodeOf(err) != message.Conflict {
		t.Fatalf("a node on an old copy of its directory: %v", err)
	}
	third.start()
}

// copyOf copies a disk.
func copyOf(t *testing.T, from vfs.FS) vfs.FS {
	t.Helper()
	to := vfs.NewMem()
	if ok, err := vfs.Clone(from, to, "data", "data"); err != nil || !ok {
		t.Fatal(err)
	}
	return to
}
