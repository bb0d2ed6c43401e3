package comandatest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/comandatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// state is what the server says of a message.
func state(t *testing.T, s *comandatest.Server, id string) string {
	t.Helper()
	r, err := s.Show(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r.GetMessage().GetState()
}

// Messages wait for the test's time, and are ready as soon as Advance has returned.
func TestAdvance(t *testing.T) {
	s := comandatest.New(t)
	if _, err := s.CreateQueue(t.Context(), "q", client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	for name, until := range map[string]func(*client.Message){
		"delay":      func(m *client.Message) { m.Delay = 30 * day },
		"deliver_at": func(m *client.Message) { m.DeliverAt = s.Now().Add(30 * day) },
	} {
		var m client.Message
		until(&m)
		id, err := s.Send(t.Context(), "q", m)
		if err != nil {
			t.Fatal(err)
		}
		s.Advance(29 * day)
		if got := state(t, s, id); got != "scheduled" {
			t.Errorf("%s: a day before its time it is %s", name, got)
		}
		s.Advance(day)
		ds, err := s.Receive(t.Context(), "q", client.ReceiveOptions{Lease: time.Hour})
		if err != nil || len(ds) != 1 || ds[0].ID() != id {
			t.Fatalf("%s: received %v, %v", name, ds, err)
		}
		s.Advance(time.Hour - time.Second)
		if got := state(t, s, id); got != "leased" {
			t.Errorf("%s: a second before the end of its lease it is %s", name, got)
		}
		s.Advance(day)
		if err := ds[0].Ack(t.Context()); !errors.Is(err, client.ErrFenced) {
			t.Errorf("%s: an ack after the lease: %v", name, err)
		}
		if err := s.Purge(t.Context(), "q"); err != nil {
			t.Fatal(err)
		}
	}
}

// A worker's failed attempt is repeated when the test's time has gone on by the
// backoff; what a handler holds it keeps.
func TestWorkerInTheTestsTime(t *testing.T) {
	s := comandatest.New(t)
	if _, err := s.CreateQueue(t.Context(), "q", client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Send(t.Context(), "q", client.Message{Body: []byte("calzone")}); err != nil {
		t.Fatal(err)
	}
	begun, goOn, settled := make(chan int), make(chan error), make(chan error)
	w := &client.Worker{
		Client: s.Client, Queue: "q", Concurrency: 1, MaxMessages: 2,
		Handler: func(_ context.Context, job *client.RawJob) error {
			begun <- job.Attempt()
			return <-goOn
		},
		Settled: func(_ *client.RawJob, err error) { settled <- err },
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(t.Context()) }()
	for attempt, said := range []error{client.RetryAfter(errors.New("the oven is cold"), time.Hour), nil} {
		s.Advance(time.Hour)
		if got := <-begun; got != attempt+1 {
			t.Errorf("attempt %d, want %d", got, attempt+1)
		}
		s.Advance(24 * time.Hour)
		goOn <- said
		if err := <-settled; err != nil {
			t.Errorf("attempt %d is not settled: %v", attempt+1, err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What is sent with an ack is there with it, once, and waits for the test's time.
func TestAckAndSend(t *testing.T) {
	s := comandatest.New(t)
	for _, q := range []string{"q", "next", "other"} {
		if _, err := s.CreateQueue(t.Context(), q, client.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Send(t.Context(), "q", client.Message{}); err != nil {
		t.Fatal(err)
	}
	ds, err := s.Receive(t.Context(), "q", client.ReceiveOptions{})
	if err != nil || len(ds) != 1 {
		t.Fatal(ds, err)
	}
	if ids, err := ds[0].AckAndSend(t.Context(), client.FollowUp{Queue: "next"}, client.FollowUp{Queue: "none"}); client.CodeOf(err) != client.CodeQueueNotFound || len(ids) > 0 {
		t.Errorf("to a queue that is not there: %v, %v", ids, err)
	}
	var ids []string
	for range 2 { // the second changes nothing
		ids, err = ds[0].AckAndSend(t.Context(),
			client.FollowUp{Queue: "next", Message: client.Message{Body: []byte("b"), Delay: time.Hour}},
			client.FollowUp{Queue: "other", Message: client.Message{Body: []byte("c"), Delay: time.Hour}})
		if err != nil || len(ids) != 2 {
			t.Fatal(ids, err)
		}
	}
	s.Advance(time.Hour)
	for i, q := range []string{"next", "other"} {
		got, err := s.Receive(t.Context(), q, client.ReceiveOptions{Max: 10, Wait: 20 * time.Second})
		if err != nil || len(got) != 1 || got[0].ID() != ids[i] {
			t.Errorf("in %s: %v, %v, want %s", q, got, err, ids[i])
		}
	}
}

// What is sent with an ack to queues of other replica sets is there when the test's time
// has gone on.
func TestAdvanceWaitsForWhatIsOnItsWay(t *testing.T) {
	s := comandatest.New(t)
	var next []client.FollowUp
	for _, q := range []string{"a", "b", "c", "d", "e"} { // in more than one replica set
		if _, err := s.CreateQueue(t.Context(), q, client.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
		next = append(next, client.FollowUp{Queue: q})
	}
	for round := range int64(5) {
		if _, err := s.Send(t.Context(), "a", client.Message{Priority: 9}); err != nil {
			t.Fatal(err)
		}
		ds, err := s.Receive(t.Context(), "a", client.ReceiveOptions{})
		if err != nil || len(ds) != 1 {
			t.Fatal(ds, err)
		}
		if _, err := ds[0].AckAndSend(t.Context(), next...); err != nil {
			t.Fatal(err)
		}
		s.Advance(time.Second)
		for _, f := range next {
			q, err := s.Queue(t.Context(), f.Queue)
			if err != nil || q.GetQueue().GetCounts().GetReady() != round+1 || q.GetQueue().GetLeaving() != 0 {
				t.Fatalf("round %d, queue %s: %v, %v", round+1, f.Queue, q.GetQueue().GetCounts(), err)
			}
		}
	}
}
