package client

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// Code names an error for programs. Codes are stable.
type Code string

// The codes of the server, and CodeUnreachable, which is the client's own.
const (
	CodeInvalidArgument   Code = "INVALID_ARGUMENT"   // the request can never work
	CodeQueueNotFound     Code = "QUEUE_NOT_FOUND"    // create the queue
	CodeQueueExists       Code = "QUEUE_EXISTS"       // it is there with other settings
	CodeMessageNotFound   Code = "MESSAGE_NOT_FOUND"  // no such message, or no longer known
	CodeTooLarge          Code = "TOO_LARGE"          // a message, batch or header over its limit
	CodeFenced            Code = "FENCED"             // somebody else may hold the message
	CodeGone              Code = "GONE"               // settled too long ago to know how
	CodeEnded             Code = "ENDED"              // the message has ended: nothing to cancel
	CodeCancelRequested   Code = "CANCEL_REQUESTED"   // the message is to be cancelled: stop working on it
	CodeNotDead           Code = "NOT_DEAD"           // only dead messages are redriven
	CodeResourceExhausted Code = "RESOURCE_EXHAUSTED" // disk, memory or queue full: try later
	CodeWrongShard        Code = "WRONG_SHARD"        // the route was out of date: try again
	CodeNotLeader         Code = "NOT_LEADER"         // the replica set changes its leader: try again
	CodeUnknownOutcome    Code = "UNKNOWN_OUTCOME"    // it may have happened; a repeat may double it
	CodeUnavailable       Code = "UNAVAILABLE"        // nothing happened: try again
	CodeNotFound          Code = "NOT_FOUND"          // no node, group, shard or operation of that name
	CodeConflict          Code = "CONFLICT"           // it changed since it was looked at: look again
	CodeBatchRefused      Code = "BATCH_REFUSED"      // another message of an atomic batch was refused: none is stored
	CodeNodeRemoved       Code = "NODE_REMOVED"       // the node was removed: join with an empty directory
	CodeSessionEnded      Code = "SESSION_ENDED"      // the worker was taken for dead
	CodeUnimplemented     Code = "UNIMPLEMENTED"      // not built yet
	CodePermissionDenied  Code = "PERMISSION_DENIED"  // the caller lacks the right
	CodeForeignOrigin     Code = "FOREIGN_ORIGIN"     // a Host or Origin that is not the server's
	CodeInternal          Code = "INTERNAL"           // a defect of the server; it may have happened
	CodeUnreachable       Code = "UNREACHABLE"        // no server answered, nothing happened
)

// Targets for errors.Is: each matches every error of its code.
var (
	ErrQueueNotFound     = &Error{Code: CodeQueueNotFound}
	ErrQueueExists       = &Error{Code: CodeQueueExists}
	ErrMessageNotFound   = &Error{Code: CodeMessageNotFound}
	ErrTooLarge          = &Error{Code: CodeTooLarge}
	ErrFenced            = &Error{Code: CodeFenced}
	ErrGone              = &Error{Code: CodeGone}
	ErrConflict          = &Error{Code: CodeConflict}
	ErrEnded             = &Error{Code: CodeEnded}
	ErrNotDead           = &Error{Code: CodeNotDead}
	ErrResourceExhausted = &Error{Code: CodeResourceExhausted}
	ErrUnknownOutcome    = &Error{Code: CodeUnknownOutcome}
	ErrUnavailable       = &Error{Code: CodeUnavailable}
	ErrUnreachable       = &Error{Code: CodeUnreachable}
)

// Error is a refusal or a failure: a code for programs, and words that say what
// happened, to what, and what to do.
type Error struct {
	Code    Code
	Message string
	cause   error // the end of a context, when that is why
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Unwrap gives the context's error when the call ended with its context.
func (e *Error) Unwrap() error { return e.cause }

// Is makes every error match a target of its code that has no message.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}

// CodeOf finds the code of err: empty for nil, CodeInternal for an error that
// is not the server's.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// translate turns the errors of unary calls into *Error. Only it can tell a
// call that never left from one whose answer was lost: grpc fills in the peer
// when the call got as far as a connection.
func translate(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var p peer.Peer
	err := invoke(ctx, method, req, reply, cc, append(opts, grpc.Peer(&p))...)
	if err == nil {
		return nil
	}
	if m, ok := req.(proto.Message); ok && status.Code(err) == codes.Internal {
		if _, unencodable := proto.Marshal(m); unencodable != nil {
			return invalidText(unencodable)
		}
	}
	return callError(err, p.Addr != nil && !harmless(method))
}

// invalidText is the refusal of what can't be encoded, which the server never sees.
func invalidText(err error) error {
	return &Error{Code: CodeInvalidArgument, Message: "the call can't be encoded: each text must be valid UTF-8 (" + err.Error() + ")"}
}

// harmless says that a call whose answer is lost may be repeated without a
// thought: a read, or a receive, whose leases run out.
func harmless(method string) bool {
	switch method {
	case comandav1.Messages_Receive_FullMethodName,
		comandav1.Messages_ShowMessage_FullMethodName,
		comandav1.Messages_ListMessages_FullMethodName,
		comandav1.Queues_GetQueue_FullMethodName,
		comandav1.Queues_ListQueues_FullMethodName,
		comandav1.Queues_LocateKey_FullMethodName,
		comandav1.Cluster_GetServer_FullMethodName,
		comandav1.Cluster_ListShards_FullMethodName:
		return true
	}
	return false
}

// callError turns the error of a call or stream into an *Error. It may have
// had an effect if it left and changes something.
func callError(err error, mayHaveHappened bool) error {
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() != "" {
			return &Error{Code: Code(info.GetReason()), Message: st.Message()}
		}
	}
	switch st.Code() {
	case codes.Unavailable:
		if mayHaveHappened {
			return &Error{Code: CodeUnknownOutcome, Message: "the connection broke before the answer came, so it may have happened: look before you repeat it (" + st.Message() + ")"}
		}
		return &Error{Code: CodeUnreachable, Message: "no server answers: is it running, and is the address right? (" + st.Message() + ")"}
	case codes.Canceled:
		return ended(context.Canceled, mayHaveHappened)
	case codes.DeadlineExceeded:
		return ended(context.DeadlineExceeded, mayHaveHappened)
	case codes.ResourceExhausted:
		return &Error{Code: CodeResourceExhausted, Message: st.Message()}
	case codes.InvalidArgument:
		return &Error{Code: CodeInvalidArgument, Message: st.Message()}
	case codes.Unimplemented:
		return &Error{Code: CodeUnimplemented, Message: st.Message()}
	case codes.PermissionDenied:
		return &Error{Code: CodePermissionDenied, Message: st.Message()}
	default: // not the server's word, but of something on the way
		if mayHaveHappened {
			return &Error{Code: CodeUnknownOutcome, Message: fmt.Sprintf("the call failed on its way, so it may have happened: look before you repeat it (%s, %s)", st.Message(), st.Code())}
		}
		return &Error{Code: CodeInternal, Message: fmt.Sprintf("%s (%s)", st.Message(), st.Code())}
	}
}

// ended is what a caller gets whose context ended: the context's own error, or
// one that also says that the call may have had its effect.
func ended(cause error, mayHaveHappened bool) error {
	if !mayHaveHappened {
		return cause
	}
	return &Error{Code: CodeUnknownOutcome, Message: "stopped waiting for the answer, so it may have happened: look before you repeat it (" + cause.Error() + ")", cause: cause}
}

// itemError turns the refusal of one item of a call into an error.
func itemError(e *comandav1.Error) error {
	if e == nil {
		return nil
	}
	return &Error{Code: Code(e.GetCode()), Message: e.GetMessage()}
}
