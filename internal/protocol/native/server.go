package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/metrics"
	"github.com/comanda-mq/comanda/internal/slowlog"
)

const (
	maxGRPCMessage = 17 << 20 // bytes: a full batch and its envelope
	maxHeaderBytes = 64 << 10
	maxStreams     = 1_000 // calls at once on one connection
	// What a client may have under way, of a stream and of a connection. Without
	// them grpc measures the way with a ping and its answer beside each message.
	window           = 4 << 20
	connWindow       = 16 << 20
	handshakeTimeout = 10 * time.Second
	// A client may ping every minPing; a connection that is silent for pingAfter
	// is asked, and closed if it does not answer within pingTimeout, so that
	// half-open connections hold no streams.
	minPing     = 5 * time.Second
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
	// codeOK is the code under which calls without an error are counted.
	codeOK = "OK"
)

// Options of a Server; all fields but Metrics, Slow and MaxStreams are needed.
type Options struct {
	Verbs Verbs
	// Allowed tells the server's own names from foreign ones; see AllowHosts.
	Allowed func(host string) bool
	Metrics *metrics.Metrics // nil: nothing is counted
	Slow    *slowlog.Log     // nil: none is watched
	Logger  *slog.Logger
	// MaxStreams limits the calls at once on one gRPC connection; default 1,000.
	MaxStreams uint32
}

// Server translates between clients and Verbs. It holds no state but open calls.
type Server struct {
	verbs      Verbs
	allowed    func(host string) bool
	metrics    *metrics.Metrics
	slow       *slowlog.Log
	log        *slog.Logger
	maxStreams uint32
	rest       http.Handler
	bodies     atomic.Int64 // bytes of REST bodies that are being served
	drained    sync.Once
	draining   chan struct{} // closed by Drain
}

// New makes a Server; it starts nothing.
func New(o Options) *Server {
	s := &Server{verbs: o.Verbs, allowed: o.Allowed, metrics: o.Metrics, slow: o.Slow, log: o.Logger, maxStreams: o.MaxStreams, draining: make(chan struct{})}
	if s.maxStreams == 0 {
		s.maxStreams = maxStreams
	}
	s.rest = CheckHost(s.allowed, s.recoverHTTP(s.newREST()))
	return s
}

// Handler serves REST on the paths under /v1/. It refuses foreign hosts itself.
func (s *Server) Handler() http.Handler { return s.rest }

// Drain ends the streams of producers between two requests, and those that come:
// the server stops.
func (s *Server) Drain() { s.drained.Do(func() { close(s.draining) }) }

// GRPC makes a gRPC server with the limits and checks of this protocol; opts are
// added to them (credentials). Who serves it also stops it; Stop waits for the
// calls that are still running.
func (s *Server) GRPC(opts ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxGRPCMessage),
		grpc.MaxSendMsgSize(maxGRPCMessage),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(s.maxStreams),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	}, opts...)...)
	register(g, comandav1.Messages_ServiceDesc, messages{Server: s})
	register(g, comandav1.Queues_ServiceDesc, queues{Server: s})
	register(g, comandav1.Cluster_ServiceDesc, cluster{Server: s})
	return g
}

// The three services of the contract.
type (
	messages struct {
		comandav1.UnimplementedMessagesServer
		*Server
	}
	queues struct {
		comandav1.UnimplementedQueuesServer
		*Server
	}
	cluster struct {
		comandav1.UnimplementedClusterServer
		*Server
	}
)

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	op := path.Base(info.FullMethod)
	call := s.metrics.Begin("grpc", op)
	ctx, _ = s.slow.Begin(ctx, "grpc", op)
	err = guard(func() error {
		if err := s.checkAuthority(ctx); err != nil {
			return err
		}
		resp, err = next(ctx, req)
		return err
	})
	if refused := s.ended(ctx, call, err); refused != nil {
		return nil, statusOf(refused, err)
	}
	return resp, nil
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, call := stream.Context(), s.metrics.Begin("grpc", path.Base(info.FullMethod))
	err := guard(func() error {
		if err := s.checkAuthority(ctx); err != nil {
			return err
		}
		return next(srv, requestStream{stream})
	})
	if refused := s.ended(ctx, call, err); refused != nil {
		return statusOf(refused, err)
	}
	return nil
}

// ended counts a call, ends the watch over it if there is one, and says what its client
// is told of its error; nil: it has none.
func (s *Server) ended(ctx context.Context, call metrics.Call, err error) (refused *message.Error) {
	code := codeOK
	if err != nil {
		refused = s.refusal(ctx, err)
		if !errors.Is(err, errDrained) {
			code = string(refused.Code)
		}
	}
	call.End(code)
	slowlog.Of(ctx).End(code)
	return refused
}

// checkAuthority is CheckHost for gRPC.
func (s *Server) checkAuthority(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	host := ""
	if a := md.Get(":authority"); len(a) > 0 {
		host = a[0]
	}
	if err := ForeignOrigin(s.allowed, host, md.Get("origin")); err != nil {
		return err
	}
	return nil
}

// guard runs f and turns a panic into an error with the stack, so that a defect
// that one request meets does not end the process for all others.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
