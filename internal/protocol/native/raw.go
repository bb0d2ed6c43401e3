package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// The headers of a raw send.
const (
	headerPrefix     = "Comanda-"
	keyHeader        = "Comanda-Key"
	typeHeader       = "Comanda-Type"
	tenantHeader     = "Comanda-Tenant"
	delayHeader      = "Comanda-Delay"
	attributesHeader = "Comanda-Attributes"
	priorityHeader   = "Comanda-Priority"
	attemptsHeader   = "Comanda-Max-Attempts"
	deliverAtHeader  = "Comanda-Deliver-At"
	expiresHeader    = "Comanda-Expires"
	dedupHeader      = "Comanda-Dedup-Id"
	uniqueHeader     = "Comanda-Unique-Key"
	conflictHeader   = "Comanda-On-Conflict"
)

const jsonType = "application/json"

// sendREST sends what a body holds: with application/json many messages in the
// contract's envelope, with every other content type, or none, one message whose
// body it is and whose fields stand in headers.
func (s *Server) sendREST(w http.ResponseWriter, r *http.Request, path map[string]string) {
	text, err := s.sendBody(r, path)
	if err != nil {
		writeError(w, s.refusal(r.Context(), err))
		return
	}
	w.Header().Set("Content-Type", jsonType)
	_, _ = w.Write(text) // a client that went away needs no answer
}

func (s *Server) sendBody(r *http.Request, path map[string]string) (answer []byte, err error) {
	body, ok := r.Body.(requestBody)
	if !ok {
		return nil, errors.New("the request was not checked")
	}
	req, raw, err := sendRequest(r.Header, body.text, path)
	if err != nil {
		return nil, err
	}
	resp, err := messages{Server: s}.Send(r.Context(), req)
	if err != nil {
		return nil, err
	}
	if e := resp.GetResults()[0].GetError(); raw && e != nil { // the item is the call
		return nil, &message.Error{Code: message.Code(e.GetCode()), Text: e.GetMessage()}
	}
	return jsonMarshaler().Marshal(resp)
}

// sendRequest decodes a send; raw says that the body is the message's.
func sendRequest(h http.Header, body []byte, path map[string]string) (req *comandav1.SendRequest, raw bool, err error) {
	kind := ""
	if t := h.Get("Content-Type"); t != "" {
		if kind, _, err = mime.ParseMediaType(t); err != nil {
			return nil, false, message.Errorf(message.InvalidArgument, "Content-Type %.100q: %s", t, err)
		}
	}
	if kind != jsonType {
		m, err := rawMessage(h, body)
		return &comandav1.SendRequest{Queue: path["queue"], Messages: []*comandav1.NewMessage{m}}, true, err
	}
	if err := checkHeaders(h); err != nil {
		return nil, false, err // in the envelope these are fields
	}
	req = &comandav1.SendRequest{}
	if err := decodeJSON(body, req, path); err != nil {
		return nil, false, message.Errorf(message.InvalidArgument, "%s", err)
	}
	req.Queue = path["queue"]
	return req, false, nil
}

// rawMessage is the message whose body was sent as it is.
func rawMessage(h http.Header, body []byte) (*comandav1.NewMessage, error) {
	known := []string{keyHeader, typeHeader, tenantHeader, delayHeader, attributesHeader, priorityHeader, attemptsHeader, deliverAtHeader, expiresHeader, dedupHeader, uniqueHeader, conflictHeader}
	if err := checkHeaders(h, known...); err != nil {
		return nil, err
	}
	for _, name := range known {
		if len(h.Values(name)) > 1 {
			return nil, message.Errorf(message.InvalidArgument, "header %s stands twice", name)
		}
	}
	m := &comandav1.NewMessage{Body: body, Key: h.Get(keyHeader), Type: h.Get(typeHeader), Tenant: h.Get(tenantHeader), DedupId: h.Get(dedupHeader), UniqueKey: h.Get(uniqueHeader)}
	if text := h.Get(delayHeader); text != "" {
		delay, err := parseDelay(text)
		if err != nil {
			return nil, err
		}
		m.Delay = durationpb.New(delay)
	}
	var err error
	if m.Priority, err = parseNumber(h, priorityHeader); err != nil {
		return nil, err
	}
	switch text := h.Get(conflictHeader); text {
	case "":
	case "reject":
		m.OnConflict = comandav1.OnConflict_ON_CONFLICT_REJECT
	case "existing":
		m.OnConflict = comandav1.OnConflict_ON_CONFLICT_EXISTING
	default:
		return nil, message.Errorf(message.InvalidArgument, "%s %.100q: want reject or existing", conflictHeader, text)
	}
	if m.DeliverAt, err = parseTime(h, deliverAtHeader); err != nil {
		return nil, err
	}
	if m.Expires, err = parseTime(h, expiresHeader); err != nil {
		return nil, err
	}
	attempts, err := parseNumber(h, attemptsHeader)
	if err != nil {
		return nil, err
	}
	if attempts != 0 {
		m.Retry = &comandav1.Retry{MaxAttempts: attempts}
	}
	if text := h.Get(attributesHeader); text != "" {
		if m.Attributes, err = parseAttributes(text); err != nil {
			return nil, message.Errorf(message.InvalidArgument, "%s: %s", attributesHeader, err)
		}
	}
	return m, nil
}

// parseNumber reads a whole number; 0 if the header is not there.
func parseNumber(h http.Header, name string) (int32, error) {
	text := h.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, message.Errorf(message.InvalidArgument, "%s %.100q: want a whole number", name, text)
	}
	return int32(n), nil
}

// parseTime reads a time; nil if the header is not there.
func parseTime(h http.Header, name string) (*timestamppb.Timestamp, error) {
	text := h.Get(name)
	if text == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, message.Errorf(message.InvalidArgument, "%s %.100q: want a time as 2026-01-31T18:00:00Z", name, text)
	}
	return timestamppb.New(t), nil
}

// parseDelay reads a Go duration, or seconds.
func parseDelay(text string) (time.Duration, error) {
	d := text
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		d += "s"
	}
	delay, err := time.ParseDuration(d)
	if err != nil {
		return 0, message.Errorf(message.InvalidArgument, "%s %.100q: want a duration as 90s or 1h30m, or seconds", delayHeader, text)
	}
	return delay, nil
}

// parseAttributes reads one JSON object of strings and numbers, and keeps the
// digits of the numbers.
func parseAttributes(text string) (map[string]*comandav1.Attribute, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errAttributes
	}
	as := map[string]*comandav1.Attribute{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errAttributes
		}
		if as[name] != nil {
			return nil, fmt.Errorf("%.100q stands twice", name)
		}
		value, err := d.Token()
		if err != nil {
			return nil, errAttributes
		}
		switch v := value.(type) {
		case string:
			as[name] = &comandav1.Attribute{Value: &comandav1.Attribute_String_{String_: v}}
		case json.Number:
			as[name] = &comandav1.Attribute{Value: &comandav1.Attribute_Number{Number: v.String()}}
		default:
			return nil, fmt.Errorf("%.100q is neither a string nor a number", name)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errAttributes
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errAttributes
	}
	return as, nil
}

var errAttributes = errors.New("want one JSON object of strings and numbers")
