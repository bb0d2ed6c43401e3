package slowlog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/clock"
)

// written collects a log's lines without their times.
type written struct{ bytes.Buffer }

func newLog(threshold time.Duration) (*Log, *clock.Manual, *written) {
	c, w := clock.NewManual(), &written{}
	h := slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return New(c, slog.New(h), threshold), c, w
}

func (w *written) want(t *testing.T, lines ...string) {
	t.Helper()
	if got := strings.TrimSpace(w.String()); got != strings.Join(lines, "\n") {
		t.Errorf("the log has\n%s\nwant\n%s", got, strings.Join(lines, "\n"))
	}
	w.Reset()
}

func TestLineTellsWhereTheTimeWent(t *testing.T) {
	l, c, w := newLog(time.Second)
	ctx, op := l.Begin(t.Context(), "grpc", "Send")
	Of(ctx).Queue("orders")
	Of(ctx).Queue("another")
	began := op.Now()
	c.Advance(700 * time.Millisecond)
	op.Proposed(3, began, Stages{Wait: 100 * time.Millisecond, Commit: 500 * time.Millisecond, Apply: 90 * time.Millisecond})
	began = op.Now()
	c.Advance(299 * time.Millisecond)
	op.Proposed(4, began, Stages{})
	op.End("OK")
	w.want(t) // a millisecond is missing
	c.Advance(time.Millisecond)
	op.End("OK")
	w.want(t, `level=WARN msg="an operation was slow" protocol=grpc op=Send queue=orders code=OK took=1s proposals=2 group=3 proposal=700ms wait=100ms commit=500ms apply=90ms reply=1ms`)
}

// Of what another node did, or nobody answered, no stages are told.
func TestStagesThatAreNotKnown(t *testing.T) {
	l, c, w := newLog(time.Second)
	_, op := l.Begin(t.Context(), "rest", "Settle")
	c.Advance(2 * time.Second)
	op.Proposed(3, op.began, Stages{})
	op.End("UNKNOWN_OUTCOME")
	w.want(t, `level=WARN msg="an operation was slow" protocol=rest op=Settle queue="" code=UNKNOWN_OUTCOME took=2s proposals=1 group=3 proposal=2s reply=0s`)
}

// Who waits for messages by wish has not waited long, but may after that.
func TestWishIsNotSlow(t *testing.T) {
	l, c, w := newLog(time.Second)
	_, op := l.Begin(t.Context(), "grpc", "Receive")
	op.Wish(20 * time.Second)
	c.Advance(20 * time.Second)
	op.End("OK")
	w.want(t)
	c.Advance(time.Second)
	op.End("OK")
	w.want(t, `level=WARN msg="an operation was slow" protocol=grpc op=Receive queue="" code=OK took=21s wish=20s`)
}

// Of a wish counts what was waited: what comes after that may be slow.
func TestServedEndsTheWish(t *testing.T) {
	l, c, w := newLog(time.Second)
	_, op := l.Begin(t.Context(), "grpc", "Receive")
	op.Wish(20 * time.Second)
	c.Advance(3 * time.Second)
	op.Served()
	c.Advance(999 * time.Millisecond)
	op.End("OK")
	w.want(t)
	c.Advance(time.Millisecond)
	op.End("OK")
	w.want(t, `level=WARN msg="an operation was slow" protocol=grpc op=Receive queue="" code=OK took=4s wish=3s`)
	_, op = l.Begin(t.Context(), "grpc", "Receive")
	c.Advance(time.Second)
	op.Served() // it wished no wait
	op.End("OK")
	w.want(t, `level=WARN msg="an operation was slow" protocol=grpc op=Receive queue="" code=OK took=1s`)
}

// When everything is slow a second has ten lines, and the next one says how many
// are missing.
func TestLinesAreBounded(t *testing.T) {
	l, c, w := newLog(time.Second)
	_, op := l.Begin(t.Context(), "grpc", "Send")
	c.Advance(time.Second)
	for range maxLines + 5 {
		op.End("OK")
	}
	if n := strings.Count(w.String(), "\n"); n != maxLines {
		t.Errorf("%d lines, want %d", n, maxLines)
	}
	w.Reset()
	c.Advance(time.Second)
	op.End("OK")
	op.End("OK")
	line := `level=WARN msg="an operation was slow" protocol=grpc op=Send queue="" code=OK took=2s`
	w.want(t, line+" left_out=5", line)
}

// At a threshold of 0 nothing is watched.
func TestNothingIsWatched(t *testing.T) {
	l, _, w := newLog(0)
	ctx, op := l.Begin(t.Context(), "grpc", "Send")
	if ctx != t.Context() || Of(ctx) != nil {
		t.Error("something is watched")
	}
	op.Queue("orders")
	op.Wish(time.Second)
	op.Proposed(1, op.Now(), Stages{})
	op.End("OK")
	w.want(t)
}
