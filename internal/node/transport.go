package node

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/peer"
	"github.com/comanda-mq/comanda/internal/replica"
)

// transport carries the replicas' messages to the nodes where the others are.
type transport struct {
	peers atomic.Pointer[peer.Peers] // nil while the node is of no cluster
	view  func() *catalog.View

	mu   sync.Mutex
	seen map[replicaID]uint64 // node that it wrote from: newer than any catalog
}

// maxSeen bounds seen. Beyond it all is forgotten: who lives writes again.
const maxSeen = 64 << 10

// saw notes where a replica wrote from.
func (t *transport) saw(group, id, node uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil || len(t.seen) >= maxSeen {
		t.seen = map[replicaID]uint64{}
	}
	t.seen[replicaID{group, id}] = node
}

type replicaID struct{ group, replica uint64 }

// nodeOf is where a replica is; 0: not known.
func (t *transport) nodeOf(group, id uint64) uint64 {
	t.mu.Lock()
	node, ok := t.seen[replicaID{group, id}]
	t.mu.Unlock()
	if ok {
		return node
	}
	v := t.view()
	if v == nil {
		return 0
	}
	if g, ok := v.Group(group); ok {
		for _, r := range g.Replicas {
			if r.ID == id {
				return r.Node
			}
		}
	}
	return 0
}

// Send sends messages, and loses those for which no way is known.
func (t *transport) Send(msgs []replica.Outgoing) {
	peers := t.peers.Load()
	if peers == nil {
		return
	}
	batches := map[uint64][]peer.Message{}
	for _, o := range msgs {
		node := t.nodeOf(o.Group, o.Message.GetTo())
		if node == 0 {
			continue
		}
		data, err := proto.Marshal(o.Message)
		if err != nil {
			panic(err) // raft's own messages always encode
		}
		batches[node] = append(batches[node], peer.Message{Group: o.Group, Data: data})
	}
	for node, batch := range batches {
		peers.Send(node, batch)
	}
}

// SendSnapshot streams a snapshot and returns when it is installed there.
func (t *transport) SendSnapshot(ctx context.Context, s replica.Outgoing, body io.Reader) error {
	peers, node := t.peers.Load(), t.nodeOf(s.Group, s.Message.GetTo())
	if peers == nil || node == 0 {
		return message.Errorf(message.Unavailable, "no way is known to replica %d of group %d", s.Message.GetTo(), s.Group)
	}
	header, err := proto.MarshalOptions{}.MarshalAppend(binary.AppendUvarint(nil, s.Group), s.Message)
	if err != nil {
		return err
	}
	return peers.Stream(ctx, node, header, body)
}

// answers is the side of a node that others call.
type answers struct{ n *Node }

// Messages takes messages for the replicas here.
func (a answers) Messages(from uint64, batch []peer.Message) {
	if a.n.removed(from) != nil {
		return
	}
	for _, x := range batch {
		m := &raftpb.Message{}
		if err := proto.Unmarshal(x.Data, m); err != nil {
			a.n.config.Logger.Error("a message of another node can't be read: is it of another version?", "node", from, "error", err)
			continue
		}
		a.n.transport.saw(x.Group, m.GetFrom(), from)
		a.n.host.Receive(x.Group, m)
	}
}

// Stream takes a snapshot.
func (a answers) Stream(ctx context.Context, from uint64, header []byte, body io.Reader) error {
	if err := a.n.removed(from); err != nil {
		return err
	}
	group, n := binary.Uvarint(header)
	m := &raftpb.Message{}
	if n <= 0 {
		return errRequest
	}
	if err := proto.Unmarshal(header[n:], m); err != nil {
		return errRequest
	}
	a.n.transport.saw(group, m.GetFrom(), from)
	return a.n.host.ReceiveSnapshot(ctx, group, m, body)
}

var errRequest = message.Errorf(message.Unimplemented, "the request of another node can't be read: it is of another version")

var errStranger = message.Errorf(message.PermissionDenied, "only nodes of the cluster may ask that")

// Call answers what nodes ask.
func (a answers) Call(ctx context.Context, from uint64, request []byte) ([]byte, error) {
	if len(request) == 0 {
		return nil, errRequest
	}
	// The connection may be older than the removal.
	if err := a.n.removed(from); err != nil {
		return nil, err
	}
	if request[0] == askNode {
		return a.n.answerNode(ctx, from, request[1:])
	}
	if from == 0 {
		return nil, errStranger
	}
	return a.n.service.Answer(ctx, request), nil
}

// caller asks other nodes for the rooms that know none.
type caller struct{ t *transport }

// Call carries a request.
func (c caller) Call(ctx context.Context, node uint64, request []byte, hurry <-chan struct{}) ([]byte, error) {
	peers := c.t.peers.Load()
	if peers == nil {
		return nil, message.Errorf(message.Unavailable, "this node is of no cluster yet")
	}
	return peers.CallUntil(ctx, node, request, hurry)
}

var (
	_ replica.Transport = (*transport)(nil)
	_ peer.Handler      = answers{}
	_ leader.Caller     = caller{}
)
