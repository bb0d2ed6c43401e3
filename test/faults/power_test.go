//go:build faults

package faults

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// onDisks gives each server a disk of its own, that loses its power with it.
func (s *servers) onDisks() *servers {
	s.t.Helper()
	for i := range s.nodes {
		d := newDisk(s.t, 1<<30)
		s.disks, s.data[i] = append(s.disks, d), d.data()
	}
	s.args = append(s.args, smallReserve)
	return s
}

// cutPower takes the power from some servers at once, and leaves their disks
// as they come up with it again.
func (s *servers) cutPower(which ...int) {
	s.t.Helper()
	for _, i := range which {
		s.disks[i].cut()
	}
	for _, i := range which {
		s.nodes[i].kill()
		s.disks[i].unmount()
		s.disks[i].mount()
	}
}

// After a power cut of all three servers at once, at any moment, everything
// confirmed is there, in order, once.
func TestPowerCutOfAll(t *testing.T) {
	t.Parallel()
	s, r := newServers(t, 3).onDisks(), &record{}
	if round, wrong := s.cutAll(r); round > 0 {
		t.Fatalf("after cut %d: %s", round, wrong)
	}
	drain(t, s.nodes[0], r)
	s.replicasAgree()
}

// The same test must report loss for servers that do not sync.
func TestPowerCutOfAllWithoutSync(t *testing.T) {
	s := newServers(t, 3).onDisks()
	s.binary = nosyncBinary
	round, wrong := s.cutAll(&record{})
	if round == 0 {
		t.Fatalf("three servers that never sync lost nothing in %d power cuts of all: the test is blind", *rounds)
	}
	t.Logf("as it must be, cut %d shows: %s", round, wrong)
	if !strings.Contains(wrong, "lost") {
		t.Errorf("want a report of loss")
	}
}

// cutAll cuts the power of all servers -rounds times and returns the first round
// after which something is wrong, and what; 0 if there is none.
func (s *servers) cutAll(r *record) (round int, wrong string) {
	s.start()
	random, all := newRand(), []int{0, 1, 2}
	createQueue(s.t, s.dial(0))
	for _, d := range s.disks { // also without fsync there is something to come back to
		d.run("sync", "--file-system", d.dir)
	}
	for round := 1; round <= *rounds; round++ {
		loads := s.startLoads(r, s.dialOnly)
		<-time.After(between(random, 50*time.Millisecond, 1500*time.Millisecond))
		s.cutPower(all...)
		stopAll(loads)
		if random.IntN(4) == 0 { // and again, in the middle of the start
			s.launchAll()
			<-time.After(between(random, 0, time.Second))
			s.cutPower(all...)
		}
		s.launchAll()
		for _, p := range s.nodes {
			if err := p.ready(); err != nil {
				return round, fmt.Sprint("everything is lost: ", err)
			}
		}
		s.serving()
		if wrong := r.compare(unfinished(s.t, s.dial(0))); len(wrong) > 0 {
			return round, fmt.Sprintf("%s\n(%s)", strings.Join(wrong, "\n"), r.summary())
		}
	}
	return 0, ""
}

func (s *servers) launchAll() {
	for i := range s.nodes {
		s.launch(i)
	}
}

// The power of one server is cut while another is stopped or cut off: without
// both the third confirms nothing. With the first it goes on, and when the other
// is back, which may have led, all three agree, and nothing confirmed is lost.
func TestPowerCutOfOne(t *testing.T) {
	t.Parallel()
	s, r, random := newServers(t, 3).onDisks().in(newNetwork(t, 3)).start(), &record{}, newRand()
	c := s.dial(0)
	createQueue(t, c)
	s.createProbes(c)
	for round := 1; round <= max(2, *rounds); round++ {
		loads := s.startLoads(r, s.dialOnly)
		<-time.After(between(random, 200*time.Millisecond, time.Second))
		dark := random.IntN(3)
		away := (dark + 1 + random.IntN(2)) % 3
		third := 3 - dark - away
		how, back := "stopped", s.pause
		if round%2 == 0 {
			how, back = "cut off", s.isolate
		}
		comeBack := back(away)
		<-time.After(between(random, 0, 2*time.Second)) // in which others may have taken the lead
		s.cutPower(dark)
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := s.dialOnly(third).Send(brief, probes, client.Message{Key: "x"}); err == nil {
			t.Errorf("round %d: %s alone of three confirms a send", round, nodeName(third))
		}
		cancel()
		s.launch(dark)
		s.ready(dark)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if _, err := probe(ctx, s.dialOnly(third), probes, "x"); err != nil {
			t.Errorf("round %d: with %s back, the two do not go on without %s: %v", round, nodeName(dark), nodeName(away), err)
		}
		cancel()
		comeBack()
		s.agree(c, r, loads, fmt.Sprintf("power cut %d, of %s, while %s was %s", round, nodeName(dark), nodeName(away), how))
	}
	drain(t, s.nodes[0], r)
	s.replicasAgree()
}

// replicasAgree compares what the servers' own replicas have of the queue's
// finished messages, when there are no others any more.
func (s *servers) replicasAgree() {
	s.t.Helper()
	var own [3]map[string]string
	eventually(s.t, "replicas that are equal", func() error {
		for i := range own {
			var err error
			if own[i], err = s.finishedAt(i); err != nil {
				return err
			}
			if !maps.Equal(own[0], own[i]) {
				return fmt.Errorf("%s has %d finished messages, %s has %d others", nodeName(0), len(own[0]), nodeName(i), len(own[i]))
			}
		}
		return nil
	})
	if len(own[0]) == 0 {
		s.t.Error("no message is finished: nothing was compared")
	}
}

// finishedAt has what became of messages, by id, as a server's own replica says.
func (s *servers) finishedAt(i int) (map[string]string, error) {
	c := s.dialOnly(i)
	defer c.Close()
	fates := map[string]string{}
	for page := ""; ; {
		l, err := c.List(s.t.Context(), queue, client.ListOptions{State: "finished", Max: 1000, Page: page, Stale: 5 * time.Second})
		if err != nil {
			return nil, err
		}
		if by := l.GetFreshness().GetServedBy(); by != nodeName(i) {
			return nil, fmt.Errorf("%s was asked and %s answered", nodeName(i), by)
		}
		for _, m := range l.GetMessages() {
			fates[m.GetId()] = fmt.Sprint(m.GetState(), m.GetDeliveries(), m.GetAttempts(), m.GetWorkerDeaths())
		}
		if page = l.GetNextPage(); page == "" {
			return fates, nil
		}
	}
}
