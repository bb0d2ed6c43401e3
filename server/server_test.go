package server_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A handler that runs when somebody cancels its message is told so, and what it says
// then ends the message.
func TestCancelReachesTheHandler(t *testing.T) {
	s, err := server.Open(t.Context(), t.TempDir(), server.WithDiskReserve(1), server.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	c, err := client.New(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.CreateQueue(ctx, "orders", client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	begun, ended, settled := make(chan string, 1), make(chan error, 1), make(chan error, 1)
	w := &client.Worker{
		Client: c, Queue: "orders", Concurrency: 1, TTL: 5 * time.Second, MaxMessages: 1, DrainTimeout: time.Second,
		Handler: func(ctx context.Context, j *client.RawJob) error {
			begun <- j.ID()
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return context.Cause(ctx)
		},
		Settled: func(_ *client.RawJob, err error) { settled <- err },
	}
	ran := make(chan error, 1)
	go func() { ran <- w.Run(ctx) }()
	if _, err := c.Send(ctx, "orders", client.Message{Body: []byte("pizza")}); err != nil {
		t.Fatal(err)
	}
	id := <-begun
	if rs, err := c.Cancel(ctx, []string{id}, client.CancelOptions{}); err != nil || rs[0].State != "leased" {
		t.Fatalf("cancel: %+v, %v", rs, err)
	}
	if r, err := c.Show(ctx, id, 0); err != nil || r.GetMessage().GetReason() != "leased: its worker was asked to give it back, for it is to be cancelled" {
		t.Errorf("while its handler runs: %v, %v", r, err)
	}
	if cause := <-ended; !errors.Is(cause, client.ErrCancelled) {
		t.Errorf("the handler was cancelled with %v", cause)
	}
	if err := errors.Join(<-settled, <-ran); err != nil {
		t.Error(err)
	}
	r, err := c.Show(ctx, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.GetMessage(); m.GetState() != "cancelled" || m.GetTimeline()[len(m.GetTimeline())-1].GetEvent() != "cancelled" {
		t.Errorf("it is %v", m)
	}
}
