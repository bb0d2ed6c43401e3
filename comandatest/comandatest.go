// Package comandatest runs a server in a test's process, whose time the test turns:
//
//	s := comandatest.New(t)
//	s.CreateQueue(ctx, "orders", client.QueueOptions{})
//	… a handler fails …
//	s.Advance(time.Hour) // its next attempt is due
//
// Everything that happens to messages goes by that time: leases, delays, backoff,
// deliver_at, expires and rates. It stands still until it is advanced. What concerns
// processes does not: a worker beats and is watched in real time, as it is real, and
// keeps what it holds however far the test's time goes.
package comandatest

import (
	"context"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/server"
)

// within is how long the server may take to start, to catch up and to stop, in real
// time.
const within = time.Minute

// Server is a server of a test, and its client.
type Server struct {
	*client.Client
	t      testing.TB
	server *server.Server
	clock  *clock.Manual
}

// New starts a server that ends with the test. Its data is in a directory of the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, clock: clock.NewManual()}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var err error
	if s.server, err = server.Open(ctx, t.TempDir(), server.WithClock(s.clock), server.WithDiskReserve(1)); err != nil {
		t.Fatalf("start a server: %v", err)
	}
	t.Cleanup(s.stop)
	if s.Client, err = client.New(s.Addr()); err != nil {
		t.Fatalf("make a client of the server: %v", err)
	}
	return s
}

func (s *Server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if s.Client != nil {
		if err := s.Close(); err != nil {
			s.t.Errorf("close the client: %v", err)
		}
	}
	if err := s.server.Close(ctx); err != nil {
		s.t.Errorf("stop the server: %v", err)
	}
}

// Addr is where other clients reach the server: host:port.
func (s *Server) Addr() string { return s.server.Addr() }

// Now is the time of the server.
func (s *Server) Now() time.Time { return s.clock.Now() }

// Advance makes the server's time go on by d, in one step, and returns when all has
// happened whose time has come: what was delayed is ready, leases have ended, and what
// was to go to another queue is there. Workers get it in their own time.
func (s *Server) Advance(d time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	s.clock.Advance(d)
	if err := s.server.CatchUp(ctx); err != nil {
		s.t.Fatalf("after %s the server has not caught up: %v", d, err)
	}
}
