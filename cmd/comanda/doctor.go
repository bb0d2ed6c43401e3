package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// What doctor finds worth a word.
const (
	slowFsync  = 50 * time.Millisecond
	clockApart = time.Second
	unattended = time.Minute // without a receiver; nobody polls as rarely
	maxNamed   = 5           // queues in one finding
	perPage    = 1_000       // queues in one answer
	// catalogGroup knows what exists and who is alive.
	catalogGroup = 1
)

// finding is one check's outcome.
type finding struct {
	check, state, detail string // state: ok, warn or fail
}

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check a server and its cluster: versions, disk, fsync, clock, groups, voters, nodes, replicas that are behind, queues without a worker", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				before := time.Now()
				r, err := c.Server(cmd.Context())
				if err != nil {
					return err
				}
				took := time.Since(before)
				queues, err := examineQueues(cmd.Context(), c, r.GetNow().AsTime())
				if client.CodeOf(err) == client.CodeUnavailable { // the groups say why
					queues, err = []finding{{"workers", "fail", "the queues can't be read: " + err.Error()}}, nil
				}
				if err != nil {
					return err
				}
				nodes, err := c.Nodes(cmd.Context())
				if err != nil {
					return err
				}
				findings := append(examine(r, before.Add(took/2), took), examineCluster(r.GetGroups(), nodes)...)
				findings = append(findings, queues...)
				os := make([]object, len(findings))
				failed := false
				for i, f := range findings {
					os[i] = object{{"check", f.check}, {"state", f.state}, {"detail", f.detail}}
					failed = failed || f.state == "fail"
				}
				if err := p.many(os, "check", "state", "detail"); err != nil {
					return err
				}
				if failed {
					return errors.New("the server needs attention, see above")
				}
				return nil
			})
		},
	}
}

// examine judges what the server says of itself, which it said at about now.
func examine(r *comandav1.GetServerResponse, now time.Time, took time.Duration) []finding {
	fs := []finding{{"answer", "ok", fmt.Sprintf("%s answered in %s", r.GetNode(), took.Round(time.Microsecond))}}
	add := func(check string, ok bool, otherwise, format string, args ...any) {
		state := "ok"
		if !ok {
			state = otherwise
		}
		fs = append(fs, finding{check, state, fmt.Sprintf(format, args...)})
	}
	add("version", r.GetVersion() == version, "warn", "server %s, this command %s", r.GetVersion(), version)
	d := r.GetDisk()
	add("disk", !d.GetBelowReserve(), "fail", "%d MiB of %d MiB free; sends are refused below %d MiB",
		d.GetFreeBytes()>>20, d.GetTotalBytes()>>20, d.GetReserveBytes()>>20)
	fsync := time.Duration(d.GetFsyncP99Us()) * time.Microsecond
	add("fsync", fsync < slowFsync, "warn", "99 of 100 take at most %s, half at most %s", fsync, time.Duration(d.GetFsyncP50Us())*time.Microsecond)
	if m := r.GetMemory(); m.GetLimitBytes() > 0 {
		add("memory", m.GetUsedBytes() < m.GetLimitBytes(), "fail", "%d MiB of %d MiB in use; above that sends are refused",
			m.GetUsedBytes()>>20, m.GetLimitBytes()>>20)
	}
	apart := r.GetNow().AsTime().Sub(now).Abs()
	add("clock", apart < clockApart+took, "warn", "%s apart from this machine's", apart.Round(time.Millisecond))
	return fs
}

// examineCluster judges the groups and the nodes that hold them.
func examineCluster(groups []*comandav1.GroupStatus, nodes []*comandav1.Node) (fs []finding) {
	fewest := int32(0)
	for _, g := range groups {
		f := finding{fmt.Sprintf("group %d", g.GetGroup()), "ok", fmt.Sprintf("leader %q, %d voters and %d of these alive, %d wanted, %d learners",
			g.GetLeader(), g.GetVoters(), g.GetAliveVoters(), g.GetWantedVoters(), g.GetLearners())}
		switch {
		case g.GetLeader() == "":
			f.state = "fail"
		case g.GetVoters() != g.GetWantedVoters() || g.GetAliveVoters() < g.GetWantedVoters():
			f.state = "warn"
		}
		fs = append(fs, f)
		if voters := min(g.GetVoters(), g.GetAliveVoters()); fewest == 0 || voters < fewest {
			fewest = voters
		}
	}
	if slices.ContainsFunc(groups, func(g *comandav1.GroupStatus) bool { return g.GetGroup() == catalogGroup && g.GetLeader() == "" }) {
		return append(fs, finding{"catalog", "fail", "nobody leads group 1, so who is alive and what is behind, above and below, is what was known last: start more nodes until it has a majority"},
			examineNodes(nodes), examineReplicas(nodes))
	}
	return append(fs, examineVoters(fewest, len(nodes)), examineNodes(nodes), examineReplicas(nodes))
}

// examineVoters says what the fewest voters of a group mean.
func examineVoters(fewest int32, nodes int) finding {
	switch {
	case fewest >= groupVoters:
		return finding{"voters", "ok", fmt.Sprintf("%d in each group at least: %d may fail", fewest, (fewest-1)/2)}
	case fewest == 2:
		return finding{"voters", "warn", "2 in a group: if one more fails the group stops; start the node that is down, or a new one with --join and then remove the lost one"}
	case nodes == 1:
		return finding{"voters", "ok", "1 node: what is confirmed is on one disk; with three nodes it is on two"}
	case nodes == 2:
		return finding{"voters", "warn", "2 nodes: the second one copies, and durability is still one disk; a third one makes three voters"}
	}
	return finding{"voters", "warn", fmt.Sprintf("%d in a group, although there are %d nodes: until the others have caught up its durability is one disk", fewest, nodes)}
}

// examineNodes names the nodes that are not as they should be.
func examineNodes(nodes []*comandav1.Node) finding {
	f := finding{check: "nodes", state: "ok"}
	var troubled []string
	for _, n := range nodes {
		if n.GetClockOff() {
			troubled = append(troubled, n.GetName()+"'s wall clock is more than 500 ms from the others': it leads nothing that another node can lead; set it right, see NTP")
		}
		switch {
		case n.GetState() == "down":
			f.state = "fail"
			troubled = append(troubled, n.GetName()+" is down: its seats wait for it until it is removed, after 10 min or by 'comanda node remove'")
		case n.GetState() != "alive":
			troubled = append(troubled, n.GetName()+" is "+n.GetState())
		case n.GetDraining():
			troubled = append(troubled, fmt.Sprintf("%s drains: leads %d groups, holds %d replicas", n.GetName(), n.GetLeads(), n.GetReplicas()))
		}
	}
	if len(troubled) == 0 {
		f.detail = fmt.Sprintf("%d, all alive", len(nodes))
		return f
	}
	if f.state == "ok" {
		f.state = "warn"
	}
	f.detail = fmt.Sprintf("of %d: %s", len(nodes), strings.Join(troubled, "; "))
	return f
}

// examineQueues looks for queues whose messages wait for a worker that is not there, or
// would go to a queue that is not there when they are dead.
func examineQueues(ctx context.Context, c *client.Client, now time.Time) ([]finding, error) {
	var alone []string
	exists, deadLetterTo := map[string]bool{}, map[string]string{}
	for page := ""; ; {
		r, err := c.Queues(ctx, perPage, page)
		if err != nil {
			return nil, err
		}
		for _, listed := range r.GetQueues() {
			name := listed.GetName()
			exists[name] = true
			if to := listed.GetSettings().GetDeadLetterTo(); to != "" {
				deadLetterTo[name] = to
			}
			q, err := c.Queue(ctx, name)
			switch {
			case client.CodeOf(err) == client.CodeQueueNotFound: // deleted meanwhile
			case err != nil:
				return nil, err
			case !attended(q.GetQueue(), now):
				alone = append(alone, fmt.Sprintf("%s (%d ready)", name, q.GetQueue().GetCounts().GetReady()))
			}
		}
		if page = r.GetNextPage(); page == "" {
			break
		}
	}
	var lost []string
	for _, name := range slices.Sorted(maps.Keys(deadLetterTo)) {
		if to := deadLetterTo[name]; !exists[to] {
			lost = append(lost, fmt.Sprintf("%s (to %s)", name, to))
		}
	}
	workers := finding{"workers", "ok", fmt.Sprintf("none of %d queues waits for a worker", len(exists))}
	if len(alone) > 0 {
		workers = finding{"workers", "warn", "nobody receives from " + some(alone)}
	}
	if len(lost) == 0 {
		return []finding{workers}, nil
	}
	return []finding{workers, {"dead letters", "warn", "the dead stay in " + some(lost) + ", for the queue that they are to go to does not exist: change dead_letter_to"}}, nil
}

// some names the first of them.
func some(names []string) string {
	named := strings.Join(names[:min(maxNamed, len(names))], ", ")
	if more := len(names) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return named
}

// attended says that a queue needs no worker now, or has one: somebody waits for
// its messages, holds one, or asked a moment ago.
func attended(q *comandav1.Queue, now time.Time) bool {
	counts := q.GetCounts()
	return q.GetPaused() || counts.GetReady() == 0 || counts.GetLeased() > 0 || q.GetReceivers() > 0 ||
		(q.GetReceivedAt() != nil && now.Sub(q.GetReceivedAt().AsTime()) < unattended)
}
