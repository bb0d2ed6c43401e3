package leader

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// The shares of all workers are of all keys, each has about as many, and who was
// not seen lately has none.
func TestShares(t *testing.T) {
	ws := newWorkers()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	if got := ws.shares(); len(got) != 0 {
		t.Errorf("without workers: %v", got)
	}
	for i := range 4 {
		ws.get(fmt.Sprint("w", i), now)
	}
	sum := 0.0
	shares := ws.shares()
	for i, s := range shares {
		if s.Worker != fmt.Sprint("w", i) || s.Share < 0.15 || s.Share > 0.35 {
			t.Errorf("%d: %+v", i, s)
		}
		sum += s.Share
	}
	if len(shares) != 4 || math.Abs(sum-1) > 1e-9 {
		t.Errorf("shares %v, together %v", shares, sum)
	}
	ws.get("w0", now).seen = now.Add(lately)
	ws.forget(now.Add(lately))
	if got := ws.shares(); len(got) != 1 || got[0].Worker != "w0" || got[0].Share != 1 {
		t.Errorf("one was seen lately: %v", got)
	}
}
