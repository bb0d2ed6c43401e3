// Package client talks to a Comanda server: it sends messages, receives and
// settles them, runs workers, and administers queues.
//
//	c, err := client.New("localhost:7400")
//	id, err := c.Send(ctx, "orders", client.Message{Key: "cust-7", Body: body})
//
//	w := &client.Worker{Client: c, Queue: "orders", Concurrency: 8,
//		Handler: func(ctx context.Context, job *client.RawJob) error { … }}
//	err = w.RunUntilSignal(ctx) // SIGTERM drains
//
// With typed jobs the body is the JSON of a struct, and each type has a handler:
//
//	id, err := client.Send(ctx, c, "orders", Pizza{Name: "margherita"})
//
//	var mux client.Mux
//	client.Handle(&mux, func(ctx context.Context, job *client.Job[Pizza]) error { … })
//	w := &client.Worker{Client: c, Queue: "orders", Handler: mux.Run}
//
// Sends and settlements of many goroutines are coalesced without a timer: the
// first one goes out at once, and what comes while it is on its way goes out
// together as the next call.
//
// Errors are of type *Error and carry the server's stable code; compare them
// with errors.Is(err, client.ErrFenced) and its like.
//
// Administrative calls answer with the types of the contract (package api), so
// that nothing of what the server says is lost.
package client
