package native

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// statuses says for each code what gRPC and HTTP call it. A gRPC code that
// clients retry by themselves (Unavailable, ResourceExhausted) stands only where
// nothing happened.
var statuses = map[message.Code]struct {
	grpc codes.Code
	http int
}{
	message.InvalidArgument:   {codes.InvalidArgument, http.StatusBadRequest},
	message.QueueNotFound:     {codes.NotFound, http.StatusNotFound},
	message.QueueExists:       {codes.AlreadyExists, http.StatusConflict},
	message.MessageNotFound:   {codes.NotFound, http.StatusNotFound},
	message.TooLarge:          {codes.InvalidArgument, http.StatusRequestEntityTooLarge},
	message.Fenced:            {codes.FailedPrecondition, http.StatusConflict},
	message.Gone:              {codes.NotFound, http.StatusGone},
	message.Ended:             {codes.FailedPrecondition, http.StatusConflict},
	message.CancelRequested:   {codes.FailedPrecondition, http.StatusConflict},
	message.NotDead:           {codes.FailedPrecondition, http.StatusConflict},
	message.ResourceExhausted: {codes.ResourceExhausted, http.StatusTooManyRequests},
	message.WrongShard:        {codes.Unavailable, http.StatusServiceUnavailable},
	message.NotLeader:         {codes.Unavailable, http.StatusServiceUnavailable},
	message.UnknownOutcome:    {codes.Unknown, http.StatusGatewayTimeout},
	message.Unavailable:       {codes.Unavailable, http.StatusServiceUnavailable},
	message.NotFound:          {codes.NotFound, http.StatusNotFound},
	message.Conflict:          {codes.Aborted, http.StatusConflict},
	message.BatchRefused:      {codes.FailedPrecondition, http.StatusConflict},
	message.NodeRemoved:       {codes.FailedPrecondition, http.StatusConflict},
	message.SessionEnded:      {codes.FailedPrecondition, http.StatusConflict},
	message.Unimplemented:     {codes.Unimplemented, http.StatusNotImplemented},
	message.PermissionDenied:  {codes.PermissionDenied, http.StatusForbidden},
	message.ForeignOrigin:     {codes.PermissionDenied, http.StatusForbidden},
	message.Internal:          {codes.Internal, http.StatusInternalServerError},
}

// errorDomain is the domain of google.rpc.ErrorInfo.
const errorDomain = "comanda"

// refusal turns any error of a call into what the client is told. What is not
// its fault is logged here, once, with everything that is known.
func (s *Server) refusal(ctx context.Context, err error) *message.Error {
	var refused *message.Error
	switch {
	case errors.As(err, &refused) && refused.Code != message.Internal:
		if _, known := statuses[refused.Code]; known {
			return refused
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), hungUp(err):
		return message.Errorf(message.UnknownOutcome, "the call ended before its answer: %s", err)
	}
	s.log.ErrorContext(ctx, "a request failed by a defect of the server", "error", err)
	// Also a panic behind a proposal ends here: nobody knows how far it had come.
	return message.Errorf(message.Internal, "a defect of the server, so it may have happened: look before you repeat it; the server's log has the details")
}

// hungUp says that a stream could not be read or written because its client is gone.
func hungUp(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return true
	default:
		return false
	}
}

// statusOf is the gRPC form of e, which the client is told of err.
func statusOf(e *message.Error, err error) error {
	code := statuses[e.Code].grpc
	switch {
	case e.Code != message.UnknownOutcome:
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return statusError(code, e)
}

func statusError(code codes.Code, e *message.Error) error {
	st := status.New(code, e.Text)
	detailed, err := st.WithDetails(&errdetails.ErrorInfo{Reason: string(e.Code), Domain: errorDomain})
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}

// itemError is the form of a refusal of one item; nil for nil.
func (s *Server) itemError(ctx context.Context, e *message.Error) *comandav1.Error {
	if e == nil {
		return nil
	}
	if e.Code == message.Internal {
		e = s.refusal(ctx, e)
	}
	return &comandav1.Error{Code: string(e.Code), Message: e.Text}
}

// writeError answers a REST request with a refusal.
func writeError(w http.ResponseWriter, e *message.Error) {
	writeErrorStatus(w, statuses[e.Code].http, e)
}

func writeErrorStatus(w http.ResponseWriter, httpStatus int, e *message.Error) {
	writeErrorBefore(w, httpStatus, e, nil)
}

// writeErrorBefore answers with a refusal and, in the same JSON object, with what answer
// has, which is one with fields; nil: with nothing else.
func writeErrorBefore(w http.ResponseWriter, httpStatus int, e *message.Error, answer []byte) {
	type refusal struct {
		Code    message.Code `json:"code"`
		Message string       `json:"message"`
	}
	text, err := json.Marshal(map[string]refusal{"error": {e.Code, e.Text}})
	if err != nil {
		httpStatus, text = http.StatusInternalServerError, nil
	} else if answer != nil {
		text = append(append(text[:len(text)-1], ','), answer[1:]...)
	}
	if c, ok := w.(*counted); ok {
		c.code = string(e.Code)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(httpStatus)
	_, _ = w.Write(text) // a client that went away needs no answer
}
