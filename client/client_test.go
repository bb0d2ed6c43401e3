package client_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What waits while a call is under way goes out as one, and each caller gets
// the answer to its own message.
func TestSendsCoalesce(t *testing.T) {
	const callers = 200
	gate := make(chan struct{})
	f := &fake{onSend: func(context.Context, *comandav1.SendRequest) error { <-gate; return nil }}
	c := start(t, f)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			body := fmt.Sprint("m", i)
			id, err := c.Send(t.Context(), "q", client.Message{Body: []byte(body), Key: "k"})
			if err != nil || id != "id-"+body {
				t.Errorf("Send(%s) = %q, %v", body, id, err)
			}
		})
	}
	waitFor(t, "the first call", func() bool { return len(f.calls()) == 1 })
	close(gate)
	wg.Wait()
	calls := f.calls()
	total := 0
	for _, c := range calls {
		total += len(c)
	}
	if total != callers || len(calls) > callers/2 {
		t.Errorf("%d messages went out in %d calls, want %d in few", total, len(calls), callers)
	}
}

// The messages of one batch go out in its order, whatever the calls are.
func TestBatchKeepsItsOrder(t *testing.T) {
	f := &fake{}
	c := start(t, f)
	var ms []client.Message
	var want []string
	for i := range 2500 {
		want = append(want, fmt.Sprint(i))
		ms = append(ms, client.Message{Body: []byte(want[i])})
	}
	results, err := c.SendBatch(t.Context(), "q", ms)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.ID != "id-"+want[i] {
			t.Fatalf("result %d is %q", i, r.ID)
		}
	}
	if got := slices.Concat(f.calls()...); !slices.Equal(got, want) {
		t.Errorf("the server saw another order: %v", got[:10])
	}
	for _, call := range f.calls() {
		if len(call) > 1000 {
			t.Errorf("a call has %d messages", len(call))
		}
	}
}

// A refused message fails its own caller and nobody else.
func TestItemErrorsReachTheirCaller(t *testing.T) {
	c := start(t, &fake{})
	results, err := c.SendBatch(t.Context(), "q", []client.Message{{Body: []byte("a")}, {Body: []byte("bad")}, {Body: []byte("b")}})
	if !errors.Is(err, client.ErrTooLarge) || !errors.Is(results[1].Err, client.ErrTooLarge) {
		t.Errorf("want TOO_LARGE, got %v, %v", err, results[1].Err)
	}
	if results[0].ID != "id-a" || results[2].ID != "id-b" || results[0].Err != nil || results[2].Err != nil {
		t.Errorf("the others: %v", results)
	}
}

// So does one that can't even be encoded.
func TestTextThatIsNoneReachesItsCaller(t *testing.T) {
	c := start(t, &fake{})
	const bad = "\xff"
	good := client.Message{Body: []byte("a")}
	for name, m := range map[string]client.Message{
		"key":               {Key: bad},
		"type":              {Type: bad},
		"tenant":            {Tenant: bad},
		"dedup id":          {DedupID: bad},
		"unique key":        {UniqueKey: bad},
		"attribute's name":  {Attributes: map[string]*client.Attribute{bad: client.String("x")}},
		"attribute's text":  {Attributes: map[string]*client.Attribute{"a": client.String(bad)}},
		"attribute, number": {Attributes: map[string]*client.Attribute{"a": client.Number(bad)}},
	} {
		results, err := c.SendBatch(t.Context(), "q", []client.Message{good, m, good})
		if client.CodeOf(err) != client.CodeInvalidArgument || client.CodeOf(results[1].Err) != client.CodeInvalidArgument {
			t.Errorf("%s: %v, %v", name, err, results[1].Err)
		}
		if results[0].ID != "id-a" || results[2].ID != "id-a" {
			t.Errorf("%s: the others: %v", name, results)
		}
		if _, err := c.SendAtomic(t.Context(), "q", []client.Message{good, m}); client.CodeOf(err) != client.CodeInvalidArgument {
			t.Errorf("%s in an atomic batch: %v", name, err)
		}
	}
	results, err := c.Settle(t.Context(), []client.Settlement{{Token: "t", Action: client.ActionAck}, {Token: bad, Action: client.ActionAck}})
	if client.CodeOf(err) != client.CodeInvalidArgument || results[0].Err != nil || client.CodeOf(results[1].Err) != client.CodeInvalidArgument {
		t.Errorf("token: %v, %v", err, results)
	}
}

// A number that the contract has no room for goes out as one that the server
// refuses, and not as another one.
func TestNumbersKeepTheirMeaning(t *testing.T) {
	const huge = 1 << 32
	var got []int32
	f := &fake{onSend: func(_ context.Context, r *comandav1.SendRequest) error {
		got = append(got, r.GetMessages()[0].GetPriority())
		return nil
	}}
	c := start(t, f)
	for _, n := range []int{huge + 1, -huge, 9} {
		if _, err := c.Send(t.Context(), "q", client.Message{Priority: n}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []int32{math.MaxInt32, math.MinInt32, 9}) {
		t.Errorf("the server was sent %d", got)
	}
}

// An atomic batch is one call, and the error is the one that is the reason.
func TestAtomicBatch(t *testing.T) {
	var atomics []bool
	f := &fake{onSend: func(_ context.Context, req *comandav1.SendRequest) error {
		atomics = append(atomics, req.GetAtomic())
		return nil
	}}
	c := start(t, f)
	results, err := c.SendAtomic(t.Context(), "q", []client.Message{{Body: []byte("a")}, {Body: []byte("b")}})
	if err != nil || len(results) != 2 || results[0].ID != "id-a" || results[1].ID != "id-b" {
		t.Errorf("%v, %v", results, err)
	}
	results, err = c.SendAtomic(t.Context(), "q", []client.Message{{Body: []byte("a")}, {Body: []byte("bad")}})
	if !errors.Is(err, client.ErrTooLarge) || client.CodeOf(results[0].Err) != client.CodeBatchRefused || !errors.Is(results[1].Err, client.ErrTooLarge) {
		t.Errorf("%v, %v", results, err)
	}
	if !slices.Equal(atomics, []bool{true, true}) || len(f.calls()) != 2 {
		t.Errorf("the server saw %v, %v", atomics, f.calls())
	}
}

func TestCallErrorsCarryTheCode(t *testing.T) {
	c := start(t, &fake{})
	_, err := c.Send(t.Context(), "missing", client.Message{})
	if !errors.Is(err, client.ErrQueueNotFound) || errors.Is(err, client.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(err.Error(), "comanda queue create missing") {
		t.Errorf("%v does not say what to do", err)
	}
	if _, err := c.Queue(t.Context(), "q"); client.CodeOf(err) != client.CodeUnimplemented {
		t.Errorf("got %v", err)
	}
	if err := c.Ack(t.Context(), "stale"); !errors.Is(err, client.ErrFenced) {
		t.Errorf("got %v", err)
	}
}

// A send that never left is UNREACHABLE: nothing happened. One whose connection
// broke may have happened.
func TestUnreachableOrUnknown(t *testing.T) {
	c, err := client.New("nobody:1", client.WithDialer(func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("nobody is here")
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Send(t.Context(), "q", client.Message{}); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("no server: got %v", err)
	}
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.Unknown} { // as of a proxy that resets it
		f := &fake{onSend: func(context.Context, *comandav1.SendRequest) error { return refuseBare(code) }}
		if _, err := start(t, f).Send(t.Context(), "q", client.Message{}); !errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("lost answer, %s: got %v", code, err)
		}
	}
}

// A caller who gives up before its message left knows that it was not sent; one
// whose message left is told that it may have been. The call of the others goes on.
func TestCancelWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f := &fake{onSend: func(ctx context.Context, _ *comandav1.SendRequest) error {
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return nil
		}}
		c := start(t, f)
		send := func(body string) (context.CancelFunc, chan error) {
			ctx, cancel := context.WithCancel(t.Context())
			out := make(chan error, 1)
			go func() {
				_, err := c.Send(ctx, "q", client.Message{Body: []byte(body)})
				out <- err
			}()
			return cancel, out
		}
		cancelFirst, first := send("first")
		synctest.Wait()
		cancelSecond, second := send("second")
		synctest.Wait()
		cancelSecond()
		if err := <-second; !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("never left: got %v", err)
		}
		cancelFirst()
		if err := <-first; !errors.Is(err, context.Canceled) || !errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("left: got %v", err)
		}
		// Nobody waits for the first call any more, so it does not hold up the line.
		_, third := send("third")
		synctest.Wait()
		close(gate)
		if err := <-third; err != nil {
			t.Error(err)
		}
		if got := slices.Concat(f.calls()...); slices.Contains(got, "second") {
			t.Errorf("what was taken back went out: %v", got)
		}
	})
}

// A body may be changed as soon as Send has returned, also when it returned
// early (run with -race).
func TestBodyBelongsToTheCallerAfterSend(t *testing.T) {
	c := start(t, &fake{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			body := make([]byte, 1024)
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*10*time.Microsecond)
				_, _ = c.Send(ctx, "q", client.Message{Body: body})
				cancel()
				for j := range body {
					body[j]++
				}
			}
		})
	}
	wg.Wait()
}

func TestReceiveAndSettle(t *testing.T) {
	f := &fake{}
	c := start(t, f)
	f.put("a", "b", "c", "d", "e")
	ds, err := c.Receive(t.Context(), "q", client.ReceiveOptions{Max: 10, Wait: time.Second, Lease: time.Minute, Worker: "w"})
	if err != nil || len(ds) != 5 {
		t.Fatalf("got %d, %v", len(ds), err)
	}
	if d := ds[0]; d.ID() != "id-a" || string(d.Body()) != "a" || d.Attempt() != 1 || d.Fence() != 1 || d.Queue() != "q" {
		t.Errorf("got %+v", d)
	}
	ctx := t.Context()
	for _, err := range []error{
		ds[0].Ack(ctx), ds[1].Nack(ctx, "no \xff "+strings.Repeat("é", 2000), time.Second), ds[2].Reject(ctx, "never"), ds[3].Release(ctx, 0), ds[4].Extend(ctx, time.Hour),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if got := f.actions(); !slices.Equal(got, []string{"t1 ACK", "t2 NACK", "t3 REJECT", "t4 RELEASE", "t5 EXTEND"}) {
		t.Errorf("got %v", got)
	}
	if n := len(f.settled[1].GetError()); n > 1024 {
		t.Errorf("an error text of %d bytes went out", n)
	}
	results, err := c.Settle(ctx, []client.Settlement{{Token: "x", Action: client.ActionAck}, {Token: "stale", Action: client.ActionAck}})
	if !errors.Is(err, client.ErrFenced) || results[0].Err != nil || results[0].State != "finished" || !errors.Is(results[1].Err, client.ErrFenced) {
		t.Errorf("got %v, %v", results, err)
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"", "localhost", "a:1,,b:2"} {
		if _, err := client.New(bad); client.CodeOf(err) != client.CodeInvalidArgument {
			t.Errorf("New(%q): %v", bad, err)
		}
	}
}
