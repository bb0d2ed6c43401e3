package node

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/peer"
)

// clusterFile says which node of which cluster a data directory is, and what it
// must know of the others before it can ask any of them.
const clusterFile = "CLUSTER"

// membership is that file's content. It is written anew, synced, at each change.
type membership struct {
	dir *directory

	mu     sync.Mutex
	record clusterRecord
}

type clusterRecord struct {
	Cluster string       `json:"cluster"`
	Node    uint64       `json:"node"` // 0: of no cluster yet
	Peers   []peerRecord `json:"peers,omitempty"`
}

// peerRecord is what is known of another node: where it was last, and the
// highest boot number that it came with.
type peerRecord struct {
	Node    uint64 `json:"node"`
	Address string `json:"address,omitempty"`
	Boot    uint64 `json:"boot,omitempty"`
}

// maxPeers bounds what is remembered: the nodes that the catalog may know, removed
// ones as well, and as many that it does not know yet.
const maxPeers = 4 * catalog.MaxNodes

func (d *directory) membership() (*membership, error) {
	m := &membership{dir: d}
	b, err := readFile(d.fs, d.file(clusterFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return m, nil
	case err == nil:
		err = json.Unmarshal(b, &m.record)
	}
	if err == nil && (m.record.Cluster == "" || m.record.Node == 0) {
		err = errors.New("it names no node")
	}
	if err != nil {
		return nil, fmt.Errorf("%s in %s can't be read: it is damaged; restore it from a copy of the directory (%w)", clusterFile, d.path, err)
	}
	return m, nil
}

// self is the node that this directory is; 0: of no cluster yet.
func (m *membership) self() (cluster string, node uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record.Cluster, m.record.Node
}

// become makes the directory a node of a cluster, for good.
func (m *membership) become(cluster string, node uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.record.Cluster == cluster && m.record.Node == node {
		return nil
	}
	if m.record.Node != 0 {
		return fmt.Errorf("the data directory %s is node %d of cluster %s, not node %d of cluster %s: start it with its own cluster, or give this server another --data-dir", m.dir.path, m.record.Node, m.record.Cluster, node, cluster)
	}
	m.record.Cluster, m.record.Node = cluster, node
	return m.write()
}

// address is where a node was last.
func (m *membership) address(node uint64) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peer(node)
	return p.Address, p.Address != ""
}

// nodes are the nodes whose address is known.
func (m *membership) nodes() (nodes []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.record.Peers {
		if p.Address != "" {
			nodes = append(nodes, p.Node)
		}
	}
	return nodes
}

// forget forgets those nodes that the catalog has forgotten.
func (m *membership) forget(v *catalog.View) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.record.Peers)
	m.record.Peers = slices.DeleteFunc(m.record.Peers, func(p peerRecord) bool {
		_, ok := v.Node(p.Node)
		return !ok && v.Gone(p.Node)
	})
	if len(m.record.Peers) == before {
		return nil
	}
	return m.write()
}

// note remembers where nodes are.
func (m *membership) note(addresses map[uint64]string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := false
	for node, a := range addresses {
		if p := m.peer(node); p.Address != a && node != m.record.Node {
			p.Address, changed = a, true
			m.set(p)
		}
	}
	if !changed {
		return nil
	}
	return m.write()
}

// newBoot is a boot number as it is told to others.
func newBoot(boot uint64) uint64 {
	return boot<<catalog.BootBits | uint64(rand.Uint32N(1<<catalog.BootBits)) //nolint:gosec // it tells processes apart, no more
}

// admit refuses a node whose boot number says that it runs on an old copy of its
// directory, or on a copy beside the original: it has forgotten votes and
// entries that it once confirmed. The highest number is durable before the node
// is believed.
func (m *membership) admit(who peer.Identity) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peer(who.Node)
	switch {
	case who.Node == m.record.Node:
		return message.Errorf(message.Conflict, "node id %d is this node's own: two servers run on copies of one data directory; stop one, and let it join with an empty one", who.Node)
	case who.Boot == p.Boot:
		return nil
	case who.Boot>>catalog.BootBits <= p.Boot>>catalog.BootBits:
		return message.Errorf(message.Conflict, "node %d comes with boot number %d, and was seen with %d: its data directory is an old copy, or two servers run on copies of it; stop it, and let it join anew with an empty --data-dir", who.Node, who.Boot>>catalog.BootBits, p.Boot>>catalog.BootBits)
	}
	if _, known := m.find(who.Node); !known && len(m.record.Peers) >= maxPeers {
		return message.Errorf(message.Unavailable, "node %d is not known here, and %d others are, more than a cluster can have: try again when this node has heard of it", who.Node, maxPeers)
	}
	p.Boot = who.Boot
	m.set(p)
	return m.write()
}

func (m *membership) peer(node uint64) peerRecord {
	if i, ok := m.find(node); ok {
		return m.record.Peers[i]
	}
	return peerRecord{Node: node}
}

func (m *membership) set(p peerRecord) {
	i, ok := m.find(p.Node)
	if !ok {
		m.record.Peers = slices.Insert(m.record.Peers, i, peerRecord{})
	}
	m.record.Peers[i] = p
}

func (m *membership) find(node uint64) (int, bool) {
	return slices.BinarySearchFunc(m.record.Peers, node, func(p peerRecord, node uint64) int { return cmp.Compare(p.Node, node) })
}

// write replaces the file: the new one is whole and synced before it has the
// name.
func (m *membership) write() error {
	d := m.dir
	b, err := json.Marshal(m.record)
	if err != nil {
		return err
	}
	next := d.file(clusterFile + ".new")
	if err := writeSynced(d.fs, next, b, true); err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	if err := d.fs.Rename(next, d.file(clusterFile)); err != nil {
		return err
	}
	return syncDir(d.fs, d.path)
}
