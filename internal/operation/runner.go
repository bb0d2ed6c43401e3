package operation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
)

// Cluster is what steps are done with.
type Cluster interface {
	// View is the newest catalog that is known here.
	View() *catalog.View
	// Change proposes a change of the catalog to its leader, once.
	Change(ctx context.Context, c catalog.Command) (catalog.Result, error)
	// Leader is the replica that leads a group, as far as is known; 0: not known.
	Leader(ctx context.Context, group uint64) uint64
	// SpinOff asks a shard's group to make a group of the shard. It is refused with
	// CONFLICT or WRONG_SHARD if shard or group are not what s says.
	SpinOff(ctx context.Context, s SpinOff) error
	// RedriveSome goes a step further with a redrive in a cell. An error says that it
	// is not known to have gone, and may be tried again; but NOT_FOUND and CONFLICT say
	// that it never will.
	RedriveSome(ctx context.Context, s RedriveSome) (RedriveProgress, error)
}

// SpinOff makes the group Child of a shard of the group Parent.
type SpinOff struct {
	Queue         uint32
	Shard         catalog.Shard
	Parent, Child uint64
	// Replicas are the child's replicas by those of its parent on the same nodes.
	Replicas map[uint64]uint64
}

const (
	// maxBusy is how many operations do something at a time.
	maxBusy = 16
	// stepWithin is how long one step may take before it is tried again.
	stepWithin = 10 * time.Second
)

// Runner runs the operations of the catalog.
type Runner struct {
	cluster Cluster
	clock   clock.Clock
	log     *slog.Logger

	mu   sync.Mutex
	busy map[uint64]bool // operations of which a step is under way
	last uint64          // the operation that was begun last: others have their turn
}

// New makes a Runner that does nothing until Tick.
func New(c Cluster, clk clock.Clock, log *slog.Logger) *Runner {
	return &Runner{cluster: c, clock: clk, log: log, busy: map[uint64]bool{}}
}

// Tick has a step of each operation done that is under way, a limited number at a
// time. It returns at once; spawn does something beside. It is called again and
// again where the catalog is led; elsewhere it does no harm.
func (r *Runner) Tick(ctx context.Context, spawn func(func())) {
	for _, id := range r.next() {
		spawn(func() {
			defer r.done(id)
			ctx, cancel := context.WithTimeout(ctx, stepWithin)
			defer cancel()
			for again := true; again && ctx.Err() == nil; {
				var err error
				if again, err = r.step(ctx, id); err != nil && ctx.Err() == nil {
					r.log.DebugContext(ctx, "a step of an operation is tried again", "operation", id, "error", err)
				}
			}
		})
	}
}

// next claims the operations whose turn it is.
func (r *Runner) next() (ids []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var after, before []uint64
	for _, o := range r.cluster.View().Operations() {
		switch {
		case o.Ended() || o.State == catalog.Paused || r.busy[o.ID]:
		case o.ID > r.last:
			after = append(after, o.ID)
		default:
			before = append(before, o.ID)
		}
	}
	ids = append(after, before...)
	ids = ids[:min(len(ids), maxBusy-len(r.busy))]
	for _, id := range ids {
		r.busy[id] = true
		r.last = id
	}
	return ids
}

func (r *Runner) done(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, id)
}

// Step does the next thing of an operation, if there is one, and has the catalog
// keep what came of it.
func (r *Runner) Step(ctx context.Context, id uint64) error {
	_, err := r.step(ctx, id)
	return err
}

// step is Step; again: there is something to do at once.
func (r *Runner) step(ctx context.Context, id uint64) (again bool, err error) {
	v := r.cluster.View()
	o, ok := v.Operation(id)
	if !ok || o.Ended() || o.State == catalog.Paused {
		return false, nil
	}
	x, err := r.do(ctx, v, o)
	if err != nil {
		return false, err
	}
	c, changes := x.command(o, r.clock.Now())
	if !changes {
		return false, nil
	}
	return x.again, change(ctx, r.cluster, c)
}

// job is what an operation is to do, as its arguments say.
type job interface {
	// step does what is to be done next.
	step(ctx context.Context, c Cluster, v *catalog.View, o *catalog.Operation, now time.Time) outcome
	// undo takes back what must not stay of an operation that is not to go on.
	undo(ctx context.Context, c Cluster, v *catalog.View, o *catalog.Operation) error
	// tell fills in what only operations of this kind have.
	tell(o *catalog.Operation, info *message.OperationInfo)
}

// jobOf reads what an operation is to do; nil: this program does not know its kind.
func jobOf(o *catalog.Operation) (j job, err error) {
	switch o.Kind {
	case MoveKind:
		j = &Move{}
	case RedriveKind:
		j = &Redrive{}
	default:
		return nil, nil //nolint:nilnil // a newer node may know it
	}
	return j, json.Unmarshal(o.Args, j)
}

// Tell fills in what only operations of o's kind have; nothing if that can't be read.
func Tell(o *catalog.Operation, info *message.OperationInfo) {
	if j, err := jobOf(o); err == nil && j != nil {
		j.tell(o, info)
	}
}

func (r *Runner) do(ctx context.Context, v *catalog.View, o *catalog.Operation) (x outcome, err error) {
	j, err := jobOf(o)
	switch {
	case err != nil:
		return failed(message.Errorf(message.Internal, "operation %d can't be read: %v", o.ID, err)), nil
	case j == nil:
		return waits("for a node whose program knows operations of the kind %q", o.Kind), nil
	}
	x = outcome{state: catalog.Cancelled}
	if o.State != catalog.Cancelling {
		x = j.step(ctx, r.cluster, v, o, r.clock.Now())
	}
	if x.state == catalog.Cancelled || x.state == catalog.Failed {
		err = j.undo(ctx, r.cluster, v, o)
	}
	return x, err
}

// outcome is what came of a step: it waits for something, there is a next one, or
// the operation has ended.
type outcome struct {
	waits string
	next  string
	data  json.RawMessage // for the steps that follow; nil: what there is
	again bool            // there is more to do at once
	state catalog.OperationState
	err   *message.Error
	of    *catalog.Queue // it ends only if this is how the queue is; nil: however that is
}

func waits(format string, args ...any) outcome {
	return outcome{waits: fmt.Sprintf(format, args...)}
}

func failed(err *message.Error) outcome { return outcome{state: catalog.Failed, err: err} }

// command is what the catalog is to keep; false: it does.
func (x *outcome) command(o *catalog.Operation, now time.Time) (catalog.Command, bool) {
	if x.state != catalog.Running {
		f := catalog.FinishOperation{ID: o.ID, Step: o.Step, State: x.state, Error: x.err, At: now}
		if x.of != nil {
			f.Queue, f.QueueVersion = x.of.Number, x.of.Version
		}
		return catalog.Command{FinishOperation: &f}, true
	}
	a := catalog.AdvanceOperation{ID: o.ID, Step: o.Step, Next: o.Step, Waits: x.waits, Data: o.Data, At: now}
	if x.next != "" {
		a.Next = x.next
	}
	if x.data != nil {
		a.Data = x.data
	}
	return catalog.Command{AdvanceOperation: &a}, a.Next != o.Step || a.Waits != o.Waits || !bytes.Equal(a.Data, o.Data)
}

// change proposes a change of the catalog; a refusal is an error like any other.
func change(ctx context.Context, c Cluster, cmd catalog.Command) error {
	r, err := c.Change(ctx, cmd)
	if err == nil && r.Err != nil {
		err = r.Err
	}
	return err
}
