package node

import (
	"math"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// The time to drain comes from what was finished over ten seconds or more; a purge
// begins anew; without an end where nothing is finished, and none where nothing waits.
func TestTimeToDrain(t *testing.T) {
	var d drains
	inf := math.Inf(1)
	now := time.Unix(1_000, 0)
	for _, c := range []struct {
		after    time.Duration
		finished uint64
		ready    int64
		want     float64
	}{
		{0, 100, 50, inf},
		{5 * time.Second, 110, 50, inf},
		{5 * time.Second, 200, 50, 5}, // ten a second
		{time.Second, 300, 20, 2},
		{time.Second, 300, 0, 0},
		{time.Second, 0, 20, inf}, // purged
		{10 * time.Second, 0, 20, inf},
		{20 * time.Second, 10, 20, 40},
	} {
		now = now.Add(c.after)
		led := map[uint32]*ledQueue{1: {counts: message.Counts{Ready: c.ready}, finished: c.finished}}
		if got := d.look(led, now)[1]; got != c.want {
			t.Errorf("%d finished, %d ready: %g s to drain, want %g", c.finished, c.ready, got, c.want)
		}
	}
	d.look(nil, now)
	if len(d.by) != 0 {
		t.Errorf("it remembers %v, which is led elsewhere", d.by)
	}
}
