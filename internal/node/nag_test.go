package node

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// Why a node is not let in is said once, again after 5 s, 10 s and so on up to a
// minute, and at once when it is something else.
func TestNag(t *testing.T) {
	var said nag
	var at []time.Duration
	for d := time.Duration(0); d < 200*time.Second; d += 250 * time.Millisecond {
		why := errors.New("refused")
		if d >= 190*time.Second {
			why = errors.New("something else")
		}
		if said.due(time.Unix(0, 0).Add(d), why) {
			at = append(at, d/time.Second)
		}
	}
	if want := []time.Duration{0, 5, 15, 35, 75, 135, 190, 195}; !slices.Equal(at, want) {
		t.Errorf("said at %d, want %d", at, want)
	}
}
