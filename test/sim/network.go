package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

// network carries what nodes tell one another. Raft's messages may be lost,
// doubled, late and out of order; calls have the three outcomes of package peer.
type network struct {
	w *world

	mu    sync.Mutex
	cut   map[link]bool // in this direction nothing comes through
	rough roughness
	// Of each kind of call every so manieth answer is lost just before it is there; 0:
	// none.
	every   int
	answers map[byte]int // by kind
	dropped int
}

type link struct{ from, to uint64 }

// roughness is how bad all links are.
type roughness struct {
	loss, double, late float64       // chances of a message
	reset              float64       // chance that a call's connection breaks
	delay              time.Duration // at the most, of what is not late
}

// calm is what a healthy network does.
var calm = roughness{delay: 2 * time.Millisecond}

// lateBy is how late a late message is at the most.
const lateBy = 400 * time.Millisecond

// maxServing is how many calls a node answers at a time at the most: there are a
// few for each client and each group.
const maxServing = 500

// silentAfter is when a connection that says nothing is given up.
const silentAfter = 3 * time.Second

func newNetwork(w *world) *network {
	return &network{w: w, cut: map[link]bool{}, rough: calm, answers: map[byte]int{}}
}

func (n *network) rand(from, to uint64) *rand.Rand {
	return n.w.rand(fmt.Sprintf("link %d %d", from, to))
}

func (n *network) up(from, to uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return from == to || !n.cut[link{from, to}]
}

func (n *network) roughness() roughness {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rough
}

// delay is how long something takes on its way.
func (n *network) delay(r *rand.Rand, from, to uint64) time.Duration {
	if from == to {
		return time.Duration(1_000 + r.Int64N(10_000))
	}
	return time.Duration(50_000 + r.Int64N(int64(n.roughness().delay)))
}

// deliver has f happen at a node: later, if it stands still, and never, if it is
// not up then.
func (n *network) deliver(whose uint64, d time.Duration, to uint64, f func(*process)) {
	n.w.afterAs(whose, d, func() {
		at := n.w.node(to)
		switch p, rest := at.process(), at.stall(); {
		case p == nil:
		case rest > 0:
			n.deliver(whose, rest, to, f)
		default:
			f(p)
		}
	})
}

// Send carries raft's messages.
func (p *process) Send(msgs []replica.Outgoing) {
	if p.dead.Load() {
		return
	}
	n := p.node.w.net
	for _, o := range msgs {
		to := p.nodeOf(o.Group, o.Message.GetTo())
		if to == 0 || to == p.node.number {
			continue
		}
		r := n.rand(p.node.number, to)
		for range n.copies(r, p.node.number, to) {
			d := n.delay(r, p.node.number, to)
			if r.Float64() < n.roughness().late {
				d += time.Duration(r.Int64N(int64(lateBy)))
			}
			m := proto.Clone(o.Message).(*raftpb.Message)
			n.deliver(0, d, to, func(q *process) {
				q.saw(o.Group, m.GetFrom(), p.node.number)
				n.w.note("%d→%d group %d %v", p.node.number, to, o.Group, m.GetType())
				q.host.Receive(o.Group, m)
			})
		}
	}
}

// copies says how often a message arrives.
func (n *network) copies(r *rand.Rand, from, to uint64) int {
	rough := n.roughness()
	switch x := r.Float64(); {
	case !n.up(from, to) || x < rough.loss:
		return 0
	case x < rough.loss+rough.double:
		return 2
	}
	return 1
}

// SendSnapshot carries a snapshot, in no time.
func (p *process) SendSnapshot(ctx context.Context, o replica.Outgoing, body io.Reader) error {
	n := p.node.w.net
	to := p.nodeOf(o.Group, o.Message.GetTo())
	q := n.w.node(to).process()
	if p.dead.Load() || q == nil || q.node.stall() > 0 || !n.up(p.node.number, to) || !n.up(to, p.node.number) {
		return errors.New("the other node can't be reached")
	}
	all, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if r := n.rand(p.node.number, to); r.Float64() < n.roughness().reset {
		all = all[:r.IntN(len(all)+1)]
	}
	m := proto.Clone(o.Message).(*raftpb.Message)
	q.saw(o.Group, m.GetFrom(), p.node.number)
	err = q.host.ReceiveSnapshot(ctx, o.Group, m, bytes.NewReader(all))
	n.w.note("%d→%d group %d snapshot at %d: %v", p.node.number, to, o.Group, m.GetSnapshot().GetMetadata().GetIndex(), err == nil)
	return err
}

type answer struct {
	b   []byte
	err error
}

var (
	errLost    = message.Errorf(message.UnknownOutcome, "the connection was lost before the answer came")
	errNotSent = message.Errorf(message.Unavailable, "the other node can't be reached")
	errGone    = errors.New("nobody waits for the answer any more")
)

// call is a question of one node to another.
type call struct {
	n        *network
	from, to uint64
	name     uint64
	r        *rand.Rand
	answer   chan answer // has room for one
	// cancel ends the handler, once it runs.
	cancel context.CancelCauseFunc
}

// over gives the call its answer, if it has none.
func (c *call) over(b []byte, err error) {
	select {
	case c.answer <- answer{b, err}:
	default:
	}
}

// lose lets the caller learn, when the silence has lasted, that no answer comes.
func (c *call) lose(after time.Duration) {
	c.n.w.afterAs(c.name, after, func() { c.over(nil, errLost) })
}

// call asks a node. When hurry is closed the other side is told to answer with
// what it has.
func (p *process) call(ctx context.Context, to uint64, what []byte, hurry <-chan struct{}, f func(context.Context, *process) ([]byte, error)) ([]byte, error) {
	n := p.node.w.net
	c := &call{n: n, from: p.node.number, to: to, name: n.w.name(p.node.number, to, whose(ctx), sum(what)), answer: make(chan answer, 1)}
	c.r = rand.New(rand.NewPCG(n.w.o.seed, c.name))
	if p.dead.Load() {
		<-p.ctx.Done()
		return nil, errLost
	}
	c.start(ctx, f)
	select {
	case a := <-c.answer:
		return a.b, a.err
	case <-p.ctx.Done():
		return nil, errLost
	case <-ctx.Done():
		c.interrupt(errGone)
		return nil, message.Errorf(message.UnknownOutcome, "the call ended before the answer came: %v", context.Cause(ctx))
	case <-hurry:
	}
	c.interrupt(context.Canceled)
	select {
	case a := <-c.answer:
		return a.b, a.err
	case <-p.ctx.Done():
		return nil, errLost
	case <-ctx.Done():
		c.interrupt(errGone)
		return nil, message.Errorf(message.UnknownOutcome, "the call ended before the answer came: %v", context.Cause(ctx))
	}
}

// sum tells requests apart, but not those that say the same in another order.
func sum(b []byte) (n int) {
	for _, x := range b {
		n += 1_000 + int(x)
	}
	return n
}

// start sends the question, if there is a way.
func (c *call) start(ctx context.Context, f func(context.Context, *process) ([]byte, error)) {
	n := c.n
	d, known, reset := n.delay(c.r, c.from, c.to), c.r.Float64() < 0.5, c.r.Float64() < n.roughness().reset
	at := n.w.node(c.to)
	switch {
	case at.process() == nil, !n.up(c.from, c.to) && known:
		n.w.afterAs(c.name, d, func() { c.over(nil, errNotSent) })
	case !n.up(c.from, c.to):
		c.lose(silentAfter)
	case reset && known:
		c.lose(d) // before it was there
	default:
		c.lose(silentAfter + time.Minute + 10*time.Second) // longer than any call of ours
		n.deliver(c.name, d, c.to, func(q *process) { c.serve(ctx, q, d, reset, f) })
		n.w.afterAs(c.name, d, func() { // a node that is not up by then never answers
			if at.process() == nil {
				c.lose(silentAfter)
			}
		})
	}
}

// serve runs the handler on the other node.
func (c *call) serve(ctx context.Context, q *process, d time.Duration, reset bool, f func(context.Context, *process) ([]byte, error)) {
	base, cancel := context.WithCancelCause(as(q.ctx, c.name))
	c.cancel = cancel
	run, stop := base, func() {}
	if end, ok := ctx.Deadline(); ok {
		run, stop = context.WithDeadline(base, end.Add(d)) // what was left when it was sent
	}
	if reset {
		c.n.w.afterAs(c.name, d, func() { // the answer finds no connection
			cancel(errGone)
			c.over(nil, errLost)
		})
	}
	q.mu.Lock()
	q.serving = append(q.serving, c)
	under := len(q.serving)
	q.mu.Unlock()
	if under > maxServing {
		c.n.w.fail("node %d answers more than %d calls at a time", q.node.number, maxServing)
	}
	q.spawn(func() {
		b, err := f(run, q)
		stop()
		cancel(errGone)
		if q.dead.Load() {
			return // its end tells
		}
		q.mu.Lock()
		q.serving = slices.DeleteFunc(q.serving, func(o *call) bool { return o == c })
		q.mu.Unlock()
		c.reply(b, err)
	})
}

// reply carries the answer back.
func (c *call) reply(b []byte, err error) {
	n := c.n
	d := n.delay(c.r, c.to, c.from)
	if !n.up(c.to, c.from) {
		c.lose(silentAfter)
		return
	}
	n.deliver(c.name, d, c.from, func(*process) { c.over(b, err) })
}

// interrupt tells the other side, if there is a way, that the answer is wanted
// now or not at all.
func (c *call) interrupt(cause error) {
	n := c.n
	if !n.up(c.from, c.to) {
		return
	}
	n.deliver(c.name, n.delay(c.r, c.from, c.to), c.to, func(*process) {
		if c.cancel != nil {
			c.cancel(cause)
		}
	})
}

func (n *network) set(l link, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[l] = cut
}

func (n *network) setRoughness(r roughness) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rough = r
}

// drops says that the answer to a call is lost.
func (n *network) drops(kind byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[kind]++
	if n.every == 0 || n.answers[kind]%n.every != 0 {
		return false
	}
	n.dropped++
	return true
}

// drop has every so manieth answer of each kind lost from now on.
func (n *network) drop(every int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.every = every
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.every = 0
	clear(n.cut)
	n.rough = calm
}
