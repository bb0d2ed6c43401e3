package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	quietFor    = time.Minute // without a message before a run gives up
	closeWithin = time.Minute
	pollEvery   = time.Millisecond
)

// run is one workload on one queue.
type run struct {
	Workload
	Options
	queue   Queue
	ledger  *ledger
	latency histogram
}

// Run runs a workload on a queue of its own and deletes the queue. It fails when
// a call fails, when a confirmed message does not arrive, and when one arrives
// that nobody sent.
func Run(ctx context.Context, s System, w Workload, o Options) (err error) {
	if err := o.Check(w); err != nil {
		return err
	}
	o = o.withDefaults(w)
	if w.producers == 0 {
		w.producers = o.Producers
	}
	r := &run{Workload: w, Options: o, ledger: newLedger()}
	if r.queue, err = s.Open(ctx, o.Queue, w.producers); err != nil {
		return fmt.Errorf("%s: make the queue %s: %w", w.Name, o.Queue, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
		defer cancel()
		err = errors.Join(err, r.queue.Close(ctx))
	}()
	if err := w.do(ctx, r); err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	return nil
}

// crew runs goroutines; the first that fails ends them all.
type crew struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newCrew(ctx context.Context) *crew {
	c := &crew{}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

func (c *crew) start(f func(ctx context.Context) error) {
	c.wg.Go(func() {
		if err := f(c.ctx); err != nil {
			c.cancel(err)
		}
	})
}

// wait waits for all and returns the first failure.
func (c *crew) wait() error {
	c.wg.Wait()
	err := context.Cause(c.ctx)
	c.cancel(nil)
	return err
}

// phase measures from begin until end.
type phase struct {
	start  time.Time
	before Usage
}

func (r *run) begin() phase { return phase{before: r.Meter(), start: time.Now()} }

// end reports what n messages took, and how many were sent meanwhile.
func (r *run) end(p phase, name string, n, sent int64) {
	took := time.Since(p.start)
	r.Report(Result{
		Workload: name, Messages: n, Sent: sent, Elapsed: took, PerSecond: float64(n) / took.Seconds(),
		P50: r.latency.quantile(0.50), P99: r.latency.quantile(0.99),
		Duplicates: r.ledger.duplicates.Load(), Bytes: n * int64(r.Size), Used: r.Meter().since(p.before),
	})
}

// produce sends by so many producers, as long as more says, and returns when
// all is confirmed. A producer has one call under way at a time; took hears how
// long each took.
func (r *run) produce(ctx context.Context, producers, batch int, more func() bool, took func(time.Duration)) error {
	c := newCrew(ctx)
	for range producers {
		c.start(func(ctx context.Context) error {
			bodies := make([][]byte, batch)
			for i := range bodies {
				bodies[i] = make([]byte, r.Size)
			}
			for more() {
				for _, b := range bodies {
					r.ledger.fill(b)
				}
				start := time.Now()
				if err := r.send(ctx, bodies); err != nil {
					return err
				}
				took(time.Since(start))
				r.ledger.confirmed.Add(int64(batch))
			}
			return nil
		})
	}
	return c.wait()
}

func (r *run) send(ctx context.Context, bodies [][]byte) error {
	if len(bodies) == 1 {
		return r.queue.Send(ctx, bodies[0])
	}
	return r.queue.SendBatch(ctx, bodies)
}

// unheard is for durations that nobody asked for.
func unheard(time.Duration) {}

// until says yes for a while.
func until(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().Before(end) }
}

// times says yes n times.
func times(n int) func() bool {
	var left atomic.Int64
	left.Store(int64(n))
	return func() bool { return left.Add(-1) >= 0 }
}

// consumers are at work in the background.
type consumers struct {
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // set before ended is closed
}

// consume starts consumers; handled hears how long each message took to come.
func (r *run) consume(ctx context.Context, wait bool, handled func(time.Duration)) *consumers {
	ctx, cancel := context.WithCancel(ctx)
	c := &consumers{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = r.queue.Consume(ctx, Consumer{
			Handlers: r.Consumers, Wait: wait,
			Handle: func(body []byte) { handled(r.ledger.arrive(body)) },
		})
	}()
	return c
}

// stop ends the consumers and returns when all their acks are confirmed.
func (c *consumers) stop() error {
	c.cancel()
	<-c.ended
	return c.err
}

// arrived waits until n messages have arrived. It gives up when nothing has come
// for a minute.
func (r *run) arrived(ctx context.Context, n int64, c *consumers) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	last, since := int64(-1), time.Now()
	for {
		arrived := r.ledger.arrived.Load()
		if arrived >= n {
			return nil
		}
		if arrived != last {
			last, since = arrived, time.Now()
		}
		if time.Since(since) > quietFor {
			return fmt.Errorf("nothing has come for %s: of %d confirmed messages %d have arrived", quietFor, n, arrived)
		}
		select {
		case <-poll.C:
		case <-c.ended:
			return errors.New("the consumers ended before all had arrived")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// finish takes what is left in the queue and checks the run.
func (r *run) finish(ctx context.Context) error {
	c := r.consume(ctx, false, unheard)
	err := r.arrived(ctx, r.ledger.confirmed.Load(), c)
	return errors.Join(err, c.stop(), r.check())
}

// check says what is wrong with a run whose confirmed messages have arrived.
func (r *run) check() error {
	if n := r.ledger.foreign.Load(); n > 0 {
		return fmt.Errorf("%d messages arrived that nobody sent", n)
	}
	return nil
}
