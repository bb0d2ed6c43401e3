package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// purpose is what a connection is for, chosen by the side that dials.
type purpose byte

const (
	forCalls  purpose = iota + 1 // messages and calls of one node to another
	forVisit                     // a call to whoever listens at an address
	forStream                    // one stream
)

// hello is the first thing that each side says. The side that accepts answers
// with its own, and with a refusal in it says no.
type hello struct {
	Identity
	purpose purpose
	expects uint64         // the node that the dialer wants; 0: anybody
	refusal *message.Error // nil: welcome
}

const (
	magic      = "COMANDAP"
	version    = 1
	helloHead  = len(magic) + 1 + 2 + 4 // magic, version, length and checksum of the body
	maxHello   = 4 << 10                // bytes of a hello, before which nothing is believed
	fixedHello = 1 + 8 + 8 + 8
)

// connectTimeout is how long an attempt to connect may take, handshake and all,
// and so how long a call waits for a connection.
const connectTimeout = 2 * time.Second

func appendHello(b []byte, h hello) []byte {
	begin := len(b)
	b = append(append(b, magic...), version)
	b = append(b, make([]byte, 2+4)...)
	b = append(b, byte(h.purpose))
	b = binary.BigEndian.AppendUint64(b, h.Node)
	b = binary.BigEndian.AppendUint64(b, h.Boot)
	b = binary.BigEndian.AppendUint64(b, h.expects)
	b = appendBytes(b, h.Cluster)
	if h.refusal != nil {
		b = appendFailure(b, h.refusal)
	}
	head, body := b[begin:], b[begin+helloHead:]
	binary.BigEndian.PutUint16(head[len(magic)+1:], uint16(len(body)))
	binary.BigEndian.PutUint32(head[len(magic)+3:], crc32.Checksum(body, castagnoli))
	return b
}

var errStranger = errors.New("it does not speak this protocol")

// versionError is all that is understood of a hello of another version.
type versionError byte

func (v versionError) Error() string {
	return fmt.Sprintf("it speaks version %d of this protocol, and this node version %d: run the same release on both", byte(v), version)
}

func readHello(r io.Reader) (hello, error) {
	var head [helloHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return hello{}, err
	}
	if string(head[:len(magic)]) != magic {
		return hello{}, errStranger
	}
	if v := head[len(magic)]; v != version {
		return hello{}, versionError(v)
	}
	length := int(binary.BigEndian.Uint16(head[len(magic)+1:]))
	if length > maxHello-helloHead {
		return hello{}, errStranger
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return hello{}, err
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(head[len(magic)+3:]) {
		return hello{}, errDamaged
	}
	return decodeHello(body)
}

func decodeHello(b []byte) (h hello, err error) {
	if len(b) < fixedHello {
		return hello{}, errMalformed
	}
	h.purpose = purpose(b[0])
	h.Node = binary.BigEndian.Uint64(b[1:])
	h.Boot = binary.BigEndian.Uint64(b[9:])
	h.expects = binary.BigEndian.Uint64(b[17:])
	cluster, b, err := takeBytes(b[fixedHello:])
	if err != nil || len(cluster) > MaxCluster {
		return hello{}, errMalformed
	}
	h.Cluster = string(cluster)
	if len(b) > 0 {
		if h.refusal, err = decodeFailure(b); err != nil {
			return hello{}, err
		}
	}
	return h, nil
}

// judge says what speaks against talking to the process that said h.
func (p *Peers) judge(h hello) *message.Error {
	self := p.o.Self
	switch {
	case h.Cluster != self.Cluster && h.Cluster != "" && self.Cluster != "":
		return message.Errorf(message.InvalidArgument,
			"node %d belongs to cluster %s, node %d to cluster %s: check the addresses to join", self.Node, self.Cluster, h.Node, h.Cluster)
	case h.Node != 0 && h.Cluster == "":
		return message.Errorf(message.InvalidArgument, "node %d names no cluster", h.Node)
	}
	if err := p.o.Admit(h.Identity); err != nil {
		return asRefusal(err)
	}
	return nil
}

// judgeGuest is judge for the side that was dialed.
func (p *Peers) judgeGuest(h hello) *message.Error {
	switch {
	case h.purpose < forCalls || h.purpose > forStream:
		return message.Errorf(message.Unimplemented, "purpose %d of a connection is not known here", h.purpose)
	case h.purpose != forVisit && h.Node == 0:
		return message.Errorf(message.PermissionDenied, "a process without a node id may call, no more: join first")
	case h.expects != 0 && h.expects != p.o.Self.Node:
		return message.Errorf(message.InvalidArgument,
			"node %d listens here, not node %d: check the advertised addresses", p.o.Self.Node, h.expects)
	}
	if h.Node != 0 {
		if refusal := p.rival(h.Identity); refusal != nil {
			return refusal
		}
	}
	return p.judge(h)
}

// connect dials, says h and hears the answer. The connection is tracked; who
// answered is known as far as it was heard.
func (p *Peers) connect(ctx context.Context, addr string, h hello, out *outbox) (*conn, Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	raw, err := p.o.Dial(ctx, addr)
	if err != nil {
		return nil, Identity{}, err
	}
	c := newConn(raw, out, &p.stats)
	if !p.track(c) {
		c.cut(errStopped)
		return nil, Identity{}, errStopped
	}
	unhurried := context.AfterFunc(ctx, func() { c.cut(unanswered(ctx.Err())) })
	h.Identity = p.o.Self
	answer, err := p.greet(c, h)
	if !unhurried() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		p.hangUp(c, err)
		return nil, answer.Identity, c.out.reason()
	}
	c.shaken.Store(true)
	return c, answer.Identity, nil
}

// unanswered says what it means that ctx ended after the connection was taken.
func unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("it took the connection and did not answer; is that the --cluster-listen address of a node? (%w)", err)
	}
	return err
}

// greet is the dialer's half of the handshake.
func (p *Peers) greet(c *conn, h hello) (hello, error) {
	if _, err := c.Write(appendHello(nil, h)); err != nil {
		return hello{}, err
	}
	answer, err := readHello(c.in)
	if err != nil {
		return hello{}, fmt.Errorf("it did not answer the handshake: %w", err)
	}
	if answer.refusal != nil {
		return answer, &Refusal{By: answer.Identity, Reason: answer.refusal}
	}
	reason := p.judge(answer)
	if reason == nil && h.expects != 0 && answer.Node != h.expects {
		reason = message.Errorf(message.InvalidArgument, "node %d answered in the place of node %d", answer.Node, h.expects)
	}
	if reason != nil {
		return answer, &Refusal{By: h.Identity, Reason: reason}
	}
	return answer, nil
}

// welcome is the other half: it answers, and returns an error when it refused.
func (p *Peers) welcome(c *conn) (hello, error) {
	h, err := readHello(c.in)
	reply := hello{Identity: p.o.Self}
	if v, ok := errors.AsType[versionError](err); ok {
		reply.refusal = message.Errorf(message.Unimplemented, "node %d: of the dialer, %v", p.o.Self.Node, v)
	} else if err != nil {
		return hello{}, err
	} else {
		reply.refusal = p.judgeGuest(h)
	}
	if _, err := c.Write(appendHello(nil, reply)); err != nil {
		return h, err
	}
	if reply.refusal != nil {
		return h, &Refusal{By: reply.Identity, Reason: reply.refusal}
	}
	if h.Node == 0 {
		c.most = maxForeign
	}
	c.shaken.Store(true)
	return h, nil
}
