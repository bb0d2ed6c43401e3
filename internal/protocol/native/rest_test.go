package native

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/comanda-mq/comanda/internal/message"
)

func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// A raw body reaches the verb byte by byte, its fields stand in headers.
func TestRawSend(t *testing.T) {
	body := string(allBytes())
	plain := fmt.Sprintf("send q [%q key= type= delay=0s []]", body)
	for _, c := range []struct {
		header []string
		verb   string
	}{
		{nil, plain},
		{[]string{"Content-Type", "application/x-www-form-urlencoded"}, plain},
		{[]string{"Content-Type", "text/json; charset=utf-8"}, plain},
		{[]string{"Content-Type", "application/octet-stream", "X-HTTP-Method-Override", "DELETE"}, plain},
		{
			[]string{"comanda-KEY", "k", "Comanda-Type", "t", "Comanda-Delay", "1m30s", "Comanda-Attributes", `{"S":"x","n":12.50,"big":9007199254740993}`},
			fmt.Sprintf("send q [%q key=k type=t delay=1m30s [S:1:x big:2:9007199254740993 n:2:12.50]]", body),
		},
		{[]string{"Comanda-Tenant", "t"}, fmt.Sprintf("send q [%q key= type= delay=0s [] tenant=t]", body)},
		{[]string{"Comanda-Delay", "90"}, fmt.Sprintf("send q [%q key= type= delay=1m30s []]", body)},
		{[]string{"Comanda-Delay", "1.5"}, fmt.Sprintf("send q [%q key= type= delay=1.5s []]", body)},
		{[]string{"Comanda-Attributes", ` {} `}, plain},
	} {
		f := newFake()
		code, answer := do(t, f, "POST", "/v1/queues/q/messages", body, c.header...)
		if code != http.StatusOK || strings.ReplaceAll(answer, " ", "") != `{"results":[{"id":"00000010-0000-8000-8000-000000000001","error":null,"existing":false}]}` {
			t.Errorf("%q: %d %s", c.header, code, answer)
		}
		if got := strings.Join(f.seen(), "\n"); got != c.verb {
			t.Errorf("%q: asked\n%s\nwant\n%s", c.header, got, c.verb)
		}
	}
}

// The envelope carries the same bytes as base64.
func TestEnvelopeSend(t *testing.T) {
	f := newFake()
	body := `{"messages":[{"body":"` + base64.StdEncoding.EncodeToString(allBytes()) + `","key":"k","delay":"2s"},{}]}`
	code, answer := do(t, f, "POST", "/v1/queues/q/messages", body, "Content-Type", "Application/JSON; charset=utf-8")
	want := fmt.Sprintf(`send q [%q key=k type= delay=2s []] ["" key= type= delay=0s []]`, allBytes())
	if got := strings.Join(f.seen(), "\n"); code != http.StatusOK || got != want {
		t.Errorf("%d %s: asked\n%s\nwant\n%s", code, answer, got, want)
	}
	f = newFake()
	code, _ = do(t, f, "POST", "/v1/queues/q/messages", `{"atomic":true,"messages":[{"key":"k"}]}`, "Content-Type", "application/json")
	if got := strings.Join(f.seen(), "\n"); code != http.StatusOK || got != `send atomic q ["" key=k type= delay=0s []]` {
		t.Errorf("%d: asked %s", code, got)
	}
}

// A send that stores nothing is refused as a whole, for clients that look at the status
// only, and still says why for each message; one that stores something is not.
func TestSendThatStoresNothing(t *testing.T) {
	refused := func(c message.Code) message.SendResult { return message.SendResult{Err: message.Errorf(c, "words")} }
	stored := message.SendResult{ID: idAt(1)}
	for _, c := range []struct {
		body    string
		results []message.SendResult
		status  int
		code    message.Code
	}{
		{`{"messages":[{}]}`, []message.SendResult{refused(message.TooLarge)}, 413, message.TooLarge},
		{`{"messages":[{},{}],"atomic":true}`, []message.SendResult{refused(message.BatchRefused), refused(message.Conflict)}, 409, message.Conflict},
		{`{"messages":[{},{}],"atomic":true}`, []message.SendResult{refused(message.InvalidArgument), refused(message.BatchRefused)}, 400, message.InvalidArgument},
		{`{"messages":[{},{}]}`, []message.SendResult{refused(message.TooLarge), refused(message.Conflict)}, 413, message.TooLarge},
		{`{"messages":[{},{}]}`, []message.SendResult{refused(message.TooLarge), stored}, 200, ""},
		{`{"messages":[{},{}]}`, []message.SendResult{refused(message.TooLarge), refused(message.UnknownOutcome)}, 504, message.UnknownOutcome},
	} {
		f := newFake()
		f.sent = c.results
		status, text := do(t, f, "POST", "/v1/queues/q/messages", c.body, "Content-Type", "application/json")
		var answer struct {
			Error   struct{ Code message.Code }
			Results []struct{ Error *struct{ Code message.Code } }
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil || status != c.status || answer.Error.Code != c.code || len(answer.Results) != len(c.results) {
			t.Fatalf("%s: %d %s, %v", c.body, status, text, err)
		}
		for i, r := range answer.Results {
			if want := c.results[i].Err; (r.Error == nil) != (want == nil) || want != nil && r.Error.Code != want.Code {
				t.Errorf("%s: result %d: %s", c.body, i, text)
			}
		}
	}
}

// What a route does not know is refused, and no verb is asked.
func TestRESTRefusals(t *testing.T) {
	asJSON := []string{"Content-Type", "application/json"}
	const send = "POST /v1/queues/q/messages"
	for _, c := range []struct {
		route, body string
		header      []string
		status      int
		words       string
	}{
		{send, "b", []string{"Comanda-Priority", "high"}, 400, "INVALID_ARGUMENT Comanda-Priority"},
		{send, "b", []string{"Comanda-Deliver-At", "tomorrow"}, 400, "INVALID_ARGUMENT Comanda-Deliver-At"},
		{send, "b", []string{"Comanda-Expires", "90s"}, 400, "INVALID_ARGUMENT Comanda-Expires"},
		{send, "b", []string{"Comanda-Max-Attempts", "1.5"}, 400, "INVALID_ARGUMENT Comanda-Max-Attempts"},
		{send, "b", []string{"Comanda-On-Conflict", "wait"}, 400, "INVALID_ARGUMENT Comanda-On-Conflict"},
		{send, "b", []string{"Comanda-Worker", "w"}, 400, "Comanda-Worker"},
		{send, "b", []string{"Comanda-Colour", "red"}, 400, "Comanda-Colour"},
		{send, "b", []string{"Comanda-Key", "a", "Comanda-Key", "b"}, 400, "Comanda-Key twice"},
		{send, "b", []string{"Comanda-Delay", "soon"}, 400, "Comanda-Delay soon"},
		{send, "b", []string{"Comanda-Delay", "1h3"}, 400, "Comanda-Delay 1h3"},
		{send, "b", []string{"Comanda-Delay", "inf"}, 400, "Comanda-Delay inf"},
		{send, "b", []string{"Comanda-Attributes", "x"}, 400, "Comanda-Attributes JSON"},
		{send, "b", []string{"Comanda-Attributes", `["a"]`}, 400, "Comanda-Attributes object"},
		{send, "b", []string{"Comanda-Attributes", `{"a":{}}`}, 400, "Comanda-Attributes.a text number bytes"},
		{send, "b", []string{"Comanda-Attributes", `{"a":true}`}, 400, "Comanda-Attributes.a true text number bytes"},
		{send, "b", []string{"Comanda-Attributes", `{"a":1,"a":2}`}, 400, "Comanda-Attributes twice"},
		{send, "b", []string{"Comanda-Attributes", `{"a":1`}, 400, "Comanda-Attributes ends early"},
		{send, "b", []string{"Comanda-Attributes", `{"a":1} {}`}, 400, "Comanda-Attributes behind"},
		{send, "b", []string{"Content-Type", "application/json;;"}, 400, "Content-Type"},
		{send + "?max=1", "b", nil, 400, "max"},
		{send, `{"messages":[{"colour":1}]}`, asJSON, 400, "colour"},
		{send, `{"messages":[{}]} {}`, asJSON, 400, "body behind"},
		{send, ``, asJSON, 400, "body empty"},
		{send, `{"messages":[{}],"queue":"other"}`, asJSON, 400, "other"},
		{send, `{"messages":[{}]}`, append([]string{"Comanda-Key", "k"}, asJSON...), 400, "Comanda-Key"},
		{send, strings.Repeat("x", maxRequestBody+1), nil, 413, "TOO_LARGE"},
		{"POST /v1/queues/q/receive?maximum=1", "", nil, 400, "maximum max, wait, lease, worker"},
		{"POST /v1/queues/q/receive?queue=other", "", nil, 400, "queue"},
		{"POST /v1/queues/q/receive?max=1&max=2", "", nil, 400, "max"},
		{"POST /v1/queues/q/receive?max=many", "", nil, 400, "max many whole number 2147483647"},
		{"POST /v1/queues/q/receive?wait=long", "", nil, 400, "wait long duration"},
		{"GET /v1/queues/q/messages?since=1h", "", nil, 400, "since 1h time 2026-01-31T18:00:00Z"},
		{"POST /v1/queues/q/receive?max=%zz", "", nil, 400, "query"},
		{"POST /v1/queues/q/receive", `{"max":1}`, nil, 400, "body max"},
		{"POST /v1/queues/q/receive", "", []string{"Comanda-Key", "k"}, 400, "Comanda-Key"},
		{"POST /v1/leases/" + tokenAt(1) + "/nack", `{"errors":"e"}`, nil, 400, "errors"},
		{"POST /v1/leases/" + tokenAt(1) + "/nack?delay=3s", "", nil, 400, "delay body"},
		{"POST /v1/leases/" + tokenAt(1) + "/nack", `{"token":"other"}`, nil, 400, "token other"},
		{"POST /v1/leases/" + tokenAt(1) + "/nack", `{} {}`, nil, 400, "body behind"},
		{"POST /v1/queues/q/receive", strings.Repeat(" ", maxEmptyBody+1), nil, 413, "TOO_LARGE"},
		{"DELETE /v1/leases/x", "", nil, 400, "token"},
		{"GET /v1/queues/%ff", "", nil, 400, "INVALID_ARGUMENT queue UTF-8"},
		{"GET /v1/queues/q/locate?key=%ff", "", nil, 400, "INVALID_ARGUMENT key UTF-8"},
		{"GET /v1/queues/q%2Fr/locate", "", nil, 404, "not found"},
		{"GET /v1/operations/x", "", nil, 400, "INVALID_ARGUMENT id x whole number"},
		{"GET /v1/operations/99999999999999999999", "", nil, 400, "INVALID_ARGUMENT id"},
		{"POST /v1/queues/q/polish", "", nil, 404, "not found"},
		{"PATCH /v1/queues/q", "", nil, 405, "method not allowed"},
		{"POST /v1/queues/q", "_method=DELETE", []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", "application/x-www-form-urlencoded"}, 405, "not allowed"},
		{"GET /elsewhere", "", nil, 404, "elsewhere"},
	} {
		f := newFake()
		method, target, _ := strings.Cut(c.route, " ")
		code, answer := do(t, f, method, target, c.body, c.header...)
		if code != c.status || len(f.seen()) != 0 {
			t.Errorf("%s %q %.100q: %d %s, verbs %v", c.route, c.header, c.body, code, answer, f.seen())
		}
		for _, word := range strings.Fields(c.words) {
			if !strings.Contains(answer, word) {
				t.Errorf("%s %q %.100q: %s does not say %q", c.route, c.header, c.body, answer, word)
			}
		}
	}
}

// Each route refuses a parameter, a header and a field that it does not know, a body
// where it takes none, and a value of the wrong type in each of its fields.
func TestEveryRouteRefuses(t *testing.T) {
	const wrong = `{"a":[]}` // for a field of any type but text in a query
	for name, takes := range restRoutes() {
		method, path, _ := strings.Cut(name, " ")
		req := requestOf(takes.op)
		target, _ := restForm(t, path, req)
		refused := func(target, body string, header ...string) {
			t.Helper()
			f := newFake()
			code, answer := do(t, f, method, target, body, header...)
			if code != http.StatusBadRequest || !strings.Contains(answer, `"INVALID_ARGUMENT"`) || len(f.seen()) != 0 {
				t.Errorf("%s %s %s %q: %d %s, verbs %v", method, target, body, header, code, answer, f.seen())
			}
		}
		refused(target+"?colour=red", "")
		refused(target+"?%zz", "")
		refused(target, "", "Comanda-Colour", "red")
		bodies := []string{`{"colour":"red"}`}
		if takes.body {
			bodies = append(bodies, `[]`, `"red"`, `{`, `{} {}`)
		}
		for _, body := range bodies {
			refused(target, body, "Content-Type", jsonType)
		}
		fields := req.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			switch field := string(f.Name()); {
			case takes.body:
				refused(target, `{"`+field+`":`+wrong+`}`, "Content-Type", jsonType)
			case slices.Contains(takes.query, field) && f.Kind() != protoreflect.StringKind:
				refused(target+"?"+field+"="+url.QueryEscape(wrong), "")
			}
		}
	}
}

// The bodies of all requests together have a limit, and one that is over gives
// its room back, as one that was answered does.
func TestRESTBodiesAreBounded(t *testing.T) {
	f := newFake()
	s := newServer(t, f)
	send := func(chunked bool, body string) int {
		r := httptest.NewRequest(http.MethodPost, "http://localhost/v1/queues/q/messages", strings.NewReader(body))
		if chunked {
			r.ContentLength = -1
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w.Code
	}
	if code := send(true, strings.Repeat("x", maxRequestBody+1)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a chunked body over the limit: %d", code)
	}
	s.bodies.Store(maxBodies - 3)
	for _, c := range []struct {
		chunked bool
		body    string
		want    int
	}{{false, "1234", 429}, {true, "1", 429}, {false, "123", 200}} {
		if code := send(c.chunked, c.body); code != c.want || s.bodies.Load() != maxBodies-3 {
			t.Errorf("%q: %d, and %d bytes are taken", c.body, code, s.bodies.Load())
		}
	}
	if len(f.seen()) != 1 {
		t.Errorf("verbs %v", f.seen())
	}
}

// A receiver is known by what it says, or else by its address.
func TestReceiverNames(t *testing.T) {
	for _, c := range []struct {
		target string
		header []string
		worker string
	}{
		{"", nil, "192.0.2.1:1234"},
		{"", []string{"Comanda-Worker", "h"}, "h"},
		{"&worker=f", []string{"Comanda-Worker", "h"}, "f"},
	} {
		f := newFake()
		code, answer := do(t, f, "POST", "/v1/queues/q/receive?max=3&wait=0s&lease=1m"+c.target, "{}", c.header...)
		if got := strings.Join(f.seen(), "\n"); code != http.StatusOK || got != "receive q max=3 wait=0s lease=1m0s worker="+c.worker {
			t.Errorf("%q %q: %d %s, asked %s", c.target, c.header, code, answer, got)
		}
	}
}

// Numbers that a double can't hold are strings, bodies base64, names those of
// the contract, and what is empty is there.
func TestRESTAnswers(t *testing.T) {
	f := newFake()
	f.fill("q", 1, allBytes())
	_, text := do(t, f, "POST", "/v1/queues/q/receive", "")
	var answer struct {
		Messages []struct {
			Body, Fence, Key string
			SentAt           string `json:"sent_at"`
			Attempt          int
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatal(err)
	}
	m := answer.Messages[0]
	body, err := base64.StdEncoding.DecodeString(m.Body)
	if err != nil || !bytes.Equal(body, allBytes()) {
		t.Errorf("body %q: %v", m.Body, err)
	}
	if m.Fence != "9223372036854775809" || m.SentAt == "" || m.Attempt != 1 || !strings.Contains(text, `"tenant":`) {
		t.Errorf("got %s", text)
	}
	if _, text = do(t, f, "POST", "/v1/queues/q/receive", ""); strings.ReplaceAll(text, " ", "") != `{"messages":[]}` {
		t.Errorf("of an empty queue: %s", text)
	}
}

// A client that hangs up during its long poll leaves nothing behind, and what
// was leased to it all the same goes back.
func TestRESTLongPollEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.late = make(chan struct{})
		server := &http.Server{Handler: newServer(t, f).Handler()}
		l := pipes(t)
		go func() { _ = server.Serve(l) }()
		defer server.Close()
		client := &http.Client{Transport: &http.Transport{DialContext: l.dial}}
		defer client.CloseIdleConnections()
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/v1/queues/q/receive?wait=60s&max=2", nil)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			resp, err := client.Do(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			ended <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; err == nil {
			t.Error("the call was answered")
		}
		synctest.Wait()
		f.fill("q", 2, nil)
		close(f.late)
		synctest.Wait()
		if len(f.released) != 2 {
			t.Errorf("%d given back", len(f.released))
		}
	})
}

// pipeListener hands net.Pipes to a server.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func pipes(t *testing.T) *pipeListener {
	t.Helper()
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, io.EOF
	}
}

func (l *pipeListener) Close() error {
	close(l.done)
	return nil
}

func (l *pipeListener) Addr() net.Addr { return remoteAddr("pipe") }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// FuzzSendRequest: whatever is in headers and body, decoding answers with a
// request or a refusal, and a raw body is never changed.
func FuzzSendRequest(f *testing.F) {
	f.Add("", "", "", "", []byte("body"))
	f.Add("application/json", "", "", "", []byte(`{"messages":[{"body":"AP8=","attributes":{"a":{"number":"1"}}}]}`))
	f.Add("text/plain; charset=utf-8", "k", "1m30s", `{"a":"b","n":1.50}`, []byte{0, 255})
	f.Add("application/json;;", "", "1e9", `{"a":`, []byte(nil))
	f.Fuzz(func(t *testing.T, kind, key, delay, attributes string, body []byte) {
		h := http.Header{}
		for name, v := range map[string]string{"Content-Type": kind, "Comanda-Key": key, "Comanda-Delay": delay, "Comanda-Attributes": attributes} {
			if v != "" {
				h.Set(name, v)
			}
		}
		req, err := sendRequest(h, body, map[string]string{"queue": "q"})
		if err != nil {
			if message.CodeOf(err) == message.Internal {
				t.Errorf("an error without a code: %v", err)
			}
			return
		}
		if req.GetQueue() != "q" {
			t.Errorf("the queue became %q", req.GetQueue())
		}
		if kind, _, _ := mime.ParseMediaType(kind); kind == jsonType {
			return
		}
		if m := req.GetMessages()[0]; len(req.GetMessages()) != 1 || !bytes.Equal(m.GetBody(), body) || m.GetKey() != key {
			t.Errorf("sent %q as %v", body, m)
		}
	})
}

// A host is told apart from what looks like it.
func FuzzForeignOrigin(f *testing.F) {
	for _, s := range []string{"localhost", "localhost:1", "[::1]:7400", "127.0.0.1.evil.test", "::1", "[::ffff:127.0.0.1]"} {
		f.Add(s)
	}
	allowed := AllowHosts()
	f.Fuzz(func(t *testing.T, host string) {
		u, err := url.Parse("http://" + host)
		if err != nil || u.Host != host {
			return
		}
		if byHost, byOrigin := allowed(host), ForeignOrigin(allowed, "localhost", []string{"http://" + host}) == nil; byHost != byOrigin {
			t.Errorf("host %q: as Host %t, as Origin %t", host, byHost, byOrigin)
		}
	})
}
