package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Mux gives each message to the handler of its type: Worker{Handler: mux.Run}. The
// zero Mux is empty. It is filled before the worker runs.
type Mux struct {
	handlers map[string]Handler // by type
}

// Handle registers the handler of a type; of messages without a type, if it is
// empty. A second one of the same type is a fault of the program: it panics.
func (m *Mux) Handle(typ string, h Handler) {
	if m.handlers[typ] != nil {
		panic(fmt.Sprintf("client: two handlers of type %q", typ))
	}
	if m.handlers == nil {
		m.handlers = map[string]Handler{}
	}
	m.handlers[typ] = h
}

// Run runs the handler of the job's type. Without one the attempt has failed, so
// that the message gets to a worker who has it, or is dead in the end.
func (m *Mux) Run(ctx context.Context, job *RawJob) error {
	h, ok := m.handlers[job.Type()]
	if !ok {
		return fmt.Errorf("no handler of type %q: this worker has %s", job.Type(), m.types())
	}
	return h(ctx, job)
}

// types lists what there is, for people.
func (m *Mux) types() string {
	if len(m.handlers) == 0 {
		return "none"
	}
	quoted := make([]string, 0, len(m.handlers))
	for _, typ := range slices.Sorted(maps.Keys(m.handlers)) {
		quoted = append(quoted, fmt.Sprintf("%q", typ))
	}
	return strings.Join(quoted, ", ")
}
