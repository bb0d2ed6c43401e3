package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// A queue with ready messages is attended while somebody waits for them, holds
// one, or asked within the last minute.
func TestAttended(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	ready := &comandav1.Counts{Ready: 1}
	for _, c := range []struct {
		what string
		q    *comandav1.Queue
		want bool
	}{
		{"nobody ever asked", &comandav1.Queue{Counts: ready}, false},
		{"the last asked a minute ago", &comandav1.Queue{Counts: ready, ReceivedAt: ago(time.Minute)}, false},
		{"one asked just now", &comandav1.Queue{Counts: ready, ReceivedAt: ago(59 * time.Second)}, true},
		{"one waits", &comandav1.Queue{Counts: ready, Receivers: proto.Int32(1)}, true},
		{"all workers are busy", &comandav1.Queue{Counts: &comandav1.Counts{Ready: 1, Leased: 1}, ReceivedAt: ago(time.Hour)}, true},
		{"paused", &comandav1.Queue{Counts: ready, Paused: true}, true},
		{"nothing is ready", &comandav1.Queue{Counts: &comandav1.Counts{Scheduled: 1, Dead: 1}}, true},
	} {
		if got := attended(c.q, now); got != c.want {
			t.Errorf("%s: attended is %t", c.what, got)
		}
	}
}

// Doctor says what one, two and three nodes are worth, and which groups and nodes
// lack something.
func TestExamineCluster(t *testing.T) {
	group := func(leader string, voters, wanted, alive int32) *comandav1.GroupStatus {
		return &comandav1.GroupStatus{Group: 2, Leader: leader, Voters: voters, WantedVoters: wanted, AliveVoters: alive}
	}
	nodes := func(states ...string) (ns []*comandav1.Node) {
		for i, s := range states {
			ns = append(ns, &comandav1.Node{Name: string(rune('a' + i)), State: s})
		}
		return ns
	}
	lagging := nodes("alive", "alive", "alive")
	lagging[1].Behind = []*comandav1.ReplicaBehind{
		{Group: 7, Entries: 300, Since: timestamppb.New(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)), Why: "silent", Leader: "a"},
		{Group: 8, Entries: 1, Why: "snapshot", Leader: "a"},
	}
	lost := nodes("alive", "down", "alive")
	lost[1].Behind = lagging[1].Behind
	draining := nodes("alive", "alive", "alive", "alive")
	draining[3].Draining, draining[3].Replicas = true, 2
	wrong := nodes("alive", "alive", "alive")
	wrong[1].ClockOff = true
	for _, c := range []struct {
		what                  string
		group                 *comandav1.GroupStatus
		nodes                 []*comandav1.Node
		ofGroup, voters, node string // states
		replicas              string // state; empty: ok
		word                  string
	}{
		{"one node", group("a", 1, 1, 1), nodes("alive"), "ok", "ok", "ok", "", "one disk"},
		{"two nodes", group("a", 1, 1, 1), nodes("alive", "alive"), "ok", "warn", "ok", "", "durability is still one disk"},
		{"three nodes", group("a", 3, 3, 3), nodes("alive", "alive", "alive"), "ok", "ok", "ok", "", "1 may fail"},
		{"the third catches up", group("a", 1, 3, 1), nodes("alive", "alive", "alive"), "warn", "warn", "ok", "", "1 of these alive, 3 wanted"},
		{"one is silent", group("a", 3, 3, 2), nodes("alive", "suspect", "alive"), "warn", "warn", "warn", "", "b is suspect"},
		{"one is dead", group("a", 3, 3, 2), nodes("alive", "down", "alive"), "warn", "warn", "fail", "", "b is down"},
		{"nobody leads", group("", 3, 3, 3), nodes("alive", "alive", "alive"), "fail", "ok", "ok", "", `leader ""`},
		{"one drains", group("a", 3, 3, 3), draining, "ok", "ok", "warn", "", "d drains: leads 0 groups, holds 2 replicas"},
		{"one's clock is wrong", group("a", 3, 3, 3), wrong, "ok", "ok", "warn", "", "b's wall clock is more than 500 ms from the others'"},
		{"one does not keep up", group("a", 3, 3, 3), lagging, "ok", "ok", "ok", "warn", "b: group 7 lacks 300 entries since 2026-11-24T12:00:00Z: a, which leads it, hears nothing from it; and 1 more; see that"},
		{"one is dead and lacks what came since", group("a", 3, 3, 2), lost, "warn", "warn", "fail", "", "all keep up"},
	} {
		fs := examineCluster([]*comandav1.GroupStatus{c.group}, c.nodes)
		words := ""
		for _, f := range fs {
			words += f.detail + "\n"
		}
		if c.replicas == "" {
			c.replicas = "ok"
		}
		if len(fs) != 4 || fs[3].state != c.replicas || fs[0].state != c.ofGroup || fs[1].state != c.voters || fs[2].state != c.node || !strings.Contains(words, c.word) {
			t.Errorf("%s: %v", c.what, fs)
		}
	}
}

// Without a leader of the catalog nobody knows who is alive: doctor says so, and does
// not say what one more failure would mean.
func TestExamineWithoutCatalog(t *testing.T) {
	groups := []*comandav1.GroupStatus{{Group: catalogGroup, Voters: 3, WantedVoters: 3, AliveVoters: 2}}
	nodes := []*comandav1.Node{{Name: "a", State: "alive"}, {Name: "b", State: "alive"}, {Name: "c", State: "down"}}
	words := ""
	for _, f := range examineCluster(groups, nodes) {
		words += f.check + " " + f.state + " " + f.detail + "\n"
	}
	if !strings.Contains(words, "catalog fail nobody leads group 1") || strings.Contains(words, "if one more fails") {
		t.Error(words)
	}
}
