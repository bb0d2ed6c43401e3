package catalog

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

func begin(key string) Command {
	return Command{BeginOperation: &BeginOperation{Key: key, Kind: "move", Args: json.RawMessage(`{"queue": "q"}`)}}
}

// Steps are compared and set: of two who run an operation, one is refused.
func TestOperation(t *testing.T) {
	w := newTown()
	o := w.do(begin("k")).Operation
	if again := w.do(begin("k")); again.Created || again.Operation != o {
		t.Fatalf("again: %+v", again)
	}
	advance := func(step, next string) Command {
		return Command{AdvanceOperation: &AdvanceOperation{ID: o.ID, Step: step, Next: next, Data: json.RawMessage(`{"group":6}`)}}
	}
	finish := func(step string, s OperationState) Command {
		return Command{FinishOperation: &FinishOperation{ID: o.ID, Step: step, State: s, Error: message.Errorf(message.Conflict, "%s", strings.Repeat("é", 1_000))}}
	}
	w.do(advance("", "spin off"))
	w.refuse(t, message.Conflict, advance("", "spin off"))
	w.refuse(t, message.Conflict, finish("", Done))
	w.refuse(t, message.InvalidArgument, finish("spin off", Running))
	big := advance("spin off", "relocate")
	big.AdvanceOperation.Data = json.RawMessage(`"` + strings.Repeat("x", MaxOperationBytes) + `"`)
	w.refuse(t, message.InvalidArgument, big)
	if c := w.do(Command{CancelOperation: &CancelOperation{ID: o.ID}}).Operation; c.State != Cancelling {
		t.Fatalf("cancelled: %+v", c)
	}
	w.do(advance("spin off", "fold back"))
	done := w.do(finish("fold back", Cancelled)).Operation
	if done.State != Cancelled || done.Error.Code != message.Conflict || len(done.Error.Text) > message.MaxErrorText || string(done.Data) != `{"group":6}` {
		t.Fatalf("%+v", done)
	}
	w.refuse(t, message.Conflict, advance("fold back", "again"))
	if c := w.do(Command{CancelOperation: &CancelOperation{ID: o.ID}}); c.Err != nil || c.Operation != done {
		t.Fatalf("cancelled after its end: %+v", c)
	}
	w.refuse(t, message.NotFound, Command{CancelOperation: &CancelOperation{ID: 99}})
	other := w.do(begin("other")).Operation
	w.do(Command{FinishOperation: &FinishOperation{ID: other.ID, State: Done}})
	w.refuse(t, message.Ended, Command{CancelOperation: &CancelOperation{ID: other.ID}})
	w.refuse(t, message.InvalidArgument, Command{BeginOperation: &BeginOperation{Kind: "move"}})
}

// A paused operation goes on when it is resumed. A step that was under way is still
// kept, so nothing is done twice; it can be cancelled, and may even end.
func TestOperationPauses(t *testing.T) {
	w := newTown()
	id := w.do(begin("k")).Operation.ID
	pause := func(paused bool) OperationState {
		return w.do(Command{PauseOperation: &PauseOperation{ID: id, Paused: paused, By: "ann"}}).Operation.State
	}
	if s := pause(false); s != Running {
		t.Errorf("resumed while it runs: %s", s)
	}
	if s := pause(true); s != Paused {
		t.Errorf("paused: %s", s)
	}
	if o, _ := w.m.View().Operation(id); o.ChangedBy != "ann" {
		t.Errorf("paused by %q", o.ChangedBy)
	}
	if r := w.do(Command{AdvanceOperation: &AdvanceOperation{ID: id, Next: "there"}}); r.Err != nil || r.Operation.State != Paused || r.Operation.Step != "there" {
		t.Errorf("a step that was under way: %+v", r)
	}
	if s := pause(false); s != Running {
		t.Errorf("resumed: %s", s)
	}
	pause(true)
	if o := w.do(Command{CancelOperation: &CancelOperation{ID: id, By: "ben"}}).Operation; o.State != Cancelling || o.ChangedBy != "ben" {
		t.Errorf("cancelled while it was paused: %+v", o)
	}
	for _, paused := range []bool{true, false} {
		w.refuse(t, message.Ended, Command{PauseOperation: &PauseOperation{ID: id, Paused: paused}})
	}
	w.do(Command{FinishOperation: &FinishOperation{ID: id, Step: "there", State: Cancelled}})
	w.refuse(t, message.Ended, Command{PauseOperation: &PauseOperation{ID: id, Paused: true}})
	w.refuse(t, message.NotFound, Command{PauseOperation: &PauseOperation{ID: 99}})
}

// One operation at a time changes a subject, until it has ended. What it waits for
// is told without another step.
func TestOperationHasItsSubject(t *testing.T) {
	w := newTown()
	on := func(key, subject string) Command {
		return Command{BeginOperation: &BeginOperation{Key: key, Kind: "move", Title: "move it", Subject: subject}}
	}
	o := w.do(on("a", "shard q/0")).Operation
	w.refuse(t, message.Conflict, on("b", "shard q/0"))
	if again := w.do(on("a", "shard q/0")); again.Err != nil || again.Operation != o {
		t.Fatalf("again: %+v", again)
	}
	for _, c := range []Command{on("c", "shard q/1"), on("d", ""), on("e", "")} {
		if r := w.do(c); r.Err != nil {
			t.Error(r.Err)
		}
	}
	w.do(Command{CancelOperation: &CancelOperation{ID: o.ID}})
	w.refuse(t, message.Conflict, on("b", "shard q/0"))
	waits := &AdvanceOperation{ID: o.ID, Waits: strings.Repeat("é", 1_000)}
	if r := w.do(Command{AdvanceOperation: waits}); r.Err != nil || r.Operation.Waits == "" || len(r.Operation.Waits) > message.MaxErrorText {
		t.Fatalf("%+v", r)
	}
	if r := w.do(Command{FinishOperation: &FinishOperation{ID: o.ID, State: Cancelled}}); r.Operation.Waits != "" {
		t.Errorf("it has ended and waits: %+v", r.Operation)
	}
	if r := w.do(on("b", "shard q/0")); r.Err != nil {
		t.Error(r.Err)
	}
}

// Those that ended stay for a while; those under way are limited.
func TestOperationsAreLimited(t *testing.T) {
	w := newTown()
	for i := range keptOperations + 3 {
		o := w.do(begin(fmt.Sprint("ended", i))).Operation
		w.do(Command{FinishOperation: &FinishOperation{ID: o.ID, State: Done}})
	}
	for i := range MaxOperations {
		w.do(begin(fmt.Sprint(i)))
	}
	w.refuse(t, message.ResourceExhausted, begin("one more"))
	if all := w.m.View().Operations(); len(all) != keptOperations-1+MaxOperations && len(all) != keptOperations+MaxOperations || all[0].ID == 1 {
		t.Fatalf("%d operations, the first is %d", len(all), all[0].ID)
	}
}
