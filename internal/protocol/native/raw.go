package native

import (
	"errors"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// headerPrefix is that of our headers.
const headerPrefix = "Comanda-"

// rawHeaders are those of a raw send, and the fields that they are.
var rawHeaders = []struct{ name, field string }{
	{"Comanda-Key", "key"},
	{"Comanda-Type", "type"},
	{"Comanda-Tenant", "tenant"},
	{"Comanda-Priority", "priority"},
	{"Comanda-Delay", "delay"},
	{"Comanda-Deliver-At", "deliver_at"},
	{"Comanda-Expires", "expires"},
	{"Comanda-Dedup-Id", "dedup_id"},
	{"Comanda-Unique-Key", "unique_key"},
	{"Comanda-On-Conflict", "on_conflict"},
	{"Comanda-Max-Attempts", "retry.max_attempts"},
	{"Comanda-Attributes", "attributes"},
}

const jsonType = "application/json"

// sendREST sends what a body holds: with application/json many messages in the
// contract's envelope, with every other content type, or none, one message whose
// body it is and whose fields stand in headers.
func (s *Server) sendREST(w http.ResponseWriter, r *http.Request, path map[string]string) {
	resp, err := s.sendBody(r, path)
	if err != nil {
		writeError(w, s.refusal(r.Context(), err))
		return
	}
	text, err := encodeJSON(resp)
	if err != nil {
		writeError(w, s.refusal(r.Context(), err))
		return
	}
	if why := refusedWhole(resp.GetResults()); why != nil {
		writeErrorBefore(w, statuses[why.Code].http, why, text)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	_, _ = w.Write(text) // a client that went away needs no answer
}

func (s *Server) sendBody(r *http.Request, path map[string]string) (*comandav1.SendResponse, error) {
	body, ok := r.Body.(requestBody)
	if !ok {
		return nil, errors.New("the request was not checked")
	}
	req, err := sendRequest(r.Header, body.text, path)
	if err != nil {
		return nil, err
	}
	return messages{Server: s}.Send(r.Context(), req)
}

// refusedWhole is why nothing of a send is known to be stored, nil if something is:
// clients such as curl -f look at the status only. Of an atomic batch it is the refusal
// that the others follow from. That one may have been stored goes before all: who sent
// them should not send them again without a thought.
func refusedWhole(results []*comandav1.SendResult) *message.Error {
	var why *comandav1.Error
	for _, r := range results {
		e := r.GetError()
		if e == nil {
			return nil
		}
		c := message.Code(e.GetCode())
		if why == nil || why.GetCode() == string(message.BatchRefused) || c == message.UnknownOutcome || c == message.Internal {
			why = e
		}
	}
	return &message.Error{Code: message.Code(why.GetCode()), Text: why.GetMessage()}
}

// sendRequest decodes a send.
func sendRequest(h http.Header, body []byte, path map[string]string) (*comandav1.SendRequest, error) {
	kind := ""
	if t := h.Get("Content-Type"); t != "" {
		var err error
		if kind, _, err = mime.ParseMediaType(t); err != nil {
			return nil, message.Errorf(message.InvalidArgument, "Content-Type %.100q: %s", t, err)
		}
	}
	if kind != jsonType {
		m, err := rawMessage(h, body)
		return &comandav1.SendRequest{Queue: path["queue"], Messages: []*comandav1.NewMessage{m}}, err
	}
	if err := checkHeaders(h); err != nil {
		return nil, err // in the envelope these are fields
	}
	req := &comandav1.SendRequest{}
	err := decodeBody(body, req, path)
	req.Queue = path["queue"]
	return req, err
}

// rawMessage is the message whose body was sent as it is.
func rawMessage(h http.Header, body []byte) (*comandav1.NewMessage, error) {
	m := &comandav1.NewMessage{Body: body}
	var known []string
	for _, raw := range rawHeaders {
		known = append(known, raw.name)
		if len(h.Values(raw.name)) > 1 {
			return nil, message.Errorf(message.InvalidArgument, "header %s stands twice", raw.name)
		}
		if text := h.Get(raw.name); text != "" {
			if err := setRaw(m.ProtoReflect(), raw.field, raw.name, text); err != nil {
				return nil, err
			}
		}
	}
	return m, checkHeaders(h, known...)
}

// setRaw sets a field of m to what stands in a header.
func setRaw(m protoreflect.Message, field, header, text string) error {
	if outer, inner, ok := strings.Cut(field, "."); ok {
		m, field = m.Mutable(m.Descriptor().Fields().ByTextName(outer)).Message(), inner
	}
	f := m.Descriptor().Fields().ByTextName(field)
	if f.IsMap() {
		return decodeField([]byte(text), m, f, header)
	}
	v, err := valueOf(f, header, text)
	if err == nil {
		m.Set(f, v)
	}
	return err
}
