package client

import (
	"context"
	"time"
)

// againFor is how long after its begin a call is tried again.
const againFor = 5 * time.Second

// again makes a call, and up to three times more while it fails because nobody
// was there to do anything about it.
func again(ctx context.Context, call func() error) error {
	began := time.Now()
	for _, pause := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second} {
		err := call()
		if !untouched(err) || time.Since(began)+pause > againFor {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
	return call()
}

// untouched says that nothing has happened, and that it may in a moment.
func untouched(err error) bool {
	switch CodeOf(err) {
	case CodeUnavailable, CodeUnreachable, CodeNotLeader, CodeWrongShard:
		return true
	default:
		return false
	}
}
