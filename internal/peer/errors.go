package peer

import (
	"errors"
	"fmt"

	"github.com/comanda-mq/comanda/internal/message"
)

// Refusal is a handshake that ended with a no: the other side does not talk to
// this process, or this one not to the other. What was not sent for that reason
// has a Refusal in the chain of its error.
type Refusal struct {
	By     Identity // who refuses, as far as it is known
	Reason *message.Error
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("node %d refuses the connection: %s", r.By.Node, r.Reason.Text)
}

// outcome is the refusal of a call and what caused it.
type outcome struct {
	refusal *message.Error
	cause   error
}

func (o *outcome) Error() string   { return o.refusal.Error() }
func (o *outcome) Unwrap() []error { return []error{o.refusal, o.cause} }

// notSent: nothing of it left this process, so it did not happen.
func notSent(to string, cause error) error {
	return &outcome{message.Errorf(message.Unavailable, "nothing was sent to %s: %v", to, cause), cause}
}

// unknown: some of it may have left.
func unknown(to string, cause error) error {
	return &outcome{message.Errorf(message.UnknownOutcome,
		"a request was sent to %s and its answer did not come: %v; it may have happened or may yet", to, cause), cause}
}

// asRefusal is what the other side is told of err.
func asRefusal(err error) *message.Error {
	if e, ok := errors.AsType[*message.Error](err); ok && e.Code != "" {
		return e
	}
	return &message.Error{Code: message.Internal, Text: err.Error()}
}

func nodeName(node uint64) string { return fmt.Sprintf("node %d", node) }

var (
	errStopped = errors.New("this node is stopping")
	errGaveUp  = errors.New("the caller has given up")
	errHungUp  = errors.New("this side has hung up")
	errSilent  = errors.New("nothing was heard for 3 s")
	errSlow    = errors.New("the handshake was not done after 10 s")
	errUnknown = errors.New("no such node is known here")
	errForeign = errors.New("a process without a node id sent messages")
	errNewer   = errors.New("the node has opened a newer connection")
)
