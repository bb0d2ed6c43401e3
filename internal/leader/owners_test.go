package leader

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"
)

// The shares of all workers are of all keys, each has about as many, and who was
// not seen lately has none.
func TestShares(t *testing.T) {
	ws := newWorkers()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	if got := shares(ws.names()); len(got) != 0 {
		t.Errorf("without workers: %v", got)
	}
	for i := range 4 {
		ws.get(fmt.Sprint("w", i), now)
	}
	sum := 0.0
	all := shares(ws.names())
	for i, s := range all {
		if s.Worker != fmt.Sprint("w", i) || s.Share < 0.15 || s.Share > 0.35 {
			t.Errorf("%d: %+v", i, s)
		}
		sum += s.Share
	}
	if len(all) != 4 || math.Abs(sum-1) > 1e-9 {
		t.Errorf("shares %v, together %v", all, sum)
	}
	ws.get("w0", now).seen = now.Add(lately)
	ws.forget(now.Add(lately))
	if got := shares(ws.names()); len(got) != 1 || got[0].Worker != "w0" || got[0].Share != 1 {
		t.Errorf("one was seen lately: %v", got)
	}
}

// A worker that waits on another node has keys as well, from before it holds
// anything, and is forgotten like any other when it waits no more.
func TestOwnersKnowWhoWaitsElsewhere(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.peek(ctx, 1, "far") }()
	names := func() (all []string) {
		got, err := r.Owners(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got {
			all = append(all, p.Worker)
		}
		return all
	}
	for len(names()) == 0 {
		runtime.Gosched()
	}
	r.clock.add(2 * lately)
	if got := names(); !slices.Equal(got, []string{"far"}) {
		t.Errorf("while it waits keys prefer %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := names(); !slices.Equal(got, []string{"far"}) {
		t.Errorf("just after it keys prefer %q", got)
	}
	r.clock.add(2 * lately)
	if got := names(); len(got) > 0 {
		t.Errorf("long after it keys prefer %q", got)
	}
}
