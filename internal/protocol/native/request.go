package native

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/comanda-mq/comanda/internal/message"
)

// Bytes that are no request are the mistake of their client. gRPC takes them for a
// defect of the server, and answers so before anybody can say otherwise; therefore the
// codec never fails, and notes what it could not read.

// request is where a request is to be read to.
type request struct {
	into any
	err  error // why it could not be
}

// readTo reads a request by what gRPC gives for that.
func readTo(into any, read func(any) error) error {
	r := request{into: into}
	if err := read(&r); err != nil {
		return err
	}
	if r.err != nil {
		return message.Errorf(message.InvalidArgument, "the request can't be read: %s", r.err)
	}
	return nil
}

// codec reads requests.
type codec struct{ encoding.CodecV2 }

func (c codec) Unmarshal(b mem.BufferSlice, v any) error {
	r, ok := v.(*request)
	if !ok {
		return c.CodecV2.Unmarshal(b, v)
	}
	r.err = c.CodecV2.Unmarshal(b, r.into)
	return nil
}

// requestStream reads the requests of a stream.
type requestStream struct{ grpc.ServerStream }

func (s requestStream) RecvMsg(into any) error { return readTo(into, s.ServerStream.RecvMsg) }

// register has g serve a service.
func register(g *grpc.Server, desc grpc.ServiceDesc, service any) {
	desc.Methods = slices.Clone(desc.Methods)
	for i, m := range desc.Methods {
		desc.Methods[i].Handler = func(srv any, ctx context.Context, read func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
			return m.Handler(srv, ctx, func(into any) error {
				err := readTo(into, read)
				var refused *message.Error
				if errors.As(err, &refused) { // no interceptor sees it
					return statusError(codes.InvalidArgument, refused)
				}
				return err
			}, around)
		}
	}
	g.RegisterService(&desc, service)
}
