package leader

import (
	"encoding/binary"
	"encoding/json"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// flood has the group's worker stand still and proposes until all that is
// proposed is refused at once. drain lets it go on, and waits until it has.
func (r *rig) flood() (drain func()) {
	still, goOn := make(chan struct{}), make(chan struct{})
	r.raft.Propose(replica.Command(queue.Tick()), func(any, error) {
		close(still)
		<-goOn
	})
	<-still
	var full atomic.Bool
	var proposed sync.WaitGroup
	for !full.Load() {
		proposed.Add(1)
		r.raft.Propose(replica.Command(queue.Tick()), func(_ any, err error) {
			if message.CodeOf(err) == message.ResourceExhausted {
				full.Store(true)
			}
			proposed.Done()
		})
	}
	return func() {
		close(goOn)
		proposed.Wait()
	}
}

// wait lets receivers wait, each for up to n messages.
func (r *rig) wait(receivers, n int) []*Call {
	calls := make([]*Call, receivers)
	for i := range calls {
		calls[i] = NewCall(1, message.ReceiveOptions{Max: n, Lease: time.Minute, Worker: strconv.Itoa(i)}, 1)
		r.Wait(calls[i])
	}
	return calls
}

// came tells what calls were given, and how many were turned away with a code.
func came(calls []*Call, code message.Code) (got []queue.Leased, away int) {
	for _, c := range calls {
		c.mu.Lock()
		got = append(got, c.got...)
		if c.err != nil && c.err.Code == code {
			away++
		}
		c.mu.Unlock()
	}
	return got, away
}

// A group that has no room to propose leases turns nobody away who waits for
// them: they get theirs when it has room again.
func TestReceiversWaitThroughAnOverload(t *testing.T) {
	r := newRig(t)
	r.send(10, 0)
	drain := r.flood()
	calls := r.wait(50, 10)
	r.Tick() // tries again, in vain
	if got, away := came(calls, message.ResourceExhausted); len(got) > 0 || away > 0 {
		t.Errorf("%d messages went out, %d receivers were turned away", len(got), away)
	}
	drain()
	r.step(0)
	if got, away := came(calls, message.ResourceExhausted); len(got) != 10 || away > 0 {
		t.Errorf("afterwards %d messages went out, %d receivers were turned away", len(got), away)
	}
}

// Many receivers who wait are turned away one after the other, and not one inside
// the other, when leases are refused for good.
func TestRefusalsDoNotPileUp(t *testing.T) {
	const receivers = 10_000
	r := newRig(t)
	r.stop() // the group refuses everything, and forgets who waited
	c := newCell(1, 0)
	c.window.whole, c.turns.whole = true, true
	c.window.offer(queue.Offer{Ref: queue.Ref{Seq: 1}})
	l := &line{number: 1, cells: []*cell{c}, workers: newWorkers()}
	for range receivers {
		l.workers.get("w", time.Time{}).wait(NewCall(1, message.ReceiveOptions{Max: 1, Worker: "w"}, 1), time.Time{})
	}
	calls := l.workers.all()
	r.leading, r.queues[1] = true, l
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20)) // above it the process ends
	r.dispatch(l)
	if _, away := came(calls, message.Unavailable); away != receivers {
		t.Errorf("%d of %d were turned away", away, receivers)
	}
}

// A group has a limit of messages that are leased at a time: who waits then
// waits on, and who comes is refused, until some are settled.
func TestLeasesHaveALimit(t *testing.T) {
	r := newRig(t)
	r.mu.Lock()
	r.limit = 5
	r.mu.Unlock()
	calls := r.wait(2, 8)
	r.send(10, 0)
	r.step(0)
	got, away := came(calls, message.ResourceExhausted)
	if len(got) != 5 || away != 0 {
		t.Fatalf("%d messages went out, %d receivers were turned away", len(got), away)
	}
	if _, away := came(r.wait(1, 1), message.ResourceExhausted); away != 1 {
		t.Error("a receiver that came was not refused")
	}
	r.settle(got[:2], message.Ack, 0)
	r.step(0)
	if got, away := came(calls, message.ResourceExhausted); len(got) != 7 || away != 0 {
		t.Errorf("after 2 acks %d messages are out, %d receivers were turned away", len(got), away)
	}
	r.want("in the end", 3, 0, 5)
}

// Settings that a full group refuses reach it when it has room again. Its refusal
// comes while the leader proposes them, and wants its lock.
func TestSettingsReachAGroupThatWasFull(t *testing.T) {
	r := newRig(t)
	q := catalog.Queue{Number: 1, Name: "orders", Version: 9, Paused: true, Shards: []catalog.Shard{{Path: "0", Group: r.ID()}}}
	row, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	m := catalog.New()
	m.Load(oneQueue{row})
	drain := r.flood()
	r.Learn(m.View(), nil)
	drain()
	r.step(0)
	r.read(func(rows queue.Reader) {
		if q, _ := queue.Queue(rows, 1); q.Version != 9 || !q.Paused {
			t.Errorf("the group has the queue at version %d, paused: %t", q.Version, q.Paused)
		}
	})
}

// oneQueue are the rows of a catalog with queue 1.
type oneQueue struct{ row []byte }

func (oneQueue) Get(uint64, []byte) ([]byte, bool) { return nil, false }

func (r oneQueue) Scan(_ uint64, lo, _ []byte, visit func(k, v []byte) bool) {
	if lo[0] == 'q' {
		visit(binary.BigEndian.AppendUint32(lo, 1), r.row)
	}
}
