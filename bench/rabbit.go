package main

import (
	"context"
	"errors"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/comanda-mq/comanda/internal/load"
)

const (
	// rabbitAhead is how many messages a consumer may hold that does not wait
	// for its acks.
	rabbitAhead = 100
	// rabbitConnections is how many connections the channels of a queue's users
	// are spread over.
	rabbitConnections = 8
	// rabbitPublishers is how many channels are there at least to publish on.
	rabbitPublishers = 16
)

// quorumQueues is RabbitMQ's replicated queue, with a replica on each node. Acks
// are not confirmed by AMQP: a handler can't wait for one.
type quorumQueues struct{ urls []string }

func (s quorumQueues) Open(_ context.Context, name string, producers int) (_ load.Queue, err error) {
	q := &quorumQueue{name: name, idle: make(chan *amqp.Channel, max(producers, rabbitPublishers))}
	defer func() {
		if err != nil {
			err = errors.Join(err, q.disconnect())
		}
	}()
	for i := range rabbitConnections {
		c, err := amqp.Dial(s.urls[i%len(s.urls)])
		if err != nil {
			return nil, err
		}
		q.connections = append(q.connections, c)
	}
	if q.admin, err = q.connections[0].Channel(); err != nil {
		return nil, err
	}
	kind := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-quorum-initial-group-size": len(s.urls)}
	if _, err = q.admin.QueueDeclare(name, true, false, false, false, kind); err != nil {
		return nil, err
	}
	for i := range max(producers, rabbitPublishers) {
		ch, err := q.connections[i%rabbitConnections].Channel()
		if err == nil {
			err = ch.Confirm(false)
		}
		if err != nil {
			return nil, err
		}
		q.idle <- ch
	}
	return q, nil
}

type quorumQueue struct {
	name        string
	connections []*amqp.Connection
	admin       *amqp.Channel
	idle        chan *amqp.Channel // of producers
}

func (q *quorumQueue) disconnect() error {
	var errs []error
	for _, c := range q.connections {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (q *quorumQueue) Close(context.Context) error {
	_, err := q.admin.QueueDelete(q.name, false, false, false)
	return errors.Join(err, q.disconnect())
}

var errNotConfirmed = errors.New("the message was refused")

func (q *quorumQueue) Send(ctx context.Context, body []byte) error {
	return q.SendBatch(ctx, [][]byte{body})
}

// SendBatch publishes all and then waits for the confirms: AMQP has no batches.
func (q *quorumQueue) SendBatch(ctx context.Context, bodies [][]byte) error {
	ch := <-q.idle
	defer func() { q.idle <- ch }()
	confirms := make([]*amqp.DeferredConfirmation, 0, len(bodies))
	for _, b := range bodies {
		// The client keeps the body until it is written, which is before it returns.
		c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", q.name, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: b})
		if err != nil {
			return err
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		ok, err := c.WaitContext(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return errNotConfirmed
		}
	}
	return nil
}

// Consume gives each handler a channel and a consumer of its own.
func (q *quorumQueue) Consume(ctx context.Context, c load.Consumer) error {
	var wg sync.WaitGroup
	errs := make([]error, c.Handlers)
	for i := range c.Handlers {
		wg.Go(func() { errs[i] = q.handle(ctx, q.connections[i%rabbitConnections], c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (q *quorumQueue) handle(ctx context.Context, conn *amqp.Connection, c load.Consumer) (err error) {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ch.Close()) }()
	ahead := rabbitAhead
	if c.Wait {
		ahead = 1
	}
	if err := ch.Qos(ahead, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(q.name, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil // the channel's end gives back what was not handled
		case d, ok := <-deliveries:
			if !ok {
				return errors.New("the server closed the channel")
			}
			c.Handle(d.Body)
			if err := d.Ack(false); err != nil {
				return err
			}
		}
	}
}
