package peer

import (
	"context"
	"encoding/binary"
	"time"
)

// maxTimeLeft is the longest time that travels. A caller with more has no
// deadline that matters.
const maxTimeLeft = 365 * 24 * time.Hour

// appendTimeLeft appends the microseconds until ctx's deadline, 0 without one.
// What travels is a duration, because nobody compares two machines' clocks.
func appendTimeLeft(ctx context.Context, b []byte, now time.Time) []byte {
	deadline, ok := ctx.Deadline()
	if !ok || deadline.Sub(now) > maxTimeLeft {
		return binary.AppendUvarint(b, 0)
	}
	return binary.AppendUvarint(b, uint64(max(1, deadline.Sub(now).Microseconds())))
}

// takeTimeLeft is the reverse; 0: no deadline.
func takeTimeLeft(b []byte) (left time.Duration, rest []byte, err error) {
	us, rest, err := takeUvarint(b)
	if err != nil || us > uint64(maxTimeLeft/time.Microsecond) {
		return 0, nil, errMalformed
	}
	return time.Duration(us) * time.Microsecond, rest, nil
}

// withTimeLeft gives a handler the time that its caller has left.
func withTimeLeft(ctx context.Context, left time.Duration) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if left == 0 {
		return ctx, cancel
	}
	ctx, stop := context.WithTimeout(ctx, left)
	return ctx, func(cause error) {
		cancel(cause)
		stop()
	}
}
