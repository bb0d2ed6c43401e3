package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/server"
)

// serve runs a server for an example and returns a client of it, which has a queue
// of that name.
func serve(ctx context.Context, queue string) (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "comanda")
	if err != nil {
		panic(err)
	}
	s, err := server.Open(ctx, dir, server.WithDiskReserve(1))
	if err != nil {
		panic(err)
	}
	if c, err = client.New(s.Addr()); err == nil {
		_, err = c.CreateQueue(ctx, queue, client.QueueOptions{})
	}
	if err != nil {
		panic(err)
	}
	return c, func() {
		if err := errors.Join(c.Close(), s.Close(ctx), os.RemoveAll(dir)); err != nil {
			panic(err)
		}
	}
}

// Pizza is what a job of type "pizza" is about.
type Pizza struct {
	Name string `json:"name"`
}

// Type names the handler.
func (Pizza) Type() string { return "pizza" }

// A typed job: its arguments are a struct, and the handler of its type gets them.
func ExampleHandle() {
	ctx := context.Background()
	c, stop := serve(ctx, "orders") // client.New("localhost:7400")
	defer stop()

	_, err := client.Send(ctx, c, "orders", Pizza{Name: "margherita"}, func(m *client.Message) { m.Key = "alice" })
	if err != nil {
		fmt.Println(err)
	}

	var mux client.Mux
	client.Handle(&mux, func(_ context.Context, job *client.Job[Pizza]) error {
		fmt.Printf("a %s for %s, attempt %d\n", job.Args.Name, job.Key(), job.Attempt())
		return nil // acks it
	})
	w := &client.Worker{Client: c, Queue: "orders", Handler: mux.Run, MaxMessages: 1}
	if err := w.RunUntilSignal(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: a margherita for alice, attempt 1
}

// A plain handler gets bytes. Without MaxMessages it would work until SIGTERM or Ctrl-C,
// and then drain.
func ExampleWorker() {
	ctx := context.Background()
	c, stop := serve(ctx, "orders")
	defer stop()

	if _, err := c.Send(ctx, "orders", client.Message{Body: []byte("one calzone")}); err != nil {
		fmt.Println(err)
	}
	w := &client.Worker{Client: c, Queue: "orders", MaxMessages: 2, Handler: func(_ context.Context, job *client.RawJob) error {
		fmt.Printf("%s, attempt %d\n", job.Body(), job.Attempt())
		if job.Attempt() == 1 {
			return client.RetryAfter(errors.New("the oven is cold"), time.Millisecond)
		}
		return nil
	}}
	if err := w.RunUntilSignal(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// one calzone, attempt 1
	// one calzone, attempt 2
}

// A handler that sends the next step with the ack of its own: if it stops before, the
// message is handled again and nothing was sent; after that, the next step is there.
func ExampleRawJob_SendOnAck() {
	ctx := context.Background()
	c, stop := serve(ctx, "orders")
	defer stop()
	if _, err := c.CreateQueue(ctx, "oven", client.QueueOptions{}); err != nil {
		fmt.Println(err)
	}

	if _, err := c.Send(ctx, "orders", client.Message{Key: "alice", Body: []byte("one calzone")}); err != nil {
		fmt.Println(err)
	}
	kneads := &client.Worker{Client: c, Queue: "orders", MaxMessages: 1, Handler: func(_ context.Context, job *client.RawJob) error {
		job.SendOnAck("oven", client.Message{Key: job.Key(), Body: job.Body()})
		return nil // acks it
	}}
	bakes := &client.Worker{Client: c, Queue: "oven", MaxMessages: 1, Handler: func(_ context.Context, job *client.RawJob) error {
		fmt.Printf("%s for %s is in the oven\n", job.Body(), job.Key())
		return nil
	}}
	for _, w := range []*client.Worker{kneads, bakes} {
		if err := w.Run(ctx); err != nil {
			fmt.Println(err)
		}
	}
	// Output: one calzone for alice is in the oven
}

// Middleware that logs each attempt.
func ExampleMiddleware() {
	ctx := context.Background()
	c, stop := serve(ctx, "orders")
	defer stop()

	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{} // the output of this example must not change
		}
		return a
	}}))
	logging := func(next client.Handler) client.Handler {
		return func(ctx context.Context, job *client.RawJob) error {
			err := next(ctx, job)
			log.InfoContext(ctx, "handled", "type", job.Type(), "attempt", job.Attempt(), "error", err)
			return err
		}
	}
	if _, err := c.Send(ctx, "orders", client.Message{Type: "pizza"}); err != nil {
		fmt.Println(err)
	}
	w := &client.Worker{Client: c, Queue: "orders", MaxMessages: 1, Middleware: []client.Middleware{logging}}
	w.Handler = func(context.Context, *client.RawJob) error { return client.Reject(errors.New("no dough")) }
	if err := w.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: level=INFO msg=handled type=pizza attempt=1 error="no dough"
}
