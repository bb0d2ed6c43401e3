package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

func openRequest(credits uint32, queues ...string) *comandav1.WorkRequest {
	return &comandav1.WorkRequest{Open: &comandav1.WorkOpen{Queues: queues, Worker: "w"}, Credits: credits}
}

// startWork opens a stream, which ctx ends.
func startWork(ctx context.Context, t *testing.T, f *fake, first *comandav1.WorkRequest) comandav1.Messages_WorkClient {
	t.Helper()
	stream, err := dialMessages(t, f).Work(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(first); err != nil {
		t.Fatal(err)
	}
	return stream
}

// receiveAll takes responses until n deliveries have come.
func receiveAll(t *testing.T, stream comandav1.Messages_WorkClient, n int) (ds []*comandav1.Delivery) {
	t.Helper()
	for len(ds) < n {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, resp.GetDeliveries()...)
	}
	return ds
}

// A worker gets as many messages as it granted credits for, never more, and each
// credit is used once.
func TestWorkHandsOutWithinCredits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fill("q", 100, []byte("b"))
		stream := startWork(t.Context(), t, f, openRequest(3, "q"))
		for round, credits := range []int{3, 1, 40} {
			if round > 0 {
				if err := stream.Send(&comandav1.WorkRequest{Credits: uint32(credits)}); err != nil {
					t.Fatal(err)
				}
			}
			if ds := receiveAll(t, stream, credits); len(ds) != credits {
				t.Errorf("%d deliveries for %d credits", len(ds), credits)
			}
			synctest.Wait()
		}
		if f.out != 44 {
			t.Errorf("%d messages are leased for 44 credits", f.out)
		}
		if !slices.Contains(f.seen(), "receive q max=3 wait=1m0s lease=30s worker=w") {
			t.Errorf("verbs: %q", f.seen())
		}
		closeWork(t, stream)
	})
}

func closeWork(t *testing.T, stream comandav1.Messages_WorkClient) {
	t.Helper()
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
}

// Settlements are settled in order and answered under their numbers; one that
// makes no sense does not hold up the others.
func TestWorkSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		first := openRequest(0, "q")
		number := func(n uint64, token string, a comandav1.Action) *comandav1.NumberedSettlement {
			return &comandav1.NumberedSettlement{Number: n, Settlement: &comandav1.Settlement{Token: token, Action: a}}
		}
		first.Settlements = []*comandav1.NumberedSettlement{
			number(1<<63, tokenAt(1), comandav1.Action_ACTION_ACK),
			number(7, "no token", comandav1.Action_ACTION_ACK),
			number(7, tokenAt(2), comandav1.Action_ACTION_UNSPECIFIED),
			number(9, tokenAt(3), comandav1.Action_ACTION_NACK),
		}
		stream := startWork(t.Context(), t, f, first)
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range resp.GetSettled() {
			got = append(got, fmt.Sprint(r.GetNumber(), " ", r.GetResult().GetError().GetCode(), " ", r.GetResult().GetState()))
		}
		want := []string{
			"9223372036854775808  MESSAGE_STATE_FINISHED", "7 INVALID_ARGUMENT MESSAGE_STATE_UNSPECIFIED",
			"7 INVALID_ARGUMENT MESSAGE_STATE_UNSPECIFIED", "9  MESSAGE_STATE_FINISHED",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if want := []string{`settle [1 action=1 "" delay=0s/false lease=0s] [3 action=2 "" delay=0s/false lease=0s]`}; !slices.Equal(f.seen(), want) {
			t.Errorf("verbs: %q", f.seen())
		}
		closeWork(t, stream)
	})
}

// While one batch is being settled the next ones gather, and a client that closes
// its side first gets all its answers.
func TestWorkGathersSettlements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.settling = make(chan struct{})
		stream := startWork(t.Context(), t, f, openRequest(5, "q"))
		const requests, each = 6, 300
		for i := range requests {
			req := &comandav1.WorkRequest{}
			for j := range each {
				req.Settlements = append(req.Settlements, &comandav1.NumberedSettlement{
					Number: uint64(i*each + j), Settlement: &comandav1.Settlement{Token: tokenAt(1), Action: comandav1.Action_ACTION_ACK},
				})
			}
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(f.settling)
		next := uint64(0)
		for {
			resp, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range resp.GetSettled() {
				if r.GetNumber() != next {
					t.Fatalf("answer %d where %d should be", r.GetNumber(), next)
				}
				next++
			}
		}
		if next != requests*each || f.settles != 3 { // 300, then 900, then 600
			t.Errorf("%d answers from %d batches", next, f.settles)
		}
	})
}

// A settlement that was begun is carried through when its stream breaks.
func TestWorkSettlesToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.settling = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		first := openRequest(0, "q")
		first.Settlements = []*comandav1.NumberedSettlement{{Settlement: &comandav1.Settlement{Token: tokenAt(1), Action: comandav1.Action_ACTION_ACK}}}
		startWork(ctx, t, f, first)
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(f.settling)
		synctest.Wait()
		if want := []string{`settle [1 action=1 "" delay=0s/false lease=0s]`}; !slices.Equal(f.seen(), want) {
			t.Errorf("verbs: %q", f.seen())
		}
	})
}

// Every queue is served, and no credit is used twice by two queues that answer
// at once: what is over goes back.
func TestWorkSeveralQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		stream := startWork(t.Context(), t, f, openRequest(2, "a", "b", "c"))
		synctest.Wait() // all are empty and awaited
		f.mu.Lock()
		changed := f.changed
		f.changed = make(chan struct{})
		f.mu.Unlock()
		for i, q := range []string{"a", "b", "c"} { // all at once
			f.fill(q, 1, nil)
			f.mu.Lock()
			f.ready[q][0].ID, f.ready[q][0].Token = idAt(uint64(i+1)), tokenAt(uint64(i+1))
			f.mu.Unlock()
		}
		close(changed)
		got := receiveAll(t, stream, 2)
		synctest.Wait()
		f.mu.Lock()
		if len(got) != 2 || f.out-len(f.released) != 2 {
			t.Errorf("%d delivered, %d leased, %d given back for 2 credits", len(got), f.out, len(f.released))
		}
		f.mu.Unlock()
		f.fill("b", 50, nil) // a busy queue may use every credit
		if err := stream.Send(&comandav1.WorkRequest{Credits: 50}); err != nil {
			t.Fatal(err)
		}
		receiveAll(t, stream, 50)
		closeWork(t, stream)
	})
}

// Queues that are all busy share the credits in turn.
func TestWorkQueuesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fill("a", 10, nil)
		f.fill("b", 10, nil)
		stream := startWork(t.Context(), t, f, openRequest(1, "a", "b"))
		got := ""
		for range 6 {
			got += receiveAll(t, stream, 1)[0].GetQueue()
			if err := stream.Send(&comandav1.WorkRequest{Credits: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if got != "ababab" {
			t.Errorf("served %s", got)
		}
		receiveAll(t, stream, 1)
		closeWork(t, stream)
	})
}

// A client that stops reading makes the server stop leasing; when it is gone,
// what it never got goes back.
func TestWorkClientStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fill("q", 5_000, bytes.Repeat([]byte("x"), 10_000))
		ctx, cancel := context.WithCancel(t.Context())
		startWork(ctx, t, f, openRequest(5_000, "q"))
		synctest.Wait()
		if f.out == 0 || f.out > 2*message.MaxBatch {
			t.Errorf("%d messages are leased for a client that reads none", f.out)
		}
		cancel()
		synctest.Wait()
		// What went into the connection may have been read, as far as we know.
		if f.out-len(f.released) > 150 {
			t.Errorf("%d of %d messages were given back", len(f.released), f.out)
		}
		if len(f.released) > 0 && !slices.Contains(f.released, idAt(uint64(f.out))) {
			t.Error("the last one leased was not given back")
		}
	})
}

// What a verb hands out after its call was cancelled goes back.
func TestLateDeliveriesAreReleased(t *testing.T) {
	for _, kind := range []string{"Receive", "Work", "Work of two queues"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.late = make(chan struct{})
			f.fill("q", 3, nil)
			client := dialMessages(t, f)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			if kind == "Receive" {
				go func() {
					_, err := client.Receive(ctx, &comandav1.ReceiveRequest{Queue: "q", Max: 3})
					ended <- err
				}()
			} else {
				queues := []string{"q", "other"}[:1+strings.Count(kind, "two")]
				stream, err := client.Work(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.Send(openRequest(3, queues...)); err != nil {
					t.Fatal(err)
				}
				go func() {
					_, err := stream.Recv()
					ended <- err
				}()
			}
			synctest.Wait()
			cancel()
			if err := <-ended; status.Code(err) != codes.Canceled {
				t.Errorf("%s: %v", kind, err)
			}
			synctest.Wait()
			close(f.late)
			synctest.Wait()
			if len(f.released) != f.out || f.out == 0 {
				t.Errorf("%s: %d handed out, %d given back", kind, f.out, len(f.released))
			}
		})
	}
}

// A stream that breaks the contract ends with the reason.
func TestWorkRefuses(t *testing.T) {
	many := make([]*comandav1.NumberedSettlement, message.MaxBatch+1)
	for i := range many {
		many[i] = &comandav1.NumberedSettlement{}
	}
	long := []*comandav1.NumberedSettlement{{Settlement: &comandav1.Settlement{Error: strings.Repeat("x", maxSettleBytes+1)}}}
	for name, c := range map[string]struct {
		requests []*comandav1.WorkRequest
		reason   string
	}{
		"no request":     {nil, "INVALID_ARGUMENT"},
		"no open":        {[]*comandav1.WorkRequest{{Credits: 1}}, "INVALID_ARGUMENT"},
		"no queue":       {[]*comandav1.WorkRequest{openRequest(1)}, "INVALID_ARGUMENT"},
		"17 queues":      {[]*comandav1.WorkRequest{openRequest(1, make([]string, 17)...)}, "INVALID_ARGUMENT"},
		"open twice":     {[]*comandav1.WorkRequest{openRequest(0, "q"), openRequest(0, "q")}, "INVALID_ARGUMENT"},
		"credits":        {[]*comandav1.WorkRequest{openRequest(10_001, "q")}, "INVALID_ARGUMENT"},
		"credits in sum": {[]*comandav1.WorkRequest{openRequest(10_000, "q"), {Credits: 1}}, "INVALID_ARGUMENT"},
		"settlements":    {[]*comandav1.WorkRequest{openRequest(0, "q"), {Settlements: many}}, "INVALID_ARGUMENT"},
		"long errors":    {[]*comandav1.WorkRequest{openRequest(0, "q"), {Settlements: long}}, "TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				stream, err := dialMessages(t, f).Work(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range c.requests {
					if err := stream.Send(r); err != nil {
						break // the stream has ended; Recv says why
					}
				}
				if c.requests == nil {
					if err := stream.CloseSend(); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := stream.Recv(); reason(err) != c.reason {
					t.Errorf("got %v (%s)", err, reason(err))
				}
			})
		})
	}
}

// A worker that is gone is no defect of the server, whatever gRPC says about its
// stream.
func TestBrokenStreamIsNoDefect(t *testing.T) {
	for _, code := range []codes.Code{codes.Canceled, codes.Unavailable, codes.DeadlineExceeded} {
		var log strings.Builder
		s := New(Options{Verbs: newFake(), Allowed: AllowHosts(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if got := s.refusal(t.Context(), status.Error(code, "gone")); got.Code != message.UnknownOutcome || log.Len() > 0 {
			t.Errorf("%s is answered %v and logged as %q", code, got, log.String())
		}
	}
}
