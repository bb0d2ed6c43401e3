// Package gateway is what every node does for clients: it authorises a verb,
// checks it, finds the groups that it concerns in its read copy of the catalog,
// carries it there and brings the answers back in order. Protocols call it; it
// knows none of them.
package gateway

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/metrics"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/slowlog"
)

// Options of a Gateway.
type Options struct {
	Node string // this node's name
	// NodeID is this node's id, once it is in a cluster.
	NodeID func() uint64
	Boot   uint64 // its boot number: spreads unkeyed messages of different gateways
	Auth   auth.Authorizer
	Clock  clock.Clock
	// Leader finds a group wherever it is led, Reader the replica to read from: the
	// one here, if there is one.
	Leader func(id uint64) (Group, error)
	Reader func(id uint64) (Reader, error)
	// Change proposes a change of the catalog to its leader, once.
	Change func(context.Context, catalog.Command) (catalog.Result, error)
	// Heard asks the leader of the catalog when sessions were heard, once.
	Heard func(ctx context.Context, sessions []uint64) (map[uint64]liveness.Heard, error)
	// Refresh brings the catalog here up to what was confirmed before the call.
	Refresh func(context.Context) error
	// Freshen is Refresh or, with within > 0, lets the catalog here be no older than
	// that. It tells how fresh it is.
	Freshen func(ctx context.Context, within time.Duration) (message.Freshness, error)
	// Status tells of a group what a replica of it knows, the one here if there is
	// one.
	Status func(ctx context.Context, id uint64) (replica.Status, bool)
	// Behind tells, by node, of the replicas that do not keep up, as the leaders that
	// can be asked know.
	Behind func(context.Context) map[uint64][]message.Behind
	// Admit refuses sends while disk or memory is short.
	Admit func() error
	// Server tells of the process.
	Server  func() message.ServerInfo
	Metrics *metrics.Metrics
	Logger  *slog.Logger
}

// Group is a replica set, wherever its leader is.
type Group interface {
	// Propose returns a command's result. NotLeader: it did not happen.
	Propose(ctx context.Context, c queue.Command) (any, error)
	Reader
	// Wait lets a call wait for messages; they come through the call.
	Wait(c *leader.Call)
	// Claim compares what a session knows to hold with what it holds.
	Claim(ctx context.Context, c leader.Claim) (cancelling map[uint32][]queue.LeaseRef, err error)
	// Await returns when a message has ended or is not there, or when ctx ends.
	Await(ctx context.Context, id message.ID) error
	// Receivers tells who receives from a queue.
	Receivers(ctx context.Context, number uint32) (message.Receivers, error)
	// Owners tells which workers the keys of a queue prefer.
	Owners(ctx context.Context, number uint32) ([]message.Preferred, error)
	// Holds counts the messages that sessions hold.
	Holds(ctx context.Context, sessions []uint64) (map[uint64]int, error)
}

// Reader is a replica to read from.
type Reader interface {
	// Read answers with all that was confirmed before the call or, with
	// within > 0, with what is no older than that.
	Read(ctx context.Context, q *queue.Query, within time.Duration) (queue.Answer, message.Freshness, error)
}

// Gateway carries verbs.
type Gateway struct {
	o         Options
	view      atomic.Pointer[catalog.View] // the read copy by which it routes
	newest    atomic.Pointer[catalog.View] // what Learn heard last
	sending   atomic.Int64                 // bytes of sends under way
	sendCalls atomic.Int64
	sessions  sessions
	lanes     lanes
	moves     moves
	turn      atomic.Uint32 // of the shards that unkeyed messages go to
	// draining ends when the server stops: receivers that wait are sent away.
	draining context.Context
	drain    context.CancelFunc
}

// New makes a gateway that knows no queues until it learns.
func New(o Options) *Gateway {
	g := &Gateway{o: o}
	g.draining, g.drain = context.WithCancel(context.Background())
	g.sessions.by, g.sessions.kick = map[uint64]*attachment{}, make(chan struct{}, 1)
	empty := &catalog.View{}
	g.view.Store(empty)
	g.newest.Store(empty)
	return g
}

// Learn takes in a newer catalog, with what is new in it; nil: anything.
func (g *Gateway) Learn(v *catalog.View, changes []catalog.Change) {
	old := g.newest.Swap(v)
	g.view.Store(v)
	g.moves.learn(old, v, changes)
	g.sessions.learn(v, changes)
	for _, c := range changes {
		if c.Queue != nil && c.Deleted {
			g.o.Metrics.Forget(c.Queue.Name)
		}
	}
}

// View is the newest catalog that the gateway knows.
func (g *Gateway) View() *catalog.View { return g.newest.Load() }

// Outdate makes the gateway route by another catalog until it finds out: for
// tests.
func (g *Gateway) Outdate(v *catalog.View) { g.view.Store(v) }

// Drain sends away the receivers that wait, and those that come: the server
// stops. Sends and settlements go on.
func (g *Gateway) Drain() { g.drain() }

// refresh takes the newest catalog for the route.
func (g *Gateway) refresh() { g.view.Store(g.newest.Load()) }

// How long a verb goes on by itself when its route was out of date or its group
// has no leader.
const (
	retryFor   = 5 * time.Second
	retryFirst = 2 * time.Millisecond
	retryMost  = 100 * time.Millisecond
)

// retry paces the attempts of one verb.
type retry struct {
	ctx   context.Context
	until time.Time
	clock clock.Clock
	delay time.Duration
}

func (g *Gateway) retry(ctx context.Context) *retry {
	return &retry{ctx: ctx, until: g.o.Clock.Now().Add(retryFor), clock: g.o.Clock, delay: retryFirst}
}

// again waits before the next attempt; false: there is none.
func (r *retry) again() bool {
	if r.ctx.Err() != nil || r.clock.Now().After(r.until) {
		return false
	}
	pause, cancel := context.WithTimeout(r.ctx, r.delay)
	defer cancel()
	<-pause.Done()
	r.delay = min(2*r.delay, retryMost)
	return r.ctx.Err() == nil
}

// movable says that an error may go away with a newer route, and that nothing
// has happened.
func movable(err error) bool {
	switch message.CodeOf(err) {
	case message.WrongShard, message.NotLeader:
		return true
	default:
		return false
	}
}

// repeatable says that a read may succeed when it is made again.
func repeatable(err error) bool { return movable(err) || message.CodeOf(err) == message.Unavailable }

// stuck is what a verb answers whose route did not become right in time.
func stuck(err *message.Error) *message.Error {
	return message.Errorf(message.Unavailable, "the queue's group can't be reached just now; nothing was done: try again (%s)", err.Text)
}

func (g *Gateway) authorize(ctx context.Context, a auth.Action, queue string) error {
	return g.o.Auth.Authorize(ctx, a, queue)
}

// queue finds a queue by name. Before it is refused the catalog is asked for
// anew: it may have been created through another node just now.
func (g *Gateway) queue(ctx context.Context, name string) (*catalog.Queue, error) {
	if err := message.CheckQueueName(name); err != nil {
		return nil, err
	}
	q, err := find(ctx, g, func(v *catalog.View) (*catalog.Queue, bool) { return v.Queue(name) })
	if q == nil && err == nil {
		err = message.NoQueue(name)
	}
	if err == nil {
		slowlog.Of(ctx).Queue(name)
	}
	return q, err
}

// shard finds a shard of a queue by its path, and asks for the catalog anew
// before it refuses: it may have come from a split through another node just now.
func (g *Gateway) shard(ctx context.Context, queue, path string) (*catalog.Queue, *catalog.Shard, error) {
	if err := message.CheckQueueName(queue); err != nil {
		return nil, nil, err
	}
	q, err := find(ctx, g, func(v *catalog.View) (*catalog.Queue, bool) {
		q, ok := v.Queue(queue)
		if ok {
			_, ok = q.ShardPath(path)
		}
		return q, ok
	})
	switch {
	case err != nil:
		return nil, nil, err
	case q == nil:
		return nil, nil, message.NoQueue(queue)
	}
	slowlog.Of(ctx).Queue(queue)
	s, ok := q.ShardPath(path)
	if !ok {
		return nil, nil, message.Errorf(message.NotFound, "queue %s has no shard %.100q: see them with 'comanda shard list --queue %s'", queue, path, queue)
	}
	return q, s, nil
}

// queueNumber finds a queue by its number; nil: it does not exist.
func (g *Gateway) queueNumber(ctx context.Context, n uint32) (*catalog.Queue, error) {
	return find(ctx, g, func(v *catalog.View) (*catalog.Queue, bool) { return v.QueueNumber(n) })
}

// find looks for a queue in the catalog that the gateway knows, and where that
// says false in the newest one, whose word is final.
func find(ctx context.Context, g *Gateway, in func(*catalog.View) (*catalog.Queue, bool)) (*catalog.Queue, error) {
	if q, ok := in(g.view.Load()); ok {
		return q, nil
	}
	g.refresh()
	if q, ok := in(g.view.Load()); ok {
		return q, nil
	}
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	if err := g.o.Refresh(ctx); err != nil {
		return nil, err
	}
	g.refresh()
	q, _ := in(g.view.Load())
	return q, nil
}

// read answers a query from one of a group's replicas.
func (g *Gateway) read(ctx context.Context, group uint64, q queue.Query, within time.Duration) (queue.Answer, message.Freshness, error) {
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	r := g.retry(ctx)
	for {
		a, f, err := g.readOnce(ctx, group, &q, within)
		if err == nil && a.Moved {
			err = message.Errorf(message.WrongShard, "group %d gave a shard away that is asked for", group)
			return a, f, err // who asks has to find the new route
		}
		if err == nil || !repeatable(err) {
			return a, f, err
		}
		if !r.again() {
			return a, f, stuck(asError(err))
		}
	}
}

// freshen makes the catalog here as new as a read wants it.
func (g *Gateway) freshen(ctx context.Context, o message.ReadOptions) (message.Freshness, error) {
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	r := g.retry(ctx)
	for {
		f, err := g.o.Freshen(ctx, o.Stale)
		if err == nil || !repeatable(err) {
			return f, err
		}
		if !r.again() {
			return f, message.Errorf(message.Unavailable, "the catalog here can't be told to be new enough just now: try again, ask another node, or allow for more age with --stale (%s)", asError(err).Text)
		}
	}
}

// routed has something read by newer and newer routes, while the one that it has
// is out of date.
func (g *Gateway) routed(ctx context.Context, read func() error) error {
	r := g.retry(ctx)
	for {
		err := read()
		if message.CodeOf(err) != message.WrongShard {
			return err
		}
		if !r.again() {
			return stuck(asError(err))
		}
		g.refresh()
	}
}

func (g *Gateway) readOnce(ctx context.Context, group uint64, q *queue.Query, within time.Duration) (queue.Answer, message.Freshness, error) {
	at, err := g.o.Reader(group)
	if err != nil {
		return queue.Answer{}, message.Freshness{}, err
	}
	a, f, err := at.Read(ctx, q, within)
	if f.ServedBy == "" {
		f.ServedBy = g.o.Node
	}
	return a, f, err
}

func newSecret() (s message.Secret) {
	rand.Read(s[:]) // never fails
	return s
}

// OpenToken reads a token's text.
func (g *Gateway) OpenToken(text string) (message.Token, error) {
	secret := g.newest.Load().Cluster.Secret
	return message.OpenToken(text, &secret)
}
