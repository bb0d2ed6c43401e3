package leader

import (
	"cmp"
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// lender is another node that says once that it has something, and that somebody else
// has taken it when the receiver comes for it.
type lender struct {
	lent chan struct{} // closed when the receiver's room is there
	back chan struct{} // closed to let it go back
}

func (l *lender) Call(_ context.Context, _ uint64, request []byte, hurry <-chan struct{}) ([]byte, error) {
	kind, _, _, _ := readRequest(request)
	switch {
	case kind == askTake:
		close(l.lent)
		<-l.back
		return queue.AppendResult([]byte{answered}, queue.LeaseResult{}), nil
	case isClosed(l.lent):
		<-hurry
	}
	return []byte{answered}, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// What comes for a receiver while all of its room is lent to another node goes out
// when the room is back.
func TestRoomThatComesBackIsOffered(t *testing.T) {
	r := newRig(t)
	l := &lender{make(chan struct{}), make(chan struct{})}
	e := &Elsewhere{Caller: l, Self: func() uint64 { return 1 }, Nodes: func(uint64) []uint64 { return []uint64{2} }, Leads: nobody}
	c := NewCall(1, message.ReceiveOptions{Max: 1, Lease: time.Minute, Worker: "w"}, 2)
	r.Wait(c)
	e.Group(7).Wait(c)
	<-l.lent
	r.send(1, 0)
	close(l.back)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := c.Collect(ctx); len(got) != 1 || err != nil {
		t.Errorf("the receiver has %d messages, %v", len(got), err)
	}
}

// A receiver that was told of a message may have got another one elsewhere by then,
// or be gone: the next one is told.
func TestNextReceiverIsBeckoned(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	came := make(chan string, 2)
	for n, worker := range []string{"a", "b"} {
		go func() {
			_ = r.peek(ctx, 1, worker)
			came <- worker
		}()
		for peeks := 0; peeks <= n; {
			r.mu.Lock()
			peeks = len(r.queues[1].peeks)
			r.mu.Unlock()
		}
	}
	r.send(1, 0)
	if first := <-came; first != "a" {
		t.Fatalf("%s was told first", first)
	}
	r.step(Every)
	if <-came; ctx.Err() != nil {
		t.Error("the message went to nobody, and nobody else was told")
	}
}

// late is a place that learns only when it is left that the call may wait elsewhere.
type late struct{ *rig }

func (late) Wait(*Call)      {}
func (l late) Leave(c *Call) { l.rig.Wait(c) }

// A call that is sent to wait again while it ends does not stay behind: its worker
// would count as one that waits, and be the active one of its queue for ever.
func TestCallThatEndsWaitsNowhere(t *testing.T) {
	r := newRig(t)
	c := NewCall(1, message.ReceiveOptions{Max: 1, Lease: time.Minute, Worker: "w"}, 1)
	c.waits(late{r})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = c.Collect(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.queues[1].workers.calls; n != 0 {
		t.Errorf("%d calls wait", n)
	}
}

// What a lease did not get of the room under max_in_flight goes to who waits.
func TestRoomOfChangedMessages(t *testing.T) {
	r := newRig(t)
	r.configure(2, message.Settings{MaxInFlight: 3})
	r.send(1, 0)
	r.settle(r.receive(1, time.Minute), message.Ack, 0) // the window is known
	r.send(5, 0)
	r.mu.Lock()
	for i := range 2 {
		r.queues[1].cells[0].window.offers[i].Counter += 7 // as if it had changed
	}
	r.mu.Unlock()
	still, goOn := make(chan struct{}), make(chan struct{})
	r.raft.Propose(replica.Command(queue.Tick()), func(any, error) {
		close(still)
		<-goOn
	})
	<-still
	calls := r.wait(2, 3)
	close(goOn)
	r.propose(queue.Tick()) // behind the first lease
	r.propose(queue.Tick()) // behind the second
	if a, b := calls[0].has(), calls[1].has(); a != 1 || b != 2 {
		t.Errorf("with max_in_flight 3 one receiver has %d messages, the next %d", a, b)
	}
}

// Many tenants that are paused are looked through once, and not again and again for
// as long as somebody waits.
func TestPausedTenantsAreLookedThroughOnce(t *testing.T) {
	c := newCell(1, 0)
	l := &line{number: 1, cells: []*cell{c}, workers: newWorkers(), peeks: make([]chan struct{}, 1)}
	l.pauses.tenants = map[uint64]bool{}
	var rows []queue.Turn
	for n := range uint64(maxTurns + 10) {
		rows = append(rows, queue.Turn{Tenant: n + 1})
		l.pauses.tenants[n+1] = n < maxTurns
	}
	for range 10 {
		searches := l.searches()
		if len(searches) == 0 {
			if n := len(c.turns.by); n != 10 {
				t.Errorf("%d tenants have a turn", n)
			}
			return
		}
		s := searches[0]
		i := 0
		if s.after != nil {
			i, _ = slices.BinarySearchFunc(rows, s.after.Tenant+1, func(e queue.Turn, n uint64) int { return cmp.Compare(e.Tenant, n) })
		}
		l.found(s, rows[i:min(i+s.limit, len(rows))])
	}
	t.Error("it is still being looked")
}

// Who waited for an answer and has it looks no more where the group is led, also if it
// came while it was being looked.
func TestNobodyLooksAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks, goOn := 0, make(chan struct{})
		e := &Elsewhere{Leads: func(uint64) uint64 {
			if looks++; looks == 2 {
				<-goOn
			}
			return 0
		}}
		_, stop := e.unlessFollowed(t.Context(), 7, 2)
		time.Sleep(lookEvery)
		synctest.Wait()
		stop()
		close(goOn)
		time.Sleep(10 * lookEvery)
		if looks != 2 {
			t.Errorf("it was looked %d times", looks)
		}
	})
}

// A receiver that does not wait gets what is there, also at another node.
func TestReceiverThatDoesNotWait(t *testing.T) {
	r := newRig(t)
	r.send(1, 0)
	at := &Service{Group: func(uint64) (*Group, bool) { return r.Group, true }, Leads: nobody}
	nodes := served{map[uint64]*Service{2: at}, map[uint64]int{}}
	e := &Elsewhere{Caller: nodes, Self: func() uint64 { return 1 }, Nodes: func(uint64) []uint64 { return []uint64{2} }, Leads: nobody}
	c := NewCall(1, message.ReceiveOptions{Max: 1, Lease: time.Minute, Worker: "w"}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e.Group(2).Wait(c)
	if got, err := c.Collect(ctx); len(got) != 1 || err != nil {
		t.Errorf("%d messages, %v", len(got), err)
	}
}
