package client

import (
	"context"
	"encoding/json"
	"fmt"
)

// Args are what a typed job is about: a struct that encoding/json can write and
// read. The zero value must know its Type too.
type Args interface {
	// Type names the handler: a message's type, at most 128 bytes.
	Type() string
}

// Job is a message in the hands of a handler that was registered by Handle.
type Job[A Args] struct {
	*RawJob
	Args A // read from the body
}

// Handle registers the handler of the type of A. A body that is not the JSON of an
// A is rejected: with this handler the message would fail each time.
func Handle[A Args](m *Mux, h func(ctx context.Context, job *Job[A]) error) {
	var args A
	m.Handle(args.Type(), func(ctx context.Context, raw *RawJob) error {
		job := &Job[A]{RawJob: raw}
		if err := json.Unmarshal(raw.Body(), &job.Args); err != nil {
			return Reject(fmt.Errorf("the body is not a %T: %w", job.Args, err))
		}
		return h(ctx, job)
	})
}

// NewMessage makes a message of args: their type, and their JSON as the body. Each
// option sets what else the message should have.
func NewMessage[A Args](args A, options ...func(*Message)) (Message, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return Message{}, &Error{Code: CodeInvalidArgument, Message: fmt.Sprintf("the arguments of type %q can't be a body: %v", args.Type(), err)}
	}
	m := Message{Type: args.Type(), Body: body}
	for _, set := range options {
		set(&m)
	}
	return m, nil
}

// Send makes a message of args, as NewMessage does, and stores it, as Client.Send
// does.
func Send[A Args](ctx context.Context, c *Client, queue string, args A, options ...func(*Message)) (id string, err error) {
	m, err := NewMessage(args, options...)
	if err != nil {
		return "", err
	}
	return c.Send(ctx, queue, m)
}
