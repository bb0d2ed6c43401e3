package native

import (
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// producing is one producer's stream.
type producing struct {
	messages
	stream grpc.BidiStreamingServer[comandav1.ProduceRequest, comandav1.ProduceResponse]

	mu   sync.Mutex // held while a request is done and answered
	over bool       // no further one is begun
}

// errDrained ends a stream of a server that stops. Nothing was under way on it, so it is
// nobody's failure.
var errDrained = message.Errorf(message.Unavailable, "the server stops; nothing was done: try again")

// Produce serves a producer's stream until the client has closed its side, or the
// server is drained: then, what was begun is answered first, so the client knows of
// everything that has no answer that it was not done.
func (s messages) Produce(stream grpc.BidiStreamingServer[comandav1.ProduceRequest, comandav1.ProduceResponse]) error {
	p := &producing{messages: s, stream: stream}
	done := make(chan error, 1)
	// It ends when the stream does, which is after this call.
	go func() { done <- guard(p.run) }()
	select {
	case err := <-done:
		return err
	case <-s.draining:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.over = true
		return errDrained
	}
}

func (p *producing) run() error {
	for {
		req, err := p.stream.Recv()
		if errors.Is(err, io.EOF) || hungUp(err) { // between two requests
			return nil
		}
		if err != nil {
			return err
		}
		if over, err := p.one(req); over || err != nil {
			return err
		}
	}
}

// one does a request and answers it.
func (p *producing) one(req *comandav1.ProduceRequest) (over bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return true, nil
	}
	ctx, _ := p.slow.Begin(p.stream.Context(), "grpc", "Send")
	resp := &comandav1.ProduceResponse{}
	call := p.metrics.Begin("grpc", "Send")
	err = guard(func() (err error) {
		resp.Sent, err = p.Send(ctx, req.GetSend())
		return err
	})
	if refused := p.ended(ctx, call, err); refused != nil {
		resp.Error = &comandav1.Error{Code: string(refused.Code), Message: refused.Text}
	}
	return false, p.stream.Send(resp)
}
