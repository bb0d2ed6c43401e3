package load

import (
	"context"
	"errors"
	"time"
)

const (
	preloadProducers = 16
	preloadBatch     = 100

	// sampled is how many messages W6 takes from its backlog to tell the rate.
	sampled = 200_000
)

// greet sends one message a producer, so that no connection is opened while
// the clock runs.
func (r *run) greet(ctx context.Context) error {
	return r.produce(ctx, r.producers, 1, times(r.producers), unheard)
}

// enqueue is W1 and W4.
func enqueue(ctx context.Context, r *run) error {
	if err := r.greet(ctx); err != nil {
		return err
	}
	if err := r.sendFor(ctx, r.Name); err != nil {
		return err
	}
	return r.finish(ctx)
}

// sendFor measures producers for a while.
func (r *run) sendFor(ctx context.Context, name string) error {
	r.latency.reset()
	p, before := r.begin(), r.ledger.confirmed.Load()
	if err := r.produce(ctx, r.producers, r.batch, until(r.Duration), r.latency.add); err != nil {
		return err
	}
	sent := r.ledger.confirmed.Load() - before
	r.end(p, name, sent, sent)
	return nil
}

// pipeline is W2. It counts the messages whose acks were confirmed when the
// producers had ended and the consumers had been called off.
func pipeline(ctx context.Context, r *run) error {
	if err := r.greet(ctx); err != nil {
		return err
	}
	c := r.consume(ctx, r.wait, r.latency.add)
	if err := r.arrived(ctx, r.ledger.confirmed.Load(), c); err != nil {
		return errors.Join(err, c.stop())
	}
	r.latency.reset()
	p, sent, arrived := r.begin(), r.ledger.confirmed.Load(), r.ledger.arrived.Load()
	var err error
	if r.rate == 0 {
		err = r.produce(ctx, r.producers, 1, until(r.Duration), unheard)
	} else {
		err = r.producePaced(ctx)
	}
	if err := errors.Join(err, c.stop()); err != nil {
		return err
	}
	r.end(p, r.Name, r.ledger.arrived.Load()-arrived, r.ledger.confirmed.Load()-sent)
	return r.finish(ctx)
}

// producePaced sends at W2's rate. A message's time is that at which it was
// due, so a system that makes its producers wait does not hide it.
func (r *run) producePaced(ctx context.Context) error {
	due := make(chan time.Duration, r.rate)
	c := newCrew(ctx)
	c.start(func(ctx context.Context) error {
		defer close(due)
		return r.beat(ctx, due)
	})
	for range r.producers {
		c.start(func(ctx context.Context) error {
			body := make([]byte, r.Size)
			for at := range due {
				r.ledger.fill(body)
				stamp(body, at)
				if err := r.queue.Send(ctx, body); err != nil {
					return err
				}
				r.ledger.confirmed.Add(1)
			}
			return nil
		})
	}
	return c.wait()
}

// beat says rate times a second that a message is due.
func (r *run) beat(ctx context.Context, due chan<- time.Duration) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	every := time.Second / time.Duration(r.rate)
	start := time.Now()
	for at := time.Duration(0); at < r.Duration; at += every {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case due <- time.Since(r.ledger.began):
		case <-ctx.Done():
			return ctx.Err()
		}
		timer.Reset(time.Until(start.Add(at + every)))
	}
	return nil
}

// preload sends so many messages in batches.
func (r *run) preload(ctx context.Context, n int) error {
	batches, rest := n/preloadBatch, n%preloadBatch
	if err := r.produce(ctx, preloadProducers, preloadBatch, times(batches), unheard); err != nil {
		return err
	}
	return r.produce(ctx, 1, 1, times(rest), unheard)
}

// drain is W3.
func drain(ctx context.Context, r *run) error {
	if err := r.preload(ctx, r.Preload); err != nil {
		return err
	}
	if err := r.take(ctx, r.Name, r.ledger.confirmed.Load()); err != nil {
		return err
	}
	return r.check()
}

// take measures how long consumers need to take and ack n messages.
func (r *run) take(ctx context.Context, name string, n int64) error {
	p := r.begin()
	c := r.consume(ctx, r.wait, unheard)
	err := r.arrived(ctx, n, c)
	if err := errors.Join(err, c.stop()); err != nil {
		return err
	}
	r.end(p, name, r.ledger.arrived.Load(), 0)
	return nil
}

// backlog is W6. Its stages are results of their own.
func backlog(ctx context.Context, r *run) error {
	p := r.begin()
	if err := r.preload(ctx, r.Preload); err != nil {
		return err
	}
	r.end(p, r.Name+" fill", r.ledger.confirmed.Load(), r.ledger.confirmed.Load())
	if err := r.Filled(ctx); err != nil {
		return err
	}
	if err := r.sendFor(ctx, r.Name+" send"); err != nil {
		return err
	}
	r.latency.reset()
	if err := r.take(ctx, r.Name+" drain", min(sampled, r.ledger.confirmed.Load())); err != nil {
		return err
	}
	return r.finish(ctx)
}
