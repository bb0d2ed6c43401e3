package comandatest_test

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/comandatest"
)

// A test of a program that sends reminders for tomorrow.
func Example() {
	test := func(t *testing.T) {
		s := comandatest.New(t)
		if _, err := s.CreateQueue(t.Context(), "reminders", client.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(t.Context(), "reminders", client.Message{Body: []byte("bake"), Delay: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		s.Advance(24 * time.Hour)
		got, err := s.Receive(t.Context(), "reminders", client.ReceiveOptions{})
		if err != nil || len(got) != 1 {
			t.Fatalf("received %v, %v", got, err)
		}
	}
	_ = test // go test runs it under the name TestReminders
}
