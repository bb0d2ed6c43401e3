package load

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// pollFor is how long a consumer waits for a first message at a time. Such a
// call is not cut short: messages that it leased unheard would not be back in
// the queue before their leases end.
const pollFor = 100 * time.Millisecond

const (
	ahead    = 16     // slots of a worker for each handler
	maxSlots = 10_000 // the client's limit
)

// Comanda is a running server, reached through the public client.
type Comanda struct {
	Addr string // host:port, or several with commas
}

// Open makes the queue. One that is there already is not touched, and refused.
func (s Comanda) Open(ctx context.Context, name string, _ int) (_ Queue, err error) {
	c, err := client.New(s.Addr)
	if err != nil {
		return nil, err
	}
	if _, err = c.Queue(ctx, name); err == nil {
		err = errors.New("it is there already: delete it, or give another name")
	}
	if errors.Is(err, client.ErrQueueNotFound) {
		_, err = c.CreateQueue(ctx, name, client.QueueOptions{})
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &comandaQueue{client: c, name: name}, nil
}

type comandaQueue struct {
	client *client.Client
	name   string
}

func (q *comandaQueue) Send(ctx context.Context, body []byte) error {
	_, err := q.client.Send(ctx, q.name, client.Message{Body: body})
	return err
}

func (q *comandaQueue) SendBatch(ctx context.Context, bodies [][]byte) error {
	ms := make([]client.Message, len(bodies))
	for i, b := range bodies {
		ms[i].Body = b
	}
	_, err := q.client.SendBatch(ctx, q.name, ms)
	return err
}

func (q *comandaQueue) Close(ctx context.Context) error {
	return errors.Join(q.client.DeleteQueue(ctx, q.name), q.client.Close())
}

func (q *comandaQueue) Consume(ctx context.Context, c Consumer) error {
	if c.Wait {
		return q.poll(ctx, c)
	}
	return q.work(ctx, c)
}

// work runs a worker: it settles in the background what its handlers have done.
// It has more slots than handlers, so that messages lie ready for them.
func (q *comandaQueue) work(ctx context.Context, c Consumer) error {
	var unsettled firstWarning
	handlers := make(chan struct{}, c.Handlers)
	w := &client.Worker{
		Client: q.client, Queue: q.name, Concurrency: min(c.Handlers*ahead, maxSlots), Logger: slog.New(&unsettled),
		Handler: func(_ context.Context, job *client.Job) error {
			handlers <- struct{}{}
			defer func() { <-handlers }()
			c.Handle(job.Body())
			return nil
		},
	}
	return errors.Join(w.Run(ctx), unsettled.err())
}

// poll receives as many messages as handlers are free. A handler is free again
// when its ack is confirmed; acks of several handlers share calls.
func (q *comandaQueue) poll(ctx context.Context, c Consumer) error {
	handlers := newCrew(context.WithoutCancel(ctx))
	free := make(chan struct{}, c.Handlers)
	for range c.Handlers {
		free <- struct{}{}
	}
	n := 0 // handlers that the next call takes messages for
	for ctx.Err() == nil && handlers.ctx.Err() == nil {
		if n == 0 {
			<-free
			n++
		}
		n += drainSlots(free)
		ds, err := q.client.Receive(handlers.ctx, q.name, client.ReceiveOptions{Max: n, Wait: pollFor})
		if err != nil {
			return errors.Join(err, handlers.wait())
		}
		n -= len(ds)
		for _, d := range ds {
			handlers.start(func(ctx context.Context) error {
				defer func() { free <- struct{}{} }()
				c.Handle(d.Body())
				return d.Ack(ctx)
			})
		}
	}
	return handlers.wait()
}

// drainSlots takes every slot that is free at the moment.
func drainSlots(free <-chan struct{}) (n int) {
	for {
		select {
		case <-free:
			n++
		default:
			return n
		}
	}
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
