package peer

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/comanda-mq/comanda/internal/clock"
)

// Identity is who a process says it is when a connection begins.
type Identity struct {
	Cluster string // id of the cluster, ≤ MaxCluster bytes; empty: belongs to none yet
	Node    uint64 // 0: a process without a node id, which wants to join or to found
	Boot    uint64 // the boot number of its data directory
}

// Message is one encoded message of a Raft group.
type Message struct {
	Group uint64
	Data  []byte
}

// Handler is the node behind a Peers. Its methods are called from many
// goroutines at once.
type Handler interface {
	// Messages takes a batch that node from sent, in the order in which it was
	// sent. It must not block: nothing else of that connection is read until it
	// returns. The batch and its Data are the handler's.
	Messages(from uint64, batch []Message)
	// Call answers a request of node from (0: a process without an id). ctx has
	// the time that the caller has left, and ends when the caller gives up, when
	// the connection to it breaks and when Run ends. The request is the
	// handler's. The code and text of a *message.Error in the chain of the error
	// reach the caller; any other error reaches it as Internal.
	Call(ctx context.Context, from uint64, request []byte) ([]byte, error)
	// Stream reads body to its end and answers when it has done with it; it may
	// return early with an error. A body that broke off ends in an error that is
	// not io.EOF. The sender is held back by what is not read.
	Stream(ctx context.Context, from uint64, header []byte, body io.Reader) error
}

// Options of a Peers.
type Options struct {
	Self Identity
	// Listener accepts the connections of others; nil: nobody calls this
	// process. Run closes it.
	Listener net.Listener
	// Dial opens a connection. It ends with its ctx.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Address is where a node listens; false: no such node is known. It must not
	// block, and is asked at each attempt to connect, and now and then: what is
	// connected to a node that is not known any more is cut.
	Address func(node uint64) (addr string, ok bool)
	// Admit says whether this process talks to that one, at both ends of each
	// connection: a removed node and an outdated boot number are its to refuse.
	// The code and the text of its *message.Error reach the other side. The
	// cluster, the protocol's version and the node that was expected have been
	// checked before. Streams and reconnections come with a boot number that was
	// seen before.
	Admit   func(Identity) error
	Handler Handler
	Clock   clock.Clock
	Logger  *slog.Logger
}

// Limits. What is above them is refused with ResourceExhausted or TooLarge, or,
// where it is messages, lost and counted.
const (
	MaxCluster = 128              // bytes of a cluster's id
	MaxRequest = maxFrame - 1<<10 // bytes of a request, an answer, or one message
	// MaxCalls is how many calls one node may have in flight at another.
	MaxCalls = 16 << 10
	// MaxQueued is how many bytes wait for one connection, and how many bytes of
	// requests of one connection are being answered.
	MaxQueued = 64 << 20
	// MaxQueuedMessages is how many messages wait for one connection.
	MaxQueuedMessages = 64 << 10
)

// Peers carries bytes between this process and the nodes of the cluster.
type Peers struct {
	o     Options
	ctx   context.Context // of everything that Run started; ends with it
	stop  context.CancelCauseFunc
	tasks sync.WaitGroup
	stats counters

	mu      sync.Mutex
	running bool
	links   map[uint64]*link   // by node, from the first use on, while the node is known
	conns   map[*conn]struct{} // all that are open, for the watch and for the end
	guests  int                // of those, the accepted ones that no node calls on
}

// New makes a Peers that is not connected to anybody. It starts nothing.
func New(o Options) *Peers {
	ctx, stop := context.WithCancelCause(context.Background())
	return &Peers{
		o: o, ctx: ctx, stop: stop,
		links: map[uint64]*link{},
		conns: map[*conn]struct{}{},
	}
}

// Run serves until ctx ends, closes the listener and all connections, and
// returns when no goroutine is left: every call was answered, and the handler
// has returned from all of its own. It returns nil when ctx ended, or why the
// listener failed. It may be called once.
func (p *Peers) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, p.close)()
	p.mu.Lock()
	p.running = true
	for _, l := range p.links {
		if !p.spawnLocked(l.run) {
			l.shut()
		}
	}
	p.mu.Unlock()
	p.spawn(p.watch)
	err := p.accept()
	if p.ctx.Err() != nil {
		err = nil // close has closed it
	}
	p.close()
	p.tasks.Wait()
	return err
}

// close ends everything that Run started, without waiting.
func (p *Peers) close() {
	p.stop(errStopped)
	if p.o.Listener != nil {
		_ = p.o.Listener.Close() // it is only read from
	}
	for _, c := range p.open() {
		c.cut(errStopped)
	}
}

// Send hands a batch of messages to node to, or loses it: it never waits. What
// is lost is what does not fit the limits, and what waits when a connection
// breaks or cannot be made. Data is not used after Send has returned.
func (p *Peers) Send(to uint64, batch []Message) {
	lost := len(batch)
	if l, err := p.link(to); err == nil {
		if ln, err := l.demand(); err == nil {
			lost = ln.send(batch)
		}
	}
	p.stats.messagesSent.Add(uint64(len(batch)))
	p.stats.messagesLost.Add(uint64(lost))
}

// Call sends a request to node to and waits for its answer. It has three
// outcomes, which the code of the error tells apart:
//
//   - answered: the bytes, or the *message.Error that the handler there returned;
//   - not sent, so that it certainly did not happen: Unavailable, TooLarge or
//     ResourceExhausted;
//   - sent, perhaps only in part, and no answer came: UnknownOutcome.
//
// A handler may use these codes as well; they mean the same from there. Without
// a connection a call waits for one, for at most connectTimeout. The request is
// not used after Call has returned. If ctx ended it, errors.Is finds its error.
func (p *Peers) Call(ctx context.Context, to uint64, request []byte) ([]byte, error) {
	return p.CallUntil(ctx, to, request, nil)
}

// CallUntil is Call with a way to hurry: when hurry is closed the context of the
// handler ends with context.Canceled as its cause, and the call goes on to wait
// for what the handler answers then. A context that ends because nobody listens
// any more has another cause, unless the caller had hurried before.
func (p *Peers) CallUntil(ctx context.Context, to uint64, request []byte, hurry <-chan struct{}) ([]byte, error) {
	l, err := p.link(to)
	if err != nil {
		return nil, err
	}
	ln, err := l.demand()
	if err != nil {
		return nil, err
	}
	return ln.call(ctx, p.o.Clock.Now(), request, hurry)
}

// CallAddress is Call to whoever listens at addr, over a connection of its own,
// and tells who it was (the zero Identity if that did not become known).
func (p *Peers) CallAddress(ctx context.Context, addr string, request []byte) ([]byte, Identity, error) {
	ln := newLine(addr)
	c, who, err := p.connect(ctx, addr, hello{purpose: forVisit}, &ln.outbox)
	if err != nil {
		return nil, who, notSent(addr, err)
	}
	done := make(chan struct{})
	if !p.spawn(func() { defer close(done); p.converse(c, ln) }) {
		p.hangUp(c, errStopped)
		return nil, who, notSent(addr, errStopped)
	}
	answer, err := ln.call(ctx, p.o.Clock.Now(), request, nil)
	p.hangUp(c, errHungUp)
	<-done
	return answer, who, err
}

// Connected says whether calls to a node go out at once.
func (p *Peers) Connected(node uint64) bool {
	p.mu.Lock()
	l := p.links[node]
	p.mu.Unlock()
	return l != nil && l.connected()
}

// link finds the link to a node, and makes it at the first use.
func (p *Peers) link(to uint64) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.links[to]
	if l != nil {
		return l, nil
	}
	if _, ok := p.o.Address(to); !ok {
		return nil, notSent(nodeName(to), errUnknown)
	}
	l = newLink(p, to)
	if p.running && !p.spawnLocked(l.run) {
		return nil, notSent(nodeName(to), errStopped)
	}
	p.links[to] = l
	return l, nil
}

// dropUnknown ends the links to nodes that are not known any more.
func (p *Peers) dropUnknown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node, l := range p.links {
		if _, ok := p.o.Address(node); !ok {
			delete(p.links, node)
			l.drop(errUnknown)
		}
	}
}

// spawn runs f in a goroutine that Run waits for; false: Run is ending.
func (p *Peers) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spawnLocked(f)
}

func (p *Peers) spawnLocked(f func()) bool {
	if p.ctx.Err() != nil {
		return false
	}
	p.tasks.Go(f)
	return true
}
