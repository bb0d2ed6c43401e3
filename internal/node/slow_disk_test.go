package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// lame is what makes a disk's syncs slow, or stand still.
type lame struct {
	delay atomic.Int64  // of each sync
	mu    sync.Mutex    // guards gate
	gate  chan struct{} // closed when syncs go on; nil: they do
}

func (l *lame) beforeSync(string) (lie bool) {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if d := time.Duration(l.delay.Load()); d > 0 {
		<-time.After(d)
	}
	return false
}

// stall stops all syncs until they are let go on.
func (l *lame) stall() (letGo func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	l.gate = gate
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.gate = nil
		close(gate)
	})
}

// startLame starts three nodes whose disks can be made slow.
func startLame(t *testing.T) (ms []*member, disks map[*member]*lame) {
	t.Helper()
	disks = map[*member]*lame{}
	for i := range 3 {
		l := &lame{}
		m := &member{t: t, name: fmt.Sprintf("node-%d", i+1), fs: newWatchedDisk(l.beforeSync)}
		if i > 0 {
			m.join = []string{ms[0].ClusterAddr()}
		}
		m.start()
		t.Cleanup(m.stop)
		ms, disks[m] = append(ms, m), l
	}
	voters(t, ms[0], 3)
	return ms, disks
}

// ledByTwo makes a queue, and finds a node with a key whose group it leads, and a
// key whose group another leads.
func ledByTwo(t *testing.T, ms []*member) (victim *member, its, others string) {
	t.Helper()
	if _, _, err := ms[0].Gateway().CreateQueue(t.Context(), "orders", message.Settings{}, message.Cells); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two nodes lead groups of the queue", func() bool {
		by := map[*member]string{}
		for i := range 100 {
			key := fmt.Sprint("k", i)
			for _, m := range ms {
				if leadsHere(m, groupOf(ms[0], key)) {
					by[m] = key
				}
			}
		}
		for _, m := range ms {
			for _, other := range ms {
				if m != other && by[m] != "" && by[other] != "" {
					victim, its, others = m, by[m], by[other]
				}
			}
		}
		return victim != nil
	})
	return victim, its, others
}

// groupOf is the group that a key's messages are in.
func groupOf(m *member, key string) uint64 {
	q, _ := m.view.Load().Queue("orders")
	return q.Shard(q.Hash(key).Point().Cell()).Group
}

func (m *member) send(ctx context.Context, key string, body []byte) error {
	rs, err := m.Gateway().Send(ctx, "orders", []message.New{{Key: key, Body: body}})
	if err == nil && rs[0].Err != nil {
		err = rs[0].Err
	}
	return err
}

// The disk of a node stands still. While it does others take the lead of its groups
// and confirm what is sent there, groups that others lead go on, and what clients
// go on to send through the node itself ends when their calls do. When the disk goes
// on the node follows.
func TestStalledDisk(t *testing.T) {
	ms, disks := startLame(t)
	victim, its, others := ledByTwo(t, ms)
	healthy := ms[slices.IndexFunc(ms, func(m *member) bool { return m != victim })]
	group, began := groupOf(healthy, its), time.Now()
	letGo := disks[victim].stall()
	defer letGo()
	flooding, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for flooding.Err() == nil {
				call, cancel := context.WithTimeout(flooding, time.Second)
				_ = victim.send(call, its, make([]byte, 64<<10))
				cancel()
			}
		})
	}
	sends, longest := 0, time.Duration(0)
	eventually(t, "another node leads what the stalled one led", func() bool {
		sent := time.Now()
		if err := healthy.send(t.Context(), others, []byte("x")); err != nil {
			t.Errorf("to a group that another leads: %v", err)
		}
		sends, longest = sends+1, max(longest, time.Since(sent))
		return slices.ContainsFunc(ms, func(m *member) bool { return m != victim && leadsHere(m, group) })
	})
	led := time.Since(began)
	if err := healthy.send(t.Context(), its, []byte("x")); err != nil {
		t.Errorf("to the group that the stalled node led: %v", err)
	}
	t.Logf("another leads after %v, sends go on after %v; of %d sends to a group that another led the longest took %v", led, time.Since(began), sends, longest)
	stop()
	clients.Wait()
	letGo()
	eventually(t, "sends through the node go on", func() bool { return victim.send(t.Context(), its, []byte("x")) == nil })
	eventually(t, "nobody is behind", func() bool { return len(healthy.info(victim.name).Behind) == 0 })
}

// A disk that needs 300 ms for each sync slows down what its node leads, and not
// what others do: those have a majority without it.
func TestSlowDisk(t *testing.T) {
	ms, disks := startLame(t)
	victim, its, others := ledByTwo(t, ms)
	healthy := ms[slices.IndexFunc(ms, func(m *member) bool { return m != victim })]
	disks[victim].delay.Store(int64(300 * time.Millisecond))
	defer disks[victim].delay.Store(0)
	median := func(key string) time.Duration {
		var took []time.Duration
		for range 11 {
			began := time.Now()
			if err := healthy.send(t.Context(), key, []byte("x")); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	slow, fast := median(its), median(others)
	t.Logf("a send to the node with the slow disk takes %v, to another %v", slow, fast)
	if fast >= 300*time.Millisecond && fast > slow/2 {
		t.Errorf("one slow disk slows all: %v where it leads, %v elsewhere", slow, fast)
	}
}
