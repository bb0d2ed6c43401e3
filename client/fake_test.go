package client_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// fake is a server in memory: one queue, no keys, no clock. Tests put hooks in.
type fake struct {
	comandav1.UnimplementedMessagesServer
	comandav1.UnimplementedQueuesServer
	comandav1.UnimplementedClusterServer

	// onSend, if set, is called before a send call is answered.
	onSend func(ctx context.Context, req *comandav1.SendRequest) error
	item   string // the code that a stream's first message is refused with
	// producers are the producers' streams that are open, produced those so far.
	producers, produced atomic.Int64
	// onSettle, if set, answers a settlement instead of the fake.
	onSettle func(s *comandav1.Settlement) *comandav1.SettleResult
	// loseAnswer breaks the stream once instead of answering a settlement.
	loseAnswer atomic.Bool

	// ttl, if set, makes it know sessions; otherwise it is an older server.
	ttl time.Duration
	// mute leaves heartbeats unanswered, shut refuses streams, late finds once that the
	// session has ended.
	mute, shut, late atomic.Bool
	lag              time.Duration // of answers to heartbeats
	// drains tells the worker once, on the stream that is open, that it is drained.
	drains chan struct{}
	// cancels are the tokens that it answers each claim with.
	cancels []string

	// onGoodbye, if set, is called before a goodbye is answered.
	onGoodbye func()
	broken    error // why cut breaks the stream; nil: the connection

	mu      sync.Mutex
	sends   [][]string // the bodies of each call
	settled []*comandav1.Settlement
	ready   []*comandav1.Delivery
	streams int // opened so far
	seen
	arrived chan struct{}
	cut     chan struct{} // closed to break the open stream
	seq     int
}

// seen is what the fake has seen of workers.
type seen struct {
	opens    []*comandav1.WorkOpen
	credits  int      // granted and not used, of the open stream
	beats    int      // heard
	claims   []string // what each claim held, sorted
	goodbyes int
	unary    int // settlements outside of a stream
	largest  int // request of a stream, in bytes
}

// saw copies what the fake has seen so far, and how many messages wait.
func (f *fake) saw() (s seen, waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s = f.seen
	s.opens, s.claims = slices.Clone(s.opens), slices.Clone(s.claims)
	return s, len(f.ready)
}

func refuse(c codes.Code, code, format string, args ...any) error {
	st, err := status.Newf(c, format, args...).WithDetails(&errdetails.ErrorInfo{Reason: code, Domain: "comanda"})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// Produce answers with the refusals of Send; an error without a code breaks the stream,
// as a lost connection does.
func (f *fake) Produce(stream grpc.BidiStreamingServer[comandav1.ProduceRequest, comandav1.ProduceResponse]) error {
	f.produced.Add(1)
	f.producers.Add(1)
	defer f.producers.Add(-1)
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		resp := &comandav1.ProduceResponse{}
		resp.Sent, err = f.Send(stream.Context(), req.GetSend())
		if f.item != "" {
			resp.Sent.Results[0] = &comandav1.SendResult{Error: &comandav1.Error{Code: f.item}}
		}
		if err != nil {
			st := status.Convert(err)
			if len(st.Details()) == 0 {
				return err
			}
			resp.Error = &comandav1.Error{Code: st.Details()[0].(*errdetails.ErrorInfo).GetReason(), Message: st.Message()}
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (f *fake) Send(ctx context.Context, req *comandav1.SendRequest) (*comandav1.SendResponse, error) {
	if req.GetQueue() == "missing" {
		return nil, refuse(codes.NotFound, "QUEUE_NOT_FOUND", "no queue %q: create it with comanda queue create %s", req.GetQueue(), req.GetQueue())
	}
	var bodies []string
	for _, m := range req.GetMessages() {
		bodies = append(bodies, string(m.GetBody()))
	}
	f.mu.Lock()
	f.sends = append(f.sends, bodies)
	f.mu.Unlock()
	if f.onSend != nil {
		if err := f.onSend(ctx, req); err != nil {
			return nil, err
		}
	}
	resp := &comandav1.SendResponse{}
	for _, b := range bodies {
		if b != "bad" && req.GetAtomic() && slices.Contains(bodies, "bad") {
			resp.Results = append(resp.Results, &comandav1.SendResult{Error: &comandav1.Error{Code: "BATCH_REFUSED", Message: "not stored"}})
			continue
		}
		if b == "bad" {
			resp.Results = append(resp.Results, &comandav1.SendResult{Error: &comandav1.Error{Code: "TOO_LARGE", Message: "too large"}})
			continue
		}
		resp.Results = append(resp.Results, &comandav1.SendResult{Id: "id-" + b, Existing: b == "again"})
	}
	return resp, nil
}

func (f *fake) put(bodies ...string) {
	f.mu.Lock()
	for _, b := range bodies {
		f.seq++
		f.ready = append(f.ready, &comandav1.Delivery{
			Id: "id-" + b, Token: fmt.Sprintf("t%d", f.seq), Body: []byte(b), Attempt: 1, Fence: uint64(f.seq), Queue: "q",
		})
	}
	f.mu.Unlock()
	f.wake()
}

func (f *fake) wake() {
	select {
	case f.arrived <- struct{}{}:
	default:
	}
}

func (f *fake) Receive(_ context.Context, req *comandav1.ReceiveRequest) (*comandav1.ReceiveResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(max(1, int(req.GetMax())), len(f.ready))
	resp := &comandav1.ReceiveResponse{Messages: f.ready[:n]}
	f.ready = f.ready[n:]
	return resp, nil
}

func (f *fake) settle(s *comandav1.Settlement) *comandav1.SettleResult {
	f.mu.Lock()
	f.settled = append(f.settled, proto.Clone(s).(*comandav1.Settlement))
	hook := f.onSettle
	f.mu.Unlock()
	if hook != nil {
		if r := hook(s); r != nil {
			return r
		}
	}
	if s.GetToken() == "stale" {
		return &comandav1.SettleResult{Error: &comandav1.Error{Code: "FENCED", Message: "not the current token"}}
	}
	return &comandav1.SettleResult{State: comandav1.MessageState_MESSAGE_STATE_FINISHED}
}

func (f *fake) Settle(_ context.Context, req *comandav1.SettleRequest) (*comandav1.SettleResponse, error) {
	f.mu.Lock()
	f.unary += len(req.GetSettlements())
	f.mu.Unlock()
	resp := &comandav1.SettleResponse{}
	for _, s := range req.GetSettlements() {
		resp.Results = append(resp.Results, f.settle(s))
	}
	return resp, nil
}

// Work pushes what is ready while there are credits, and answers settlements.
func (f *fake) Work(stream grpc.BidiStreamingServer[comandav1.WorkRequest, comandav1.WorkResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetOpen().GetQueues()[0] == "missing" {
		return refuse(codes.NotFound, "QUEUE_NOT_FOUND", "no queue")
	}
	if f.shut.Load() {
		return status.Error(codes.Unavailable, "shut")
	}
	if f.late.CompareAndSwap(true, false) {
		return refuse(codes.FailedPrecondition, "SESSION_ENDED", "dead")
	}
	f.mu.Lock()
	f.opens = append(f.opens, first.GetOpen())
	f.credits = int(first.GetCredits())
	f.streams++
	cut := make(chan struct{})
	f.cut = cut
	f.mu.Unlock()
	f.wake()
	reqs := make(chan *comandav1.WorkRequest)
	go func() {
		defer close(reqs)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case reqs <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	lease := first.GetOpen().GetLease()
	if lease == nil {
		lease = durationpb.New(30 * time.Second)
	}
	if f.ttl > 0 {
		resp := &comandav1.WorkResponse{Ttl: durationpb.New(f.ttl)}
		f.hear(first, resp)
		<-time.After(f.lag)
		if err := stream.Send(resp); err != nil {
			return err
		}
		lease = nil
	}
	for {
		resp := &comandav1.WorkResponse{}
		select {
		case r, ok := <-reqs:
			if !ok {
				return nil
			}
			f.mu.Lock()
			f.credits += int(r.GetCredits())
			f.largest = max(f.largest, proto.Size(r))
			f.mu.Unlock()
			f.hear(r, resp)
			for _, s := range r.GetSettlements() {
				resp.Settled = append(resp.Settled, &comandav1.NumberedSettleResult{Number: s.GetNumber(), Result: f.settle(s.GetSettlement())})
			}
			if len(resp.GetSettled()) > 0 && f.loseAnswer.CompareAndSwap(true, false) {
				return status.Error(codes.Unavailable, "cut")
			}
		case <-f.arrived:
		case <-f.drains:
			resp.Draining = true
		case <-cut:
			if f.broken != nil {
				return f.broken
			}
			return status.Error(codes.Unavailable, "cut")
		}
		f.mu.Lock()
		n := min(f.credits, len(f.ready))
		for _, d := range f.ready[:n] {
			d.Lease = lease
			resp.Deliveries = append(resp.Deliveries, d)
		}
		f.ready = f.ready[n:]
		f.credits -= n
		f.mu.Unlock()
		if resp.GetBeat() > 0 {
			<-time.After(f.lag)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// hear takes what a request says about the worker, and answers.
func (f *fake) hear(req *comandav1.WorkRequest, resp *comandav1.WorkResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if req.GetGoodbye() {
		f.goodbyes++
		f.credits = 0
		resp.Goodbye = true
		if f.onGoodbye != nil {
			f.onGoodbye()
		}
	}
	if n := req.GetBeat(); n > 0 && f.ttl > 0 {
		f.beats++
		if !f.mute.Load() {
			resp.Beat = n
		}
		if n%2 == 0 {
			resp.Cancelled = f.cancels
			f.claims = append(f.claims, strings.Join(slices.Sorted(slices.Values(req.GetHolds())), " "))
		}
	}
}

// actions lists what was settled, as "token action".
func (f *fake) actions() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.settled {
		out = append(out, s.GetToken()+" "+s.GetAction().String()[len("ACTION_"):])
	}
	return out
}

// start serves f in this process until the test ends and returns its client.
func start(t testing.TB, f *fake) *client.Client {
	t.Helper()
	l := listen(t, f)
	c, err := client.New("fake:7400", client.WithDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return l.DialContext(ctx)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// listen serves a fake.
func listen(t testing.TB, f *fake) *bufconn.Listener {
	f.arrived = make(chan struct{}, 1)
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}), grpc.MaxRecvMsgSize(17<<20), grpc.MaxSendMsgSize(17<<20))
	comandav1.RegisterMessagesServer(s, f)
	comandav1.RegisterQueuesServer(s, f)
	comandav1.RegisterClusterServer(s, f)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return l
}

func (f *fake) calls() [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([][]string(nil), f.sends...)
}

// refuseBare is an error without a code of ours, as a broken transport gives.
func refuseBare(c codes.Code) error { return status.Error(c, "connection reset") }

// waitFor looks again and again until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come", what)
		}
	}
}
