package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

// FuzzNodeRequest: whatever another process asks as a node, it is answered or
// refused; who is no node of the cluster hears nothing of the catalog.
func FuzzNodeRequest(f *testing.F) {
	for _, r := range []nodeRequest{
		{Join: &catalog.Node{StoreID: 7, Name: "b", Labels: map[string]string{"zone": "1"}}},
		{Assemble: []string{"a:7401", "b:7401"}},
		{Watch: &watchRequest{Version: 1, Fresh: true}},
		{Watch: &watchRequest{}},
		{Hello: true},
		{Behind: true},
		{},
	} {
		f.Add(uint64(0), encodeNode(r))
		f.Add(uint64(1), encodeNode(r))
	}
	m := catalog.New()
	m.Apply(catalogRows{}, 1, catalog.AppendEntry(nil, []replica.Command{{Head: (catalog.Command{Found: &catalog.Found{ClusterID: newID(), Secret: newSecret(), Node: catalog.Node{ID: 1, Name: "a"}, Groups: dataGroups}}).Encode()}}))
	o := replica.Options{Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	fs := vfs.NewMem()
	o.Log.FS, o.Log.Dir, o.Log.StoreID, o.Log.SegmentBytes = fs, "log", 1, smallSegment
	o.State.FS, o.State.Dir, o.State.StoreID, o.State.MemTable = fs, "state", 1, smallSegment
	host, err := replica.New(o)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = host.Close() })
	n := &Node{transport: &transport{}, changing: make(chan struct{}), id: 1, host: host, config: Config{Clock: clock.System()}}
	n.view.Store(m.View())
	n.elsewhere = &leader.Elsewhere{Caller: caller{n.transport}, Self: func() uint64 { return n.id }, Nodes: func(uint64) []uint64 { return nil }, Leads: func(uint64) uint64 { return 0 }}
	n.service = &leader.Service{
		Group: func(uint64) (*leader.Group, bool) { return nil, false },
		Meta:  n.meta.Load,
		Leads: func(uint64) uint64 { return 0 },
	}
	f.Fuzz(func(t *testing.T, from uint64, request []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nobody waits for news
		b, err := answers{n}.Call(ctx, from, request)
		if err != nil {
			if code := message.CodeOf(err); code == "" || code == message.Internal {
				t.Fatalf("%q of node %d is refused with %v", request, from, err)
			}
			return
		}
		if request[0] != askNode {
			return // the service's own
		}
		a, err := decodeNodeAnswer(b)
		if err != nil || !json.Valid(b) {
			t.Fatalf("%q of node %d is answered %q", request, from, b)
		}
		if from == 0 && len(a.Update) > 0 {
			t.Fatalf("%q of a stranger is answered with the catalog", request)
		}
	})
}
