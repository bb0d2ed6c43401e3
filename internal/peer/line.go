package peer

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// line is what one connection that this side opened carries: requests and
// messages out, answers in. It begins before the connection does, and collects
// what waits for it; it ends with it, and nothing of it goes over to another.
type line struct {
	outbox
	to    string           // whom it reaches, in words
	next  uint64           // id of the newest call
	calls map[uint64]*call // those that nobody has answered or given up
}

// call is one that waits for its answer. Whoever takes it out of line.calls
// fills it and closes done.
type call struct {
	at     uint64 // place of its request in the outbox
	done   chan struct{}
	answer []byte
	err    error
}

func newLine(to string) *line {
	ln := &line{to: to, calls: map[uint64]*call{}}
	ln.init()
	return ln
}

// call sends a request and waits for its answer; hurry asks for it.
func (ln *line) call(ctx context.Context, now time.Time, request []byte, hurry <-chan struct{}) ([]byte, error) {
	id, c, err := ln.begin(ctx, now, request)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return c.answer, c.err
	case <-hurry:
		ln.hurry(id)
	case <-ctx.Done():
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		ln.giveUp(id, ctx.Err())
		<-c.done
	}
	return c.answer, c.err
}

// hurry tells the handler that the answer is wanted soon.
func (ln *line) hurry(id uint64) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.calls[id] != nil && ln.err == nil && ln.fitsLocked(headerBytes) {
		ln.addLocked(frameHurry, id) // behind its request
	}
}

// begin queues a request.
func (ln *line) begin(ctx context.Context, now time.Time, request []byte) (uint64, *call, error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, notSent(ln.to, ctx.Err())
	}
	if len(request) > MaxRequest {
		return 0, nil, message.Errorf(message.TooLarge, "a request to %s has %d bytes, %d are allowed", ln.to, len(request), MaxRequest)
	}
	var room [binary.MaxVarintLen64]byte
	left := appendTimeLeft(ctx, room[:0], now)
	ln.mu.Lock()
	defer ln.mu.Unlock()
	switch {
	case ln.err != nil:
		return 0, nil, notSent(ln.to, ln.err)
	case len(ln.calls) >= MaxCalls || !ln.fitsLocked(headerBytes+len(left)+len(request)):
		return 0, nil, message.Errorf(message.ResourceExhausted,
			"%d calls and %d bytes wait for %s: try again later", len(ln.calls), len(ln.waiting)+ln.writing, ln.to)
	}
	ln.next++
	c := &call{done: make(chan struct{})}
	c.at = ln.addLocked(frameRequest, ln.next, left, request)
	ln.calls[ln.next] = c
	return ln.next, c, nil
}

// giveUp ends a call whose caller waits no longer, unless its answer was
// quicker.
func (ln *line) giveUp(id uint64, cause error) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	c := ln.calls[id]
	if c == nil {
		return
	}
	delete(ln.calls, id)
	if ln.withdrawLocked(c.at) {
		c.err = notSent(ln.to, cause)
	} else {
		c.err = unknown(ln.to, cause)
		if ln.err == nil && ln.fitsLocked(headerBytes) { // else the other side learns it at the end of the time left
			ln.addLocked(frameCancel, id)
		}
	}
	close(c.done)
}

// send queues messages and returns how many are lost.
func (ln *line) send(batch []Message) (lost int) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.err != nil {
		return len(batch)
	}
	for len(batch) > 0 {
		n, size := oneFrame(batch[:min(len(batch), MaxQueuedMessages-ln.messages)])
		if n == 0 || !ln.fitsLocked(headerBytes+size) {
			break
		}
		begin := ln.beginLocked()
		for _, m := range batch[:n] {
			ln.waiting = appendMessage(ln.waiting, m)
		}
		ln.sealLocked(begin, frameMessages, 0)
		ln.messages += n
		batch = batch[n:]
	}
	return len(batch)
}

// oneFrame says how many of the messages fit in a frame, and their bytes.
func oneFrame(batch []Message) (n, size int) {
	for n < len(batch) && size+messageBytes(batch[n]) <= maxFrame {
		size += messageBytes(batch[n])
		n++
	}
	return n, size
}

// answered ends a call with what the other side says. Nobody waits any more for
// the answer to a call that was given up.
func (ln *line) answered(id uint64, answer []byte, err error) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if c := ln.calls[id]; c != nil {
		delete(ln.calls, id)
		c.answer, c.err = answer, err
		close(c.done)
	}
}

// end closes the line and ends its calls, each according to whether it may have
// left. It returns how many messages did not leave. Twice is fine.
func (ln *line) end(cause error) (lost int) {
	ln.close(cause)
	ln.mu.Lock()
	defer ln.mu.Unlock()
	for id, c := range ln.calls {
		delete(ln.calls, id)
		if c.at >= ln.taken {
			c.err = notSent(ln.to, ln.err)
		} else {
			c.err = unknown(ln.to, ln.err)
		}
		close(c.done)
	}
	lost, ln.messages = ln.messages, 0
	return lost
}

// listen reads answers until the connection ends.
func (ln *line) listen(c *conn) error {
	for {
		f, err := c.next()
		if err != nil {
			return err
		}
		switch f.kind {
		case framePing:
		case frameAnswer:
			ln.answered(f.id, f.payload, nil)
		case frameFailure:
			refusal, err := decodeFailure(f.payload)
			if err != nil {
				return err
			}
			ln.answered(f.id, nil, refusal)
		default:
			return fmt.Errorf("%w: kind %d was not expected", errMalformed, f.kind)
		}
	}
}

// converse carries a line over its connection until that ends, and ends the
// line.
func (p *Peers) converse(c *conn, ln *line) {
	var pump sync.WaitGroup
	pump.Go(c.pump)
	err := ln.listen(c)
	p.hangUp(c, err)
	pump.Wait()
	p.end(ln, err)
}

func (p *Peers) end(ln *line, cause error) {
	p.stats.messagesLost.Add(uint64(ln.end(cause)))
}
