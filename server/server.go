// Package server runs a whole Comanda server inside your process: for programs
// that bring their queue along, and for tests.
//
//	s, err := server.Open(ctx, "orders.data")
//	if err != nil { … }
//	defer s.Close(ctx)
//	c, err := client.New(s.Addr())
package server

import (
	"context"
	"log/slog"

	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/node"
)

// Option changes how a server runs.
type Option func(*node.Config)

// WithListen sets the address for clients; the default is a free port of
// 127.0.0.1.
func WithListen(addr string) Option { return func(c *node.Config) { c.Listen = addr } }

// WithLogger sets the logger; the default logs nothing.
func WithLogger(l *slog.Logger) Option { return func(c *node.Config) { c.Logger = l } }

// WithDiskReserve sets how many bytes must stay free on the disk; below, sends
// are refused with RESOURCE_EXHAUSTED.
func WithDiskReserve(bytes uint64) Option { return func(c *node.Config) { c.DiskReserve = bytes } }

// WithMemoryLimit sets how many bytes the process may use before sends are
// refused with RESOURCE_EXHAUSTED.
func WithMemoryLimit(bytes uint64) Option { return func(c *node.Config) { c.MemoryLimit = bytes } }

// WithClock sets the clock by which leases end, delays are over, and all else happens to
// messages; the default is the machine's. Package comandatest brings one that a test
// advances.
func WithClock(clk clock.Clock) Option { return func(c *node.Config) { c.GroupClock = clk } }

// Server is a running server.
type Server struct{ n *node.Node }

// Open starts a server on a data directory, which it makes if it is not there,
// and returns when clients are served. A directory that another server holds,
// that is damaged or that a newer version wrote is refused.
func Open(ctx context.Context, dir string, opts ...Option) (*Server, error) {
	c := node.Config{DataDir: dir, Listen: "127.0.0.1:0"}
	for _, o := range opts {
		o(&c)
	}
	n, err := node.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Server{n}, nil
}

// Addr is where clients reach the server: host:port.
func (s *Server) Addr() string { return s.n.Addr().String() }

// Done is closed when the server has ended, by Close or because its disk failed.
func (s *Server) Done() <-chan struct{} { return s.n.Ended() }

// CatchUp waits until all that is due by the server's clock has happened: until leases
// whose time has come have ended, delayed messages are ready, and what was to go to
// another queue is there.
func (s *Server) CatchUp(ctx context.Context) error { return s.n.CatchUp(ctx) }

// Close lets calls in flight end until ctx does, and stops the server. What was
// confirmed is on disk.
func (s *Server) Close(ctx context.Context) error { return s.n.Stop(ctx) }
