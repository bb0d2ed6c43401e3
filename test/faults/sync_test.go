//go:build faults

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// Each confirmation stands on an fdatasync that began after its send, and sends
// that come together share one.
func TestSyncs(t *testing.T) {
	p := start(t, t.TempDir())
	createQueue(t, p.dial(t))

	const single = 100
	c := p.dial(t)
	if n := countSyncs(t, p, func() {
		for range single {
			if _, err := c.Send(t.Context(), queue, client.Message{Body: []byte("x")}); err != nil {
				t.Error(err)
			}
		}
	}); n < single {
		t.Errorf("%d sends, one after the other, were confirmed with %d fdatasync calls", single, n)
	} else {
		t.Logf("%d sends, one after the other: %d fdatasync calls", single, n)
	}

	const clients, each, all = 64, 16, 64 * 16
	var cs [clients]*client.Client
	for i := range cs {
		cs[i] = p.dial(t)
	}
	if n := countSyncs(t, p, func() {
		var done sync.WaitGroup
		for _, c := range cs {
			done.Go(func() {
				for range each {
					if _, err := c.Send(t.Context(), queue, client.Message{Body: []byte("x")}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		done.Wait()
	}); n < 1 || n >= all {
		t.Errorf("%d sends of %d clients took %d fdatasync calls, want at least 1 and fewer than one a send", all, clients, n)
	} else {
		t.Logf("%d sends of %d clients: %d fdatasync calls", all, clients, n)
	}
	p.stop(t)
}

var countLine = regexp.MustCompile(`(?m)^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*fdatasync$`)

// countSyncs counts the server's fdatasync calls while do runs.
func countSyncs(t *testing.T, p *process, do func()) int {
	t.Helper()
	counts := filepath.Join(t.TempDir(), "counts")
	detach := p.trace(t, "-c", "-e", "trace=fdatasync", "-o", counts)
	do()
	detach()
	b, err := os.ReadFile(counts)
	if err != nil {
		t.Fatal(err)
	}
	m := countLine.FindSubmatch(b)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The first sync that fails ends the server at once; what it confirmed before is
// there when it starts again, and nothing was confirmed after.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	// The log's: often.
	t.Run("fdatasync", func(t *testing.T) { failSyncs(t, "fdatasync", *rounds, 50) })
	// Of tables and directories, when rows are flushed: seldom, and strace is slow.
	t.Run("fsync", func(t *testing.T) { failSyncs(t, "fsync", (*rounds+4)/5, 1) })
}

// failSyncs makes one call fail in each round: one thread's nth, at most its
// last-th.
func failSyncs(t *testing.T, call string, rounds, last int) {
	random, dir, r := newRand(), t.TempDir(), &record{}
	p := start(t, dir, smallLog)
	createQueue(t, p.dial(t))
	for round := 1; round <= rounds; round++ {
		calls := filepath.Join(t.TempDir(), "calls")
		nth := 1 + random.IntN(last)
		detach := p.failCall(t, call, nth, calls)
		l := startLoad(t, p, r)
		p.wantDiskFailure(t)
		l.stop()
		detach()
		if n := r.confirmedAfter(injectedAt(t, calls)); n > 0 {
			t.Fatalf("round %d: %d messages were sent after a failed %s and confirmed", round, n, call)
		}
		p = start(t, dir, smallLog)
		fail(t, check(t, p, r))
	}
	drain(t, p, r)
	p.stop(t)
}

// The first sync that fails ends one of three servers at once; the others go on
// without it, and it comes back.
func TestFailedSyncOfOne(t *testing.T) {
	t.Parallel()
	s, r, random := startServers(t), &record{}, newRand()
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	for round := 1; round <= *rounds; round++ {
		victim := random.IntN(3)
		calls := filepath.Join(t.TempDir(), "calls")
		detach := s.nodes[victim].failCall(t, "fdatasync", 1+random.IntN(20), calls)
		loads := s.startLoads(r, s.dialOnly)
		s.nodes[victim].wantDiskFailure(t)
		detach()
		injectedAt(t, calls)
		s.goesOnWithout(victim)
		s.launch(victim)
		s.ready(victim)
		s.agree(c, r, loads, fmt.Sprintf("failed sync %d, of %s", round, nodeName(victim)))
	}
	drain(t, s.nodes[0], r)
	s.replicasAgree()
}

// failCall makes the nth such call of one of the server's threads fail.
func (p *process) failCall(t *testing.T, call string, nth int, calls string) (detach func()) {
	t.Helper()
	return p.trace(t, "-ttt", "-o", calls, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", call, nth))
}

// wantDiskFailure waits until the server has ended, for that reason.
func (p *process) wantDiskFailure(t *testing.T) {
	t.Helper()
	code, err := p.exit(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if code == 0 || !strings.Contains(p.said.String(), "input/output error") {
		t.Fatalf("want a failure and words about the disk, got code %d and\n%s", code, p.said)
	}
}

var injectedLine = regexp.MustCompile(`(?m)^\d+\s+(\d+)\.(\d{6}) .*\(INJECTED\)`)

// injectedAt is when the first call failed.
func injectedAt(t *testing.T, calls string) time.Time {
	t.Helper()
	b, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	m := injectedLine.FindSubmatch(b)
	if m == nil {
		t.Fatalf("no call failed:\n%s", b)
	}
	s, _ := strconv.ParseInt(string(m[1]), 10, 64) // digits, says the pattern
	us, _ := strconv.ParseInt(string(m[2]), 10, 64)
	return time.Unix(s, us*1000)
}

// confirmedAfter counts the confirmed messages whose sending began after a moment.
func (r *record) confirmedAfter(moment time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.sent {
		for i := range r.sent[key] {
			if s := &r.sent[key][i]; s.fate == confirmed && s.began.After(moment) {
				n++
			}
		}
	}
	return n
}
