package native

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

const (
	maxRequestBody = message.MaxBatchBytes + 64<<10 // bytes of one REST request
	maxEmptyBody   = 4 << 10                        // where there should be none
	// maxBodies limits the bodies of all REST requests at once, from before they
	// are read until their requests are answered.
	maxBodies = 16 * maxRequestBody
)

// newREST serves the contract's http annotations. The gateway calls our services
// in-process, so nothing of the gRPC server's interceptors runs: host check and
// recover are around it, and checkRequest does what the gateway would ignore.
func (s *Server) newREST() http.Handler {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &marshaler{}),
		runtime.WithErrorHandler(s.restError),
		runtime.WithRoutingErrorHandler(routingError),
		runtime.WithIncomingHeaderMatcher(incomingHeader),
		runtime.WithDisablePathLengthFallback(), // and with it X-HTTP-Method-Override
		runtime.WithMiddlewares(s.checkRequest(restRoutes())),
	)
	ctx := context.Background() // for nothing: no connection is made
	err := errors.Join(
		comandav1.RegisterMessagesHandlerServer(ctx, mux, messages{Server: s}),
		comandav1.RegisterQueuesHandlerServer(ctx, mux, queues{Server: s}),
		comandav1.RegisterClusterHandlerServer(ctx, mux, cluster{Server: s}),
		mux.HandlePath(http.MethodPost, sendPath, s.sendREST), // over the generated one
	)
	if err != nil {
		panic(err) // the generated code and sendPath are constant
	}
	return mux
}

// recoverHTTP answers for a panic and gives next the peer's address where gRPC
// has it. Answers are written at the very end, so a panic comes before them.
func (s *Server) recoverHTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := peer.NewContext(r.Context(), &peer.Peer{Addr: remoteAddr(r.RemoteAddr)})
		err := guard(func() error {
			next.ServeHTTP(w, r.WithContext(ctx))
			return nil
		})
		if err != nil {
			writeError(w, s.refusal(ctx, err))
		}
	})
}

// remoteAddr is what net/http knows of the peer, as a net.Addr.
type remoteAddr string

func (remoteAddr) Network() string  { return "tcp" }
func (a remoteAddr) String() string { return string(a) }

// incomingHeader passes on what the verbs' encoders read, and nothing else.
func incomingHeader(name string) (string, bool) {
	return name, textproto.CanonicalMIMEHeaderKey(name) == workerHeader
}

// restError answers with the error of a call. A status is the gateway's own: it
// could not read the request.
func (s *Server) restError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	if st, ok := status.FromError(err); ok {
		err = message.Errorf(message.InvalidArgument, "%s", st.Message())
	}
	writeError(w, s.refusal(ctx, err))
}

func routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	writeErrorStatus(w, httpStatus, message.Errorf(message.InvalidArgument,
		"%s %.200q is not served here: %s", r.Method, r.URL.Path, strings.ToLower(http.StatusText(httpStatus))))
}

// marshaler has the gateway speak our JSON.
type marshaler struct{ runtime.JSONPb }

func (marshaler) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, errors.New("not a message of the contract")
	}
	return encodeJSON(m)
}

// requestBody is a body that was read, and what the path says: the gateway
// would overwrite the fields of one with the other.
type requestBody struct {
	io.Reader
	text []byte
	path map[string]string
}

func newRequestBody(text []byte, path map[string]string) requestBody {
	return requestBody{Reader: bytes.NewReader(text), text: text, path: path}
}

func (requestBody) Close() error { return nil }

// NewDecoder reads one value; io.EOF means that there is none.
func (marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, isBody := r.(requestBody)
		m, isMessage := v.(proto.Message)
		switch {
		case !isBody || !isMessage:
			return errors.New("not a message of the contract")
		case len(bytes.TrimSpace(body.text)) == 0:
			return io.EOF
		}
		err := decodeBody(body.text, m, body.path)
		var refused *message.Error
		if errors.As(err, &refused) { // restError gives it its code again
			return errors.New(refused.Text)
		}
		return err
	})
}

// decodeBody reads m and refuses a field that says something else than the path.
func decodeBody(text []byte, m proto.Message, path map[string]string) error {
	if err := decodeJSON(text, m); err != nil {
		return err
	}
	fields := m.ProtoReflect().Descriptor().Fields()
	for name, want := range path {
		got := m.ProtoReflect().Get(fields.ByName(protoreflect.Name(name))).String()
		if got != "" && got != want {
			return message.Errorf(message.InvalidArgument, "the body says %s %.100q, the path %.100q", name, got, want)
		}
	}
	return nil
}

// reserveBody takes room for a body of at most limit bytes from maxBodies, before
// any of it is read; done gives it back.
func (s *Server) reserveBody(r *http.Request, limit int64) (done func(), err error) {
	size := r.ContentLength
	if size > limit {
		return nil, tooLarge(limit)
	}
	if size < 0 { // not known before it ends
		size = limit
	}
	done = func() { s.bodies.Add(-size) }
	if s.bodies.Add(size) > maxBodies {
		done()
		return nil, message.Errorf(message.ResourceExhausted, "the requests of this moment have bodies of more than %d bytes: try again later", maxBodies)
	}
	return done, nil
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge(limit)
	case err != nil:
		return nil, message.Errorf(message.InvalidArgument, "the request's body ended early: %s", err)
	}
	return buf.Bytes(), nil
}

func tooLarge(limit int64) error {
	return message.Errorf(message.TooLarge, "the request's body is larger than %d bytes", limit)
}
