package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// The shortest and the longest evening.
const (
	MinFor = 10 * time.Second
	MaxFor = time.Hour
)

const (
	stepWithin = 15 * time.Second // one thing that the shop asks of its servers
	lastOrders = 5 * time.Second  // for the answers to customers that stand at the counter at the end
	emptyAfter = time.Minute      // to deliver the rest
	keep       = 1_000_000        // finished orders stay visible, so that the servers can be asked about each
)

// Config of an evening.
type Config struct {
	For    time.Duration // from the opening to the bill, about: MinFor to MaxFor
	Binary string        // this program, which runs the servers and kitchens
	Out    io.Writer     // what happens, as it happens
}

// shop is one evening.
type shop struct {
	Config
	servers  servers
	kitchens kitchens
	counter  counter
	ledger   *ledger
	client   *client.Client
	opening  time.Time
	restarts sync.WaitGroup // of servers

	mu     sync.Mutex // of Out and of what follows
	faults []error
	broken chan struct{} // closed with the first of faults
	killed int           // the server that was killed
}

// Run opens the shop, has its evening, and prints the bill. It returns an error if
// the bill is wrong, if something could not be done, and if ctx ends before the
// opening; after it the end of ctx closes the shop early, with the bill so far. It
// leaves no process and no file.
func Run(ctx context.Context, c Config) (err error) {
	if c.For < MinFor || c.For > MaxFor {
		return fmt.Errorf("the evening is %s: want %s to %s", c.For, MinFor, MaxFor)
	}
	runtime.LockOSThread() // see bind
	defer runtime.UnlockOSThread()
	dir, err := os.MkdirTemp("", "comanda-demo-")
	if err != nil {
		return err
	}
	s := &shop{Config: c, ledger: newLedger(), broken: make(chan struct{})}
	defer func() {
		for _, p := range append(s.servers.nodes, s.kitchens.running...) {
			p.kill()
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	s.servers = servers{binary: c.Binary, dir: dir, failed: s.fail}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer func() { _ = s.client.Close() }() // nothing is under way any more
	s.evening(ctx)
	return s.close(ctx)
}

// open brings the shop to where customers may come in.
func (s *shop) open(ctx context.Context) (err error) {
	_, _ = fmt.Fprintf(s.Out, "A pizza shop of three servers, a counter and three kitchens, each a process of its own, in %s\n", s.servers.dir)
	if err := s.servers.form(ctx); err != nil {
		return err
	}
	if s.client, err = client.New(s.servers.addresses()); err != nil {
		return err
	}
	settings := &client.QueueSettings{
		MaxAttempts: burns, KeepFinished: keep, KeepFinishedFor: durationpb.New(24 * time.Hour),
		Backoff: &comandav1.Backoff{Kind: comandav1.BackoffKind_BACKOFF_KIND_FIXED, Initial: durationpb.New(200 * time.Millisecond)},
	}
	if _, err := s.client.CreateQueue(ctx, queue, client.QueueOptions{Settings: settings}); err != nil {
		return err
	}
	s.opening = time.Now()
	s.counter = counter{client: s.client, ledger: s.ledger, served: func(d *death) {
		s.say("customers are confirmed again, %s after the end of %s", seconds(time.Since(d.at)), d.who)
	}}
	s.kitchens = kitchens{binary: s.Binary, server: s.servers.addresses(), failed: s.fail, ledger: s.ledger, takenOver: func(d *death) {
		s.say("others have begun all that %s held, %s after its end", d.who, seconds(time.Since(d.at)))
	}}
	for range kitchenCount {
		if err := s.kitchens.open(); err != nil {
			return err
		}
	}
	s.say("open: %d customers order %d pizzas a second, every server stores every order", len(customers), usual)
	return nil
}

// say prints a line with its time.
func (s *shop) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.Out, "%8s  %s\n", seconds(time.Since(s.opening)), fmt.Sprintf(format, args...))
}

// fail notes what should not have happened; the first of it ends the evening.
func (s *shop) fail(err error) {
	s.say("this should not happen: %v", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) == 0 {
		close(s.broken)
	}
	s.faults = append(s.faults, err)
}

// close ends the evening: everything that was taken is delivered, unless ctx has
// ended or something failed, and the bill is printed.
func (s *shop) close(ctx context.Context) error {
	early := ctx.Err() != nil || s.failed()
	ctx = context.WithoutCancel(ctx)
	if early {
		s.say("closed early")
	} else if err := s.deliverRest(ctx); err != nil {
		s.fail(err)
	}
	s.kitchens.close()
	s.restarts.Wait()
	if err := s.ask(ctx); err != nil {
		s.fail(err)
	}
	b := s.ledger.bill(early)
	s.mu.Lock()
	defer s.mu.Unlock()
	b.write(s.Out, s.opening)
	if wrong := b.wrong(); wrong != "" {
		s.faults = append(s.faults, errors.New("the bill is wrong: "+wrong))
	}
	return errors.Join(s.faults...)
}

func (s *shop) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.faults) > 0
}

// deliverRest waits until the queue is empty, and redrives what is dead.
func (s *shop) deliverRest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, emptyAfter)
	defer cancel()
	ticks := time.NewTicker(summaryEvery(s.For))
	defer ticks.Stop()
	err := until(ctx, "the kitchens to deliver the rest", func() error {
		select {
		case <-ticks.C:
			s.say("%s", s.ledger.summary())
		default:
		}
		q, err := s.client.Queue(ctx, queue)
		if err != nil {
			return err
		}
		n := q.GetQueue().GetCounts()
		if rest := n.GetReady() + n.GetScheduled() + n.GetLeased(); rest > 0 {
			return fmt.Errorf("%d orders are left", rest)
		}
		if n.GetDead() == 0 {
			return nil
		}
		return errors.Join(s.redrive(ctx), errors.New("redriven orders are left"))
	})
	if err == nil {
		s.say("all is delivered")
	}
	return err
}

// redrive puts dead orders back in line.
func (s *shop) redrive(ctx context.Context) error {
	list, err := s.client.List(ctx, queue, client.ListOptions{State: "dead", Max: 1000})
	if err != nil {
		return err
	}
	var ids []string
	for _, m := range list.GetMessages() {
		ids = append(ids, m.GetId())
		s.ledger.redrive(m.GetId())
	}
	s.say("the ovens have cooled down: %d orders that burnt %d times go back in line (redrive)", len(ids), burns)
	_, err = s.client.Redrive(ctx, ids, true)
	return err
}

// ask asks the servers about each order that no kitchen has reported delivered.
func (s *shop) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	for t, id := range s.ledger.open() {
		err := until(ctx, "word of order "+id, func() error {
			m, err := s.client.Show(ctx, id, 0)
			switch {
			case errors.Is(err, client.ErrMessageNotFound), errors.Is(err, client.ErrGone):
				s.ledger.found(t, forgotten)
				return nil
			case err != nil:
				return err
			}
			s.ledger.found(t, fateOf(m.GetMessage().GetState()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fateOf(state string) fate {
	switch strings.ToLower(state) {
	case "finished":
		return eaten
	case "dead":
		return dead
	default:
		return waiting
	}
}
