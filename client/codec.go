package client

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// encoded is a request that is marshalled already, for one call or several.
type encoded mem.BufferSlice

// free gives the buffer back to its pool, when grpc is done with it too.
func (e encoded) free() { mem.BufferSlice(e).Free() }

// encode marshals m now. After that m may change while the call is under way.
func encode(m proto.Message) (encoded, error) {
	buf := mem.DefaultBufferPool().Get(proto.Size(m))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:0], m)
	if err != nil {
		mem.DefaultBufferPool().Put(buf)
		return nil, err
	}
	*buf = b
	return encoded{mem.NewBuffer(buf, mem.DefaultBufferPool())}, nil
}

// encodedCodec is the proto codec of calls whose request is an encoded.
type encodedCodec struct{ encoding.CodecV2 }

func newEncodedCodec() encodedCodec {
	return encodedCodec{encoding.GetCodecV2(grpcproto.Name)}
}

func (c encodedCodec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(encoded); ok {
		b := mem.BufferSlice(e)
		b.Ref() // which grpc frees
		return b, nil
	}
	return nil, fmt.Errorf("a call with an encoded request got a %T", v)
}
