package native

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = message.Secret{7}
	sentAt = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
)

func idAt(seq uint64) message.ID { return message.NewID(1, 0, seq) }

func tokenAt(seq uint64) string { return message.Token{ID: idAt(seq), Fence: seq}.Seal(&secret) }

// fake is a gateway in memory: queues of deliveries, and a record of what it was
// asked. If err is set every verb but OpenToken refuses with it.
type fake struct {
	mu     sync.Mutex
	calls  []string
	err    error
	panics bool
	// waitingPanics makes a Receive that waits panic.
	waitingPanics bool
	ready         map[string][]message.Delivery
	changed       chan struct{}
	released      []message.ID
	out           int // handed out
	itemErr       *message.Error
	sent          []message.SendResult // nil: all are stored, or have itemErr
	// late makes Receive ignore the end of its context until it is closed, and
	// hand out all the same.
	late    chan struct{}
	settles int
	// sending and settling, if set, hold up Send and Settle until they are closed.
	sending, settling chan struct{}
}

func newFake() *fake {
	return &fake{ready: map[string][]message.Delivery{}, changed: make(chan struct{})}
}

// fill makes n messages ready.
func (f *fake) fill(queue string, n int, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		seq := uint64(len(f.ready[queue]) + f.out + 1)
		f.ready[queue] = append(f.ready[queue], message.Delivery{
			ID: idAt(seq), Token: tokenAt(seq), Queue: queue, Body: body, Attempt: 1, Deliveries: 1,
			Fence: 1<<63 + seq, SentAt: sentAt, Lease: message.DefaultLease,
		})
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) called(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	if f.panics {
		panic("planted")
	}
	return f.err
}

func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

func (f *fake) Send(_ context.Context, queue string, msgs []message.New) ([]message.SendResult, error) {
	if f.sending != nil {
		<-f.sending
	}
	return f.sends("send", queue, msgs)
}

func (f *fake) SendAtomic(_ context.Context, queue string, msgs []message.New) ([]message.SendResult, error) {
	return f.sends("send atomic", queue, msgs)
}

func (f *fake) sends(verb, queue string, msgs []message.New) ([]message.SendResult, error) {
	out := make([]message.SendResult, len(msgs))
	var texts []string
	for i, m := range msgs {
		var as []string
		for _, a := range m.Attributes {
			as = append(as, fmt.Sprintf("%s:%d:%s", a.Name, a.Kind, a.Value))
		}
		text := fmt.Sprintf("[%q key=%s type=%s delay=%s %v", m.Body, m.Key, m.Type, m.Delay, as)
		if m.Tenant != "" {
			text += " tenant=" + m.Tenant
		}
		texts = append(texts, text+"]")
		out[i] = message.SendResult{ID: idAt(uint64(i + 1))}
		if f.itemErr != nil {
			out[i] = message.SendResult{Err: f.itemErr}
		}
	}
	if f.sent != nil {
		out = f.sent
	}
	return out, f.called("%s %s %s", verb, queue, strings.Join(texts, " "))
}

func (f *fake) Receive(ctx context.Context, queue string, o message.ReceiveOptions) ([]message.Delivery, error) {
	text := fmt.Sprintf("receive %s max=%d wait=%s lease=%s worker=%s", queue, o.Max, o.Wait, o.Lease, o.Worker)
	if o.PerKey != 0 {
		text += fmt.Sprintf(" per key=%d", o.PerKey)
	}
	if err := f.called("%s", text); err != nil {
		return nil, err
	}
	if f.waitingPanics && o.Wait > 0 {
		panic("planted")
	}
	if f.late != nil {
		<-f.late
		ctx = context.WithoutCancel(ctx)
	}
	wait, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	for {
		f.mu.Lock()
		changed := f.changed
		n := min(o.Max, len(f.ready[queue]))
		ds := f.ready[queue][:n:n]
		f.ready[queue] = f.ready[queue][n:]
		f.out += n
		f.mu.Unlock()
		if n > 0 {
			return ds, nil
		}
		select {
		case <-changed:
		case <-wait.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fake) OpenSession(context.Context, message.SessionOptions) (message.Attachment, error) {
	return nil, f.called("open session")
}

func (f *fake) Settle(ctx context.Context, ss []message.Settlement) ([]message.SettleResult, error) {
	if f.settling != nil {
		select {
		case <-f.settling:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	out := make([]message.SettleResult, len(ss))
	var texts []string
	f.mu.Lock()
	f.settles++
	if ctx.Err() != nil {
		f.mu.Unlock()
		return nil, ctx.Err()
	}
	for i, s := range ss {
		text := fmt.Sprintf("[%d action=%d %q delay=%s/%t lease=%s", s.Token.ID.Seq(), s.Action, s.Error, s.Delay, s.HasDelay, s.Lease)
		out[i] = message.SettleResult{State: message.Finished, Err: f.itemErr}
		for n, x := range s.FollowUps {
			text += fmt.Sprintf(" and %s %q key=%s delay=%s", x.Queue, x.Body, x.Key, x.Delay)
			out[i].FollowUps = append(out[i].FollowUps, idAt(uint64(n+1)))
		}
		texts = append(texts, text+"]")
		if s.Action == message.Release {
			f.released = append(f.released, s.Token.ID)
		}
	}
	f.mu.Unlock()
	return out, f.called("settle %s", strings.Join(texts, " "))
}

func (f *fake) OpenToken(text string) (message.Token, error) { return message.OpenToken(text, &secret) }

func (f *fake) Show(_ context.Context, id message.ID, _ message.ReadOptions, wait time.Duration) (message.Shown, message.Freshness, error) {
	return shown(id), fresh, f.called("show %s wait=%s", id, wait)
}

var fresh = message.Freshness{ServedBy: "n1", Role: "leader", Age: 5 * time.Millisecond}

func shown(id message.ID) message.Shown {
	return message.Shown{
		ID: id, Queue: "q", Shard: "q/0", State: message.Scheduled, Reason: "delayed", Key: "k", Type: "t",
		Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeNumber, Value: []byte("12.50")}},
		Body:       []byte("b"), BodySize: 1, Attempts: 2, Deliveries: 3, WorkerDeaths: 1, SentAt: sentAt, ReadyAt: sentAt.Add(time.Second),
		Worker: "w", LastError: "e", Timeline: []message.Event{{At: sentAt, Event: "sent", Worker: "w", Attempt: 1, Error: "x", From: "p", To: "q"}},
	}
}

func (f *fake) List(_ context.Context, queue string, o message.ListOptions) (message.Listed, error) {
	filter := ""
	if o.Key != "" || o.Type != "" || !o.Since.IsZero() || !o.Until.IsZero() {
		filter = fmt.Sprintf(" key=%s type=%s since=%s until=%s", o.Key, o.Type, o.Since.UTC().Format(time.Kitchen), o.Until.UTC().Format(time.Kitchen))
	}
	if o.Tenant != "" {
		filter += " tenant=" + o.Tenant
	}
	return message.Listed{Messages: []message.Shown{shown(idAt(1))}, NextPage: "next", Plan: message.ListPlan{Index: "key", Rows: 4, Queues: 1, Reads: 2}, Freshness: fresh},
		f.called("list %s %s max=%d page=%s%s", queue, o.State, o.Max, o.Page, filter)
}

func (f *fake) Cancel(_ context.Context, ids []message.ID, o message.CancelOptions) ([]message.SettleResult, error) {
	out := make([]message.SettleResult, len(ids))
	for i := range out {
		out[i] = message.SettleResult{State: message.Cancelled, Err: f.itemErr}
	}
	return out, f.called("cancel %v %t %s", ids, o.Force, o.Grace)
}

func (f *fake) Redrive(_ context.Context, ids []message.ID, reset bool) ([]*message.Error, error) {
	out := make([]*message.Error, len(ids))
	for i := range out {
		out[i] = f.itemErr
	}
	return out, f.called("redrive %v %t", ids, reset)
}

func (f *fake) info(name string) message.QueueInfo {
	return message.QueueInfo{
		Name: name, Settings: message.Settings{}.WithDefaults(), Paused: true, Shards: 2, Version: 9,
		Counts: message.Counts{Ready: 1 << 60, Scheduled: 2, Leased: 3, Dead: 4, Finished: 5}, Receivers: message.Receivers{Waiting: 6, Last: sentAt},
	}
}

func (f *fake) CreateQueue(_ context.Context, name string, s message.Settings, shards int) (message.QueueInfo, bool, error) {
	return f.info(name), true, f.called("create %s %+v shards=%d", name, s, shards)
}

func (f *fake) UpdateQueue(_ context.Context, name string, s message.Settings, version uint64, dry bool) (message.QueueInfo, error) {
	return f.info(name), f.called("update %s %d version=%d dry=%t", name, s.MaxAttempts, version, dry)
}

func (f *fake) Queue(_ context.Context, name string, _ message.ReadOptions) (message.QueueInfo, message.Freshness, error) {
	info := f.info(name)
	info.Totals, info.OldestAge, info.Leaving = message.Totals{Sent: 1, Delivered: 2, Finished: 3, Failed: 4}, 2*time.Second, 7
	return info, fresh, f.called("queue %s", name)
}

func (f *fake) Queues(_ context.Context, n int, page string, o message.ReadOptions) ([]message.QueueInfo, string, message.Freshness, error) {
	return []message.QueueInfo{f.info("q")}, "next", fresh, f.called("queues max=%d page=%s stale=%s", n, page, o.Stale)
}

func (f *fake) DeleteQueue(_ context.Context, name string) error { return f.called("delete %s", name) }

func (f *fake) PurgeQueue(_ context.Context, name string) error { return f.called("purge %s", name) }

func (f *fake) PauseQueue(_ context.Context, name string, paused bool, of message.Pause) error {
	if of.Names() {
		return f.called("pause %s %t key=%s tenant=%s by=%s", name, paused, of.Key, of.Tenant, of.By)
	}
	return f.called("pause %s %t", name, paused)
}

func (f *fake) Locate(_ context.Context, queue, key string) (message.Location, error) {
	return message.Location{Hash: 0xab, Shard: "q/0", Group: 3, Leader: "n1", Followers: []string{"n2"}}, f.called("locate %s %s", queue, key)
}

var worked = message.ListedWorkers{Workers: []message.WorkerInfo{{
	Worker: "w", Session: 5, State: "suspect", Reason: "silent", Silent: 6 * time.Second, Holds: 2, Queues: []string{"q"}, Slots: 8, Node: "n1", TTL: 10 * time.Second,
}}, NextPage: "next", Unreached: []uint64{4}}

func (f *fake) Workers(_ context.Context, n int, page string) (message.ListedWorkers, error) {
	return worked, f.called("workers max=%d page=%s", n, page)
}

func (f *fake) DrainWorker(_ context.Context, name string) (message.ListedWorkers, error) {
	return worked, f.called("drain worker %s", name)
}

func (f *fake) Owners(_ context.Context, queue string) ([]message.ShardOwners, error) {
	info := message.ShardInfo{ID: "q/0", Queue: "q", From: 0, To: 7, Group: 3, Leader: "n1", Followers: []string{"n2"}}
	return []message.ShardOwners{{ShardInfo: info, Workers: []message.Preferred{{Worker: "w", Share: 0.25}}}}, f.called("owners %s", queue)
}

func (f *fake) Shards(_ context.Context, queue string, n int, page string, _ message.ReadOptions) ([]message.ShardInfo, string, message.Freshness, error) {
	return []message.ShardInfo{{ID: "q/0", Queue: "q", From: 0, To: 1<<64 - 1, Group: 3, Leader: "n1", Counts: message.Counts{Ready: 7}}},
		"next", fresh, f.called("shards %s max=%d page=%s", queue, n, page)
}

func (f *fake) SplitShard(_ context.Context, queue, path string) ([]message.ShardInfo, error) {
	return []message.ShardInfo{{ID: "q/0.0", Queue: "q", From: 0, To: 7, Group: 3, Leader: "n1", Followers: []string{"n2"}}}, f.called("split %s %s", queue, path)
}

var operated = message.OperationInfo{
	ID: 9, Kind: "move", Title: "move shard q/0 to n", State: "failed", Step: "seat", Waits: "for it",
	Err: message.Errorf(message.Conflict, "split"), CreatedAt: sentAt, ChangedAt: sentAt, By: "ann", ChangedBy: "ben", To: "n",
}

func (f *fake) MoveShard(_ context.Context, queue, path, node, _ string) (message.OperationInfo, error) {
	return operated, f.called("move %s %s to %s", queue, path, node)
}

func (f *fake) Operations(_ context.Context, n int, page string) ([]message.OperationInfo, string, error) {
	return []message.OperationInfo{operated}, "9", f.called("operations %d %q", n, page)
}

func (f *fake) Operation(_ context.Context, id uint64) (message.OperationInfo, error) {
	return operated, f.called("operation %d", id)
}

func (f *fake) CancelOperation(_ context.Context, id uint64, by string) (message.OperationInfo, error) {
	return operated, f.called("cancel operation %d by %s", id, by)
}

func (f *fake) PauseOperation(_ context.Context, id uint64, paused bool, by string) (message.OperationInfo, error) {
	return operated, f.called("pause operation %d %t by %s", id, paused, by)
}

func (f *fake) RedriveQueue(_ context.Context, name string, r message.Redrive, by string, dryRun bool) (message.RedrivePlan, error) {
	plan := message.RedrivePlan{Count: 7}
	if !dryRun {
		plan.Operation = &operated
	}
	return plan, f.called("redrive queue %s with %s rate=%d reset=%t to=%s by=%s dry=%t", name, r.Filter.String(), r.Rate, r.ResetAttempts, r.To, by, dryRun)
}

func (f *fake) Nodes(context.Context) ([]message.NodeInfo, error) {
	return []message.NodeInfo{f.node("n1")}, f.called("nodes")
}

func (f *fake) DrainNode(_ context.Context, name string, undo bool) (message.NodeInfo, error) {
	return f.node(name), f.called("drain %s undo=%t", name, undo)
}

func (f *fake) RemoveNode(_ context.Context, name string, acceptOneDisk bool) error {
	return f.called("remove %s accept-one-disk=%t", name, acceptOneDisk)
}

func (f *fake) node(name string) message.NodeInfo {
	return message.NodeInfo{
		ID: 7, Name: name, State: "suspect", Draining: true, Boot: 3, Labels: map[string]string{"zone": "a"},
		Listen: "l:1", Advertise: "p:2", Version: "v", Replicas: 5, Leads: 2,
	}
}

func (f *fake) Server(context.Context) (message.ServerInfo, error) {
	return message.ServerInfo{
		Version: "v", Node: "n1", StartedAt: sentAt, DiskFree: 1<<63 + 1, FsyncP99: time.Millisecond,
		Groups: []message.GroupInfo{{Group: 1, Leader: "n1", Term: 1 << 62, Applied: 9, Voters: 1, Learners: 2, WantedVoters: 3, AliveVoters: 4}},
	}, f.called("server")
}

// newServer is a server over f, one of whose names is comanda.test.
func newServer(t testing.TB, f *fake) *Server {
	t.Helper()
	return New(Options{Verbs: f, Allowed: AllowHosts("comanda.test:7400"), Logger: discard})
}

var discard = slog.New(slog.DiscardHandler)

// dial connects to a server over f, which it knows as authority.
func dial(t testing.TB, f *fake, authority string) *grpc.ClientConn {
	t.Helper()
	return serve(t, newServer(t, f), authority)
}

// serve serves gRPC in memory and connects to it.
func serve(t testing.TB, s *Server, authority string) *grpc.ClientConn {
	t.Helper()
	g := s.GRPC()
	l := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithAuthority(authority),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
		serving.Wait()
	})
	return conn
}

func dialMessages(t testing.TB, f *fake) comandav1.MessagesClient {
	t.Helper()
	return comandav1.NewMessagesClient(dial(t, f, "localhost"))
}

// do serves one REST request and answers with status and body.
func do(t testing.TB, f *fake, method, target, body string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "localhost:7400"
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	newServer(t, f).Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK && !strings.HasPrefix(w.Body.String(), `{"error":{"code":"`) {
		t.Errorf("%s %s: %d with the body %q, want an error in our form", method, target, w.Code, w.Body)
	}
	return w.Code, w.Body.String()
}
