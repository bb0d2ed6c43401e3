package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// work runs w in a bubble until stop is called, which returns what Run does.
func work(t *testing.T, w *client.Worker) (stop func() error) {
	t.Helper()
	w.Queue = "q"
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan error, 1)
	go func() { out <- w.Run(ctx) }()
	synctest.Wait()
	return func() error { cancel(); return <-out }
}

// What a handler returns settles its message.
func TestTheReturnedErrorIsTheSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: func(_ context.Context, j *client.RawJob) error {
			switch string(j.Body()) {
			case "fail":
				return errors.New("no flour")
			case "later":
				return fmt.Errorf("oven: %w", client.RetryAfter(errors.New("cold"), time.Minute))
			case "never":
				return client.Reject(errors.New("not a pizza"))
			case "back":
				return client.Release(time.Second)
			case "panic":
				panic("fire")
			}
			return nil
		}}
		f.put("fine", "fail", "later", "never", "back", "panic")
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 ACK", "t2 NACK", "t3 NACK", "t4 REJECT", "t5 RELEASE", "t6 NACK"}) {
			t.Fatalf("got %v", got)
		}
		if s := f.settled[1]; s.GetError() != "no flour" {
			t.Errorf("got %v", s)
		}
		if s := f.settled[2]; s.GetError() != "oven: cold" || s.GetDelay().AsDuration() != time.Minute {
			t.Errorf("got %v", s)
		}
	})
}

// No more handlers run at a time than the worker has slots.
func TestConcurrencyIsALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		var now, most atomic.Int64
		w := &client.Worker{Client: start(t, f), Concurrency: 3, Handler: func(context.Context, *client.RawJob) error {
			most.Store(max(most.Load(), now.Add(1)))
			<-time.After(time.Second)
			now.Add(-1)
			return nil
		}}
		for i := range 20 {
			f.put(fmt.Sprint(i))
		}
		stop := work(t, w)
		<-time.After(time.Minute)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if most.Load() != 3 || len(f.actions()) != 20 {
			t.Errorf("at most %d at a time, %d settled", most.Load(), len(f.actions()))
		}
	})
}

// A lease is extended at a third of it as long as its handler runs, also while
// the worker drains.
func TestLeasesAreExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Lease: 30 * time.Second, DrainTimeout: time.Hour, Handler: func(ctx context.Context, _ *client.RawJob) error {
			select {
			case <-time.After(65 * time.Second):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}
		f.put("a")
		stop := work(t, w)
		<-time.After(25 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got, want := f.actions(), append(slices.Repeat([]string{"t1 EXTEND"}, 6), "t1 ACK"); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

// A handler whose extension is refused is cancelled with the cause, and what it
// says is not sent: the message is somebody else's.
func TestAFencedExtensionCancelsTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{onSettle: func(s *comandav1.Settlement) *comandav1.SettleResult {
			if s.GetAction() == client.ActionExtend {
				return &comandav1.SettleResult{Error: &comandav1.Error{Code: "FENCED", Message: "gone"}}
			}
			return nil
		}}
		var after time.Duration
		var cause error
		began := time.Now()
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Lease: 30 * time.Second, Handler: func(ctx context.Context, _ *client.RawJob) error {
			<-ctx.Done()
			after, cause = time.Since(began), context.Cause(ctx)
			return cause
		}}
		f.put("a")
		stop := work(t, w)
		<-time.After(time.Minute)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if !errors.Is(cause, client.ErrLeaseLost) || !errors.Is(cause, client.ErrFenced) || after != 10*time.Second {
			t.Errorf("cancelled after %s with %v", after, cause)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 EXTEND"}) {
			t.Errorf("got %v", got)
		}
	})
}

// A handler whose lease can't be extended is cancelled when the lease is over
// by the worker's own clock.
func TestAnUnansweredLeaseEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{onSettle: func(s *comandav1.Settlement) *comandav1.SettleResult {
			if s.GetAction() == client.ActionExtend {
				return &comandav1.SettleResult{Error: &comandav1.Error{Code: "UNAVAILABLE", Message: "no leader"}}
			}
			return nil
		}}
		var after time.Duration
		began := time.Now()
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Lease: 30 * time.Second, Handler: func(ctx context.Context, _ *client.RawJob) error {
			<-ctx.Done()
			after = time.Since(began)
			return context.Cause(ctx)
		}}
		f.put("a")
		stop := work(t, w)
		<-time.After(time.Minute)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if after != 30*time.Second {
			t.Errorf("cancelled after %s", after)
		}
	})
}

// Handlers survive a broken stream, and their acks go out on the next one.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 2, Handler: func(ctx context.Context, _ *client.RawJob) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}
		f.put("a", "b")
		stop := work(t, w)
		close(f.cut)
		<-time.After(5 * time.Second)
		f.put("c")
		<-time.After(5 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		got := f.actions()
		slices.Sort(got)
		if !slices.Equal(got, []string{"t1 ACK", "t2 ACK", "t3 ACK"}) || f.streams != 2 {
			t.Errorf("got %v on %d streams", got, f.streams)
		}
	})
}

// An ack whose answer was lost with its stream goes out again on the next one.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		f.loseAnswer.Store(true)
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: func(context.Context, *client.RawJob) error { return nil }}
		f.put("a")
		stop := work(t, w)
		<-time.After(5 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 ACK", "t1 ACK"}) || f.streams != 2 {
			t.Errorf("got %v on %d streams", got, f.streams)
		}
	})
}

// A settlement that fails for a passing reason is tried again.
func TestAcksAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failures atomic.Int64
		f := &fake{onSettle: func(*comandav1.Settlement) *comandav1.SettleResult {
			if failures.Add(1) <= 3 {
				return &comandav1.SettleResult{Error: &comandav1.Error{Code: "NOT_LEADER", Message: "ask again"}}
			}
			return nil
		}}
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: func(context.Context, *client.RawJob) error { return nil }}
		f.put("a")
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(got, slices.Repeat([]string{"t1 ACK"}, 4)) {
			t.Errorf("got %v", got)
		}
	})
}

// A draining worker lets its handlers finish, takes nothing new, and gives back
// what comes all the same.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 2, Handler: func(ctx context.Context, _ *client.RawJob) error {
			select {
			case <-time.After(9 * time.Second):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}
		f.put("a")
		stop := work(t, w)
		go func() {
			<-time.After(time.Second)
			f.put("late", "too late")
		}()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t2 RELEASE", "t1 ACK"}) {
			t.Errorf("got %v", got)
		}
	})
}

// SIGTERM drains as the end of the context does; it would end this process otherwise.
func TestSignalDrains(t *testing.T) {
	f := &fake{}
	w := &client.Worker{Client: start(t, f), Queue: "q", Concurrency: 1, Handler: func(ctx context.Context, _ *client.RawJob) error {
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Signal(syscall.SIGTERM)
		}
		return err
	}}
	f.put("a")
	if err := w.RunUntilSignal(t.Context()); err != nil {
		t.Error(err)
	}
	if got := f.actions(); !slices.Equal(got, []string{"t1 ACK"}) {
		t.Errorf("got %v", got)
	}
}

// A handler that is not done when the drain timeout is over is cancelled, and
// its message given back without counting an attempt.
func TestDrainTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		var cause error
		w := &client.Worker{Client: start(t, f), Concurrency: 1, DrainTimeout: 5 * time.Second, Handler: func(ctx context.Context, _ *client.RawJob) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return cause
		}}
		f.put("a")
		stop := work(t, w)
		began := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d != 5*time.Second || !errors.Is(cause, client.ErrDrainTimeout) {
			t.Errorf("cancelled after %s with %v", d, cause)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 RELEASE"}) {
			t.Errorf("got %v", got)
		}
	})
}

// A worker ends by itself when nothing is to do, or when it had its number.
func TestIdleAndMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		c := start(t, f)
		w := client.Worker{Client: c, Queue: "q", Concurrency: 4, Handler: func(context.Context, *client.RawJob) error {
			<-time.After(9 * time.Second)
			return nil
		}}
		f.put("a", "b", "c", "d", "e")
		w.MaxMessages = 3
		if err := w.Run(t.Context()); err != nil || len(f.actions()) != 3 {
			t.Errorf("max: %v, settled %v", err, f.actions())
		}
		w.MaxMessages, w.IdleTimeout = 0, 2*time.Second
		began := time.Now()
		if err := w.Run(t.Context()); err != nil || len(f.actions()) != 5 || time.Since(began) != 11*time.Second {
			t.Errorf("idle: %v after %s, settled %v", err, time.Since(began), f.actions())
		}
	})
}

// A worker that the server refuses ends with the server's word.
func TestRefusedWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := client.Worker{Client: start(t, &fake{}), Queue: "missing", Handler: func(context.Context, *client.RawJob) error { return nil }}
		if err := w.Run(t.Context()); !errors.Is(err, client.ErrQueueNotFound) {
			t.Errorf("got %v", err)
		}
		if err := (&client.Worker{}).Run(t.Context()); client.CodeOf(err) != client.CodeInvalidArgument {
			t.Errorf("got %v", err)
		}
	})
}

// Extend changes this lease and its later extensions.
func TestExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: func(ctx context.Context, j *client.RawJob) error {
			if err := j.Extend(ctx, time.Hour); err != nil {
				return err
			}
			<-time.After(30 * time.Minute)
			return nil
		}}
		f.put("a")
		stop := work(t, w)
		<-time.After(time.Hour)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 EXTEND", "t1 EXTEND", "t1 ACK"}) {
			t.Fatalf("got %v", got)
		}
		if d := f.settled[1].GetLease().AsDuration(); d != time.Hour {
			t.Errorf("extended by %s", d)
		}
	})
}

// Settled is called once for each message that was handled, with what became of
// it, and not for those that were given back unhandled.
func TestSettledTellsWhatIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		told := map[string]error{}
		w := &client.Worker{
			Client: start(t, f), Concurrency: 4,
			Handler: func(_ context.Context, j *client.RawJob) error {
				if string(j.Body()) == "never" {
					return client.Reject(errors.New("not a pizza"))
				}
				return nil
			},
			Settled: func(j *client.RawJob, err error) {
				if _, twice := told[string(j.Body())]; twice {
					t.Errorf("%q was told twice", j.Body())
				}
				told[string(j.Body())] = err
			},
		}
		f.put("a", "b", "never")
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if len(told) != 3 || told["a"] != nil || told["b"] != nil || told["never"] != nil {
			t.Fatalf("told %v", told)
		}
	})
}

// What a handler sends on ack goes with the ack, and with nothing else. If the server
// refuses it the attempt has failed, and Settled is told why.
func TestSendOnAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{onSettle: func(s *comandav1.Settlement) *comandav1.SettleResult {
			for _, x := range s.GetFollowUps() {
				if x.GetQueue() == "missing" {
					return &comandav1.SettleResult{Error: &comandav1.Error{Code: "QUEUE_NOT_FOUND", Message: "no queue"}}
				}
			}
			return nil
		}}
		told := map[string]client.Code{}
		w := &client.Worker{
			Client: start(t, f), Concurrency: 1,
			Handler: func(_ context.Context, j *client.RawJob) error {
				j.SendOnAck(string(j.Body()), client.Message{Body: []byte("1"), Key: "k"}, client.Message{Delay: time.Minute})
				j.SendOnAck("oven", client.Message{Body: []byte("3")})
				switch string(j.Body()) {
				case "fail":
					return errors.New("no flour")
				case "garbled":
					j.SendOnAck("oven", client.Message{Key: "\xff"})
				}
				return nil
			},
			Settled: func(j *client.RawJob, err error) { told[string(j.Body())] = client.CodeOf(err) },
		}
		f.put("fine", "fail", "missing", "garbled")
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 ACK", "t2 NACK", "t3 ACK", "t3 NACK", "t4 NACK"}) && !slices.Equal(got, []string{"t1 ACK", "t2 NACK", "t3 ACK", "t4 NACK", "t3 NACK"}) {
			t.Fatalf("got %v", got)
		}
		fs := f.settled[0].GetFollowUps()
		if len(fs) != 3 || fs[0].GetQueue() != "fine" || fs[0].GetMessage().GetKey() != "k" || fs[1].GetMessage().GetDelay().AsDuration() != time.Minute || fs[2].GetQueue() != "oven" {
			t.Errorf("got %v", fs)
		}
		for _, s := range f.settled {
			if s.GetAction() == client.ActionNack && len(s.GetFollowUps()) > 0 {
				t.Errorf("got %v", s)
			}
			if s.GetAction() == client.ActionNack && s.GetToken() == "t3" && s.GetError() != "QUEUE_NOT_FOUND: no queue" {
				t.Errorf("got %v", s)
			}
		}
		if told["fine"] != "" || told["missing"] != client.CodeQueueNotFound {
			t.Errorf("told %v", told)
		}
	})
}

// What is too much to send with an ack fails its attempt, and no other settlement.
func TestTooMuchOnAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 3, Handler: func(_ context.Context, j *client.RawJob) error {
			switch string(j.Body()) {
			case "large":
				j.SendOnAck("oven", client.Message{Body: make([]byte, 3<<20)})
			case "many":
				j.SendOnAck("oven", make([]client.Message, 17)...)
			}
			return nil
		}}
		f.put("large", "many", "fine")
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"t1 NACK", "t2 NACK", "t3 ACK"}) {
			t.Errorf("got %v", got)
		}
	})
}

// Acks with much to send go out in requests that the server takes: 2 MiB each.
func TestLargeFollowUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := &client.Worker{Client: start(t, f), Concurrency: 8, Handler: func(_ context.Context, j *client.RawJob) error {
			j.SendOnAck("oven", client.Message{Body: make([]byte, 600<<10)})
			return nil
		}}
		f.put("1", "2", "3", "4", "5", "6", "7", "8")
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if seen, _ := f.saw(); len(f.actions()) != 8 || seen.largest > 2<<20 {
			t.Errorf("%d acks, the largest request has %d bytes", len(f.actions()), seen.largest)
		}
	})
}
