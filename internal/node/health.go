package node

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/replica"
)

// health is one thing that was looked at.
type health struct {
	// level is ok, short (sends are refused, all else goes on) or failed (the node
	// does not serve what it should).
	level string
	text  string
}

const (
	healthOK     = "ok"
	healthShort  = "short"
	healthFailed = "failed"
)

// health looks at what the node needs to serve.
func (n *Node) health() (all []health) {
	groups := n.host.Groups()
	slices.SortFunc(groups, func(a, b *replica.Group) int { return cmp.Compare(a.ID(), b.ID()) })
	for _, g := range groups {
		s := g.Status()
		switch {
		case s.Leader != 0:
			all = append(all, health{healthOK, fmt.Sprintf("group %d is led by %s in term %d, %d entries are applied", s.Group, n.replicaNode(s.Group, s.Leader), s.Term, s.Applied)})
		case n.mayBeLed(s.Group):
			all = append(all, health{healthFailed, fmt.Sprintf("group %d has no leader", s.Group)})
		}
	}
	r := n.resources
	level := func(short bool) string {
		if short {
			return healthShort
		}
		return healthOK
	}
	free, reserve, used := r.diskFree.Load(), r.reserve.Load(), r.memoryUsed.Load()
	return append(all,
		health{level(free < reserve), fmt.Sprintf("the disk has %d MiB free, its reserve is %d MiB", free>>20, reserve>>20)},
		health{level(used > r.memoryLimit), fmt.Sprintf("the server uses %d MiB of memory, its limit is %d MiB", used>>20, r.memoryLimit>>20)})
}

// replicaNode names the node that a replica is on.
func (n *Node) replicaNode(group, replica uint64) string {
	v := n.view.Load()
	if g, ok := v.Group(group); ok {
		for _, r := range g.Replicas {
			if r.ID == replica {
				return nodeName(v, r.Node)
			}
		}
	}
	return fmt.Sprintf("replica %d", replica)
}

func nodeName(v *catalog.View, id uint64) string {
	if x, ok := v.Node(id); ok {
		return x.Name
	}
	return fmt.Sprintf("node %d", id)
}

// serveReady answers /readyz: 503 if anything failed; with ?verbose everything
// that was looked at, a line each.
func (n *Node) serveReady(w http.ResponseWriter, r *http.Request) {
	var lines, failed strings.Builder
	for _, h := range n.health() {
		fmt.Fprintf(&lines, "%s: %s\n", h.level, h.text)
		if h.level == healthFailed {
			fmt.Fprintln(&failed, h.text)
		}
	}
	text := failed.String()
	if r.URL.Query().Has("verbose") {
		text = lines.String()
	}
	if failed.Len() > 0 {
		http.Error(w, strings.TrimSuffix(text, "\n"), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte(text + "ok\n")) // a client that went away needs no answer
}
