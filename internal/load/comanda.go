package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
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
	// Keys is over how many keys messages are spread; 0: they have none.
	Keys int
	// Queues is over how many queues they are spread; 0: one. Of several, each is
	// asked in turn for what is in it, as a worker takes from no more than 16.
	Queues int
}

// Open makes the queue. One that is there already is not touched, and refused.
func (s Comanda) Open(ctx context.Context, name string, _ int) (_ Queue, err error) {
	q := &comandaQueue{names: []string{name}, keys: uint64(s.Keys)}
	for i := 1; i < s.Queues; i++ {
		q.names = append(q.names, fmt.Sprint(name, "-", i))
	}
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
		err = q.each(ctx, func(ctx context.Context, name string) error {
			_, err := q.clients[0].CreateQueue(ctx, name, client.QueueOptions{Shards: s.Shards})
			return err
		})
	}
	return q, err
}

type comandaQueue struct {
	names   []string
	keys    uint64
	clients []*client.Client
	turn    atomic.Uint64 // of clients, keys and queues
}

// next is the client and the queue whose turn it is, with a message for it.
func (q *comandaQueue) next(body []byte) (*client.Client, string, client.Message) {
	turn, m := q.turn.Add(1), client.Message{Body: body}
	if q.keys > 0 {
		m.Key = strconv.FormatUint(turn%q.keys, 10)
	}
	return q.clients[turn%uint64(len(q.clients))], q.names[turn%uint64(len(q.names))], m
}

func (q *comandaQueue) Send(ctx context.Context, body []byte) error {
	c, name, m := q.next(body)
	_, err := c.Send(ctx, name, m)
	return err
}

func (q *comandaQueue) SendBatch(ctx context.Context, bodies [][]byte) error {
	ms := make([]client.Message, len(bodies))
	var c *client.Client
	var name string
	for i, b := range bodies {
		c, name, ms[i] = q.next(b)
	}
	_, err := c.SendBatch(ctx, name, ms)
	return err
}

func (q *comandaQueue) Close(ctx context.Context) error {
	return errors.Join(q.each(ctx, q.clients[0].DeleteQueue), q.disconnect())
}

// each does something with each queue, with many at a time.
func (q *comandaQueue) each(ctx context.Context, do func(ctx context.Context, name string) error) error {
	names, c := make(chan string), newCrew(ctx)
	for range 64 {
		c.start(func(ctx context.Context) error {
			for name := range names {
				if err := do(ctx, name); err != nil {
					return fmt.Errorf("queue %s: %w", name, err)
				}
			}
			return nil
		})
	}
	for _, name := range q.names {
		select {
		case names <- name:
		case <-c.ctx.Done():
		}
	}
	close(names)
	return c.wait()
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
	if len(q.names) > 1 {
		return q.collect(ctx, c)
	}
	var unsettled firstWarning
	handlers := make(chan struct{}, c.Handlers)
	slots := c.Handlers * ahead
	if c.Wait {
		slots = 2 * c.Handlers
	}
	w := &client.Worker{
		Client: q.clients[0], Queue: q.names[0], Concurrency: min(slots, maxSlots), Logger: slog.New(&unsettled),
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

// collect takes what is in each queue, again and again until ctx ends.
func (q *comandaQueue) collect(ctx context.Context, c Consumer) error {
	var turn atomic.Uint64
	crew := newCrew(context.WithoutCancel(ctx))
	for range c.Handlers {
		crew.start(func(lasting context.Context) error {
			for ctx.Err() == nil && lasting.Err() == nil {
				name := q.names[turn.Add(1)%uint64(len(q.names))]
				jobs, err := q.clients[0].Receive(lasting, name, client.ReceiveOptions{Max: 100})
				if err != nil {
					return err
				}
				for _, job := range jobs {
					c.Handle(job.Body())
					if err := job.Ack(lasting); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return crew.wait()
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
