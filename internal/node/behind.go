package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

const (
	// behindAfter is how long a replica may lack much before that is told: under load
	// each does for a moment.
	behindAfter = 5 * time.Second
	// maxBehind is how many a node tells of, and how many are told of a node.
	maxBehind = 100
	// asksAtOnce is how many nodes are asked at a time.
	asksAtOnce = 16
)

// behind is a replica that does not keep up, as its leader's node tells another.
type behind struct {
	Group   uint64        `json:"group"`
	Replica uint64        `json:"replica"`
	Entries uint64        `json:"entries"`
	For     time.Duration `json:"for"`
	Why     string        `json:"why"`
}

// lagging are those of a group's replicas that have lacked much for a while.
func lagging(st replica.Status, progress []replica.Progress, now time.Time) (bs []behind) {
	for _, p := range progress {
		since := now.Sub(p.Since)
		if p.Since.IsZero() || since < behindAfter || p.Replica == st.Replica {
			continue
		}
		b := behind{Group: st.Group, Replica: p.Replica, Entries: st.Commit - min(p.Match, st.Commit), For: since, Why: message.BehindSlow}
		switch {
		case !p.Active:
			b.Why = message.BehindSilent
		case p.Snapshot:
			b.Why = message.BehindSnapshot
		}
		bs = append(bs, b)
	}
	return bs
}

// behindHere are the replicas that do not keep up with what is led here. Only a
// leader knows.
func (n *Node) behindHere() (bs []behind) {
	now := n.config.Clock.Now()
	for _, g := range n.host.Groups() {
		if g.Leading() && len(bs) < maxBehind {
			bs = append(bs, lagging(g.Status(), g.Progress(), now)...)
		}
	}
	return bs[:min(len(bs), maxBehind)]
}

// behind tells, by node, of the replicas that do not keep up, as the leaders know
// that can be asked within a moment.
func (n *Node) behind(ctx context.Context) map[uint64][]message.Behind {
	told := map[uint64][]message.Behind{}
	v := n.view.Load()
	if v == nil {
		return told
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var asks sync.WaitGroup
	var mu sync.Mutex
	room := make(chan struct{}, asksAtOnce)
	for _, x := range v.Nodes() {
		if x.State == catalog.Removed || x.State == catalog.Down {
			continue // who leads nothing knows nothing
		}
		asks.Go(func() {
			room <- struct{}{}
			bs := n.behindAt(ctx, x.ID)
			<-room
			mu.Lock()
			defer mu.Unlock()
			for _, b := range bs {
				if at, ok := holder(v, b.Group, b.Replica); ok && len(told[at]) < maxBehind {
					told[at] = append(told[at], message.Behind{
						Group: b.Group, Entries: b.Entries, Since: n.config.Clock.Now().Add(-b.For), Why: b.Why, Leader: x.Name,
					})
				}
			}
		})
	}
	asks.Wait()
	for _, bs := range told {
		slices.SortFunc(bs, func(a, b message.Behind) int { return cmp.Compare(a.Group, b.Group) })
	}
	return told
}

// behindAt asks one node, which may be this one.
func (n *Node) behindAt(ctx context.Context, node uint64) []behind {
	if node == n.id {
		return n.behindHere()
	}
	b, err := (caller{n.transport}).Call(ctx, node, encodeNode(nodeRequest{Behind: true}), nil)
	if err != nil {
		return nil
	}
	a, err := decodeNodeAnswer(b)
	if err != nil {
		return nil
	}
	return a.Behind[:min(len(a.Behind), maxBehind)]
}

// holder is the node that a replica is on.
func holder(v *catalog.View, group, id uint64) (uint64, bool) {
	g, ok := v.Group(group)
	if !ok {
		return 0, false
	}
	i := slices.IndexFunc(g.Replicas, func(r catalog.Replica) bool { return r.ID == id })
	if i < 0 {
		return 0, false
	}
	return g.Replicas[i].Node, true
}
