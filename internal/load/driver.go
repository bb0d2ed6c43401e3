package load

import "context"

// System is one queueing system with its server running.
type System interface {
	// Open makes an empty queue, and whatever its producers and consumers need,
	// so that no run finds what another has left.
	Open(ctx context.Context, name string, producers int) (Queue, error)
}

// Queue is a queue under load. Its methods are called by many goroutines.
type Queue interface {
	// Send returns nil when the message is as durable as the system makes it.
	// The body belongs to the caller again when Send returns.
	Send(ctx context.Context, body []byte) error
	// SendBatch sends many with one request, or as few as the system can, and
	// returns nil when all are confirmed.
	SendBatch(ctx context.Context, bodies [][]byte) error
	// Consume runs c's handlers until ctx ends. When it returns nil, the ack of
	// everything that was handled is confirmed (where acks are: AMQP's are only
	// sent), and what was not handled is back in the queue.
	Consume(ctx context.Context, c Consumer) error
	// Close deletes the queue.
	Close(ctx context.Context) error
}

// Consumer says how to take messages from a queue.
type Consumer struct {
	// Handlers is how many messages are handled at a time.
	Handlers int
	// Wait makes a handler wait until the ack of its message is confirmed before
	// it takes the next. Without it acks are confirmed in the background, and a
	// driver may take messages ahead and send acks in batches.
	Wait bool
	// Handle is called for each message, by up to Handlers goroutines. It may
	// not keep the body.
	Handle func(body []byte)
}
