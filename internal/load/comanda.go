package load

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/comanda-mq/comanda/client"
)

const (
	ahead    = 16     // slots of a worker for each handler
	maxSlots = 10_000 // the client's limit
)

// Comanda is a running server, reached through the public client.
type Comanda struct {
	Addr   string // host:port, or several with commas
	Shards int    // of its queues; 0: the server's default
	// Clients is over how many connections producers are spread, as if they were
	// of so many programs: one client sends what gathers in one call at a time, and
	// a call goes to one shard. 0: one.
	Clients int
}

// Open makes the queue. One that is there already is not touched, and refused.
func (s Comanda) Open(ctx context.Context, name string, _ int) (_ Queue, err error) {
	q := &comandaQueue{name: name}
	defer func() {
		if err != nil {
			err = errors.Join(err, q.disconnect())
		}
	}()
	for range max(s.Clients, 1) {
		c, err := client.New(s.Addr)
		if err != nil {
			return nil, err
		}
		q.clients = append(q.clients, c)
	}
	if _, err = q.clients[0].Queue(ctx, name); err == nil {
		return nil, errors.New("it is there already: delete it, or give another name")
	}
	if errors.Is(err, client.ErrQueueNotFound) {
		_, err = q.clients[0].CreateQueue(ctx, name, client.QueueOptions{Shards: s.Shards})
	}
	return q, err
}

type comandaQueue struct {
	name    string
	clients []*client.Client
	turn    atomic.Uint64 // of the clients
}

// next is the client whose turn it is.
func (q *comandaQueue) next() *client.Client {
	return q.clients[q.turn.Add(1)%uint64(len(q.clients))]
}

func (q *comandaQueue) Send(ctx context.Context, body []byte) error {
	_, err := q.next().Send(ctx, q.name, client.Message{Body: body})
	return err
}

func (q *comandaQueue) SendBatch(ctx context.Context, bodies [][]byte) error {
	ms := make([]client.Message, len(bodies))
	for i, b := range bodies {
		ms[i].Body = b
	}
	_, err := q.next().SendBatch(ctx, q.name, ms)
	return err
}

func (q *comandaQueue) Close(ctx context.Context) error {
	return errors.Join(q.clients[0].DeleteQueue(ctx, q.name), q.disconnect())
}

func (q *comandaQueue) disconnect() (err error) {
	for _, c := range q.clients {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Consume runs a worker. It has more slots than handlers, so that messages lie
// ready for them. A handler that waits for its ack takes its next message when
// the ack of the last one is confirmed.
func (q *comandaQueue) Consume(ctx context.Context, c Consumer) error {
	var unsettled firstWarning
	handlers := make(chan struct{}, c.Handlers)
	slots := c.Handlers * ahead
	if c.Wait {
		slots = 2 * c.Handlers
	}
	w := &client.Worker{
		Client: q.clients[0], Queue: q.name, Concurrency: min(slots, maxSlots), Logger: slog.New(&unsettled),
		Handler: func(_ context.Context, job *client.RawJob) error {
			handlers <- struct{}{}
			c.Handle(job.Body())
			if !c.Wait {
				<-handlers
			}
			return nil
		},
	}
	if c.Wait {
		w.Settled = func(*client.RawJob, error) { <-handlers }
	}
	return errors.Join(w.Run(ctx), unsettled.err())
}

// firstWarning keeps the first thing that a worker complains of: it tells of
// settlements that failed in its log only.
type firstWarning struct {
	mu    sync.Mutex
	first error
}

func (w *firstWarning) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first
}

// Enabled is part of slog.Handler.
func (w *firstWarning) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle is part of slog.Handler.
func (w *firstWarning) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil {
		w.first = errors.New(text)
	}
	return nil
}

// WithAttrs is part of slog.Handler.
func (w *firstWarning) WithAttrs([]slog.Attr) slog.Handler { return w }

// WithGroup is part of slog.Handler.
func (w *firstWarning) WithGroup(string) slog.Handler { return w }
