package node

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// refusal is what is wrong in a request that is right otherwise, and what is said of
// it.
type refusal struct {
	wrong string // fields, as JSON
	code  message.Code
	says  string
}

// free are the fields that may have any value.
var free = map[protoreflect.Name]bool{
	"atomic": true, "force": true, "reset_attempts": true, "dry_run": true, "undo": true, "accept_one_disk": true, "goodbye": true,
	"error": true, // a long one is cut
}

// refusals lists for each field of the contract's requests what no RPC takes in it;
// RPC.FIELD goes before FIELD.
func refusals(leased message.Delivery, stale, orphan string) map[string][]refusal {
	const invalid, large = message.InvalidArgument, message.TooLarge
	long := strings.Repeat("x", 300)
	id := leased.ID.String()
	unknown := message.NewID(leased.ID.Queue(), leased.ID.Point(), 1<<40).String()
	foreign := message.NewID(message.MaxQueueNumber, leased.ID.Point(), 1).String()
	many := func(item string) string { return "[" + strings.Repeat(item+",", message.MaxBatch) + item + "]" }
	attributes := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"a%d":{"string":"v"}`, i))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	texts := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"a%d":"v"`, i))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	send := func(m string, code message.Code, says string) refusal {
		return refusal{`{"messages":[` + m + `]}`, code, says}
	}
	settings := func(s, says string) refusal { return refusal{`{"settings":` + s + `}`, invalid, says} }
	settle := func(s string, code message.Code, says string) refusal {
		return refusal{`{"settlements":[` + s + `]}`, code, says}
	}
	filter := func(f string, code message.Code, says string) refusal {
		return refusal{`{"filter":` + f + `}`, code, says}
	}
	ids := []refusal{
		{`{"ids":[]}`, invalid, "0 ids: want 1 to 1000"},
		{`{"ids":` + many(`"`+id+`"`) + `}`, invalid, "1001 ids: want 1 to 1000"},
		{`{"ids":["x"]}`, invalid, "not a message id"},
		{`{"ids":["` + strings.ToUpper(id[:35]) + `A"]}`, invalid, "not a message id"},
		{`{"ids":["` + unknown + `"]}`, message.MessageNotFound, unknown},
		{`{"ids":["` + foreign + `"]}`, message.QueueNotFound, foreign},
	}
	return map[string][]refusal{
		"queue": {
			{`{"queue":""}`, invalid, "queue name"},
			{`{"queue":".."}`, invalid, "queue name"},
			{`{"queue":"or ders"}`, invalid, "queue name"},
			{`{"queue":"Ärger"}`, invalid, "queue name"},
			{`{"queue":"` + long + `"}`, invalid, "want 1 to 80 characters"},
			{`{"queue":"none"}`, message.QueueNotFound, "comanda queue create none"},
		},
		"CreateQueue.queue":   {{`{"queue":""}`, invalid, "queue name"}, {`{"queue":"or/ders"}`, invalid, "queue name"}, {`{"queue":"limited"}`, message.QueueExists, "limited"}},
		"ListShards.queue":    {{`{"queue":"or ders"}`, invalid, "queue name"}, {`{"queue":"none"}`, message.QueueNotFound, "comanda queue create none"}},
		"shard":               {{`{"shard":""}`, message.NotFound, "comanda shard list"}, {`{"shard":"0.0"}`, message.NotFound, "comanda shard list"}, {`{"shard":"00"}`, message.NotFound, "comanda shard list"}},
		"node":                {{`{"node":""}`, message.NotFound, "comanda node list"}, {`{"node":"nobody"}`, message.NotFound, "comanda node list"}},
		"DrainWorker.worker":  {{`{"worker":""}`, message.NotFound, "comanda worker list"}, {`{"worker":"nobody"}`, message.NotFound, "comanda worker list"}, {`{"worker":"` + long + `"}`, large, "worker name has 300 bytes"}},
		"max":                 {{`{"max":-1}`, invalid, "max is -1: want 1 to 1000"}, {`{"max":1001}`, invalid, "max is 1001"}},
		"max_per_key":         {{`{"max_per_key":-1}`, invalid, "max_per_key is -1: want 0 to 100"}, {`{"max_per_key":101}`, invalid, "max_per_key is 101"}},
		"page":                {{`{"page":"x y"}`, invalid, "use next_page as it came"}, {`{"page":"` + long + `"}`, invalid, "use next_page as it came"}},
		"wait":                {{`{"wait":"-1s"}`, invalid, "wait is -1s: want 0s to 1m0s"}, {`{"wait":"60.001s"}`, invalid, "wait is 1m0.001s"}},
		"lease":               {{`{"lease":"0s"}`, invalid, "lease is 0s: want 1s to 12h0m0s"}, {`{"lease":"43201s"}`, invalid, "lease is 12h0m1s"}},
		"stale":               {{`{"stale":"-1s"}`, invalid, "stale is -1s: want 0s to 1m0s"}, {`{"stale":"61s"}`, invalid, "stale is 1m1s"}},
		"worker":              {{`{"worker":"` + long + `"}`, large, "worker name has 300 bytes"}},
		"key":                 {{`{"key":"` + long + `"}`, large, "key has 300 bytes"}},
		"LocateKey.key":       {{`{"key":"` + long + `"}`, large, "key has 300 bytes"}, {`{"key":""}`, invalid, "name a key"}},
		"type":                {{`{"type":"` + long + `"}`, large, "type has 300 bytes"}},
		"tenant":              {{`{"tenant":"` + long + `"}`, large, "tenant has 300 bytes"}},
		"PauseQueue.tenant":   {{`{"tenant":"` + long + `"}`, large, "tenant has 300 bytes"}, {`{"tenant":"t","key":"k"}`, invalid, "make two"}},
		"by":                  {{`{"by":"` + long + `","key":"k"}`, large, "by has 300 bytes"}},
		"state":               {{`{"state":"lost"}`, invalid, `state "lost"`}, {`{"state":"Ready"}`, invalid, `state "Ready"`}},
		"since":               {{`{"since":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}`, invalid, "no message can be meant"}},
		"until":               {{`{"until":"2026-01-01T00:00:00Z","since":"2026-01-01T00:00:00Z"}`, invalid, "no message can be meant"}},
		"ids":                 ids,
		"RedriveMessages.ids": append(ids, refusal{`{"ids":["` + id + `"]}`, message.NotDead, id}),
		"grace":               {{`{"grace":"-1s"}`, invalid, "grace is -1s: want 0s to 1h0m0s"}, {`{"grace":"3601s","force":true}`, invalid, "grace is 1h0m1s"}, {`{"grace":"1s"}`, invalid, "grace is for force only"}},
		"ShowMessage.id":      {{`{"id":""}`, invalid, "not a message id"}, {`{"id":"` + id + `0"}`, invalid, "not a message id"}, {`{"id":"` + unknown + `"}`, message.MessageNotFound, unknown}, {`{"id":"` + foreign + `"}`, message.MessageNotFound, foreign}},
		"id":                  {{`{"id":0}`, message.NotFound, "comanda operation list"}, {`{"id":"18446744073709551615"}`, message.NotFound, "comanda operation list"}},
		"token": {
			{`{"token":""}`, invalid, "not a token of this cluster"},
			{`{"token":"` + leased.Token + `A"}`, invalid, "not a token of this cluster"},
			{`{"token":"` + message.Token{ID: leased.ID, Fence: leased.Fence}.Seal(&message.Secret{1}) + `"}`, invalid, "not a token of this cluster"},
			{`{"token":"` + stale + `"}`, message.Fenced, "the lease"},
			{`{"token":"` + orphan + `"}`, message.Gone, "queue was deleted"},
		},
		"delay": {{`{"delay":"-1s"}`, invalid, "delay is -1s: want 0s to"}, {`{"delay":"315360001s"}`, invalid, "delay is"}},
		"rate":  {{`{"rate":-1}`, invalid, "rate is -1"}, {`{"rate":1000001}`, invalid, "rate is 1000001"}},
		"to":    {{`{"to":"or ders"}`, invalid, "queue name"}, {`{"to":"none"}`, message.QueueNotFound, "comanda queue create none"}},
		"filter": {
			filter(`{"reason":"bored"}`, invalid, "worker_lost"),
			filter(`{"key":"`+long+`"}`, large, "key has 300 bytes"),
			filter(`{"type":"`+long+`"}`, large, "type has 300 bytes"),
			filter(`{"attributes":`+texts(33)+`}`, invalid, "33 attributes"),
			filter(`{"attributes":{"a":"`+strings.Repeat("v", message.MaxAttributeBytes)+`"}}`, invalid, "65537 bytes"),
			filter(`{"dead_since":"2026-01-02T00:00:00Z","dead_until":"2026-01-01T00:00:00Z"}`, invalid, "nothing can match"),
			filter(`{"dead_since":"1969-01-01T00:00:00Z"}`, invalid, "dead_since is 1969"),
		},
		"shards":  {{`{"shards":-1}`, invalid, "shards is -1: want 1 to 16"}, {`{"shards":17}`, invalid, "shards is 17"}},
		"version": {{`{"version":77,"settings":{"max_attempts":3}}`, message.Conflict, "q"}},
		"settings": {
			settings(`{"max_attempts":-1}`, "max_attempts is -1"),
			settings(`{"max_attempts":1001}`, "max_attempts is 1001"),
			settings(`{"max_worker_deaths":-1}`, "max_worker_deaths is -1"),
			settings(`{"keep_finished":1000001}`, "keep_finished is 1000001"),
			settings(`{"keep_finished_for":"-1s"}`, "keep_finished_for is -1s"),
			settings(`{"max_message_bytes":16777217}`, "max_message_bytes is 16777217"),
			settings(`{"max_in_flight":-1}`, "max_in_flight is -1"),
			settings(`{"rate":{"count":-1,"per":"1s"}}`, "rate is -1 messages"),
			settings(`{"rate":{"per":"1s"}}`, "rate has a time and no number"),
			settings(`{"rate":{"count":1,"per":"90000s"}}`, "rate is per 25h0m0s"),
			settings(`{"assign":9}`, "assign is 9"),
			settings(`{"on_failure":9}`, "on_failure is 9"),
			settings(`{"on_expired":9}`, "on_expired is 9"),
			settings(`{"dedup_window":"604801s"}`, "dedup_window is"),
			settings(`{"dead_letter_to":"or ders"}`, "queue name"),
			settings(`{"backoff":{"kind":9}}`, "backoff kind 9"),
			settings(`{"backoff":{"initial":"-1s"}}`, "backoff initial is -1s"),
			settings(`{"backoff":{"kind":"BACKOFF_KIND_LIST"}}`, "go together"),
			settings(`{"backoff":{"kind":"BACKOFF_KIND_LIST","list":[`+strings.Repeat(`"1s",`, 32)+`"1s"]}}`, "backoff list length is 33"),
			{`{"settings":{"dead_letter_to":"none"}}`, message.QueueNotFound, "comanda queue create none"},
		},
		"messages": {
			{`{"messages":[]}`, invalid, "0 messages: want 1 to 1000"},
			{`{"messages":` + many("{}") + `}`, invalid, "1001 messages"},
			send(`{"key":"`+long+`"}`, large, "key has 300 bytes"),
			send(`{"type":"`+long+`"}`, large, "type has 300 bytes"),
			send(`{"tenant":"`+long+`"}`, large, "tenant has 300 bytes"),
			send(`{"dedup_id":"`+long+`"}`, large, "dedup id has 300 bytes"),
			send(`{"unique_key":"`+long+`"}`, large, "unique key has 300 bytes"),
			send(`{"body":"`+strings.Repeat("A", 2<<20)+`"}`, large, "max_message_bytes"),
			send(`{"attributes":`+attributes(33)+`}`, large, "33 attributes"),
			send(`{"attributes":{"":{"string":"v"}}}`, invalid, "no name"),
			send(`{"attributes":{"`+long+`":{"string":"v"}}}`, large, "attribute name has 300 bytes"),
			send(`{"attributes":{"a":{}}}`, invalid, "no value"),
			send(`{"attributes":{"a":{"number":"0x10"}}}`, invalid, "not a decimal number"),
			send(`{"attributes":{"a":{"string":"`+strings.Repeat("v", message.MaxAttributeBytes)+`"}}}`, large, "attributes have"),
			send(`{"delay":"-1s"}`, invalid, "delay -1s is negative"),
			send(`{"delay":"315576000000s"}`, invalid, "longer than"),
			send(`{"delay":"1s","deliver_at":"2100-01-01T00:00:00Z"}`, invalid, "give one"),
			send(`{"deliver_at":"1969-01-01T00:00:00Z"}`, invalid, "deliver_at is 1969"),
			send(`{"expires":"2000-01-01T00:00:00Z"}`, invalid, "expire"),
			send(`{"priority":10}`, invalid, "priority is 10"),
			send(`{"priority":-1}`, invalid, "priority is -1"),
			send(`{"on_conflict":"ON_CONFLICT_EXISTING"}`, invalid, "the message has none"),
			send(`{"unique_key":"u","on_conflict":9}`, invalid, "on_conflict is 9"),
			send(`{"unique_key":"u","dedup_id":"d"}`, invalid, "give it a key"),
			send(`{"retry":{"max_attempts":1001}}`, invalid, "max_attempts is 1001"),
			send(`{"retry":{"backoff":{"kind":9}}}`, invalid, "backoff kind 9"),
		},
		"settlements": {
			{`{"settlements":[]}`, invalid, "0 settlements: want 1 to 1000"},
			{`{"settlements":` + many("{}") + `}`, invalid, "1001 settlements"},
			settle(`{"token":"x","action":"ACTION_ACK"}`, invalid, "not a token of this cluster"),
			settle(`{"token":"`+stale+`","action":"ACTION_ACK"}`, message.Fenced, "the lease"),
			settle(`{"token":"`+orphan+`","action":"ACTION_ACK"}`, message.Gone, "queue was deleted"),
			settle(`{"token":"`+leased.Token+`"}`, invalid, "action 0"),
			settle(`{"token":"`+leased.Token+`","action":"ACTION_NACK","delay":"-1s"}`, invalid, "delay is -1s"),
			settle(`{"token":"`+leased.Token+`","action":"ACTION_EXTEND","lease":"0s"}`, invalid, "lease is 0s"),
			settle(`{"token":"`+leased.Token+`","action":"ACTION_ACK","error":"e"}`, invalid, "error is for nack and reject only"),
		},
		"Work.settlements": {{`{"settlements":` + many("{}") + `}`, invalid, "1001 settlements"}},
		"send": { // as Send
			{`{"send":null}`, invalid, "0 messages: want 1 to 1000"},
			{`{"send":{"queue":"or ders","messages":[{}]}}`, invalid, "queue name"},
			{`{"send":{"queue":"none","messages":[{}]}}`, message.QueueNotFound, "comanda queue create none"},
			{`{"send":{"queue":"q","messages":[{"priority":10}]}}`, invalid, "priority is 10"},
			{`{"send":{"queue":"q","messages":[{"retry":{"backoff":{"kind":9}}}]}}`, invalid, "backoff kind 9"},
		},
		"open": {
			{`{"open":null}`, invalid, "must carry open"},
			{`{"open":{}}`, invalid, "0 queues: want 1 to 16"},
			{`{"open":{"queues":["or ders"]}}`, invalid, "queue name"},
			{`{"open":{"queues":["none"]}}`, message.QueueNotFound, "comanda queue create none"},
			{`{"open":{"queues":["q"],"lease":"0s"}}`, invalid, "lease is 0s"},
			{`{"open":{"queues":["q"],"worker":"` + long + `"}}`, large, "worker name"},
			{`{"open":{"queues":["q"],"incarnation":1,"attachment":1}}`, invalid, "needs the worker's name"},
			{`{"open":{"queues":["q"],"incarnation":1,"worker":"w"}}`, invalid, "count from 1"},
			{`{"open":{"queues":["q"],"incarnation":1,"attachment":1,"worker":"w","ttl":"1s"}}`, invalid, "ttl is 1s"},
		},
		"credits": {{`{"credits":10001}`, invalid, "more than 10000 credits"}},
		"beat":    {{`{"beat":1,"holds":["x"]}`, invalid, "even beat"}},
		"holds":   {{`{"beat":3,"holds":["x"]}`, invalid, "even beat"}, {`{"beat":2,"holds":[` + strings.Repeat(`"x",`, 64<<10) + `"x"]}`, large, "claims 65537 leases"}},
	}
}

// Each field of each RPC's request refuses what can't be meant, by its code and in
// words, on a whole node, and nothing is changed.
func TestEveryRPCRefuses(t *testing.T) {
	n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data"})
	w := &workload{t: t, g: n.Gateway()}
	w.create("q", 1, message.Settings{})
	w.create("limited", 1, message.Settings{MaxInFlight: 1})
	w.create("deleted", 1, message.Settings{})
	w.send(t.Context(), "q", 2, message.New{})
	w.send(t.Context(), "deleted", 1, message.New{})
	held := w.receive(t.Context(), "q", 2, message.MaxLease)
	w.settle(t.Context(), held[1], message.Settlement{Action: message.Release})
	orphan := w.receive(t.Context(), "deleted", 1, message.MaxLease)[0]
	if err := w.g.DeleteQueue(t.Context(), "deleted"); err != nil {
		t.Fatal(err)
	}
	attach(t, n.Gateway(), "oven", 1)
	valid := validRequests(held[0], held[0].ID, n.config.NodeName)
	// A queue without messages: none comes before what is refused does.
	valid["Work"].(*comandav1.WorkRequest).Open.Queues = []string{"limited"}
	table := refusals(held[0], held[1].Token, orphan.Token)
	asked := decided(n.view.Load())
	before, _, err := w.g.Queue(t.Context(), "q", message.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, n)
	services := comandav1.File_comanda_v1_comanda_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			m := services.Get(i).Methods().Get(j)
			fields := m.Input().Fields()
			for k := range fields.Len() {
				field := fields.Get(k).Name()
				rows, own := table[string(m.Name())+"."+string(field)]
				if !own {
					rows = table[string(field)]
				}
				if len(rows) == 0 && !free[field] {
					t.Errorf("%s: nothing is refused in %s: add what can't be meant, or name it free", m.Name(), field)
				}
				for _, x := range rows {
					req := broken(t, valid[m.Name()], x.wrong)
					if req == nil {
						continue // of an RPC with other fields
					}
					if code, words := answer(t, conn, m, req); code != x.code || !strings.Contains(words, x.says) {
						t.Errorf("%s with %.200s: %s, %.300s; want %s and %q", m.Name(), x.wrong, code, words, x.code, x.says)
					}
				}
			}
		}
	}
	after, _, err := w.g.Queue(t.Context(), "q", message.ReadOptions{})
	if err != nil || after.Counts != before.Counts || decided(n.view.Load()) != asked {
		t.Errorf("before %+v, after %+v, %v; the catalog before %s, after %s", before.Counts, after.Counts, err, asked, decided(n.view.Load()))
	}
	_ = conn.Close()
	end(t, n)
}

// broken is a request with other values in some fields; nil: it has no such fields.
func broken(t *testing.T, valid proto.Message, wrong string) proto.Message {
	t.Helper()
	var named map[string]json.RawMessage
	if err := json.Unmarshal([]byte(wrong), &named); err != nil {
		t.Fatal(err)
	}
	req := proto.Clone(valid)
	values := req.ProtoReflect().New()
	for name := range named {
		if values.Descriptor().Fields().ByTextName(name) == nil {
			return nil
		}
	}
	if err := protojson.Unmarshal([]byte(wrong), values.Interface()); err != nil {
		t.Fatal(err)
	}
	for name := range named {
		f := values.Descriptor().Fields().ByTextName(name)
		if req.ProtoReflect().Clear(f); values.Has(f) {
			req.ProtoReflect().Set(f, values.Get(f))
		}
	}
	return req
}

// answer is the refusal of a call, or of the first item in what it answers.
func answer(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, req proto.Message) (code message.Code, words string) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	resp := kind.New()
	if err := callInto(t, conn, m, req, resp.Interface()); err != nil {
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				code = message.Code(info.GetReason())
			}
		}
		return code, status.Convert(err).Message()
	}
	if p, ok := resp.Interface().(*comandav1.ProduceResponse); ok { // the stream goes on
		if e := p.GetError(); e != nil {
			return message.Code(e.GetCode()), e.GetMessage()
		}
		resp = p.GetSent().ProtoReflect()
	}
	if results := resp.Descriptor().Fields().ByName("results"); results != nil && resp.Get(results).List().Len() > 0 {
		item := resp.Get(results).List().Get(0).Message()
		refused := item.Get(item.Descriptor().Fields().ByName("error")).Message().Interface().(*comandav1.Error)
		return message.Code(refused.GetCode()), refused.GetMessage()
	}
	return "", "it was taken: " + protojson.Format(resp.Interface())
}
