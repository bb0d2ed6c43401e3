// Package auth decides who may do what. Every verb of the gateway asks it once,
// whatever protocol it came by.
package auth

import "context"

// Action is what somebody wants to do.
type Action string

// The actions.
const (
	Send    Action = "send"
	Receive Action = "receive" // and settle
	Read    Action = "read"    // show, list, counts, locate
	Redrive Action = "redrive"
	Manage  Action = "manage" // create, delete, pause and resume queues
	Observe Action = "observe"
)

// Authorizer says whether the principal in ctx may do action to a queue; the
// empty queue stands for the server. It returns nil or a PERMISSION_DENIED.
type Authorizer interface {
	Authorize(ctx context.Context, a Action, queue string) error
}

// AllowAll allows everything: for a server on loopback without credentials.
type AllowAll struct{}

// Authorize allows it.
func (AllowAll) Authorize(context.Context, Action, string) error { return nil }
