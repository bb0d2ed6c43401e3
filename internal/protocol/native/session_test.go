package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// sessions is a gateway that also knows sessions.
type sessions struct {
	*fake
	refuse   error // of OpenSession
	opened   []message.SessionOptions
	received []message.ReceiveOptions
	attachment
}

// attachment is the one of a test's stream.
type attachment struct {
	mu       sync.Mutex
	heard    []string
	answered chan uint64
	draining chan struct{}
	ended    chan struct{}
	why      error
}

func newSessions() *sessions {
	return &sessions{fake: newFake(), attachment: attachment{answered: make(chan uint64, 1), draining: make(chan struct{}), ended: make(chan struct{})}}
}

func (s *sessions) OpenSession(_ context.Context, o message.SessionOptions) (message.Attachment, error) {
	s.opened = append(s.opened, o)
	if s.refuse != nil {
		return nil, s.refuse
	}
	return &s.attachment, nil
}

func (s *sessions) Receive(ctx context.Context, queue string, o message.ReceiveOptions) ([]message.Delivery, error) {
	s.received = append(s.received, o)
	ds, err := s.fake.Receive(ctx, queue, o)
	for i := range ds {
		ds[i].Lease = o.Lease
	}
	return ds, err
}

func (a *attachment) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard = append(a.heard, fmt.Sprintf(format, args...))
}

func (a *attachment) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.heard)
}

func (a *attachment) Session() message.SessionRef { return message.SessionRef{ID: 5, Incarnation: 9} }
func (a *attachment) Beat(n uint64)               { a.note("beat %d", n) }
func (a *attachment) Cancelled() <-chan []string  { return nil }
func (a *attachment) Answered() <-chan uint64     { return a.answered }
func (a *attachment) Draining() <-chan struct{}   { return a.draining }
func (a *attachment) Ended() <-chan struct{}      { return a.ended }
func (a *attachment) Err() error                  { return a.why }
func (a *attachment) Close(goodbye bool)          { a.note("close goodbye=%t", goodbye) }

func (a *attachment) Claim(tokens []message.Token) {
	var seqs []uint64
	for _, t := range tokens {
		seqs = append(seqs, t.ID.Seq())
	}
	a.note("claim %v", seqs)
}

// openSession opens a stream with a session.
func openSession(ctx context.Context, t *testing.T, s *sessions, credits uint32) comandav1.Messages_WorkClient {
	t.Helper()
	server := New(Options{Verbs: s, Allowed: AllowHosts("comanda.test:7400"), Logger: discard})
	stream, err := comandav1.NewMessagesClient(serve(t, server, "localhost")).Work(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first := openRequest(credits, "q")
	first.Open.Incarnation, first.Open.Attachment = 9, 2
	first.Open.Ttl, first.Open.OnDisconnect = durationpb.New(7*time.Second), comandav1.OnDisconnect_ON_DISCONNECT_WAIT
	first.Open.Slots = 3
	first.Beat = 1
	if err := stream.Send(first); err != nil {
		t.Fatal(err)
	}
	return stream
}

func next(t *testing.T, stream comandav1.Messages_WorkClient) *comandav1.WorkResponse {
	t.Helper()
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// A session is opened before anything is handed out, the first response says so,
// and its leases are bound to it.
func TestSessionOpensFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		s.fill("q", 1, []byte("b"))
		stream := openSession(t.Context(), t, s, 1)
		if resp := next(t, stream); resp.GetTtl().AsDuration() != 7*time.Second || len(resp.GetDeliveries()) > 0 {
			t.Errorf("the first response is %v", resp)
		}
		if d := next(t, stream).GetDeliveries()[0]; d.GetLease() != nil {
			t.Errorf("a lease of the session has the length %s", d.GetLease())
		}
		want := message.SessionOptions{Worker: "w", Incarnation: 9, Attachment: 2, TTL: 7 * time.Second, Wait: true, Queues: []string{"q"}, Slots: 3}
		if !reflect.DeepEqual(s.opened, []message.SessionOptions{want}) {
			t.Errorf("opened %+v", s.opened)
		}
		if o := s.received[0]; o.Session != s.Session() || o.Lease != 0 {
			t.Errorf("leased with %+v", o)
		}
		closeWork(t, stream)
	})
}

// A stream whose session can't be opened ends with the reason.
func TestSessionRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		s.refuse = message.Errorf(message.SessionEnded, "dead")
		s.fill("q", 1, nil)
		if _, err := openSession(t.Context(), t, s, 1).Recv(); reason(err) != "SESSION_ENDED" {
			t.Errorf("got %v", err)
		}
		if len(s.received) > 0 || len(s.told()) > 0 {
			t.Errorf("received %v, told %v", s.received, s.told())
		}
	})
}

// Heartbeats and claims are passed on as they come, also while a settlement is
// stuck, and answers go back.
func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		s.settling = make(chan struct{})
		stream := openSession(t.Context(), t, s, 0)
		next(t, stream)
		ack := &comandav1.NumberedSettlement{Number: 1, Settlement: &comandav1.Settlement{Token: tokenAt(1), Action: comandav1.Action_ACTION_ACK}}
		for _, req := range []*comandav1.WorkRequest{
			{Settlements: []*comandav1.NumberedSettlement{ack}},
			{Beat: 2, Holds: []string{tokenAt(1), tokenAt(3)}},
			{Beat: 3},
			{Beat: 4}, // holds nothing
		} {
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		want := []string{"beat 1", "beat 2", "claim [1 3]", "beat 3", "beat 4", "claim []"}
		if got := s.told(); !slices.Equal(got, want) {
			t.Errorf("told %q", got)
		}
		s.answered <- 3
		if resp := next(t, stream); resp.GetBeat() != 3 || len(resp.GetSettled()) > 0 {
			t.Errorf("got %v", resp)
		}
		close(s.settling)
		if resp := next(t, stream); resp.GetBeat() != 0 || len(resp.GetSettled()) != 1 {
			t.Errorf("got %v", resp)
		}
		closeWork(t, stream)
	})
}

// The end of a session ends its stream with the reason, and what was not yet sent
// is given back.
func TestSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		stream := openSession(t.Context(), t, s, 5)
		next(t, stream)
		synctest.Wait() // the queue is empty and awaited
		s.why = message.Errorf(message.Conflict, "a newer attachment")
		close(s.ended)
		if _, err := stream.Recv(); reason(err) != "CONFLICT" {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if got := s.told(); !slices.Equal(got, []string{"beat 1", "close goodbye=false"}) {
			t.Errorf("told %q", got)
		}
	})
}

// After a goodbye nothing is handed out, the answer says so, and what the worker
// gives back then is settled before the session is told.
func TestGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		stream := openSession(t.Context(), t, s, 5)
		next(t, stream)
		s.fill("q", 1, nil)
		d := receiveAll(t, stream, 1)[0]
		if err := stream.Send(&comandav1.WorkRequest{Goodbye: true}); err != nil {
			t.Fatal(err)
		}
		if resp := next(t, stream); !resp.GetGoodbye() {
			t.Errorf("a goodbye is answered with %v", resp)
		}
		s.fill("q", 1, nil)
		synctest.Wait()
		if s.out != 1 {
			t.Errorf("%d handed out, one of them after the goodbye", s.out)
		}
		release := &comandav1.NumberedSettlement{Number: 1, Settlement: &comandav1.Settlement{Token: d.GetToken(), Action: comandav1.Action_ACTION_RELEASE}}
		if err := stream.Send(&comandav1.WorkRequest{Settlements: []*comandav1.NumberedSettlement{release}}); err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if resp := next(t, stream); len(resp.GetSettled()) != 1 {
			t.Errorf("got %v", resp)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream ends with %v", err)
		}
		synctest.Wait()
		if got := s.told(); !slices.Equal(got, []string{"beat 1", "close goodbye=true"}) || len(s.released) != 1 {
			t.Errorf("told %q, released %v", got, s.released)
		}
	})
}

// A worker that is drained is told so once. Its stream goes on: beats and goodbye are
// answered as ever.
func TestDrainIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		close(s.draining)
		stream := openSession(t.Context(), t, s, 5)
		next(t, stream)
		if resp := next(t, stream); !resp.GetDraining() {
			t.Errorf("got %v", resp)
		}
		s.answered <- 1
		if resp := next(t, stream); resp.GetBeat() != 1 || resp.GetDraining() {
			t.Errorf("got %v", resp)
		}
		if err := stream.Send(&comandav1.WorkRequest{Goodbye: true}); err != nil {
			t.Fatal(err)
		}
		if resp := next(t, stream); !resp.GetGoodbye() {
			t.Errorf("got %v", resp)
		}
		closeWork(t, stream)
	})
}

// A broken connection is told at once, before a settlement that is still under way.
func TestBrokenConnectionIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		s.settling = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		stream := openSession(ctx, t, s, 0)
		ack := &comandav1.NumberedSettlement{Number: 1, Settlement: &comandav1.Settlement{Token: tokenAt(1), Action: comandav1.Action_ACTION_ACK}}
		if err := stream.Send(&comandav1.WorkRequest{Settlements: []*comandav1.NumberedSettlement{ack}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if got := s.told(); !slices.Equal(got, []string{"beat 1", "close goodbye=false"}) {
			t.Errorf("told %q", got)
		}
		close(s.settling)
		synctest.Wait()
		if s.settles != 1 || len(s.told()) != 2 {
			t.Errorf("%d settled, told %q", s.settles, s.told())
		}
	})
}

// A stream that breaks the rules of sessions ends with the reason.
func TestSessionRefuses(t *testing.T) {
	open := func(change func(*comandav1.WorkOpen)) *comandav1.WorkRequest {
		r := openRequest(0, "q")
		r.Open.Incarnation, r.Open.Attachment = 1, 1
		change(r.Open)
		return r
	}
	fine := open(func(*comandav1.WorkOpen) {})
	for name, c := range map[string]struct {
		requests []*comandav1.WorkRequest
		reason   string
	}{
		"no name":            {[]*comandav1.WorkRequest{open(func(o *comandav1.WorkOpen) { o.Worker = "" })}, "INVALID_ARGUMENT"},
		"long name":          {[]*comandav1.WorkRequest{open(func(o *comandav1.WorkOpen) { o.Worker = strings.Repeat("x", 257) })}, "TOO_LARGE"},
		"no attachment":      {[]*comandav1.WorkRequest{open(func(o *comandav1.WorkOpen) { o.Attachment = 0 })}, "INVALID_ARGUMENT"},
		"short ttl":          {[]*comandav1.WorkRequest{open(func(o *comandav1.WorkOpen) { o.Ttl = durationpb.New(4 * time.Second) })}, "INVALID_ARGUMENT"},
		"long ttl":           {[]*comandav1.WorkRequest{open(func(o *comandav1.WorkOpen) { o.Ttl = durationpb.New(6 * time.Minute) })}, "INVALID_ARGUMENT"},
		"many slots":         {[]*comandav1.WorkRequest{open(func(o *comandav1.WorkOpen) { o.Slots = 10_001 })}, "INVALID_ARGUMENT"},
		"no queue's name":    {[]*comandav1.WorkRequest{open(func(o *comandav1.WorkOpen) { o.Queues = []string{"or/ders"} })}, "INVALID_ARGUMENT"},
		"holds and no beat":  {[]*comandav1.WorkRequest{fine, {Holds: []string{tokenAt(1)}}}, "INVALID_ARGUMENT"},
		"holds and odd beat": {[]*comandav1.WorkRequest{fine, {Beat: 1, Holds: []string{tokenAt(1)}}}, "INVALID_ARGUMENT"},
		"foreign token":      {[]*comandav1.WorkRequest{fine, {Beat: 2, Holds: []string{"x"}}}, "INVALID_ARGUMENT"},
		"65,537 holds":       {[]*comandav1.WorkRequest{fine, {Beat: 2, Holds: make([]string, maxHolds+1)}}, "TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSessions()
				server := New(Options{Verbs: s, Allowed: AllowHosts("comanda.test:7400"), Logger: discard})
				stream, err := comandav1.NewMessagesClient(serve(t, server, "localhost")).Work(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range c.requests {
					if err := stream.Send(r); err != nil {
						break // the stream has ended; Recv says why
					}
				}
				for err == nil {
					_, err = stream.Recv()
				}
				if reason(err) != c.reason {
					t.Errorf("got %v (%s)", err, reason(err))
				}
			})
		})
	}
}
