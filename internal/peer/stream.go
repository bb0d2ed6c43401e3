package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/comanda-mq/comanda/internal/message"
)

// A stream sends its body in chunks, and lets few of them wait, so that it is
// the other side's reading that sets its pace.
const (
	chunkBytes  = 256 << 10
	streamQueue = 1 << 20
)

// Stream sends header and body to node to, over a connection of its own, and
// waits for the handler's answer there. Its outcomes are those of Call. An
// error of body ends it, and the other side sees a body that broke off. body
// must end, or fail, when ctx ends: Stream waits for a Read that it has begun.
func (p *Peers) Stream(ctx context.Context, to uint64, header []byte, body io.Reader) error {
	name := nodeName(to)
	if len(header) > MaxRequest {
		return message.Errorf(message.TooLarge, "the header of a stream to %s has %d bytes, %d are allowed", name, len(header), MaxRequest)
	}
	addr, ok := p.o.Address(to)
	if !ok {
		return notSent(name, errUnknown)
	}
	out := &outbox{}
	out.init()
	c, _, err := p.connect(ctx, addr, hello{purpose: forStream, expects: to}, out)
	if err != nil {
		return notSent(name, err)
	}
	defer context.AfterFunc(ctx, func() { c.cut(ctx.Err()) })()
	var both sync.WaitGroup
	both.Go(c.pump)
	var answered bool
	var answer error
	both.Go(func() {
		if answered, answer = c.readAnswer(); answered {
			p.hangUp(c, errHungUp) // which also ends feed
		} else {
			p.hangUp(c, answer)
		}
	})
	if err := feed(ctx, out, header, body); err != nil {
		p.hangUp(c, err)
	}
	both.Wait()
	switch {
	case answered:
		return answer
	case out.taken == 0:
		return notSent(name, out.err)
	default:
		return unknown(name, out.err)
	}
}

// feed queues all of a stream. A body whose reader ended with ctx is not
// complete, whatever it says.
func feed(ctx context.Context, out *outbox, header []byte, body io.Reader) error {
	if err := out.add(streamQueue, frameHeader, 0, header); err != nil {
		return err
	}
	chunk := make([]byte, chunkBytes)
	for {
		n, err := body.Read(chunk)
		if n > 0 {
			if err := out.add(streamQueue, frameData, 0, chunk[:n]); err != nil {
				return err
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return out.add(streamQueue, frameEnd, 0)
		case err != nil:
			return fmt.Errorf("read the body of the stream: %w", err)
		}
	}
}

// readAnswer waits for the answer to a stream; err is what it says, or why there
// is none.
func (c *conn) readAnswer() (answered bool, err error) {
	for {
		f, err := c.next()
		if err != nil {
			return false, err
		}
		switch f.kind {
		case framePing:
		case frameAnswer:
			return true, nil
		case frameFailure:
			refusal, err := decodeFailure(f.payload)
			if err != nil {
				return false, err
			}
			return true, refusal
		default:
			return false, fmt.Errorf("%w: kind %d was not expected", errMalformed, f.kind)
		}
	}
}

// takeStream gives a stream to the handler and sends its answer.
func (p *Peers) takeStream(c *conn, from uint64) {
	ctx, cancel := context.WithCancelCause(p.ctx)
	body := &streamBody{c: c, broke: cancel}
	header, err := body.frame(frameHeader)
	if err == nil {
		err = p.o.Handler.Stream(ctx, from, header, body)
		if c.answer(0, nil, err) == nil {
			err = body.drain()
		}
	}
	cancel(err)
	p.hangUp(c, err)
}

// streamBody reads the body of a stream from its connection.
type streamBody struct {
	c     *conn
	broke context.CancelCauseFunc
	rest  []byte // of the frame that was read last
	err   error  // what every further Read returns
}

// Read implements io.Reader: io.EOF comes only after the sender's own end.
func (b *streamBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 && b.err == nil {
		b.rest, b.err = b.frame(frameData)
	}
	if len(b.rest) == 0 {
		return 0, b.err
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// frame reads the next frame that is no ping. A broken stream ends the
// handler's context.
func (b *streamBody) frame(want kind) ([]byte, error) {
	for {
		f, err := b.c.next()
		switch {
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		case err != nil, f.kind == framePing:
		case f.kind == want:
			return f.payload, nil
		case f.kind == frameEnd:
			return nil, io.EOF
		default:
			err = fmt.Errorf("%w: kind %d was not expected", errMalformed, f.kind)
		}
		if err != nil {
			err = fmt.Errorf("the stream broke off: %w", err)
			b.broke(err)
			return nil, err
		}
	}
}

// drain reads until the sender has hung up. To close a socket with unread bytes
// could destroy the answer on its way.
func (b *streamBody) drain() error {
	for {
		if _, err := b.c.next(); err != nil {
			return err
		}
	}
}
