package client

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// maxIdle limits the streams that a client keeps between sends, one a queue: the one that
// was not used for longest goes. A server allows 1,000 streams a connection, those of
// workers included.
const maxIdle = 64

// idleStreams are the senders whose stream is kept, the last used at the end.
type idleStreams struct {
	mu   sync.Mutex
	kept []*sender
}

// sender makes the calls of one line, one at a time, by a stream: a call of its own
// costs twice as much.
type sender struct {
	client *Client
	codec  encodedCodec
	req    comandav1.ProduceRequest // used again by each call

	// Under the lock of the client's idle streams.
	idle    *producing // for the next call; nil: none, or one is under way
	retired bool       // the line is not kept, so no stream is
}

// producing is a stream to one server.
type producing struct {
	grpc.ClientStream
	cancel context.CancelFunc
	over   bool // no further call goes by it
}

func newSender(c *Client, queue string) *sender {
	s := &sender{client: c, codec: newEncodedCodec()}
	s.req.Send = &comandav1.SendRequest{Queue: queue}
	return s
}

func (s *sender) begin(entries []*sending) func(context.Context) error {
	send := s.req.GetSend()
	send.Messages = send.Messages[:0]
	for _, e := range entries {
		send.Messages = append(send.Messages, &e.in)
	}
	req, err := encode(&s.req)
	clear(send.Messages)
	return func(ctx context.Context) error {
		if err != nil {
			return invalidText(err)
		}
		defer req.free()
		var resp *comandav1.SendResponse
		err := again(ctx, func() (err error) {
			resp, err = s.send(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		if len(resp.GetResults()) != len(entries) {
			return &Error{Code: CodeUnknownOutcome, Message: fmt.Sprintf("the server answered %d of %d messages: look before you repeat them", len(resp.GetResults()), len(entries))}
		}
		for i, r := range resp.GetResults() {
			entries[i].answer(r, itemError(r.GetError()))
		}
		return nil
	}
}

// send makes one call.
func (s *sender) send(ctx context.Context, req encoded) (*comandav1.SendResponse, error) {
	p, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	defer s.put(p)
	return p.exchange(ctx, req)
}

// exchange makes a call by the stream.
func (p *producing) exchange(ctx context.Context, req encoded) (*comandav1.SendResponse, error) {
	waitedFor := context.AfterFunc(ctx, p.cancel)
	// When it fails no server has the whole request: the stream had ended, perhaps
	// since the last call. The answer says why.
	left := p.SendMsg(req) == nil
	var answer comandav1.ProduceResponse
	err := p.RecvMsg(&answer)
	p.over = !waitedFor() || err != nil
	if err != nil {
		return nil, callError(err, left)
	}
	err = itemError(answer.GetError())
	p.over = p.over || elsewhere(answer.GetError()) || slices.ContainsFunc(answer.GetSent().GetResults(), func(r *comandav1.SendResult) bool {
		return elsewhere(r.GetError())
	})
	return answer.GetSent(), err
}

// elsewhere says that another server may be able to do what this one could not: it may
// be cut off from the others.
func elsewhere(e *comandav1.Error) bool {
	err := itemError(e)
	return untouched(err) || CodeOf(err) == CodeUnknownOutcome
}

var produce = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// take returns the stream that was kept, or a new one.
func (s *sender) take(ctx context.Context) (*producing, error) {
	if p := s.client.idle.take(s); p != nil {
		return p, nil
	}
	lasting, cancel := context.WithCancel(s.client.ctx)
	defer context.AfterFunc(ctx, cancel)()
	stream, err := s.client.conn.NewStream(lasting, produce, comandav1.Messages_Produce_FullMethodName, grpc.ForceCodecV2(s.codec))
	if err != nil {
		cancel()
		return nil, callError(err, false)
	}
	return &producing{ClientStream: stream, cancel: cancel}, nil
}

// put keeps a stream for the next call, or ends it.
func (s *sender) put(p *producing) {
	if p.over {
		p.cancel()
	} else {
		s.client.idle.put(s, p)
	}
}

// take returns the stream that was kept of a sender; nil: none was.
func (i *idleStreams) take(s *sender) *producing {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.remove(s)
}

// put keeps a sender's stream.
func (i *idleStreams) put(s *sender, p *producing) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if s.retired {
		p.cancel()
		return
	}
	s.idle, i.kept = p, append(i.kept, s)
	if len(i.kept) > maxIdle {
		i.remove(i.kept[0]).cancel()
	}
}

// retire ends a sender's stream, now or after the call that is under way.
func (i *idleStreams) retire(s *sender) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s.retired = true
	if p := i.remove(s); p != nil {
		p.cancel()
	}
}

// remove is take with the lock held.
func (i *idleStreams) remove(s *sender) *producing {
	p := s.idle
	if p != nil {
		s.idle = nil
		at := slices.Index(i.kept, s)
		i.kept = slices.Delete(i.kept, at, at+1)
	}
	return p
}
