package node

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// guard denies everything while it is closed.
type guard struct{ closed atomic.Bool }

func (g *guard) Authorize(_ context.Context, a auth.Action, queue string) error {
	if g.closed.Load() {
		return message.Errorf(message.PermissionDenied, "you may not %s %q", a, queue)
	}
	return nil
}

// decided is what people have decided of what is in the catalog.
func decided(v *catalog.View) string {
	var s strings.Builder
	for _, q := range v.Queues("", v.Len()) {
		fmt.Fprintf(&s, "queue %s version %d, ", q.Name, q.Version)
	}
	for _, x := range v.Nodes() {
		fmt.Fprintf(&s, "node %s draining %t removed %t, ", x.Name, x.Draining, x.State == catalog.Removed)
	}
	for _, x := range v.Sessions() {
		fmt.Fprintf(&s, "session %d draining %t, ", x.ID, x.Draining)
	}
	fmt.Fprintf(&s, "%d operations", len(v.Operations()))
	return s.String()
}

// Each RPC of the contract, called on a whole node in a way that would succeed,
// is denied by an authorizer that denies everything, and changes nothing.
func TestEveryRPCIsAuthorized(t *testing.T) {
	g, r := &guard{}, newRecorder()
	n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data", Auth: g, watch: r.watch})
	w := &workload{t: t, g: n.Gateway()}
	w.create("q", 1, message.Settings{})
	w.send(t.Context(), "q", 2, message.New{})
	leased := w.receive(t.Context(), "q", 1, message.MaxLease)[0]
	w.send(t.Context(), "q", 1, message.New{})
	other := w.receive(t.Context(), "q", 1, message.MaxLease)[0]
	w.settle(t.Context(), other, message.Settlement{Action: message.Reject})
	attach(t, n.Gateway(), "oven", 1)
	requests := validRequests(leased, other.ID, n.config.NodeName)
	before, asked := r.changes(), decided(n.view.Load())
	g.closed.Store(true)
	conn := dial(t, n)
	services := comandav1.File_comanda_v1_comanda_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			m := services.Get(i).Methods().Get(j)
			req := requests[m.Name()]
			if req == nil {
				t.Errorf("%s is new: add a request of it that would succeed", m.FullName())
				continue
			}
			if err := call(t, conn, m, req); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s: %v", m.FullName(), err)
			}
		}
	}
	after := r.changes()
	delete(before, catalog.MetaGroup) // the monitor may have changed it
	delete(after, catalog.MetaGroup)
	if now := decided(n.view.Load()); !maps.Equal(before, after) || now != asked {
		t.Errorf("sums of the rows before: %v, after: %v; the catalog before: %s, after: %s", before, after, asked, now)
	}
	g.closed.Store(false)
	for _, name := range []string{"Messages.Extend", "Messages.Ack", "Messages.ShowMessage", "Queues.RedriveQueue", "Messages.RedriveMessages", "Cluster.MoveShard", "Cluster.GetOperation", "Cluster.CancelOperation", "Cluster.SplitShard", "Cluster.DrainNode", "Cluster.DrainWorker", "Queues.DeleteQueue"} { // they would have succeeded
		service, m, _ := strings.Cut(name, ".")
		method := services.ByName(protoreflect.Name(service)).Methods().ByName(protoreflect.Name(m))
		if err := call(t, conn, method, requests[method.Name()]); err != nil {
			t.Errorf("%s, allowed: %v", name, err)
		}
	}
	conn.Close()
	end(t, n)
}

// validRequests has a request for each RPC, by its short name.
func validRequests(leased message.Delivery, dead message.ID, node string) map[protoreflect.Name]proto.Message {
	token := leased.Token
	return map[protoreflect.Name]proto.Message{
		"Send":            &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{{Body: []byte("b")}}},
		"Receive":         &comandav1.ReceiveRequest{Queue: "q"},
		"Settle":          &comandav1.SettleRequest{Settlements: []*comandav1.Settlement{{Token: token, Action: comandav1.Action_ACTION_ACK}}},
		"Ack":             &comandav1.AckRequest{Token: token},
		"Nack":            &comandav1.NackRequest{Token: token},
		"Extend":          &comandav1.ExtendRequest{Token: token, Lease: durationpb.New(message.MaxLease)},
		"Release":         &comandav1.ReleaseRequest{Token: token},
		"Reject":          &comandav1.RejectRequest{Token: token},
		"Produce":         &comandav1.ProduceRequest{Send: &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{{Body: []byte("b")}}}},
		"Work":            &comandav1.WorkRequest{Open: &comandav1.WorkOpen{Queues: []string{"q"}}, Credits: 1},
		"ShowMessage":     &comandav1.ShowMessageRequest{Id: leased.ID.String()},
		"ListMessages":    &comandav1.ListMessagesRequest{Queue: "q"},
		"RedriveMessages": &comandav1.RedriveMessagesRequest{Ids: []string{dead.String()}},
		"CancelMessages":  &comandav1.CancelMessagesRequest{Ids: []string{leased.ID.String()}},
		"PurgeQueue":      &comandav1.PurgeQueueRequest{Queue: "q"},
		"CreateQueue":     &comandav1.CreateQueueRequest{Queue: "new"},
		"UpdateQueue":     &comandav1.UpdateQueueRequest{Queue: "q", Settings: &comandav1.QueueSettings{MaxAttempts: 7}},
		"GetQueue":        &comandav1.GetQueueRequest{Queue: "q"},
		"ListQueues":      &comandav1.ListQueuesRequest{},
		"DeleteQueue":     &comandav1.DeleteQueueRequest{Queue: "q"},
		"PauseQueue":      &comandav1.PauseQueueRequest{Queue: "q"},
		"ResumeQueue":     &comandav1.ResumeQueueRequest{Queue: "q"},
		"LocateKey":       &comandav1.LocateKeyRequest{Queue: "q", Key: "k"},
		"ListOwners":      &comandav1.ListOwnersRequest{Queue: "q"},
		"GetServer":       &comandav1.GetServerRequest{},
		"ListShards":      &comandav1.ListShardsRequest{},
		"SplitShard":      &comandav1.SplitShardRequest{Queue: "q", Shard: "0"},
		"MoveShard":       &comandav1.MoveShardRequest{Queue: "q", Shard: "0", Node: node},
		"ListOperations":  &comandav1.ListOperationsRequest{},
		"GetOperation":    &comandav1.GetOperationRequest{Id: 1},
		"CancelOperation": &comandav1.CancelOperationRequest{Id: 1},
		"PauseOperation":  &comandav1.PauseOperationRequest{Id: 1},
		"ResumeOperation": &comandav1.ResumeOperationRequest{Id: 1},
		"RedriveQueue":    &comandav1.RedriveQueueRequest{Queue: "q"},
		"ListNodes":       &comandav1.ListNodesRequest{},
		"DrainNode":       &comandav1.DrainNodeRequest{Node: node},
		"RemoveNode":      &comandav1.RemoveNodeRequest{Node: node},
		"ListWorkers":     &comandav1.ListWorkersRequest{},
		"DrainWorker":     &comandav1.DrainWorkerRequest{Worker: "oven"},
	}
}

// call calls an RPC of any kind.
func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, req proto.Message) error {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	return callInto(t, conn, m, req, kind.New().Interface())
}

// callInto is call with a place for the answer.
func callInto(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, req, resp proto.Message) error {
	t.Helper()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	if !m.IsStreamingClient() {
		return conn.Invoke(t.Context(), path, req, resp)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil {
		return err
	}
	err = stream.RecvMsg(resp)
	if p, ok := resp.(*comandav1.ProduceResponse); ok && p.GetError().GetCode() == string(message.PermissionDenied) { // the stream goes on
		return status.Error(codes.PermissionDenied, p.GetError().GetMessage())
	}
	return err
}

// keeper lets nobody send to one queue.
type keeper struct{ queue string }

func (k keeper) Authorize(_ context.Context, a auth.Action, queue string) error {
	if a == auth.Send && queue == k.queue {
		return message.Errorf(message.PermissionDenied, "you may not %s %q", a, queue)
	}
	return nil
}

// Who may not send to a queue can't have the dead of another one go there, nor redrive
// them there.
func TestDeadLettersNeedTheRightToSend(t *testing.T) {
	n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data", Auth: keeper{"vault"}})
	w := &workload{t: t, g: n.Gateway()}
	w.create("vault", 1, message.Settings{})
	w.create("q", 1, message.Settings{})
	ctx, feeds := t.Context(), message.Settings{DeadLetterTo: "vault"}
	_, _, err := w.g.CreateQueue(ctx, "new", feeds, 1)
	if message.CodeOf(err) != message.PermissionDenied {
		t.Errorf("created: %v", err)
	}
	if _, err = w.g.UpdateQueue(ctx, "q", feeds, 0, false); message.CodeOf(err) != message.PermissionDenied {
		t.Errorf("updated: %v", err)
	}
	if _, err = w.g.RedriveQueue(ctx, "q", message.Redrive{To: "vault"}, "ann", false); message.CodeOf(err) != message.PermissionDenied {
		t.Errorf("redriven: %v", err)
	}
	end(t, n)
}

// Nor can they ack a message with a follow-up for it; without one they can.
func TestFollowUpsNeedTheRightToSend(t *testing.T) {
	n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data", Auth: keeper{"vault"}})
	w := &workload{t: t, g: n.Gateway()}
	w.create("vault", 1, message.Settings{})
	w.create("q", 1, message.Settings{})
	ctx := t.Context()
	if rs, err := w.g.Send(ctx, "q", []message.New{{}}); err != nil || rs[0].Err != nil {
		t.Fatal(rs, err)
	}
	got, err := w.g.Receive(ctx, "q", message.ReceiveOptions{Max: 1, Wait: 10 * time.Second, Lease: time.Hour, Worker: "w"})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	token, err := w.g.OpenToken(got[0].Token)
	if err != nil {
		t.Fatal(err)
	}
	ack := message.Settlement{Token: token, Action: message.Ack, FollowUps: []message.FollowUp{{Queue: "q"}, {Queue: "vault"}}}
	for _, want := range []message.Code{message.PermissionDenied, ""} {
		rs, err := w.g.Settle(ctx, []message.Settlement{ack})
		if err != nil || rs[0].Err == nil && want != "" || rs[0].Err != nil && rs[0].Err.Code != want {
			t.Errorf("%+v, %v, want %q", rs, err, want)
		}
		ack.FollowUps = ack.FollowUps[:1]
	}
	end(t, n)
}
