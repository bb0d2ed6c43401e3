package node

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/comanda-mq/comanda/internal/protocol/native"
)

const (
	// sniffWithin is how long a connection may take to say its first bytes.
	sniffWithin = 10 * time.Second
	// maxConnections is how many connections one listener holds; one more is
	// closed at once.
	maxConnections = 20_000
	// http2Preface is how every HTTP/2 connection begins, and no HTTP/1 request.
	http2Preface = "PRI"
)

// port serves gRPC and HTTP on one listener: the first bytes of a connection
// tell them apart.
type port struct {
	listener net.Listener
	grpc     *grpc.Server
	drain    func() // ends the gRPC streams that would not end by themselves
	http     *http.Server
	toGRPC   *handoff
	toHTTP   *handoff
	slots    chan struct{}
	wg       sync.WaitGroup

	mu       sync.Mutex
	silent   map[net.Conn]bool // have not said their first bytes
	stopping bool
}

func newPort(l net.Listener, g *grpc.Server, drain func(), handler http.Handler) *port {
	return &port{
		listener: l, grpc: g, drain: drain, toGRPC: newHandoff(l.Addr()), toHTTP: newHandoff(l.Addr()),
		slots: make(chan struct{}, maxConnections), silent: map[net.Conn]bool{},
		http: &http.Server{
			Handler: handler, ReadHeaderTimeout: sniffWithin, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		},
	}
}

// start begins to serve; stop ends it.
func (p *port) start() {
	p.wg.Go(func() { _ = p.grpc.Serve(p.toGRPC) }) // they end by stop, with nothing to tell
	p.wg.Go(func() { _ = p.http.Serve(p.toHTTP) })
	p.wg.Go(p.accept)
}

func (p *port) accept() {
	for {
		c, err := p.listener.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed) || p.ends():
			return
		default:
			// Out of file descriptors, most likely: those in use come back.
			pause, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			<-pause.Done()
			cancel()
			continue
		}
		select {
		case p.slots <- struct{}{}:
			s := &sniffed{Conn: c, slots: p.slots}
			p.wg.Go(func() { p.sort(s) })
		default:
			_ = c.Close() // full
		}
	}
}

// sort reads a connection's first bytes and gives it to its server.
func (p *port) sort(c *sniffed) {
	if !p.listenTo(c) {
		_ = c.Close()
		return
	}
	defer p.heard(c)
	_ = c.SetReadDeadline(time.Now().Add(sniffWithin))
	c.r = bufio.NewReaderSize(c.Conn, 512)
	first, err := c.r.Peek(len(http2Preface))
	if err != nil {
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	p.heard(c)
	if string(first) == http2Preface {
		p.toGRPC.give(c)
	} else {
		p.toHTTP.give(c)
	}
}

func (p *port) ends() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopping
}

// listenTo notes a connection that has yet to speak; false: it is too late.
func (p *port) listenTo(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent[c] = true
	return !p.stopping
}

func (p *port) heard(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.silent, c)
}

// hush closes the connections that have not spoken: nobody waits for them.
func (p *port) hush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
	for c := range p.silent {
		_ = c.Close()
	}
}

// stop lets calls in flight end within ctx, and ends the rest.
func (p *port) stop(ctx context.Context) {
	_ = p.listener.Close()
	p.hush()
	done := make(chan struct{})
	go func() {
		p.grpc.GracefulStop()
		close(done)
	}()
	p.drain()
	_ = p.http.Shutdown(ctx)
	select {
	case <-done:
	case <-ctx.Done():
		p.grpc.Stop()
		<-done
	}
	_ = p.http.Close()
	p.wg.Wait()
}

// sniffed is a connection whose first bytes were read already.
type sniffed struct {
	net.Conn
	r     *bufio.Reader
	slots chan struct{}
	once  sync.Once
}

func (c *sniffed) Read(b []byte) (int, error) {
	if c.r != nil {
		if c.r.Buffered() > 0 {
			return c.r.Read(b)
		}
		c.r = nil // from now on straight
	}
	return c.Conn.Read(b)
}

func (c *sniffed) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}

// handoff is a listener that is given its connections.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handoff) Addr() net.Addr { return h.addr }

// routes are the paths of the port, behind the check of Host and Origin.
func (n *Node) routes(s *native.Server, allowed func(string) bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", s.Handler())
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", n.serveReady)
	mux.Handle("GET /metrics", n.metrics.Handler())
	return native.CheckHost(allowed, mux)
}
