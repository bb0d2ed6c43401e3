package native

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// sendPath is the one route whose body may be something else than JSON.
const sendPath = "/v1/queues/{queue}/messages"

// route is what one route of the contract takes.
type route struct {
	op     string // the RPC
	fields protoreflect.FieldDescriptors
	query  []string // those that are parameters
	body   bool
}

// restRoutes reads from the contract what each "METHOD /path" takes.
func restRoutes() map[string]route {
	routes := map[string]route{}
	services := comandav1.File_comanda_v1_comanda_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
			if !ok || rule == nil {
				continue // Work: a stream has no REST form
			}
			method, path := methodAndPath(rule)
			routes[method+" "+path] = route{op: string(m.Name()), fields: m.Input().Fields(), query: queryOf(m, rule, path), body: rule.GetBody() != ""}
		}
	}
	return routes
}

func methodAndPath(rule *annotations.HttpRule) (method, path string) {
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, p.Get
	case *annotations.HttpRule_Put:
		return http.MethodPut, p.Put
	case *annotations.HttpRule_Post:
		return http.MethodPost, p.Post
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, p.Delete
	default:
		panic(fmt.Sprintf("the contract has an http rule of an unknown kind: %T", p))
	}
}

// queryOf names the fields that stand neither in the path nor in the body.
func queryOf(m protoreflect.MethodDescriptor, rule *annotations.HttpRule, path string) []string {
	if rule.GetBody() == "*" {
		return nil
	}
	var names []string
	fields := m.Input().Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); !strings.Contains(path, "{"+name+"}") {
			names = append(names, name)
		}
	}
	return names
}

// counted is a REST answer with the code under which its call is counted.
type counted struct {
	http.ResponseWriter
	code string
}

// checkRequest counts a request, and refuses what its route would not look at:
// query parameters that it does not have, headers of ours, a body. It reads the
// body within its limit.
func (s *Server) checkRequest(routes map[string]route) runtime.Middleware {
	return func(next runtime.HandlerFunc) runtime.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request, path map[string]string) {
			pattern, _ := runtime.HTTPPattern(r.Context())
			name := r.Method + " " + strings.ReplaceAll(pattern.String(), "=*}", "}")
			call, answer := s.metrics.Begin("rest", routes[name].op), &counted{ResponseWriter: w, code: codeOK}
			ctx, watched := s.slow.Begin(r.Context(), "rest", routes[name].op)
			defer func() { call.End(answer.code); watched.End(answer.code) }()
			w, r = answer, r.WithContext(ctx)
			done, err := s.takeBody(w, r, name, routes[name], path)
			if err != nil {
				writeError(w, s.refusal(r.Context(), err))
				return
			}
			defer done()
			next(w, r, path)
		}
	}
}

// takeBody puts the checked body of a request in its place; done gives back the
// room that it takes.
func (s *Server) takeBody(w http.ResponseWriter, r *http.Request, name string, takes route, path map[string]string) (done func(), err error) {
	for name, value := range path {
		if _, err := takes.textOf(name, name, value); err != nil {
			return nil, err
		}
	}
	if r.URL.RawQuery, err = takes.checkQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if name != http.MethodPost+" "+sendPath { // which looks at headers itself
		if err := checkHeaders(r.Header, workerHeader); err != nil {
			return nil, err
		}
		// There is one form, and the gateway would write a line to standard error for
		// each type that it can't read.
		r.Header.Del("Content-Type")
	}
	limit := int64(maxEmptyBody)
	if takes.body {
		limit = maxRequestBody
	}
	done, err = s.reserveBody(r, limit)
	if err != nil {
		return nil, err
	}
	body, err := readBody(w, r, limit)
	if b := bytes.TrimSpace(body); err == nil && !takes.body && len(b) > 0 && string(b) != "{}" {
		err = message.Errorf(message.InvalidArgument, "%s takes no body%s", name, among(" but query parameters", takes.query))
	}
	if err != nil {
		done()
		return nil, err
	}
	r.Body = http.NoBody
	if takes.body {
		r.Body = newRequestBody(body, path)
	}
	return done, nil
}

// checkQuery refuses what is no parameter, or no value for it, and puts the others as
// the gateway reads them.
func (takes route) checkQuery(raw string) (string, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return "", message.Errorf(message.InvalidArgument, "query: %s", err)
	}
	for name, values := range query {
		switch {
		case takes.body && takes.fields.ByTextName(name) != nil:
			return "", message.Errorf(message.InvalidArgument, "query parameter %s is not known here: it goes into the body, as {%q: …}", name, name)
		case !slices.Contains(takes.query, name):
			return "", message.Errorf(message.InvalidArgument, "query parameter %.100q is not known here%s", name, among(", only", takes.query))
		case len(values) > 1:
			return "", message.Errorf(message.InvalidArgument, "query parameter %s stands twice", name)
		}
		v, err := takes.textOf("query parameter "+name, name, values[0])
		if err != nil {
			return "", err
		}
		if takes.fields.ByTextName(name).Message() == durationType { // it knows no seconds
			query.Set(name, v.Message().Interface().(*durationpb.Duration).AsDuration().String())
		}
	}
	return query.Encode(), nil
}

// textOf reads the value of a field that stands in a path or query, and refuses what
// gRPC and JSON refuse by themselves.
func (takes route) textOf(at, name, text string) (protoreflect.Value, error) {
	if !utf8.ValidString(text) {
		return protoreflect.Value{}, message.Errorf(message.InvalidArgument, "%s is not valid UTF-8", at)
	}
	return valueOf(takes.fields.ByTextName(name), at, text)
}

// checkHeaders refuses headers of ours that are not known.
func checkHeaders(h http.Header, known ...string) error {
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) && !slices.Contains(known, name) {
			return message.Errorf(message.InvalidArgument, "header %.100q is not known here%s", name, among(", only", known))
		}
	}
	return nil
}

// among lists what would have been known.
func among(words string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	return words + " " + strings.Join(known, ", ")
}
