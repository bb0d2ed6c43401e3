package gateway

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// slowGroup hears claims, and answers when it is told.
type slowGroup struct {
	Group
	heard chan leader.Claim
	reply chan struct{}
}

func (s *slowGroup) Claim(_ context.Context, c leader.Claim) (map[uint32][]queue.LeaseRef, error) {
	s.heard <- c
	<-s.reply
	return nil, nil
}

// A leader that does not answer hears no second claim: it may hear both after a
// lease that is newer than them. The next one names what was given here meanwhile.
func TestOneClaimAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowGroup{heard: make(chan leader.Claim, 9), reply: make(chan struct{})}
		g := New(Options{Clock: clock.System(), Logger: slog.New(slog.DiscardHandler), Leader: func(uint64) (Group, error) { return slow, nil }})
		a := &attachment{g: g, ref: message.SessionRef{ID: 1, Incarnation: 1}, handed: handed{}, groups: map[uint64]bool{2: true}}
		for range 3 {
			a.Claim(nil)
			synctest.Wait()
		}
		if n := len(slow.heard); n != 1 {
			t.Errorf("%d claims were heard at once", n)
		}
		<-slow.heard
		a.give([]queue.Leased{{ID: message.NewID(1, 0, 7), Fence: 3}})
		close(slow.reply)
		synctest.Wait()
		a.Claim(nil)
		synctest.Wait()
		if c := <-slow.heard; len(c.Holds[1]) != 1 || c.Holds[1][0].Seq != 7 {
			t.Errorf("the next claim is %+v", c)
		}
	})
}

// A stream that ends while a leader does not answer tells the others nothing more:
// what it knows is older than what the worker's next stream was given.
func TestClaimEndsWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowGroup{heard: make(chan leader.Claim, 9), reply: make(chan struct{})}
		g := New(Options{Clock: clock.System(), Logger: slog.New(slog.DiscardHandler), Leader: func(uint64) (Group, error) { return slow, nil }})
		a := &attachment{g: g, ref: message.SessionRef{ID: 1, Incarnation: 1}, handed: handed{}, groups: map[uint64]bool{2: true, 3: true}}
		a.Claim(nil)
		synctest.Wait()
		a.Close(false)
		close(slow.reply)
		synctest.Wait()
		if n := len(slow.heard); n != 1 {
			t.Errorf("%d leaders heard it", n)
		}
	})
}

// What has come for a worker and waits here, because another group lets the receive
// wait, is claimed for it, however often the worker's own claims lack it.
func TestWhatIsOnItsWayIsClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowGroup{heard: make(chan leader.Claim, 9), reply: make(chan struct{})}
		close(slow.reply)
		g := New(Options{Clock: clock.System(), Logger: slog.New(slog.DiscardHandler), Leader: func(uint64) (Group, error) { return slow, nil }})
		a := &attachment{g: g, ref: message.SessionRef{ID: 1, Incarnation: 1}, handed: handed{}, groups: map[uint64]bool{2: true}}
		got := []queue.Leased{{ID: message.NewID(1, 0, 7), Fence: 3}}
		a.arrives(got)
		for range 4 {
			a.Claim(nil)
			synctest.Wait()
			if c := <-slow.heard; len(c.Holds[1]) != 1 {
				t.Fatalf("it is not claimed: %+v", c)
			}
		}
		a.give(got)
		if lost := a.unclaimed(nil); lost != nil {
			t.Fatalf("one claim lacks it, and %+v is lost", lost)
		}
		if lost := a.unclaimed(nil); len(lost) != 1 {
			t.Fatal("two claims lack it, and nothing is lost")
		}
	})
}
