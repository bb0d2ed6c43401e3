package node

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/peer"
	"github.com/comanda-mq/comanda/internal/replica"
)

// What other processes claim to be fills neither the directory nor the memory.
func TestClaimedIDsAreBounded(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	m := &membership{dir: &directory{fs: fs, path: "data"}, record: clusterRecord{Cluster: "c", Node: 1}}
	admit := func(node, boot uint64) error {
		return m.admit(peer.Identity{Cluster: "c", Node: node, Boot: boot << catalog.BootBits})
	}
	for node := range uint64(maxPeers - 1) {
		m.record.Peers = append(m.record.Peers, peerRecord{Node: node + 2})
	}
	if err := admit(maxPeers+1, 1); err != nil {
		t.Errorf("the last that is not known yet: %v", err)
	}
	if err := admit(maxPeers+2, 1); message.CodeOf(err) != message.Unavailable {
		t.Errorf("one more: %v", err)
	}
	if err := admit(2, 1); err != nil {
		t.Errorf("one that is known: %v", err)
	}
	founded := catalog.New()
	founded.Apply(catalogRows{}, 1, catalog.AppendEntry(nil, []replica.Command{{Head: (catalog.Command{Found: &catalog.Found{ClusterID: newID(), Secret: newSecret(), Node: catalog.Node{ID: 3, Name: "c"}, Groups: dataGroups}}).Encode()}}))
	v := founded.View()
	if err := m.forget(v); err != nil {
		t.Fatal(err)
	}
	if err := admit(maxPeers+2, 1); err != nil {
		t.Errorf("one more when the catalog has forgotten another: %v", err)
	}
	// Whom the catalog has forgotten it had removed before.
	n := &Node{}
	n.view.Store(v)
	for node, want := range []message.Code{"", message.NodeRemoved, message.NodeRemoved, "", ""} {
		if err := n.removed(uint64(node)); message.CodeOf(err) != want {
			t.Errorf("node %d: %v", node, err)
		}
	}

	tr := &transport{}
	for id := range uint64(maxSeen + 1) {
		tr.saw(2, id, 7)
	}
	if len(tr.seen) > maxSeen || tr.nodeOf(2, maxSeen) != 7 {
		t.Errorf("%d replicas are remembered, the last at node %d", len(tr.seen), tr.nodeOf(2, maxSeen))
	}
}
