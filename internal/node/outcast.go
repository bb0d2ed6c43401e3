package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/peer"
)

// greetEvery is how often the other nodes are asked whether they still talk to
// this one.
const greetEvery = 2 * time.Second

// outcast asks the other nodes whether they still talk to this one, and returns
// the words of one that never will again: this node was removed, or runs on an old
// copy of its directory. It must not go on then, and can't come back as itself.
func (n *Node) outcast(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, greetEvery)
	defer cancel()
	if err := n.removed(n.id); err != nil {
		return err
	}
	hello := encodeNode(nodeRequest{Hello: true})
	for _, node := range n.acquaintances() {
		_, err := (caller{n.transport}).Call(ctx, node, hello, nil)
		if message.CodeOf(err) == message.NodeRemoved {
			return err
		}
		var no *peer.Refusal
		if !errors.As(err, &no) || no.By.Node != node {
			continue
		}
		switch no.Reason.Code {
		case message.NodeRemoved, message.Conflict:
			return fmt.Errorf("node %d does not talk to this node any more: %w", node, no.Reason)
		default:
		}
	}
	return nil
}

// acquaintances are the other nodes whose address is known.
func (n *Node) acquaintances() (nodes []uint64) {
	v := n.view.Load()
	if v == nil {
		return n.membership.nodes()
	}
	for _, x := range v.Nodes() {
		if x.ID != n.id && x.State != catalog.Removed {
			nodes = append(nodes, x.ID)
		}
	}
	return nodes
}

// greet ends the server when it has become an outcast.
func (n *Node) greet(ctx context.Context) {
	for n.pause(ctx, greetEvery) == nil {
		if err := n.outcast(ctx); err != nil && ctx.Err() == nil {
			n.fail(err)
			return
		}
	}
}

// fail ends the server by itself.
func (n *Node) fail(err error) {
	n.config.Logger.Error("the server ends", "error", err)
	n.failure.CompareAndSwap(nil, &err)
	n.halt()
}
