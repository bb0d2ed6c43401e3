package native

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// impatient is a fake whose receivers do not wait, and that forgets.
type impatient struct{ *fake }

func (v impatient) Receive(ctx context.Context, queue string, o message.ReceiveOptions) ([]message.Delivery, error) {
	o.Wait = 0
	return v.fake.Receive(ctx, queue, o)
}

func (v impatient) forget() { v.calls, v.released = nil, nil }

func newImpatient() (impatient, *Server) {
	v := impatient{newFake()}
	return v, New(Options{Verbs: v, Allowed: AllowHosts(), Logger: discard})
}

// FuzzRPC: whatever the bytes of a request are, it is answered or refused, and never
// taken for a defect of the server.
func FuzzRPC(f *testing.F) {
	v, s := newImpatient()
	type method struct {
		grpc.MethodDesc
		of any
	}
	var methods []method
	for _, x := range []struct {
		desc grpc.ServiceDesc
		of   any
	}{{comandav1.Messages_ServiceDesc, messages{Server: s}}, {comandav1.Queues_ServiceDesc, queues{Server: s}}, {comandav1.Cluster_ServiceDesc, cluster{Server: s}}} {
		for _, m := range x.desc.Methods {
			b, err := proto.Marshal(requests[protoreflect.FullName(x.desc.ServiceName+"."+m.MethodName)])
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(len(methods)), b)
			methods = append(methods, method{m, x.of})
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		defer v.forget()
		m := methods[int(which)%len(methods)]
		read := false
		resp, err := m.Handler(m.of, t.Context(), func(req any) error {
			err := proto.Unmarshal(b, req.(proto.Message))
			read = err == nil
			return err
		}, nil)
		switch {
		case !read: // gRPC refuses it
		case err != nil && s.refusal(t.Context(), err).Code == message.Internal:
			t.Errorf("%s: %v", m.MethodName, err)
		case err == nil:
			if _, err := proto.Marshal(resp.(proto.Message)); err != nil {
				t.Errorf("the answer of %s: %v", m.MethodName, err)
			}
		}
	})
}

// FuzzREST: whatever stands in the path, the query, the headers and the body of a
// route, it is answered or refused in our form, and never taken for a defect.
func FuzzREST(f *testing.F) {
	v, s := newImpatient()
	routes := restRoutes()
	var names []string
	for name := range routes {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		_, body := restForm(f, name, requestOf(routes[name].op))
		f.Add(uint8(i), "q", "0", "", "", "", []byte(body))
		f.Add(uint8(i), tokenAt(1), "", "max=1&stale=1s&max=2", "application/json", `{"a":1}`, []byte(body))
	}
	f.Fuzz(func(t *testing.T, which uint8, first, second, query, kind, header string, body []byte) {
		defer v.forget()
		name := names[int(which)%len(names)]
		method, path, _ := strings.Cut(name, " ")
		values := []string{first, second}
		target := regexp.MustCompile(`{(\w+)}`).ReplaceAllStringFunc(path, func(string) string {
			defer func() { values = values[1:] }()
			return values[0]
		})
		u, err := url.ParseRequestURI(target + "?" + query)
		if err != nil {
			return // net/http refuses it
		}
		r := &http.Request{
			Method: method, URL: u, Host: "localhost", Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
			Header: http.Header{"Content-Type": {kind}, workerHeader: {header}},
		}
		if name == http.MethodPost+" "+sendPath {
			r.Header = http.Header{"Content-Type": {kind}, "Comanda-Key": {header}, "Comanda-Attributes": {header}, "Comanda-Deliver-At": {header}, "Comanda-Priority": {second}}
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code == http.StatusInternalServerError || !json.Valid(w.Body.Bytes()) || (w.Code == http.StatusOK) == strings.HasPrefix(w.Body.String(), `{"error":{"code":`) {
			t.Errorf("%s %s: %d %s", method, u, w.Code, w.Body)
		}
		if len(v.calls) > 1 {
			t.Errorf("%s %s asks %v", method, u, v.calls)
		}
	})
}
