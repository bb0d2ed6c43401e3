package node

import (
	"context"
	"errors"
	"net"
	"sync"
)

// wires are the connections between the nodes of a test, which can be cut.
type wires struct {
	mu   sync.Mutex
	cut  map[*member]bool
	runs map[net.Conn][2]*member
	ends map[string]*member // by the address that others know
}

var errCut = errors.New("the wire is cut")

// dial is how one node reaches others.
func (w *wires) dial(from *member) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		to := w.ends[addr]
		if w.cut[from] || w.cut[to] {
			c.Close()
			return nil, errCut
		}
		if w.runs == nil {
			w.runs = map[net.Conn][2]*member{}
		}
		w.runs[c] = [2]*member{from, to}
		return c, nil
	}
}

// knows notes where a node is reached.
func (w *wires) knows(m *member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ends == nil {
		w.ends = map[string]*member{}
	}
	w.ends[m.ClusterAddr()] = m
}

// isolate cuts a node off from all others, both ways, until it is healed.
func (w *wires) isolate(m *member) (heal func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut == nil {
		w.cut = map[*member]bool{}
	}
	w.cut[m] = true
	for c, ends := range w.runs {
		if ends[0] == m || ends[1] == m {
			c.Close()
			delete(w.runs, c)
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.cut, m)
	}
}
