package client_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

const ttl = 10 * time.Second

// pass lets time pass, and all that happens in it.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// held is a handler's fate: how long it ran and why it was cancelled.
type held struct {
	ran   time.Duration
	cause error
}

// holder is a worker whose handlers take an hour, or until they are cancelled.
func holder(t *testing.T, f *fake) (w *client.Worker, ended chan held) {
	t.Helper()
	f.ttl = ttl
	ended = make(chan held, 10)
	return &client.Worker{Client: start(t, f), Name: "w", Concurrency: 2, Handler: func(ctx context.Context, _ *client.RawJob) error {
		began := time.Now()
		select {
		case <-time.After(time.Hour):
			ended <- held{ran: time.Since(began)}
			return nil
		case <-ctx.Done():
			ended <- held{time.Since(began), context.Cause(ctx)}
			return context.Cause(ctx)
		}
	}}, ended
}

// A worker opens a session, beats every fifth of its TTL, names with every second
// beat what it holds, extends nothing, and ends with a goodbye.
func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w, ended := holder(t, f)
		w.TTL, w.OnDisconnect, w.DrainTimeout = 11*time.Second, client.OnDisconnectWait, time.Hour
		f.put("a", "b")
		stop := work(t, w)
		pass(59 * time.Minute)
		if saw, _ := f.saw(); saw.beats != 1+59*60/2 {
			t.Errorf("%d heartbeats in 59 minutes", saw.beats)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if h := <-ended; h.cause != nil || h.ran != time.Hour {
			t.Errorf("the handler ended after %s with %v", h.ran, h.cause)
		}
		saw, _ := f.saw()
		if o := saw.opens[0]; len(saw.opens) != 1 || o.GetIncarnation() == 0 || o.GetAttachment() != 1 || o.GetWorker() != "w" ||
			o.GetTtl().AsDuration() != 11*time.Second || o.GetOnDisconnect() != client.OnDisconnectWait {
			t.Errorf("opened %v", saw.opens)
		}
		got := f.actions()
		slices.Sort(got)
		if !slices.Equal(got, []string{"t1 ACK", "t2 ACK"}) || saw.goodbyes != 1 {
			t.Errorf("settled %v, %d goodbyes", got, saw.goodbyes)
		}
		if c := slices.Compact(saw.claims); !slices.Equal(c, []string{"t1 t2"}) {
			t.Errorf("claimed %q", c)
		}
	})
}

// A worker that the server has drain lets its handlers finish, beats meanwhile, gives
// back what comes all the same, says goodbye, and its Run returns nil. Its next stream
// is told again, and that changes nothing.
func TestServerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{ttl: ttl, drains: make(chan struct{})}
		w := &client.Worker{Client: start(t, f), Queue: "q", Concurrency: 2, Handler: func(ctx context.Context, _ *client.RawJob) error {
			select {
			case <-time.After(9 * time.Second):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}
		f.put("a")
		ended := make(chan error, 1)
		go func() { ended <- w.Run(t.Context()) }()
		pass(time.Second)
		f.mu.Lock()
		f.ready = append(f.ready, &comandav1.Delivery{Id: "id-late", Token: "late"}) // it comes with the word
		f.mu.Unlock()
		f.drains <- struct{}{}
		pass(0)
		f.put("too late")
		close(f.cut)
		pass(time.Second)
		f.drains <- struct{}{}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it goes on working")
		}
		if got := f.actions(); !slices.Equal(got, []string{"late RELEASE", "t1 ACK"}) {
			t.Errorf("settled %v", got)
		}
		if saw, waiting := f.saw(); saw.goodbyes != 1 || saw.beats < 5 || len(saw.opens) != 2 || waiting != 1 {
			t.Errorf("%d goodbyes, %d beats, %d streams; %d messages wait", saw.goodbyes, saw.beats, len(saw.opens), waiting)
		}
	})
}

// A server's drain has the drain timeout as well.
func TestServerDrainsForNoLongerThanTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{drains: make(chan struct{})}
		w, ended := holder(t, f)
		w.DrainTimeout = 5 * time.Second
		f.put("a")
		stop := work(t, w)
		f.drains <- struct{}{}
		if h := <-ended; h.ran != 5*time.Second || !errors.Is(h.cause, client.ErrDrainTimeout) {
			t.Errorf("cancelled after %s with %v", h.ran, h.cause)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 RELEASE"}) {
			t.Errorf("settled %v", got)
		}
	})
}

// What is settled but not answered is claimed too, or the server could release it
// before it gets the settlement.
func TestUnansweredSettlementsAreClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{ttl: ttl, onSettle: func(*comandav1.Settlement) *comandav1.SettleResult {
			return &comandav1.SettleResult{Error: &comandav1.Error{Code: "NOT_LEADER", Message: "again"}}
		}}
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: func(context.Context, *client.RawJob) error { return nil }}
		stop := work(t, w)
		pass(100 * time.Millisecond) // so that each claim falls between two attempts
		f.put("a")
		pass(time.Minute)
		f.mu.Lock()
		f.onSettle = nil
		claims := slices.Compact(slices.Clone(f.claims))
		f.mu.Unlock()
		if !slices.Equal(claims, []string{"t1"}) {
			t.Errorf("claimed %q", claims)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// When heartbeats are not answered any more, although the stream lives, handlers
// are cancelled at 0.8 × TTL after the newest answered one was sent. The worker
// then asks again, takes nothing until it is heard, and goes on in its session.
func TestOwnStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w, ended := holder(t, f)
		f.put("a")
		stop := work(t, w)
		pass(5 * time.Second) // beats were sent at 0, 2 and 4
		f.mute.Store(true)
		h := <-ended
		if h.ran != 12*time.Second || !errors.Is(h.cause, client.ErrLeaseLost) {
			t.Errorf("cancelled after %s with %v", h.ran, h.cause)
		}
		synctest.Wait() // the stream was given up
		f.put("b")
		pass(20 * time.Second)
		if got := f.actions(); !slices.Equal(got, []string{"t1 RELEASE"}) {
			t.Errorf("settled %v", got)
		}
		if saw, _ := f.saw(); len(saw.opens) < 3 || saw.credits != 0 {
			t.Errorf("%d streams with %d credits", len(saw.opens), saw.credits)
		}
		f.mute.Store(false)
		pass(3 * time.Second)
		if saw, waiting := f.saw(); waiting != 0 || saw.opens[0].GetIncarnation() != saw.opens[len(saw.opens)-1].GetIncarnation() {
			t.Errorf("%d messages wait, opened %v", waiting, saw.opens)
		}
		w.DrainTimeout = time.Second
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// The worker counts from when it sent a heartbeat, not from when the answer came, and
// whatever moment the silence begins.
func TestOwnStopAtAnyMoment(t *testing.T) {
	for after := range 14 {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{lag: 500 * time.Millisecond}
			w, ended := holder(t, f)
			f.put("a")
			stop := work(t, w)
			silent := time.Duration(after)*100*time.Millisecond + 550*time.Millisecond
			pass(silent)
			f.mute.Store(true)
			if h := <-ended; h.ran != 7500*time.Millisecond {
				t.Errorf("silent after %s: cancelled after %s", silent, h.ran)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A handler survives a broken stream if a server takes the worker back in time: the
// next attachment of the same incarnation.
func TestTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w, ended := holder(t, f)
		f.put("a")
		stop := work(t, w)
		for range 3 {
			pass(time.Second)
			f.shut.Store(true)
			close(f.cut)
			pass(500 * time.Millisecond)
			f.shut.Store(false)
		}
		pass(time.Hour)
		if h := <-ended; h.cause != nil || h.ran != time.Hour {
			t.Errorf("the handler ended after %s with %v", h.ran, h.cause)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		saw, _ := f.saw()
		for i, o := range saw.opens {
			if o.GetIncarnation() != saw.opens[0].GetIncarnation() || i > 0 && o.GetAttachment() <= saw.opens[i-1].GetAttachment() {
				t.Errorf("opened %v", saw.opens)
			}
		}
		if got := f.actions(); len(saw.opens) != 4 || !slices.Equal(got, []string{"t1 ACK"}) {
			t.Errorf("%d streams, settled %v", len(saw.opens), got)
		}
	})
}

// When no server takes it back, handlers are cancelled 0.8 s after the stream broke;
// a worker that waits out disconnections has until its own stop.
func TestNotTakenBack(t *testing.T) {
	for on, want := range map[client.OnDisconnect]time.Duration{
		client.OnDisconnectReroute: 3800 * time.Millisecond, client.OnDisconnectWait: 10 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{}
			w, ended := holder(t, f)
			w.OnDisconnect = on
			f.put("a")
			stop := work(t, w)
			pass(3 * time.Second)
			f.shut.Store(true)
			close(f.cut)
			if h := <-ended; h.ran != want || !errors.Is(h.cause, client.ErrLeaseLost) {
				t.Errorf("%v: cancelled after %s with %v", on, h.ran, h.cause)
			}
			f.shut.Store(false)
			pass(3 * time.Second) // back, and heard
			f.put("b")
			synctest.Wait()
			if _, waiting := f.saw(); waiting != 0 {
				t.Errorf("%v: the worker is back and takes nothing", on)
			}
			w.DrainTimeout = time.Second
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A worker that was taken for dead stops its handlers, says nothing more about their
// messages, and goes on with a higher incarnation.
func TestSessionEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{broken: refuse(codes.FailedPrecondition, "SESSION_ENDED", "dead")}
		w, ended := holder(t, f)
		f.put("a")
		stop := work(t, w)
		pass(3 * time.Second)
		close(f.cut)
		if h := <-ended; h.ran != 3*time.Second || !errors.Is(h.cause, client.ErrLeaseLost) {
			t.Errorf("cancelled after %s with %v", h.ran, h.cause)
		}
		pass(time.Second)
		f.put("b")
		synctest.Wait()
		saw, waiting := f.saw()
		if len(saw.opens) != 2 || saw.opens[1].GetIncarnation() <= saw.opens[0].GetIncarnation() || saw.opens[1].GetAttachment() != 1 {
			t.Errorf("opened %v", saw.opens)
		}
		if waiting != 0 || len(f.actions()) != 0 {
			t.Errorf("%d messages wait, settled %v", waiting, f.actions())
		}
		w.DrainTimeout = time.Second
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// Two workers of one process never share an incarnation.
func TestIncarnations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w, _ := holder(t, f)
		stop, stopOther := work(t, w), work(t, w)
		if saw, _ := f.saw(); len(saw.opens) != 2 || saw.opens[0].GetIncarnation() == saw.opens[1].GetIncarnation() {
			t.Errorf("opened %v", saw.opens)
		}
		if err := errors.Join(stop(), stopOther()); err != nil {
			t.Error(err)
		}
	})
}

// What comes after the worker has begun to end is given back before the goodbye is
// over, on the same stream.
func TestGoodbyeGivesBackWhatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w, _ := holder(t, f)
		f.onGoodbye = func() { f.ready = append(f.ready, &comandav1.Delivery{Id: "late", Token: "late"}); f.credits = 1 }
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		saw, _ := f.saw()
		if got := f.actions(); !slices.Equal(got, []string{"late RELEASE"}) || saw.unary != 0 {
			t.Errorf("settled %v, %d of it outside the stream", got, saw.unary)
		}
	})
}

// A worker that has nothing left but settlements, and whose stream breaks, has a
// server take its session back: without one the messages would be others' before
// the settlements come.
func TestLastSettlementsNeedTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		f := &fake{ttl: ttl, onSettle: func(*comandav1.Settlement) *comandav1.SettleResult {
			if slow.Load() {
				return &comandav1.SettleResult{Error: &comandav1.Error{Code: "NOT_LEADER", Message: "again"}}
			}
			return nil
		}}
		slow.Store(true)
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: func(context.Context, *client.RawJob) error { return nil }}
		stop := work(t, w)
		f.put("a")
		pass(time.Second)
		go func() {
			pass(time.Second) // it drains
			close(f.cut)
			pass(3 * time.Second)
			slow.Store(false)
		}()
		if err := stop(); err != nil {
			t.Error(err)
		}
		saw, _ := f.saw()
		if len(saw.opens) != 2 || saw.unary != 0 || saw.goodbyes != 1 {
			t.Errorf("%d streams, %d settled outside of them, %d goodbyes", len(saw.opens), saw.unary, saw.goodbyes)
		}
	})
}

// When no server takes it back, what is left goes out all the same.
func TestLastSettlementsWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{ttl: ttl}
		f.loseAnswer.Store(true)
		w := &client.Worker{Client: start(t, f), Concurrency: 1, MaxMessages: 1, Handler: func(context.Context, *client.RawJob) error {
			f.shut.Store(true)
			return nil
		}}
		f.put("a")
		began := time.Now()
		w.Queue = "q"
		if err := w.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if saw, _ := f.saw(); saw.unary != 1 || time.Since(began) > 2*time.Second {
			t.Errorf("%d settled outside of streams after %s", saw.unary, time.Since(began))
		}
	})
}

// To be idle a worker must have a session: while a server only thinks about it, or
// none answers, the queue may have any number of messages.
func TestIdleCountsFromTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{ttl: ttl, lag: 3 * time.Second}
		w := client.Worker{Client: start(t, f), Queue: "q", IdleTimeout: time.Second, Handler: func(context.Context, *client.RawJob) error { return nil }}
		began := time.Now()
		if err := w.Run(t.Context()); err != nil || time.Since(began) < 4*time.Second {
			t.Errorf("ended after %s with %v", time.Since(began), err)
		}
		// Streams that are refused one after the other do not begin it anew.
		f.shut.Store(true)
		for _, idle := range []time.Duration{time.Second, 10 * time.Second} {
			w.IdleTimeout = idle
			ctx, cancel := context.WithTimeout(t.Context(), idle+6*time.Second)
			if err := w.Run(ctx); client.CodeOf(err) != client.CodeUnreachable {
				t.Errorf("without a server, idle for %s: %v", idle, err)
			}
			cancel()
		}
	})
}

// A session may have ended before the worker hears that it was opened: the answer was
// lost, and it was longer than a second until the next stream. The worker opens another.
func TestSessionThatEndedUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w, _ := holder(t, f)
		f.late.Store(true)
		stop := work(t, w)
		pass(ttl)
		if saw, _ := f.saw(); len(saw.opens) != 1 || saw.beats == 0 {
			t.Errorf("%d sessions were opened then, with %d beats", len(saw.opens), saw.beats)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
