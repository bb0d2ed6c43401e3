package peer

import (
	"bufio"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// The watch looks at all connections each tickEvery. It counts its own ticks
// instead of comparing times, so a process that was paused does not take its own
// pause for the silence of others.
const (
	tickEvery      = 500 * time.Millisecond
	pingAfter      = 2  // ticks without a write
	silentAfter    = 6  // ticks in which a reader waited and heard nothing
	handshakeTicks = 20 // from the first byte to the last
)

// conn is one connection, from the first byte of its handshake on. One
// goroutine reads frames from it, one (pump) writes its outbox to it.
type conn struct {
	net.Conn
	in    *bufio.Reader
	out   *outbox
	stats *counters
	head  [headerBytes]byte
	most  uint32 // bytes of a frame's payload

	shaken  atomic.Bool  // the handshake is done
	reading atomic.Bool  // somebody waits for bytes
	heard   atomic.Bool  // bytes came since the last tick
	age     int          // ticks; the watch's own
	silence int          // ticks in a row; the watch's own
	guest   bool         // counts as a guest; under Peers.mu
	caller  Identity     // who calls on it, if it was accepted for that; under Peers.mu
	reads   atomic.Int64 // that brought bytes
}

func newConn(raw net.Conn, out *outbox, stats *counters) *conn {
	c := &conn{Conn: raw, out: out, stats: stats, most: maxFrame}
	c.in = bufio.NewReaderSize(c, 64<<10)
	return c
}

// Read is for the buffered reader.
func (c *conn) Read(b []byte) (int, error) {
	c.reading.Store(true)
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
		c.reads.Add(1)
		c.stats.bytesRead.Add(uint64(n))
	}
	c.reading.Store(false)
	return n, err
}

// next reads the next frame.
func (c *conn) next() (frame, error) { return readFrame(c.in, &c.head, c.most) }

// pump writes what the outbox has until the connection is cut.
func (c *conn) pump() {
	for {
		b, ok := c.out.take()
		if !ok {
			return
		}
		n, err := c.Write(b)
		c.stats.bytesWritten.Add(uint64(n))
		if err != nil {
			c.cut(err)
			return
		}
		c.out.wrote(b)
	}
}

// answer queues what a handler returned, when there is room for it. An error
// means that the connection has ended.
func (c *conn) answer(id uint64, answer []byte, err error) error {
	if err == nil && len(answer) > MaxRequest {
		err = message.Errorf(message.TooLarge, "the answer has %d bytes, %d are allowed", len(answer), MaxRequest)
	}
	if err == nil {
		return c.out.add(MaxQueued, frameAnswer, id, answer)
	}
	return c.out.add(MaxQueued, frameFailure, id, appendFailure(nil, asRefusal(err)))
}

// cut ends the connection, for the first reason that is given. It does not wait
// for its goroutines.
func (c *conn) cut(err error) {
	c.out.close(err)
	_ = c.Close() // whatever it says, it is over
}

// tick is the watch's look at the connection.
func (c *conn) tick() {
	c.age++
	if heard := c.heard.Swap(false); heard || !c.reading.Load() {
		c.silence = 0
	} else {
		c.silence++
	}
	switch {
	case !c.shaken.Load():
		if c.age >= handshakeTicks {
			c.cut(errSlow)
		}
	case c.silence >= silentAfter:
		c.cut(errSilent)
	default:
		c.out.tick()
	}
}

// watch ticks every connection, and lets links go, until Run ends.
func (p *Peers) watch() {
	ticks, stop := p.o.Clock.Tick(tickEvery)
	defer stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticks:
		}
		for _, c := range p.open() {
			c.tick()
		}
		p.dropUnknown()
	}
}

// open returns the connections that are open. To cut one may take a while, so
// nobody does it under the lock.
func (p *Peers) open() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.conns))
}

// track puts a connection before the watch; false: Run is ending.
func (p *Peers) track(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

// hangUp cuts a connection and forgets it.
func (p *Peers) hangUp(c *conn, why error) {
	c.cut(why)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.conns[c]; !ok {
		return
	}
	delete(p.conns, c)
	if c.guest {
		p.guests--
	}
}
