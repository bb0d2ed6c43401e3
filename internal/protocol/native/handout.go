package native

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// responseBytes is about how much goes into one response of a work stream, so
// that a large batch does not hold back settlements, nor need a large message.
const responseBytes = 1 << 20

// handOut leases what the worker has credits for and passes it to send.
func (w *work) handOut() error {
	for turn := 0; ; turn++ {
		for w.credits.Load() <= 0 {
			select {
			case <-w.granted:
			case <-w.handout.Done():
				return nil
			}
		}
		ds, err := w.leaseNext(turn, int(min(w.credits.Load(), message.MaxBatch)))
		if w.handout.Err() != nil {
			w.release(w.ctx, ds)
			return nil //nolint:nilerr // an error comes of the end, whose reason is known
		}
		if err != nil {
			return err
		}
		if len(ds) == 0 {
			continue
		}
		w.credits.Add(-int64(len(ds)))
		select {
		case w.deliveries <- ds:
		case <-w.handout.Done():
			w.release(w.ctx, ds)
			return nil
		}
	}
}

// leaseNext leases a batch of at most n. Several queues are asked in turn, each
// time another one first; when all are empty they are awaited together.
func (w *work) leaseNext(turn, n int) ([]message.Delivery, error) {
	if len(w.queues) == 1 {
		return w.receive(w.handout, w.queues[0], n, message.MaxWait)
	}
	for i := range w.queues {
		q := w.queues[(turn+i)%len(w.queues)]
		if ds, err := w.receive(w.handout, q, n, 0); err != nil || len(ds) > 0 {
			return ds, err
		}
	}
	return w.await(n)
}

// await waits until one of the queues has messages. More than one may answer
// before the others are called off, so each is asked for few, and what is over n
// is given back.
func (w *work) await(n int) ([]message.Delivery, error) {
	ctx, cancel := context.WithCancel(w.handout)
	defer cancel()
	type answer struct {
		ds  []message.Delivery
		err error
	}
	answers := make(chan answer, len(w.queues))
	for _, q := range w.queues {
		go func() {
			var a answer
			a.err = guard(func() (err error) {
				a.ds, err = w.receive(ctx, q, max(1, n/len(w.queues)), message.MaxWait)
				return err
			})
			answers <- a
		}()
	}
	var (
		all    []message.Delivery
		failed error
	)
	for range w.queues {
		a := <-answers
		cancel()
		all = append(all, a.ds...)
		if a.err != nil && !errors.Is(a.err, context.Canceled) && failed == nil {
			failed = a.err
		}
	}
	if failed != nil {
		w.release(w.ctx, all)
		return nil, failed
	}
	n = min(n, len(all))
	w.release(w.ctx, all[n:])
	return all[:n], nil
}

func (w *work) receive(ctx context.Context, queue string, n int, wait time.Duration) ([]message.Delivery, error) {
	o := message.ReceiveOptions{Max: n, Wait: wait, Lease: w.lease, Worker: w.worker}
	if w.session != nil {
		o.Session = w.session.Session()
	}
	return w.verbs.Receive(ctx, queue, o)
}

// send sends what is ready, as much as there is in one response, until there
// will be no more.
func (w *work) send() error {
	var answered <-chan uint64
	var cancelled <-chan []string
	var draining <-chan struct{}
	if w.session != nil {
		answered, cancelled, draining = w.session.Answered(), w.session.Cancelled(), w.session.Draining()
		if err := w.stream.Send(&comandav1.WorkResponse{Ttl: durationpb.New(w.ttl)}); err != nil {
			return err
		}
	}
	deliveries, settled := w.deliveries, w.settled
	for deliveries != nil || settled != nil {
		var (
			ds   []message.Delivery
			resp comandav1.WorkResponse
		)
		select {
		case ds = <-deliveries:
			if ds == nil {
				deliveries, resp.Goodbye = nil, w.goodbye.Load()
			}
		case resp.Settled = <-settled:
			if resp.Settled == nil {
				settled = nil
			}
		case resp.Beat = <-answered:
		case resp.Cancelled = <-cancelled:
		case <-draining:
			draining, resp.Draining = nil, true
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
		if ds == nil {
			select {
			case ds = <-deliveries:
			default:
			}
		}
		if resp.Settled == nil {
			select {
			case resp.Settled = <-settled:
			default:
			}
		}
		if err := w.sendBatch(ds, &resp); err != nil {
			return err
		}
	}
	return context.Cause(w.ctx)
}

// sendBatch sends resp, if it says anything, and deliveries with it and in as many
// more as they need. Deliveries that could not be sent are given back.
func (w *work) sendBatch(ds []message.Delivery, resp *comandav1.WorkResponse) error {
	for len(ds) > 0 || len(resp.Settled) > 0 || resp.Beat > 0 || resp.Goodbye || len(resp.Cancelled) > 0 || resp.Draining {
		n := responseLen(ds)
		resp.Deliveries = deliveriesTo(ds[:n])
		if err := w.stream.Send(resp); err != nil {
			w.release(w.ctx, ds)
			return err
		}
		ds, resp = ds[n:], &comandav1.WorkResponse{}
	}
	return nil
}

// responseLen is how many of ds go into one response: at least one.
func responseLen(ds []message.Delivery) int {
	size := 0
	for i := range ds {
		size += len(ds[i].Body) + message.MaxKey
		for _, a := range ds[i].Attributes {
			size += len(a.Name) + len(a.Value)
		}
		if i > 0 && size > responseBytes {
			return i
		}
	}
	return len(ds)
}
