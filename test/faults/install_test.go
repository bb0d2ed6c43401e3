//go:build faults

package faults

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// installed is how much a replica has that is installed on a new node.
var installed = flag.Int("installed", 48, "MiB of messages of the group that a new node installs while writes go on")

// The log's budget in this test, and the size of a segment of a server's log.
const (
	installBudget = 64 << 20
	segmentBytes  = 32 << 20
)

// A node joins, and gets a large replica by a snapshot while its group is written
// to: sends do not stop, the log is kept within its bound, and the new node is sent
// one snapshot of each group.
func TestInstallUnderLoad(t *testing.T) {
	s := newServers(t, 2)
	s.args = append(s.args, fmt.Sprintf("--log-budget=%dMiB", installBudget>>20))
	s.launch(0)
	s.ready(0)
	c := s.dialOnly(0)
	if _, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	for range *installed {
		if _, err := sendMiB(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	w := startWriter(t, c, s.data[0])
	<-time.After(2 * time.Second)
	before := w.read()
	began := time.Now()
	s.launch(1)
	s.ready(1)
	behind := s.dialOnly(0)
	eventuallyWithin(t, 5*time.Minute, "the new node to have all groups", func() error { return s.caughtUp(behind, 1) })
	took := time.Since(began)
	during := w.end()
	if during.err != nil {
		t.Errorf("a send failed: %v", during.err)
	}
	size := dirSize(t, filepath.Join(s.data[1], "state"))
	const most int64 = max(2*installBudget, 8*segmentBytes)
	t.Logf("%d MiB of messages: installed in %v, %d MiB of rows on the new node; %d MiB were sent meanwhile, the longest send of a MiB took %v (%v before); at most %d MiB of log, spare segments included; snapshots %v",
		*installed, took.Round(time.Millisecond), size>>20, during.sent-before.sent, during.longest.Round(time.Millisecond), before.longest.Round(time.Millisecond), during.log>>20, s.snapshots())
	if size < int64(*installed)<<20*9/10 {
		t.Errorf("the new node has %d bytes of rows", size)
	}
	if during.log > most+2*segmentBytes {
		t.Errorf("the log took %d bytes, want at most %d and two spare segments", during.log, most)
	}
	if n := s.snapshots()[nodeName(1)]; n == 0 || n > 2*groupsOfOne {
		t.Errorf("%d snapshots were installed", n)
	}
}

// groupsOfOne are the groups of a cluster that one node has founded.
const groupsOfOne = 5

// caughtUp says whether a node has a replica of each group, and all keep up: each is
// in its group's configuration.
func (s *servers) caughtUp(c *client.Client, i int) error {
	got, err := c.Server(s.t.Context())
	if err != nil {
		return err
	}
	nodes, err := c.Nodes(s.t.Context())
	if err != nil {
		return err
	}
	if len(nodes) <= i || int(nodes[i].GetReplicas()) < len(got.GetGroups()) {
		return fmt.Errorf("it has not a replica of each of %d groups", len(got.GetGroups()))
	}
	for _, g := range got.GetGroups() {
		if g.GetVoters()+g.GetLearners() < 2 {
			return fmt.Errorf("group %d has one replica", g.GetGroup())
		}
	}
	if n := s.snapshots()[nodeName(i)]; n < len(got.GetGroups()) {
		return fmt.Errorf("%d of %d groups are installed", n, len(got.GetGroups()))
	}
	if behind := nodes[i].GetBehind(); len(behind) > 0 {
		return fmt.Errorf("behind: %v", behind)
	}
	return nil
}

// sendMiB sends a MiB in messages of 16 KiB.
func sendMiB(ctx context.Context, c *client.Client) (bytes int, err error) {
	const size = 16 << 10
	batch := make([]client.Message, 1<<20/size)
	for i := range batch {
		batch[i].Body = make([]byte, size)
		_, _ = rand.Read(batch[i].Body) // it must not compress
	}
	results, err := c.SendBatch(ctx, queue, batch)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	return len(batch) * size, err
}

// writer sends all the time, and notes how long a send took at the most, and the
// largest log.
type writer struct {
	cancel context.CancelFunc
	ended  chan struct{}
	ask    chan chan written
}

type written struct {
	sent int // MiB
	// longest is how long a send took at the most.
	longest time.Duration
	log     int64
	err     error
}

// startWriter sends 4 MiB a second. Reading ends a period: longest and log are of the
// time after it.
func startWriter(t *testing.T, c *client.Client, dir string) *writer {
	ctx, cancel := context.WithCancel(t.Context())
	w := &writer{cancel: cancel, ended: make(chan struct{}), ask: make(chan chan written)}
	go func() {
		defer close(w.ended)
		ticks := time.NewTicker(250 * time.Millisecond)
		defer ticks.Stop()
		var now written
		for {
			began := time.Now()
			if _, err := sendMiB(ctx, c); err != nil && ctx.Err() == nil {
				now.err = errors.Join(now.err, err)
			}
			now.sent++
			now.longest = max(now.longest, time.Since(began))
			now.log = max(now.log, dirSize(t, filepath.Join(dir, "log")))
			select {
			case <-ticks.C:
			case a := <-w.ask:
				a <- now
				now.longest, now.log = 0, 0
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-w.ended })
	return w
}

func (w *writer) read() written {
	a := make(chan written)
	w.ask <- a
	return <-a
}

func (w *writer) end() written {
	now := w.read()
	w.cancel()
	<-w.ended
	return now
}

// dirSize is how many bytes the files of a directory have.
func dirSize(t *testing.T, dir string) (n int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a file may go meanwhile
		t.Error(err)
	}
	return n
}

// eventuallyWithin is eventually with a limit of its own.
func eventuallyWithin(t *testing.T, within time.Duration, what string, try func() error) {
	t.Helper()
	ticks := time.NewTicker(poll)
	defer ticks.Stop()
	end := time.After(within)
	for err := try(); err != nil; err = try() {
		select {
		case <-ticks.C:
		case <-end:
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}
