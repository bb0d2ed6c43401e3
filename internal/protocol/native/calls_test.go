package native

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// invoke calls a unary RPC by its short name and answers with JSON under the
// contract's names.
func invoke(t *testing.T, f *fake, name string, req proto.Message) (string, error) {
	t.Helper()
	output := strings.TrimSuffix(string(req.ProtoReflect().Descriptor().FullName()), "Request") + "Response"
	kind, err := protoregistry.GlobalTypes.FindMessageByURL(output)
	if err != nil {
		t.Fatal(err)
	}
	resp := kind.New().Interface()
	err = dial(t, f, "localhost").Invoke(t.Context(), "/comanda.v1."+name, req, resp)
	text, merr := protojson.MarshalOptions{UseProtoNames: true}.Marshal(resp)
	if merr != nil {
		t.Fatal(merr)
	}
	return strings.ReplaceAll(string(text), " ", ""), err
}

const shownJSON = `{"id":"00000010-0000-8000-8000-000000000001","queue":"q","state":"scheduled","reason":"delayed","key":"k","type":"t",` +
	`"attempts":2,"deliveries":3,"worker_deaths":1,"sent_at":"2026-11-24T12:00:00Z","ready_at":"2026-11-24T12:00:01Z",` +
	`"attributes":{"a":{"number":"12.50"}},"body":"Yg==","body_size":1,` +
	`"timeline":[{"at":"2026-11-24T12:00:00Z","event":"sent","worker":"w","attempt":1,"error":"x","from":"p","to":"q"}],"shard":"q/0","worker":"w","last_error":"e"}`

const freshJSON = `"freshness":{"served_by":"n1","role":"leader","age_ms":5}`

const queueJSON = `{"name":"q","settings":{"backoff":{"kind":"BACKOFF_KIND_EXPONENTIAL","initial":"1s","max":"3600s"},` +
	`"keep_finished":10000,"keep_finished_for":"3600s","max_message_bytes":1048576,"max_worker_deaths":3,"on_failure":"ON_FAILURE_BLOCK","on_expired":"ON_EXPIRED_DROP","assign":"ASSIGN_ALL","dedup_window":"300s"},"paused":true`

const nodeJSON = `{"id":"7","name":"n1","state":"suspect","draining":true,"boot":"3","labels":{"zone":"a"},"listen":"l:1","advertise":"p:2","version":"v","replicas":5,"leads":2}`

const workerJSON = `{"id":"w","state":"suspect","last_beat_ms":6000,"holds":2,"queues":["q"],"slots":8,"node":"n1","session":"5","reason":"silent","ttl":"10s"}`

// Each RPC asks its verb for what the request says, and answers with what the
// verb says.
func TestCalls(t *testing.T) {
	token := tokenAt(1)
	for _, c := range []struct {
		name string
		req  proto.Message
		verb string
		resp string
	}{
		{
			"Messages/Send", &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{
				{Body: []byte{0, 255}, Key: "k", Type: "t", Delay: durationpb.New(time.Minute), Attributes: map[string]*comandav1.Attribute{
					"s": {Value: &comandav1.Attribute_String_{String_: "x"}},
					"n": {Value: &comandav1.Attribute_Number{Number: "12.50"}},
					"b": {Value: &comandav1.Attribute_Bytes{Bytes: []byte("y")}},
					"z": {},
				}},
				{},
			}},
			`send q ["\x00\xff" key=k type=t delay=1m0s [b:3:y n:2:12.50 s:1:x z:0:]] ["" key= type= delay=0s []]`,
			`{"results":[{"id":"00000010-0000-8000-8000-000000000001"},{"id":"00000010-0000-8000-8000-000000000002"}]}`,
		},
		{
			"Messages/Send", &comandav1.SendRequest{Queue: "q", Atomic: true, Messages: []*comandav1.NewMessage{{Key: "k"}}},
			`send atomic q ["" key=k type= delay=0s []]`, "",
		},
		{
			"Messages/Receive", &comandav1.ReceiveRequest{Queue: "q", Max: 5, Wait: durationpb.New(2 * time.Second), Lease: durationpb.New(time.Minute), Worker: "w"},
			`receive q max=5 wait=2s lease=1m0s worker=w`,
			`{"messages":[{"id":"00000010-0000-8000-8000-000000000001","token":"` + token + `","attempt":1,"body":"Ym9keQ==","fence":"9223372036854775809",` +
				`"sent_at":"2026-11-24T12:00:00Z","queue":"q","deliveries":1,"lease":"30s"}]}`,
		},
		{"Messages/Receive", &comandav1.ReceiveRequest{Queue: "q", MaxPerKey: 7}, `receive q max=1 wait=0s lease=30s worker=bufconn per key=7`, ""},
		{"Messages/Receive", &comandav1.ReceiveRequest{Queue: "q"}, `receive q max=1 wait=0s lease=30s worker=bufconn`, ""},
		{
			"Messages/Settle", &comandav1.SettleRequest{Settlements: []*comandav1.Settlement{
				{Token: token, Action: comandav1.Action_ACTION_NACK, Error: "e", Delay: durationpb.New(0)},
				{Token: "x", Action: comandav1.Action_ACTION_ACK},
				{Token: tokenAt(2), Action: comandav1.Action_ACTION_ACK},
			}},
			`settle [1 action=2 "e" delay=0s/true lease=0s] [2 action=1 "" delay=0s/false lease=0s]`,
			`{"results":[{"state":"MESSAGE_STATE_FINISHED"},{"error":{"code":"INVALID_ARGUMENT","message":"notatokenofthiscluster:usethetokenexactlyasitwasreceived"}},{"state":"MESSAGE_STATE_FINISHED"}]}`,
		},
		{
			"Messages/Settle", &comandav1.SettleRequest{Settlements: []*comandav1.Settlement{
				{Token: token, Action: comandav1.Action_ACTION_ACK, FollowUps: []*comandav1.FollowUp{
					{Queue: "next", Message: &comandav1.NewMessage{Body: []byte("b"), Key: "k", Delay: durationpb.New(time.Second)}}, {Queue: "q"},
				}},
				{Token: tokenAt(2), Action: comandav1.Action_ACTION_ACK, FollowUps: []*comandav1.FollowUp{{Message: &comandav1.NewMessage{OnConflict: 300}}}},
			}},
			`settle [1 action=1 "" delay=0s/false lease=0s and next "b" key=k delay=1s and q "" key= delay=0s]`,
			`{"results":[{"state":"MESSAGE_STATE_FINISHED","follow_up_ids":["00000010-0000-8000-8000-000000000001","00000010-0000-8000-8000-000000000002"]},` +
				`{"error":{"code":"INVALID_ARGUMENT","message":"on_conflict300:wantrejectorexisting"}}]}`,
		},
		{"Messages/Ack", &comandav1.AckRequest{Token: token}, `settle [1 action=1 "" delay=0s/false lease=0s]`, `{}`},
		{
			"Messages/Nack", &comandav1.NackRequest{Token: token, Error: "e", Delay: durationpb.New(time.Second)},
			`settle [1 action=2 "e" delay=1s/true lease=0s]`, `{"state":"MESSAGE_STATE_FINISHED"}`,
		},
		{"Messages/Reject", &comandav1.RejectRequest{Token: token, Error: "e"}, `settle [1 action=3 "e" delay=0s/false lease=0s]`, `{}`},
		{"Messages/Release", &comandav1.ReleaseRequest{Token: token, Delay: durationpb.New(time.Second)}, `settle [1 action=4 "" delay=1s/true lease=0s]`, `{}`},
		{"Messages/Extend", &comandav1.ExtendRequest{Token: token, Lease: durationpb.New(time.Minute)}, `settle [1 action=5 "" delay=0s/false lease=1m0s]`, `{}`},
		{"Messages/Extend", &comandav1.ExtendRequest{Token: token}, `settle [1 action=5 "" delay=0s/false lease=30s]`, `{}`},
		{
			"Messages/ShowMessage", &comandav1.ShowMessageRequest{Id: idAt(1).String(), Wait: durationpb.New(time.Second)},
			`show 00000010-0000-8000-8000-000000000001 wait=1s`, `{"message":` + shownJSON + `,` + freshJSON + `}`,
		},
		{
			"Messages/ListMessages", &comandav1.ListMessagesRequest{Queue: "q", State: "dead", Max: 3, Page: "p"},
			`list q dead max=3 page=p`, `{"messages":[` + shownJSON + `],"next_page":"next",` + freshJSON + `,"plan":{"index":"key","rows":4,"queues":1,"reads":2}}`,
		},
		{"Messages/ListMessages", &comandav1.ListMessagesRequest{Queue: "q", Tenant: "t"}, `list q unknown max=100 page= tenant=t`, ""},
		{"Messages/ListMessages", &comandav1.ListMessagesRequest{Queue: "q"}, `list q unknown max=100 page=`, ""},
		{
			"Messages/ListMessages", &comandav1.ListMessagesRequest{Queue: "*", Key: "k", Type: "t", Since: timestamppb.New(time.Unix(60, 0)), Until: timestamppb.New(time.Unix(120, 0))},
			`list * unknown max=100 page= key=k type=t since=12:01AM until=12:02AM`, "",
		},
		{
			"Messages/CancelMessages", &comandav1.CancelMessagesRequest{Ids: []string{"x", idAt(1).String()}, Force: true, Grace: durationpb.New(time.Second)},
			`cancel [00000010-0000-8000-8000-000000000001] true 1s`,
			`{"results":[{"id":"x","error":{"code":"INVALID_ARGUMENT","message":"id\"x\":notamessageid:wantaUUIDversion8as36characters"}},{"id":"00000010-0000-8000-8000-000000000001","state":"MESSAGE_STATE_CANCELLED"}]}`,
		},
		{
			"Messages/RedriveMessages", &comandav1.RedriveMessagesRequest{Ids: []string{"x", idAt(1).String()}, ResetAttempts: true},
			`redrive [00000010-0000-8000-8000-000000000001] true`,
			`{"results":[{"id":"x","error":{"code":"INVALID_ARGUMENT","message":"id\"x\":notamessageid:wantaUUIDversion8as36characters"}},{"id":"00000010-0000-8000-8000-000000000001"}]}`,
		},
		{
			"Queues/RedriveQueue", &comandav1.RedriveQueueRequest{
				Queue: "q", Rate: 5, ResetAttempts: true, To: "other", By: "ann",
				Filter: &comandav1.DeadFilter{
					Type: "t", Key: "k", Tenant: "n", Reason: "nacked", Attributes: map[string]string{"a": "v"},
					DeadSince: timestamppb.New(time.Unix(1, 0)), DeadUntil: timestamppb.New(time.Unix(2, 0)),
				},
			},
			`redrive queue q with type "t", key "k", tenant "n", reason "nacked", a "v", dead since 1970-01-01T00:00:01Z, dead before 1970-01-01T00:00:02Z rate=5 reset=true to=other by=ann dry=false`, "",
		},
		{"Queues/RedriveQueue", &comandav1.RedriveQueueRequest{Queue: "q", By: "ann", DryRun: true}, `redrive queue q with  rate=0 reset=false to= by=ann dry=true`, `{"count":"7"}`},
		{"Cluster/PauseOperation", &comandav1.PauseOperationRequest{Id: 9, By: "ann"}, `pause operation 9 true by ann`, ""},
		{"Cluster/ResumeOperation", &comandav1.ResumeOperationRequest{Id: 9, By: "ann"}, `pause operation 9 false by ann`, ""},
		{
			"Queues/CreateQueue", &comandav1.CreateQueueRequest{Queue: "q", Shards: 4, Settings: &comandav1.QueueSettings{
				MaxAttempts: 3, KeepFinished: 4, KeepFinishedFor: durationpb.New(time.Minute), MaxMessageBytes: 5,
				RatePerKey: &comandav1.Rate{Count: 6, Per: durationpb.New(time.Minute)},
				Backoff: &comandav1.Backoff{
					Kind: comandav1.BackoffKind_BACKOFF_KIND_LIST, Initial: durationpb.New(time.Second), Max: durationpb.New(time.Hour),
					List: []*durationpb.Duration{durationpb.New(time.Second), durationpb.New(2 * time.Second)},
				},
			}},
			`create q {MaxAttempts:3 MaxWorkerDeaths:0 Backoff:{Kind:3 Initial:1s Max:1h0m0s List:[1s 2s]} KeepFinished:4 KeepFinishedFor:1m0s MaxMessageBytes:5 OnFailure:0 OnExpired:0 MaxInFlight:0 Rate:{Count:0 Per:0s} RatePerKey:{Count:6 Per:1m0s} Assign:0 DeadLetterTo: DedupWindow:0s} shards=4`,
			`{"queue":` + queueJSON + `,"shards":2,"version":"9"},"created":true}`,
		},
		{"Queues/CreateQueue", &comandav1.CreateQueueRequest{Queue: "q"}, `create q {MaxAttempts:0 MaxWorkerDeaths:0 Backoff:{Kind:0 Initial:0s Max:0s List:[]} KeepFinished:0 KeepFinishedFor:0s MaxMessageBytes:0 OnFailure:0 OnExpired:0 MaxInFlight:0 Rate:{Count:0 Per:0s} RatePerKey:{Count:0 Per:0s} Assign:0 DeadLetterTo: DedupWindow:0s} shards=1`, ""},
		{
			"Queues/UpdateQueue", &comandav1.UpdateQueueRequest{Queue: "q", Settings: &comandav1.QueueSettings{MaxAttempts: 7}, Version: 3, DryRun: true},
			`update q 7 version=3 dry=true`, `{"queue":` + queueJSON + `,"shards":2,"version":"9"}}`,
		},
		{
			"Queues/GetQueue", &comandav1.GetQueueRequest{Queue: "q"}, `queue q`,
			`{"queue":` + queueJSON + `,"counts":{"ready":"1152921504606846976","scheduled":"2","leased":"3","dead":"4","finished":"5"},"shards":2,"receivers":6,"received_at":"2026-11-24T12:00:00Z","version":"9","oldest_age":"2s","totals":{"sent":"1","delivered":"2","finished":"3","failed":"4"},"leaving":"7"},` + freshJSON + `}`,
		},
		{"Queues/ListQueues", &comandav1.ListQueuesRequest{Max: 2, Page: "p", Stale: durationpb.New(5 * time.Second)}, `queues max=2 page=p stale=5s`, `{"queues":[` + queueJSON + `,"shards":2,"version":"9"}],"next_page":"next",` + freshJSON + `}`},
		{"Queues/ListQueues", &comandav1.ListQueuesRequest{}, `queues max=100 page= stale=0s`, ""},
		{"Queues/DeleteQueue", &comandav1.DeleteQueueRequest{Queue: "q"}, `delete q`, `{}`},
		{"Queues/PurgeQueue", &comandav1.PurgeQueueRequest{Queue: "q"}, `purge q`, `{}`},
		{"Queues/PauseQueue", &comandav1.PauseQueueRequest{Queue: "q"}, `pause q true`, `{}`},
		{"Queues/PauseQueue", &comandav1.PauseQueueRequest{Queue: "q", Key: "k", By: "ann"}, `pause q true key=k tenant= by=ann`, `{}`},
		{"Queues/ResumeQueue", &comandav1.ResumeQueueRequest{Queue: "q", Tenant: "t"}, `pause q false key= tenant=t by=`, `{}`},
		{"Queues/ResumeQueue", &comandav1.ResumeQueueRequest{Queue: "q"}, `pause q false`, `{}`},
		{
			"Queues/LocateKey", &comandav1.LocateKeyRequest{Queue: "q", Key: "k"}, `locate q k`,
			`{"hash":"00000000000000ab","shard":"q/0","group":3,"leader":"n1","followers":["n2"]}`,
		},
		{
			"Queues/ListOwners", &comandav1.ListOwnersRequest{Queue: "q"}, `owners q`,
			`{"shards":[{"shard":"q/0","from":"0000000000000000","to":"0000000000000007","group":3,"leader":"n1","followers":["n2"],"workers":[{"worker":"w","share":0.25}]}]}`,
		},
		{
			"Cluster/GetServer", &comandav1.GetServerRequest{}, `server`,
			`{"version":"v","node":"n1","started_at":"2026-11-24T12:00:00Z","disk":{"free_bytes":"9223372036854775809","fsync_p99_us":"1000"},` +
				`"memory":{},"groups":[{"group":1,"leader":"n1","term":"4611686018427387904","applied":"9","voters":1,"learners":2,"wanted_voters":3,"alive_voters":4}]}`,
		},
		{
			"Cluster/ListShards", &comandav1.ListShardsRequest{Queue: "q", Max: 2, Page: "p"}, `shards q max=2 page=p`,
			`{"shards":[{"id":"q/0","queue":"q","from":"0000000000000000","to":"ffffffffffffffff","group":3,"leader":"n1","counts":{"ready":"7"}}],` + freshJSON + `,"next_page":"next"}`,
		},
		{"Cluster/ListShards", &comandav1.ListShardsRequest{}, `shards  max=100 page=`, ""},
		{
			"Cluster/ListWorkers", &comandav1.ListWorkersRequest{Max: 2, Page: "p"}, `workers max=2 page=p`,
			`{"workers":[` + workerJSON + `],"next_page":"next","unreached":[4]}`,
		},
		{"Cluster/ListWorkers", &comandav1.ListWorkersRequest{}, `workers max=100 page=`, ""},
		{"Cluster/DrainWorker", &comandav1.DrainWorkerRequest{Worker: "w"}, `drain worker w`, `{"workers":[` + workerJSON + `],"unreached":[4]}`},
		{
			"Cluster/SplitShard", &comandav1.SplitShardRequest{Queue: "q", Shard: "0"}, `split q 0`,
			`{"shards":[{"id":"q/0.0","queue":"q","from":"0000000000000000","to":"0000000000000007","group":3,"leader":"n1","followers":["n2"],"counts":{}}]}`,
		},
		{"Cluster/ListNodes", &comandav1.ListNodesRequest{}, `nodes`, `{"nodes":[` + nodeJSON + `]}`},
		{"Cluster/DrainNode", &comandav1.DrainNodeRequest{Node: "n1"}, `drain n1 undo=false`, `{"node":` + nodeJSON + `}`},
		{"Cluster/DrainNode", &comandav1.DrainNodeRequest{Node: "n1", Undo: true}, `drain n1 undo=true`, ""},
		{"Cluster/RemoveNode", &comandav1.RemoveNodeRequest{Node: "n1"}, `remove n1 accept-one-disk=false`, `{}`},
		{"Cluster/RemoveNode", &comandav1.RemoveNodeRequest{Node: "n1", AcceptOneDisk: true}, `remove n1 accept-one-disk=true`, ""},
	} {
		f := newFake()
		if c.resp != "" {
			f.fill("q", 1, []byte("body"))
		}
		resp, err := invoke(t, f, c.name, c.req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := strings.Join(f.seen(), "\n"); got != c.verb {
			t.Errorf("%s %s: asked\n%s\nwant\n%s", c.name, prototext.Format(c.req), got, c.verb)
		}
		if c.resp != "" && resp != c.resp {
			t.Errorf("%s: answers\n%s\nwant\n%s", c.name, resp, c.resp)
		}
	}
}

// What the contract has a place for and nobody built, and what makes no sense,
// is refused before any verb is asked, and by name.
func TestRefusals(t *testing.T) {
	token := tokenAt(1)
	send := func(m *comandav1.NewMessage) proto.Message {
		return &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{m}}
	}
	settle := func(s *comandav1.Settlement) proto.Message {
		return &comandav1.SettleRequest{Settlements: []*comandav1.Settlement{s}}
	}
	redrive := func(f *comandav1.DeadFilter) proto.Message {
		return &comandav1.RedriveQueueRequest{Queue: "q", Filter: f}
	}
	settings := func(s *comandav1.QueueSettings) proto.Message {
		return &comandav1.CreateQueueRequest{Queue: "q", Settings: s}
	}
	broken := &durationpb.Duration{Seconds: 1, Nanos: -1}
	for _, c := range []struct {
		name   string
		req    proto.Message
		reason string
		word   string
	}{
		{"Messages/Send", &comandav1.SendRequest{Queue: "q"}, "INVALID_ARGUMENT", "messages"},
		{"Messages/Send", &comandav1.SendRequest{Queue: "q", Messages: make([]*comandav1.NewMessage, 1001)}, "INVALID_ARGUMENT", "1001 messages"},
		{"Messages/Send", send(&comandav1.NewMessage{Retry: &comandav1.Retry{Backoff: &comandav1.Backoff{Kind: 9}}}), "INVALID_ARGUMENT", "backoff kind 9"},
		{"Messages/Send", send(&comandav1.NewMessage{DeliverAt: &timestamppb.Timestamp{Nanos: -1}}), "INVALID_ARGUMENT", "deliver_at"},
		{"Messages/Send", send(&comandav1.NewMessage{Expires: &timestamppb.Timestamp{Seconds: 1 << 50}}), "INVALID_ARGUMENT", "expires"},
		{"Messages/Send", send(&comandav1.NewMessage{OnConflict: 258}), "INVALID_ARGUMENT", "on_conflict 258"},
		{"Messages/Send", send(&comandav1.NewMessage{Delay: broken}), "INVALID_ARGUMENT", "delay"},
		{"Messages/Send", &comandav1.SendRequest{Queue: "q", Atomic: true, Messages: []*comandav1.NewMessage{{}, {Delay: broken}}}, "INVALID_ARGUMENT", "delay"},
		{"Messages/Receive", &comandav1.ReceiveRequest{Queue: "q", Wait: broken}, "INVALID_ARGUMENT", "wait"},
		{"Messages/Receive", &comandav1.ReceiveRequest{Queue: "q", Lease: broken}, "INVALID_ARGUMENT", "lease"},
		{"Messages/Settle", &comandav1.SettleRequest{}, "INVALID_ARGUMENT", "settlements"},
		{"Messages/Settle", settle(&comandav1.Settlement{Token: "x", Action: comandav1.Action_ACTION_ACK}), "INVALID_ARGUMENT", "token"},
		{"Messages/Settle", settle(&comandav1.Settlement{Token: token}), "INVALID_ARGUMENT", "action 0"},
		{"Messages/Settle", settle(&comandav1.Settlement{Token: token, Action: 9}), "INVALID_ARGUMENT", "action 9"},
		{"Messages/Settle", settle(&comandav1.Settlement{Token: token, Action: comandav1.Action_ACTION_ACK, Error: "e"}), "INVALID_ARGUMENT", "error is for nack and reject only"},
		{"Messages/Settle", settle(&comandav1.Settlement{Token: token, Action: comandav1.Action_ACTION_REJECT, Delay: durationpb.New(1)}), "INVALID_ARGUMENT", "delay is for nack and release only"},
		{"Messages/Settle", settle(&comandav1.Settlement{Token: token, Action: comandav1.Action_ACTION_ACK, Lease: durationpb.New(1)}), "INVALID_ARGUMENT", "lease is for extend only"},
		{"Messages/Ack", &comandav1.AckRequest{Token: "x"}, "INVALID_ARGUMENT", "token"},
		{"Messages/Nack", &comandav1.NackRequest{Token: token, Delay: broken}, "INVALID_ARGUMENT", "delay"},
		{"Messages/Extend", &comandav1.ExtendRequest{Token: token, Lease: broken}, "INVALID_ARGUMENT", "lease"},
		{"Messages/ShowMessage", &comandav1.ShowMessageRequest{Id: "x"}, "INVALID_ARGUMENT", "id"},
		{"Messages/ShowMessage", &comandav1.ShowMessageRequest{Id: idAt(1).String(), Wait: broken}, "INVALID_ARGUMENT", "wait"},
		{"Messages/ListMessages", &comandav1.ListMessagesRequest{Queue: "q", State: "lost"}, "INVALID_ARGUMENT", "lost"},
		{"Messages/ListMessages", &comandav1.ListMessagesRequest{Queue: "q", Since: &timestamppb.Timestamp{Nanos: -1}}, "INVALID_ARGUMENT", "since"},
		{"Messages/ListMessages", &comandav1.ListMessagesRequest{Queue: "q", Until: &timestamppb.Timestamp{Nanos: -1}}, "INVALID_ARGUMENT", "until"},
		{"Messages/RedriveMessages", &comandav1.RedriveMessagesRequest{}, "INVALID_ARGUMENT", "ids"},
		{"Messages/CancelMessages", &comandav1.CancelMessagesRequest{}, "INVALID_ARGUMENT", "ids"},
		{"Messages/CancelMessages", &comandav1.CancelMessagesRequest{Ids: []string{idAt(1).String()}, Grace: broken}, "INVALID_ARGUMENT", "grace"},
		{"Queues/RedriveQueue", redrive(&comandav1.DeadFilter{DeadSince: &timestamppb.Timestamp{Nanos: -1}}), "INVALID_ARGUMENT", "dead_since"},
		{"Queues/RedriveQueue", redrive(&comandav1.DeadFilter{DeadUntil: &timestamppb.Timestamp{Seconds: 1 << 50}}), "INVALID_ARGUMENT", "dead_until"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{OnFailure: 258}), "INVALID_ARGUMENT", "on_failure 258"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{Assign: -1}), "INVALID_ARGUMENT", "assign -1"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{Rate: &comandav1.Rate{Count: 1, Per: broken}}), "INVALID_ARGUMENT", "rate per"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{RatePerKey: &comandav1.Rate{Count: 1, Per: broken}}), "INVALID_ARGUMENT", "rate_per_key per"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{Backoff: &comandav1.Backoff{Kind: 9}}), "INVALID_ARGUMENT", "backoff kind"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{OnExpired: 258}), "INVALID_ARGUMENT", "on_expired 258"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{OnExpired: -1}), "INVALID_ARGUMENT", "on_expired -1"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{DedupWindow: broken}), "INVALID_ARGUMENT", "dedup_window"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{DedupWindow: durationpb.New(-time.Second)}), "INVALID_ARGUMENT", "dedup_window is -1s"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{KeepFinishedFor: broken}), "INVALID_ARGUMENT", "keep_finished_for"},
		{"Queues/CreateQueue", settings(&comandav1.QueueSettings{Backoff: &comandav1.Backoff{List: []*durationpb.Duration{broken}}}), "INVALID_ARGUMENT", "backoff list"},
	} {
		f := newFake()
		told, err := invoke(t, f, c.name, c.req) // of one item in the answer
		if err != nil {
			told = reason(err) + strings.ReplaceAll(err.Error(), " ", "")
		}
		if !strings.Contains(told, c.reason) || !strings.Contains(told, strings.ReplaceAll(c.word, " ", "")) || len(f.seen()) != 0 {
			t.Errorf("%s %s: %s, %v, verbs %v", c.name, prototext.Format(c.req), told, err, f.seen())
		}
	}
}

// A message that can't be read is refused alone: who shares a call with it is not.
func TestUnreadableMessageIsRefusedAlone(t *testing.T) {
	f := newFake()
	resp, err := invoke(t, f, "Messages/Send", &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{
		{Key: "a"}, {Expires: &timestamppb.Timestamp{Seconds: 1 << 50}}, {Key: "b"},
	}})
	var answer comandav1.SendResponse
	if err != nil || protojson.Unmarshal([]byte(resp), &answer) != nil {
		t.Fatal(resp, err)
	}
	rs := answer.GetResults()
	if len(rs) != 3 || rs[0].GetId() != idAt(1).String() || rs[1].GetError().GetCode() != "INVALID_ARGUMENT" || rs[2].GetId() != idAt(2).String() {
		t.Errorf("results %v", rs)
	}
	if got := strings.Join(f.seen(), "\n"); got != `send q ["" key=a type= delay=0s []] ["" key=b type= delay=0s []]` {
		t.Errorf("asked %s", got)
	}
}

// The error of one item stays with the item in a batch, and is the call's where
// the call is about one.
func TestItemErrors(t *testing.T) {
	for _, code := range []message.Code{message.Fenced, message.Internal} {
		f := newFake()
		f.itemErr = message.Errorf(code, "words")
		for _, name := range []string{"Send", "Settle", "RedriveMessages"} {
			full := "comanda.v1.Messages." + name
			resp, err := invoke(t, f, "Messages/"+name, requests[protoreflect.FullName(full)])
			if err != nil || !strings.Contains(resp, `"error":{"code":"`+string(code)+`"`) || strings.Contains(resp, "words") == (code == message.Internal) {
				t.Errorf("%s: %s, %v", name, resp, err)
			}
		}
		for _, name := range []string{"Ack", "Nack", "Extend", "Release", "Reject"} {
			if _, err := invoke(t, f, "Messages/"+name, requests[protoreflect.FullName("comanda.v1.Messages."+name)]); reason(err) != string(code) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if status, answer := do(t, f, "POST", "/v1/queues/q/messages", "raw"); status != statuses[code].http {
			t.Errorf("raw send: %d %s", status, answer)
		}
		if status, answer := do(t, f, "DELETE", "/v1/leases/"+tokenAt(1), ""); status != statuses[code].http {
			t.Errorf("ack: %d %s", status, answer)
		}
	}
}
