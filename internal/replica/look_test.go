package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// members changes the configuration, again while it is refused for now.
func (c *cluster) members(voters, learners []uint64) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("voters %v and learners %v", voters, learners), func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		err := c.leader().group().SetMembers(ctx, voters, learners)
		switch message.CodeOf(err) {
		case "":
			return true
		case message.Unavailable, message.NotLeader, message.UnknownOutcome:
			return false
		default:
			c.t.Fatal(err)
			return false
		}
	})
}

// forget makes a node's rows durable, so that its log can be cut, and waits
// until it is.
func (n *node) forget() {
	n.t.Helper()
	upTo := n.group().Status().Applied
	if err := n.host.store.Flush(); err != nil {
		n.t.Fatal(err)
	}
	until(n.t, "the log is cut", func() bool {
		n.host.onFlush() // the others may have told only now that they have it all
		return n.firstIndex() > upTo
	})
}

// inLoop runs f in the loop.
func (n *node) inLoop(f func()) {
	done := make(chan struct{})
	n.host.call(&Group{gone: true}, func(error) {
		f()
		close(done)
	})
	<-done
}

func (n *node) firstIndex() (index uint64) {
	n.inLoop(func() {
		var err error
		if index, err = n.host.log.FirstIndex(testGroup); err != nil {
			n.t.Error(err)
		}
	})
	return index
}

func (n *node) lastIndex() (index uint64) {
	n.inLoop(func() {
		var err error
		if index, err = n.host.log.LastIndex(testGroup); err != nil {
			n.t.Error(err)
		}
	})
	return index
}

// unreached lists what no replica reaches: handles with rows, and tables of
// snapshots.
func (n *node) unreached() (left []string) {
	n.t.Helper()
	known := map[uint64]bool{0: true}
	n.inLoop(func() {
		for _, r := range n.host.log.Replicas() {
			rows, err := n.host.store.OpenReplica(r.Root, nil)
			if err != nil {
				n.t.Error(err)
				return
			}
			for _, h := range rows.Handles() {
				known[h] = true
			}
		}
	})
	err1 := n.host.store.Handles(func(h uint64, rows int, _ int64) {
		if !known[h] {
			left = append(left, fmt.Sprintf("%d rows under handle %d", rows, h))
		}
	})
	files, err2 := n.fs.List("data/state/incoming")
	if err := errors.Join(err1, err2); err != nil {
		n.t.Error(err)
	}
	return append(left, files...)
}

// clean fails the test if something is left.
func (n *node) clean() {
	n.t.Helper()
	if left := n.unreached(); len(left) > 0 {
		n.t.Errorf("left are %v", left)
	}
}

// peek is count without asking anybody.
func (n *node) peek(name string) uint64 {
	v := n.group().View()
	defer v.Close()
	return readCount(v, name)
}

func active(leader *node, id uint64) bool {
	for _, p := range leader.group().Progress() {
		if p.Replica == id {
			return p.Active
		}
	}
	return false
}

// agreeOn waits until some nodes have applied the same, and compares their rows.
func (c *cluster) agreeOn(ids ...uint64) {
	c.t.Helper()
	until(c.t, "they applied the same", func() bool {
		first := c.nodes[ids[0]].group().Status()
		for _, id := range ids {
			if s := c.nodes[id].group().Status(); s.Applied != first.Applied || s.Commit != s.Applied {
				return false
			}
		}
		return true
	})
	for _, id := range ids[1:] {
		if c.nodes[id].hash() != c.nodes[ids[0]].hash() {
			c.t.Fatalf("rows of nodes %d and %d differ", ids[0], id)
		}
	}
}

// forgetSome lets the log be cut as far as it may.
func (n *node) forgetSome() {
	n.t.Helper()
	if err := n.host.store.Flush(); err != nil {
		n.t.Fatal(err)
	}
	until(n.t, "the loop has looked", func() bool { return !n.host.flushed.Load() })
	n.firstIndex()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
