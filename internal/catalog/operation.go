package catalog

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Limits of operations.
const (
	MaxOperations     = 1_000    // that have not ended
	keptOperations    = 1_000    // that have ended; the oldest are forgotten
	MaxOperationBytes = 64 << 10 // of Args and of Data each
)

// Operation is a long server job. It is a state machine whose state lies here,
// so that it goes on when whoever runs it dies: each step is a compare-and-set.
type Operation struct {
	ID    uint64 `json:"id"`
	Key   string `json:"key"`             // of the request that began it
	Kind  string `json:"kind"`            // move, …
	Title string `json:"title,omitempty"` // what it does, in words
	// Subject is what it changes: one at a time changes it; empty: it may go on
	// beside others.
	Subject string          `json:"subject,omitempty"`
	Args    json.RawMessage `json:"args,omitempty"`
	State   OperationState  `json:"state,omitempty"`
	Step    string          `json:"step,omitempty"`  // that is done next; empty: the first
	Waits   string          `json:"waits,omitempty"` // for what that step waits, in words
	Data    json.RawMessage `json:"data,omitempty"`  // what the steps so far leave to the next
	Error   *message.Error  `json:"error,omitempty"`
	By      string          `json:"by,omitempty"` // who began it
	// ChangedBy is who last paused it, let it go on or cancelled it.
	ChangedBy string `json:"changed_by,omitempty"`
	// Wall times of whoever proposed the change; for people only.
	CreatedAt time.Time `json:"created_at"`
	ChangedAt time.Time `json:"changed_at"`
}

// OperationState is how far an operation is.
type OperationState uint8

// The states of an operation; the last three are ends.
const (
	Running    OperationState = iota
	Cancelling                // whoever runs it undoes what is to be undone
	Paused                    // nobody goes on with it
	Done
	Failed
	Cancelled
)

var operationStates = []string{"running", "cancelling", "paused", "done", "failed", "cancelled"}

func (s OperationState) String() string { return word(operationStates, s) }

// MarshalText writes the state's word.
func (s OperationState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the state's word.
func (s *OperationState) UnmarshalText(b []byte) error { return parseWord(operationStates, b, s) }

// Ended says whether nothing more happens to the operation.
func (o *Operation) Ended() bool { return o.State >= Done }

// BeginOperation begins an operation. A repeat with the same key finds it; while
// another one changes the same subject it is refused with CONFLICT.
type BeginOperation struct {
	Key     string          `json:"key"`
	Kind    string          `json:"kind"`
	Title   string          `json:"title,omitempty"`
	Subject string          `json:"subject,omitempty"`
	Args    json.RawMessage `json:"args,omitempty"`
	By      string          `json:"by,omitempty"`
	At      time.Time       `json:"at"`
}

// AdvanceOperation says that a step is done and which is next or, with the same
// step as next, for what it waits. It is refused with CONFLICT if the operation is
// not at that step: somebody else runs it.
type AdvanceOperation struct {
	ID    uint64          `json:"id"`
	Step  string          `json:"step"`
	Next  string          `json:"next"`
	Waits string          `json:"waits,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
	At    time.Time       `json:"at"`
}

// running refuses what an operation wants that does not run: who runs it may not know
// yet. 0: no operation wants it.
func (m *Machine) running(id uint64) *message.Error {
	if o, ok := m.view.Operation(id); id != 0 && (!ok || o.State != Running) {
		return message.Errorf(message.Conflict, "operation %d does not run any more: nothing is changed for it", id)
	}
	return nil
}

// FinishOperation ends an operation that is at a step, else CONFLICT.
type FinishOperation struct {
	ID    uint64         `json:"id"`
	Step  string         `json:"step"`
	State OperationState `json:"state"` // Done, Failed or Cancelled
	Error *message.Error `json:"error,omitempty"`
	At    time.Time      `json:"at"`
	// Queue, if it is not 0, is one of which nothing may have changed since QueueVersion,
	// else CONFLICT.
	Queue        uint32 `json:"queue,omitempty"`
	QueueVersion uint64 `json:"queue_version,omitempty"`
}

// CancelOperation asks that an operation stops. Once more changes nothing; one that is
// done or has failed is refused with ENDED.
type CancelOperation struct {
	ID uint64    `json:"id"`
	By string    `json:"by,omitempty"`
	At time.Time `json:"at"`
}

// PauseOperation stops an operation between two steps, or lets it go on. Once more
// changes nothing; one that is being cancelled or has ended is refused with ENDED.
type PauseOperation struct {
	ID     uint64    `json:"id"`
	Paused bool      `json:"paused"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
}

func (o *Operation) key() []byte { return binary.BigEndian.AppendUint64([]byte{rowOperation}, o.ID) }

func noOperation(id uint64) *message.Error {
	return message.Errorf(message.NotFound, "there is no operation %d, or it ended long ago: see 'comanda operation list'", id)
}

func (m *Machine) beginOperation(c *BeginOperation) Result {
	running, ended := 0, []*Operation(nil)
	for _, o := range m.view.Operations() {
		switch {
		case o.Key == c.Key:
			return Result{Operation: o}
		case o.Ended():
			ended = append(ended, o)
		case o.Subject == c.Subject && c.Subject != "":
			return Result{Operation: o, Err: message.Errorf(message.Conflict, "operation %d (%s) is under way: wait for it, or cancel it with 'comanda operation cancel %d'", o.ID, o.Title, o.ID)}
		default:
			running++
		}
	}
	switch {
	case c.Key == "" || c.Kind == "" || len(c.Args) > MaxOperationBytes:
		return Result{Err: message.Errorf(message.InvalidArgument, "an operation wants a key, a kind and at most %d bytes of arguments, not %q, %q and %d", MaxOperationBytes, c.Key, c.Kind, len(c.Args))}
	case running >= MaxOperations:
		return Result{Err: message.Errorf(message.ResourceExhausted, "%d operations are under way, the most there can be: wait, or cancel some", running)}
	}
	for len(ended) >= keptOperations {
		m.remove(ended[0])
		ended = ended[1:]
	}
	cluster := m.view.Cluster
	o := &Operation{
		ID: max(cluster.NextOperation, 1), Key: c.Key, Kind: c.Kind, Title: c.Title, Subject: c.Subject, Args: c.Args, By: c.By,
		CreatedAt: c.At, ChangedAt: c.At,
	}
	cluster.NextOperation = o.ID + 1
	m.set(cluster)
	m.set(o)
	return Result{Operation: o, Created: true}
}

func (m *Machine) advanceOperation(c *AdvanceOperation) Result {
	o, err := m.atStep(c.ID, c.Step)
	if err == nil && len(c.Data) > MaxOperationBytes {
		err = message.Errorf(message.InvalidArgument, "operation %d wants to keep %d bytes, at most %d are allowed", c.ID, len(c.Data), MaxOperationBytes)
	}
	if err != nil {
		return Result{Operation: o, Err: err}
	}
	n := *o
	n.Step, n.Waits, n.Data, n.ChangedAt = c.Next, cut(c.Waits), c.Data, c.At
	m.set(&n)
	return Result{Operation: &n}
}

func (m *Machine) finishOperation(c *FinishOperation) Result {
	o, err := m.atStep(c.ID, c.Step)
	if err == nil && (c.State < Done || c.State > Cancelled) {
		err = message.Errorf(message.InvalidArgument, "operation %d can't end as %s", c.ID, c.State)
	}
	if q, ok := m.view.QueueNumber(c.Queue); err == nil && c.Queue != 0 && (!ok || q.Version != c.QueueVersion) {
		err = message.Errorf(message.Conflict, "operation %d can't end as %s: its queue was changed meanwhile", c.ID, c.State)
	}
	if err != nil {
		return Result{Operation: o, Err: err}
	}
	n := *o
	n.State, n.Waits, n.ChangedAt = c.State, "", c.At
	if c.Error != nil {
		n.Error = &message.Error{Code: c.Error.Code, Text: cut(c.Error.Text)}
	}
	m.set(&n)
	return Result{Operation: &n}
}

// cut is what is kept of words.
func cut(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), message.MaxErrorText)], "")
}

func (m *Machine) cancelOperation(c *CancelOperation) Result {
	o, ok := m.view.Operation(c.ID)
	if !ok {
		return Result{Err: noOperation(c.ID)}
	}
	switch o.State {
	case Running, Paused:
		return m.turn(o, Cancelling, c.By, c.At)
	case Cancelling, Cancelled:
		return Result{Operation: o}
	default:
		return Result{Operation: o, Err: o.over("cancel")}
	}
}

// turn lets somebody change the state of an operation.
func (m *Machine) turn(o *Operation, to OperationState, by string, at time.Time) Result {
	n := *o
	n.State, n.ChangedBy, n.ChangedAt = to, by, at
	m.set(&n)
	return Result{Operation: &n}
}

func (o *Operation) over(verb string) *message.Error {
	return message.Errorf(message.Ended, "operation %d is %s: there is nothing to %s", o.ID, o.State, verb)
}

func (m *Machine) pauseOperation(c *PauseOperation) Result {
	o, ok := m.view.Operation(c.ID)
	if !ok {
		return Result{Err: noOperation(c.ID)}
	}
	verb, to := "resume", Running
	if c.Paused {
		verb, to = "pause", Paused
	}
	switch o.State {
	case to:
		return Result{Operation: o}
	case Running, Paused:
		return m.turn(o, to, c.By, c.At)
	default:
		return Result{Operation: o, Err: o.over(verb)}
	}
}

// atStep finds an operation that has not ended and is at that step.
func (m *Machine) atStep(id uint64, step string) (*Operation, *message.Error) {
	o, ok := m.view.Operation(id)
	switch {
	case !ok:
		return nil, noOperation(id)
	case o.Ended() || o.Step != step:
		return o, message.Errorf(message.Conflict, "operation %d is %s at step %q, not at %q: somebody else runs it", id, o.State, o.Step, step)
	}
	return o, nil
}
