package peer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network connects listeners in memory. Its connections have no buffer: a write
// waits until the other side has read all of it.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	dials     int
	wrap      func(dialer net.Conn) net.Conn // nil: as it is
}

func newNetwork() *network { return &network{listeners: map[string]*listener{}} }

type listener struct {
	n      *network
	addr   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (n *network) listen(addr string) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{n: n, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		if l.n.listeners[l.addr] == l {
			delete(l.n.listeners, l.addr)
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.addr, Net: "memory"} }

var errNobody = errors.New("nobody listens there")

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	l, wrap := n.listeners[addr], n.wrap
	n.mu.Unlock()
	if l == nil {
		return nil, errNobody
	}
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		if wrap != nil {
			return wrap(near), nil
		}
		return near, nil
	case <-l.closed:
		return nil, errNobody
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

func (n *network) wrapping(wrap func(net.Conn) net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wrap = wrap
}

// funcs is a Handler made of functions; nil ones answer at once.
type funcs struct {
	messages func(from uint64, batch []Message)
	call     func(ctx context.Context, from uint64, request []byte) ([]byte, error)
	stream   func(ctx context.Context, from uint64, header []byte, body io.Reader) error
}

func (f funcs) Messages(from uint64, batch []Message) {
	if f.messages != nil {
		f.messages(from, batch)
	}
}

func (f funcs) Call(ctx context.Context, from uint64, request []byte) ([]byte, error) {
	if f.call == nil {
		return request, nil
	}
	return f.call(ctx, from, request)
}

func (f funcs) Stream(ctx context.Context, from uint64, header []byte, body io.Reader) error {
	if f.stream == nil {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	return f.stream(ctx, from, header, body)
}

func address(node uint64) string { return "host-" + string(rune('0'+node)) }

// options are those of a node on a network.
func (n *network) options(node uint64, h funcs) Options {
	return Options{
		Self:     Identity{Cluster: "c", Node: node, Boot: 1},
		Listener: n.listen(address(node)),
		Dial:     n.dial,
		Address:  func(node uint64) (string, bool) { return address(node), node > 0 && node < 10 },
		Admit:    func(Identity) error { return nil },
		Handler:  h,
		Clock:    clock.System(),
		Logger:   slog.New(slog.DiscardHandler),
	}
}

// run runs a Peers; stop ends it and waits. The test's end does so too.
func run(t testing.TB, o Options) (p *Peers, stop func()) {
	t.Helper()
	p = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node %d: %v", o.Self.Node, err)
		}
	})
	t.Cleanup(stop)
	return p, stop
}

func (n *network) run(t testing.TB, node uint64, h funcs) *Peers {
	t.Helper()
	p, _ := run(t, n.options(node, h))
	return p
}

// gate is a connection whose writes wait while it is shut, and that tells when
// one waits.
type gate struct {
	net.Conn
	mu    sync.Mutex
	open  chan struct{} // closed: writes pass
	ended chan struct{}
	once  sync.Once
	knock chan struct{} // a value for each write that found it shut

	writes atomic.Int64 // that passed
}

func newGate(c net.Conn) *gate {
	g := &gate{Conn: c, open: make(chan struct{}), ended: make(chan struct{}), knock: make(chan struct{}, 100)}
	close(g.open)
	return g
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
	default:
		g.knock <- struct{}{}
		select {
		case <-open:
		case <-g.ended:
			return 0, net.ErrClosed
		}
	}
	g.writes.Add(1)
	return g.Conn.Write(b)
}

func (g *gate) Close() error {
	g.once.Do(func() { close(g.ended) })
	return g.Conn.Close()
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) unshut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}
