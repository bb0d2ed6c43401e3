package message

import (
	"errors"
	"fmt"
)

// Code names a refusal for machines. Codes are stable: each protocol maps them
// in one table, and docs/errors.md has a line for each.
type Code string

// The codes, and who can do something about them.
const (
	InvalidArgument   Code = "INVALID_ARGUMENT"   // the caller: the request can never work
	QueueNotFound     Code = "QUEUE_NOT_FOUND"    // create the queue
	QueueExists       Code = "QUEUE_EXISTS"       // it is there with other settings
	MessageNotFound   Code = "MESSAGE_NOT_FOUND"  // no such message, or no longer known
	TooLarge          Code = "TOO_LARGE"          // a message, batch or header over its limit
	Fenced            Code = "FENCED"             // the token is not the current one: somebody else may hold the message
	Gone              Code = "GONE"               // the message was settled too long ago to know how
	Ended             Code = "ENDED"              // the message has ended: nothing to cancel
	CancelRequested   Code = "CANCEL_REQUESTED"   // the message is to be cancelled: stop working on it
	NotDead           Code = "NOT_DEAD"           // only dead messages are redriven
	ResourceExhausted Code = "RESOURCE_EXHAUSTED" // disk below its reserve, memory above its limit, a queue full: try later
	WrongShard        Code = "WRONG_SHARD"        // the route is out of date; gateways refresh and go on by themselves
	NotLeader         Code = "NOT_LEADER"         // the replica set is led elsewhere, or by nobody just now
	UnknownOutcome    Code = "UNKNOWN_OUTCOME"    // it may have happened; a repeat may double it
	Unavailable       Code = "UNAVAILABLE"        // nothing happened; try again
	NotFound          Code = "NOT_FOUND"          // no node, group, shard or operation of that name
	Conflict          Code = "CONFLICT"           // it changed since it was looked at: look again and decide anew
	BatchRefused      Code = "BATCH_REFUSED"      // another message of an atomic batch was refused, so none is stored: its error says why
	NodeRemoved       Code = "NODE_REMOVED"       // the node's directory belongs to a node that was removed: join with an empty one
	SessionEnded      Code = "SESSION_ENDED"      // the worker was taken for dead: it opens a session with a higher incarnation
	Unimplemented     Code = "UNIMPLEMENTED"      // has a place, but is not built yet
	PermissionDenied  Code = "PERMISSION_DENIED"  // the principal lacks the right
	ForeignOrigin     Code = "FOREIGN_ORIGIN"     // a Host or Origin that is not this server's
	Internal          Code = "INTERNAL"           // a defect of ours; it may have happened
)

// Error is a refusal: a code for machines and words that say what happened, to
// what, and what to do.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Text }

// Is makes errors.Is(err, &Error{Code: c}) true for every error with that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Text == "" && t.Code == e.Code
}

// Errorf makes a refusal.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Text: fmt.Sprintf(format, args...)}
}

// CodeOf finds the code in err's chain; Internal for any other error, and the
// empty code for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// NoQueue is the refusal of a queue that does not exist, with the command that
// creates it.
func NoQueue(name string) *Error {
	return Errorf(QueueNotFound, "queue %q does not exist: create it with 'comanda queue create %s'", name, name)
}
