package native

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// requests holds a valid request for each RPC of the contract.
var requests = map[protoreflect.FullName]proto.Message{
	"comanda.v1.Messages.Send":            &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{{Body: []byte("b")}}},
	"comanda.v1.Messages.Receive":         &comandav1.ReceiveRequest{Queue: "q"},
	"comanda.v1.Messages.Settle":          &comandav1.SettleRequest{Settlements: []*comandav1.Settlement{{Token: tokenAt(1), Action: comandav1.Action_ACTION_ACK}}},
	"comanda.v1.Messages.Ack":             &comandav1.AckRequest{Token: tokenAt(1)},
	"comanda.v1.Messages.Nack":            &comandav1.NackRequest{Token: tokenAt(1)},
	"comanda.v1.Messages.Extend":          &comandav1.ExtendRequest{Token: tokenAt(1)},
	"comanda.v1.Messages.Release":         &comandav1.ReleaseRequest{Token: tokenAt(1)},
	"comanda.v1.Messages.Reject":          &comandav1.RejectRequest{Token: tokenAt(1)},
	"comanda.v1.Messages.Produce":         &comandav1.ProduceRequest{Send: &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{{Body: []byte("b")}}}},
	"comanda.v1.Messages.Work":            &comandav1.WorkRequest{Open: &comandav1.WorkOpen{Queues: []string{"q"}}, Credits: 1},
	"comanda.v1.Messages.ShowMessage":     &comandav1.ShowMessageRequest{Id: idAt(1).String()},
	"comanda.v1.Messages.ListMessages":    &comandav1.ListMessagesRequest{Queue: "q"},
	"comanda.v1.Messages.CancelMessages":  &comandav1.CancelMessagesRequest{Ids: []string{idAt(1).String()}},
	"comanda.v1.Messages.RedriveMessages": &comandav1.RedriveMessagesRequest{Ids: []string{idAt(1).String()}},
	"comanda.v1.Queues.CreateQueue":       &comandav1.CreateQueueRequest{Queue: "q"},
	"comanda.v1.Queues.UpdateQueue":       &comandav1.UpdateQueueRequest{Queue: "q"},
	"comanda.v1.Queues.GetQueue":          &comandav1.GetQueueRequest{Queue: "q"},
	"comanda.v1.Queues.ListQueues":        &comandav1.ListQueuesRequest{},
	"comanda.v1.Queues.DeleteQueue":       &comandav1.DeleteQueueRequest{Queue: "q"},
	"comanda.v1.Queues.PurgeQueue":        &comandav1.PurgeQueueRequest{Queue: "q"},
	"comanda.v1.Queues.PauseQueue":        &comandav1.PauseQueueRequest{Queue: "q"},
	"comanda.v1.Queues.ResumeQueue":       &comandav1.ResumeQueueRequest{Queue: "q"},
	"comanda.v1.Queues.LocateKey":         &comandav1.LocateKeyRequest{Queue: "q", Key: "k"},
	"comanda.v1.Queues.ListOwners":        &comandav1.ListOwnersRequest{Queue: "q"},
	"comanda.v1.Cluster.GetServer":        &comandav1.GetServerRequest{},
	"comanda.v1.Cluster.ListShards":       &comandav1.ListShardsRequest{},
	"comanda.v1.Cluster.SplitShard":       &comandav1.SplitShardRequest{Queue: "q", Shard: "0"},
	"comanda.v1.Cluster.MoveShard":        &comandav1.MoveShardRequest{Queue: "q", Shard: "0", Node: "n"},
	"comanda.v1.Cluster.ListOperations":   &comandav1.ListOperationsRequest{},
	"comanda.v1.Cluster.GetOperation":     &comandav1.GetOperationRequest{Id: 9},
	"comanda.v1.Cluster.CancelOperation":  &comandav1.CancelOperationRequest{Id: 9},
	"comanda.v1.Cluster.PauseOperation":   &comandav1.PauseOperationRequest{Id: 9},
	"comanda.v1.Cluster.ResumeOperation":  &comandav1.ResumeOperationRequest{Id: 9},
	"comanda.v1.Queues.RedriveQueue":      &comandav1.RedriveQueueRequest{Queue: "q"},
	"comanda.v1.Cluster.ListNodes":        &comandav1.ListNodesRequest{},
	"comanda.v1.Cluster.DrainNode":        &comandav1.DrainNodeRequest{Node: "n"},
	"comanda.v1.Cluster.RemoveNode":       &comandav1.RemoveNodeRequest{Node: "n"},
	"comanda.v1.Cluster.ListWorkers":      &comandav1.ListWorkersRequest{},
	"comanda.v1.Cluster.DrainWorker":      &comandav1.DrainWorkerRequest{Worker: "w"},
}

// requestOf is the valid request of the RPC with that short name.
func requestOf(op string) proto.Message {
	for name, req := range requests {
		if string(name.Name()) == op {
			return req
		}
	}
	return nil
}

// eachRPC calls f for each RPC of the contract with a request that is valid.
func eachRPC(t *testing.T, f func(t *testing.T, m protoreflect.MethodDescriptor, req proto.Message)) {
	t.Helper()
	services := comandav1.File_comanda_v1_comanda_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			t.Run(string(m.FullName()), func(t *testing.T) {
				req := requests[m.FullName()]
				if req == nil {
					t.Fatal("a new RPC: add a valid request of it to the table")
				}
				f(t, m, req)
			})
		}
	}
}

// call calls an RPC of any kind and answers with the error of the call.
func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, req proto.Message) error {
	t.Helper()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	resp := kind.New().Interface()
	if m.IsStreamingClient() {
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) { // of EOF RecvMsg says the reason
			t.Fatal(err)
		}
		err = stream.RecvMsg(resp)
		if p, ok := resp.(*comandav1.ProduceResponse); ok && p.GetError() != nil { // the stream goes on
			err = statusOf(&message.Error{Code: message.Code(p.GetError().GetCode()), Text: p.GetError().GetMessage()}, nil)
		}
		return err
	}
	return conn.Invoke(t.Context(), path, req, resp)
}

func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "comanda" {
			return info.GetReason()
		}
	}
	return ""
}

// A gateway that denies everything denies every RPC: none answers by itself.
func TestEveryRPCAsksAVerb(t *testing.T) {
	eachRPC(t, func(t *testing.T, m protoreflect.MethodDescriptor, req proto.Message) {
		f := newFake()
		f.err = message.Errorf(message.PermissionDenied, "no right")
		err := call(t, dial(t, f, "localhost"), m, req)
		if status.Code(err) != codes.PermissionDenied || reason(err) != "PERMISSION_DENIED" || status.Convert(err).Message() != "no right" {
			t.Errorf("got %v (%s), want the denial", err, reason(err))
		}
	})
}

// And every path of the OpenAPI file is a route that asks a verb.
func TestEveryOpenAPIPathAsksAVerb(t *testing.T) {
	text, err := os.ReadFile("../../../api/comanda/v1/comanda.swagger.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	served := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			served++
			name := protoreflect.FullName("comanda.v1." + strings.Replace(op.OperationID, "_", ".", 1))
			t.Run(string(name), func(t *testing.T) {
				f := newFake()
				f.err = message.Errorf(message.PermissionDenied, "no right")
				target, body := restForm(t, path, requests[name])
				if !restRoutes()[strings.ToUpper(method)+" "+path].body {
					body = ""
				}
				code, answer := do(t, f, strings.ToUpper(method), target, body, "Content-Type", "application/json")
				if code != http.StatusForbidden || !strings.Contains(answer, `"PERMISSION_DENIED"`) || len(f.seen()) != 1 {
					t.Errorf("%s %s %s: %d %s, verbs %v", method, target, body, code, answer, f.seen())
				}
			})
		}
	}
	if served != len(requests)-2 { // all but Produce and Work
		t.Errorf("the file has %d operations, the contract %d RPCs", served, len(requests))
	}
}

// The OpenAPI file has the words of enums that REST has.
func TestOpenAPIHasTheWords(t *testing.T) {
	text, err := os.ReadFile("../../../api/comanda/v1/comanda.swagger.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Definitions map[string]struct{ Enum []string }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	enums := comandav1.File_comanda_v1_comanda_proto.Enums()
	found := 0
	for i := range enums.Len() {
		e := enums.Get(i)
		for j, word := range doc.Definitions["v1"+string(e.Name())].Enum {
			if want := comandav1.Word(e, e.Values().Get(j).Number()); word != want {
				t.Errorf("%s: the file has %s, REST %s", e.Name(), word, want)
			}
			found++
		}
	}
	if found == 0 {
		t.Error("the file has no words")
	}
}

// restForm puts a request's fields into the path, and leaves the rest as JSON.
func restForm(t testing.TB, path string, req proto.Message) (target, body string) {
	t.Helper()
	rest := proto.Clone(req)
	target = regexp.MustCompile(`{(\w+)}`).ReplaceAllStringFunc(path, func(name string) string {
		field := rest.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(strings.Trim(name, "{}")))
		value := rest.ProtoReflect().Get(field).String()
		rest.ProtoReflect().Clear(field)
		return value
	})
	text, err := protojson.Marshal(rest)
	if err != nil {
		t.Fatal(err)
	}
	return target, string(text)
}

// raw is a codec that sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal([]byte, any) error { return nil }

func (raw) Name() string { return "proto" }

// Bytes that are no request are the client's mistake: no verb is asked, and nothing is
// logged as a defect of the server.
func TestBytesThatAreNoRequest(t *testing.T) {
	eachRPC(t, func(t *testing.T, m protoreflect.MethodDescriptor, _ proto.Message) {
		f, log := newFake(), &strings.Builder{}
		conn := serve(t, New(Options{Verbs: f, Allowed: AllowHosts(), Logger: slog.New(slog.NewTextHandler(log, nil))}), "localhost")
		path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
		var err error
		if m.IsStreamingClient() {
			var stream grpc.ClientStream
			if stream, err = conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path, grpc.ForceCodec(raw{})); err == nil {
				err = errors.Join(stream.SendMsg([]byte{0xff}), stream.RecvMsg(nil))
			}
		} else {
			err = conn.Invoke(t.Context(), path, []byte{0xff}, nil, grpc.ForceCodec(raw{}))
		}
		if status.Code(err) != codes.InvalidArgument || reason(err) != "INVALID_ARGUMENT" || len(f.seen()) != 0 || log.Len() != 0 {
			t.Errorf("got %v (%s), verbs %v, log %s", err, reason(err), f.seen(), log)
		}
	})
}

// A page of another site, and a name that was rebound to loopback, change
// nothing and learn nothing.
func TestForeignHostsReachNoVerb(t *testing.T) {
	eachRPC(t, func(t *testing.T, m protoreflect.MethodDescriptor, req proto.Message) {
		f := newFake()
		err := call(t, dial(t, f, "evil.test"), m, req)
		if status.Code(err) != codes.PermissionDenied || reason(err) != "FOREIGN_ORIGIN" || len(f.seen()) != 0 {
			t.Errorf("got %v (%s), verbs %v", err, reason(err), f.seen())
		}
	})
	for _, header := range [][]string{
		{"Host", "evil.test"},
		{"Host", "evil.test:7400"},
		{"Host", ""},
		{"Host", "localhost.evil.test"},
		{"Host", "127.0.0.1.evil.test"},
		{"Host", "0.0.0.0:7400"},
		{"Origin", "https://evil.test"},
		{"Origin", "null"},
		{"Origin", ""},
		{"Origin", "http://localhost:7400", "Origin", "https://evil.test"},
		{"Origin", "https://localhost@evil.test"},
		{"Origin", "file:///localhost"},
	} {
		f := newFake()
		code, answer := do(t, f, "POST", "/v1/queues/q/messages", "b", header...)
		if code != http.StatusForbidden || !strings.Contains(answer, `"FOREIGN_ORIGIN"`) || len(f.seen()) != 0 {
			t.Errorf("%q: %d %s, verbs %v", header, code, answer, f.seen())
		}
	}
	for _, header := range [][]string{
		{"Host", "localhost"},
		{"Host", "LOCALHOST:7400"},
		{"Host", "127.0.0.9:7400"},
		{"Host", "[::1]:7400"},
		{"Host", "[::1]"},
		{"Host", "comanda.test"},
		{"Host", "Comanda.Test:80", "Origin", "https://comanda.test"},
		{"Origin", "http://127.0.0.1:7400"},
	} {
		if code, answer := do(t, newFake(), "POST", "/v1/queues/q/messages", "b", header...); code != http.StatusOK {
			t.Errorf("%q: %d %s", header, code, answer)
		}
	}
}

// dictionary reads the codes from where they are defined.
func dictionary(t *testing.T) (all []message.Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../message/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				code, _ := strconv.Unquote(lit.Value)
				all = append(all, message.Code(code))
			}
		}
		return true
	})
	return all
}

// Each code of the dictionary is known to both dialects, and only a defect of
// ours keeps its words to itself.
func TestEveryCodeHasAStatus(t *testing.T) {
	all := dictionary(t)
	if len(all) < 10 || len(all) != len(statuses) {
		t.Errorf("%d codes in the dictionary, %d in the table", len(all), len(statuses))
	}
	getQueue := comandav1.File_comanda_v1_comanda_proto.Services().ByName("Queues").Methods().ByName("GetQueue")
	for _, code := range all {
		f := newFake()
		f.err = message.Errorf(code, "words")
		err := call(t, dial(t, f, "localhost"), getQueue, requests[getQueue.FullName()])
		if reason(err) != string(code) || status.Code(err) != statuses[code].grpc {
			t.Errorf("%s: gRPC says %v (%s)", code, err, reason(err))
		}
		if told := status.Convert(err).Message() == "words"; told == (code == message.Internal) {
			t.Errorf("%s: the client is told %v", code, err)
		}
		if got, answer := do(t, f, "GET", "/v1/queues/q", ""); got != statuses[code].http || !strings.Contains(answer, `"`+string(code)+`"`) {
			t.Errorf("%s: REST says %d %s", code, got, answer)
		}
	}
}

// A panic is one request's defect: it is answered, and the connection goes on.
func TestPanicIsOneRequestsDefect(t *testing.T) {
	eachRPC(t, func(t *testing.T, m protoreflect.MethodDescriptor, req proto.Message) {
		f := newFake()
		f.panics = true
		conn := dial(t, f, "localhost")
		for range 2 {
			if err := call(t, conn, m, req); status.Code(err) != codes.Internal || reason(err) != "INTERNAL" || strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), "may have happened") {
				t.Errorf("got %v (%s)", err, reason(err))
			}
		}
	})
	f := newFake()
	f.waitingPanics = true
	stream := startWork(t.Context(), t, f, openRequest(1, "a", "b"))
	if _, err := stream.Recv(); reason(err) != "INTERNAL" {
		t.Errorf("a stream that awaits two queues: %v (%s)", err, reason(err))
	}
	f = newFake()
	f.panics = true
	if code, answer := do(t, f, "GET", "/v1/queues/q", ""); code != http.StatusInternalServerError || strings.Contains(answer, "planted") {
		t.Errorf("REST says %d %s", code, answer)
	}
}
