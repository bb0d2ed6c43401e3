package client

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

const (
	maxFrame       = 17 << 20         // of one gRPC message, both ways
	window         = 4 << 20          // of one stream, so that a full batch does not wait for credit
	connWindow     = 16 << 20         // of one connection
	pingAfter      = 10 * time.Second // of silence of a connection
	pingTimeout    = 5 * time.Second
	connectTimeout = 5 * time.Second
	backoffBase    = 50 * time.Millisecond
	backoffMax     = 2 * time.Second
)

// Client is a connection to a server, or to several of one cluster, which take
// turns while they answer. It is safe for many goroutines, which should share one.
type Client struct {
	conn     *grpc.ClientConn
	messages comandav1.MessagesClient
	queues   comandav1.QueuesClient
	cluster  comandav1.ClusterClient

	// ctx ends with Close: it bounds the calls that many callers share.
	ctx    context.Context
	cancel context.CancelFunc

	entries sync.Pool // of *sending
	lines   lines
	idle    idleStreams // of producers
	settler *coalescer[*comandav1.Settlement, SettleResult]

	closing sync.Once
}

// Option changes how New makes a client.
type Option func(*options)

type options struct {
	dial func(ctx context.Context, addr string) (net.Conn, error)
}

// WithDialer makes the client open its connections by dial, which gets one of
// the addresses that New was given.
func WithDialer(dial func(ctx context.Context, addr string) (net.Conn, error)) Option {
	return func(o *options) { o.dial = dial }
}

// New makes a client of the server at addr: host:port, or several with commas:
// calls and streams go in turn to those that are connected. It does not wait for
// a connection: the first call opens them, and lost ones are opened again.
func New(addr string, opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	addrs, err := parseAddresses(addr)
	if err != nil {
		return nil, err
	}
	conn, err := dial(addrs, o)
	if err != nil {
		return nil, fmt.Errorf("client of %q: %w", addr, err)
	}
	c := &Client{
		conn:     conn,
		messages: comandav1.NewMessagesClient(conn),
		queues:   comandav1.NewQueuesClient(conn),
		cluster:  comandav1.NewClusterClient(conn),
		lines:    lines{of: map[string]*line{}},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.entries.New = func() any { return newEntry[comandav1.NewMessage, *comandav1.SendResult]() }
	c.settler = &coalescer[*comandav1.Settlement, SettleResult]{ctx: c.ctx, begin: c.beginSettle}
	return c, nil
}

// Close ends the connection. Calls that are under way fail; twice is fine.
func (c *Client) Close() (err error) {
	c.closing.Do(func() {
		c.cancel()
		err = c.conn.Close()
	})
	return err
}

func parseAddresses(addr string) ([]resolver.Address, error) {
	var addrs []resolver.Address
	for a := range strings.SplitSeq(addr, ",") {
		a = strings.TrimSpace(a)
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, &Error{Code: CodeInvalidArgument, Message: fmt.Sprintf("server address %q is not host:port: give for example localhost:7400", a)}
		}
		addrs = append(addrs, resolver.Address{Addr: a, ServerName: a}) // each is called by its own name
	}
	return addrs, nil
}

func dial(addrs []resolver.Address, o options) (*grpc.ClientConn, error) {
	r := manual.NewBuilderWithScheme("comanda")
	r.InitialState(resolver.State{Addresses: addrs})
	opts := []grpc.DialOption{
		grpc.WithResolvers(r),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxFrame), grpc.MaxCallSendMsgSize(maxFrame)),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		// grpc's own backoff grows to two minutes: too long to stay away from a
		// server that is back after a second.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: backoffMax},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithUnaryInterceptor(translate),
	}
	if o.dial != nil {
		opts = append(opts, grpc.WithContextDialer(o.dial))
	}
	return grpc.NewClient("comanda:///"+addrs[0].Addr, opts...)
}
