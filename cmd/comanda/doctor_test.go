package main

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// A queue with ready messages is attended while somebody waits for them, holds
// one, or asked within the last minute.
func TestAttended(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	ready := &comandav1.Counts{Ready: 1}
	for _, c := range []struct {
		what string
		q    *comandav1.Queue
		want bool
	}{
		{"nobody ever asked", &comandav1.Queue{Counts: ready}, false},
		{"the last asked a minute ago", &comandav1.Queue{Counts: ready, ReceivedAt: ago(time.Minute)}, false},
		{"one asked just now", &comandav1.Queue{Counts: ready, ReceivedAt: ago(59 * time.Second)}, true},
		{"one waits", &comandav1.Queue{Counts: ready, Receivers: 1}, true},
		{"all workers are busy", &comandav1.Queue{Counts: &comandav1.Counts{Ready: 1, Leased: 1}, ReceivedAt: ago(time.Hour)}, true},
		{"paused", &comandav1.Queue{Counts: ready, Paused: true}, true},
		{"nothing is ready", &comandav1.Queue{Counts: &comandav1.Counts{Scheduled: 1, Dead: 1}}, true},
	} {
		if got := attended(c.q, now); got != c.want {
			t.Errorf("%s: attended is %t", c.what, got)
		}
	}
}
