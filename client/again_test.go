package client_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// A send that surely changed nothing is tried again, three times at most; one whose
// outcome is not known is not.
func TestSendsAreTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		failures int64
		err      error
		calls    int64
		code     client.Code
		after    time.Duration
	}{
		"once unavailable":  {1, refuse(codes.Unavailable, "UNAVAILABLE", "no leader"), 2, "", 100 * time.Millisecond},
		"thrice no leader":  {3, refuse(codes.Unavailable, "NOT_LEADER", "no leader"), 4, "", 2600 * time.Millisecond},
		"always":            {9, refuse(codes.Unavailable, "UNAVAILABLE", "no leader"), 4, client.CodeUnavailable, 2600 * time.Millisecond},
		"unknown outcome":   {9, refuse(codes.Unknown, "UNKNOWN_OUTCOME", "who knows"), 1, client.CodeUnknownOutcome, 0},
		"broken connection": {9, refuseBare(codes.Unavailable), 1, client.CodeUnknownOutcome, 0},
		"full":              {9, refuse(codes.ResourceExhausted, "RESOURCE_EXHAUSTED", "full"), 1, client.CodeResourceExhausted, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				f := &fake{onSend: func(context.Context, *comandav1.SendRequest) error {
					if calls.Add(1) <= c.failures {
						return c.err
					}
					return nil
				}}
				cl, began := start(t, f), time.Now()
				id, err := cl.Send(t.Context(), "q", client.Message{Body: []byte("a")})
				if client.CodeOf(err) != c.code || (err == nil) != (id == "id-a") || calls.Load() != c.calls || time.Since(began) != c.after {
					t.Errorf("%q, %v after %d calls and %s", id, err, calls.Load(), time.Since(began))
				}
				for _, bodies := range f.calls() {
					if !slices.Equal(bodies, []string{"a"}) {
						t.Errorf("a call carried %q", bodies)
					}
				}
			})
		})
	}
}

// A slow refusal uses up the time for trying again.
func TestSendsAreNotTriedAgainForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		f := &fake{onSend: func(context.Context, *comandav1.SendRequest) error {
			calls.Add(1)
			<-time.After(4 * time.Second)
			return refuse(codes.Unavailable, "UNAVAILABLE", "no leader")
		}}
		if _, err := start(t, f).Send(t.Context(), "q", client.Message{}); !errors.Is(err, client.ErrUnavailable) || calls.Load() != 2 {
			t.Errorf("%v after %d calls", err, calls.Load())
		}
	})
}

// named is a server that notes by which names it is called.
type named struct {
	comandav1.UnimplementedMessagesServer
	comandav1.UnimplementedClusterServer
	listener *bufconn.Listener
	calls    atomic.Int64
}

func (n *named) GetServer(ctx context.Context, _ *comandav1.GetServerRequest) (*comandav1.GetServerResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	name := md.Get(":authority")[0]
	n.calls.Add(1)
	return &comandav1.GetServerResponse{Node: name}, nil
}

func serveNamed(t *testing.T) (n *named, stop func()) {
	n = &named{listener: bufconn.Listen(1 << 20)}
	s := grpc.NewServer()
	comandav1.RegisterClusterServer(s, n)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(n.listener)
	}()
	stop = func() { s.Stop(); <-served }
	t.Cleanup(stop)
	return n, stop
}

// Several servers take turns, each is called by its own name, and those that are
// gone are left out.
func TestSeveralServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := map[string]*named{}
		one, stop := serveNamed(t)
		servers["one:7400"] = one
		servers["two:7400"], _ = serveNamed(t)
		c, err := client.New("one:7400, nobody:7400, two:7400", client.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			if n := servers[addr]; n != nil {
				return n.listener.DialContext(ctx)
			}
			return nil, errors.New("nobody is there")
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ask := func() map[string]int {
			names := map[string]int{}
			for range 10 {
				info, err := c.Server(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				names[info.GetNode()]++
			}
			return names
		}
		ask() // until both are connected
		synctest.Wait()
		if names := ask(); names["one:7400"] != 5 || names["two:7400"] != 5 {
			t.Errorf("called %v", names)
		}
		stop()
		synctest.Wait()
		if names := ask(); names["two:7400"] != 10 {
			t.Errorf("called %v", names)
		}
	})
}
