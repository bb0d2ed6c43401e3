package main

import (
	"fmt"
	"strings"
	"time"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// lacking says in words what a replica lacks, and since when.
func lacking(b *comandav1.ReplicaBehind) string {
	what := map[string]string{
		"silent":   b.GetLeader() + ", which leads it, hears nothing from it",
		"snapshot": "it needs a snapshot from " + b.GetLeader() + ", or is being sent one",
		"slow":     "it takes entries from " + b.GetLeader() + " slower than they come",
	}[b.GetWhy()]
	if what == "" {
		what = b.GetWhy()
	}
	return fmt.Sprintf("group %d lacks %d entries since %s: %s", b.GetGroup(), b.GetEntries(), b.GetSince().AsTime().Format(time.RFC3339), what)
}

// behindWords says what a node's replicas lack; empty: nothing. It names the first
// group.
func behindWords(n *comandav1.Node) string {
	bs := n.GetBehind()
	if len(bs) == 0 {
		return ""
	}
	words := lacking(bs[0])
	if more := len(bs) - 1; more > 0 {
		words += fmt.Sprintf("; and %d more", more)
	}
	return words
}

// whatToDo is what helps a replica that does not catch up.
var whatToDo = map[string]string{
	"silent":   "see that the two nodes reach each other, and what its log says",
	"snapshot": "if that does not end, see what its log says, and whether its disk has space",
	"slow":     "its disk or the network is too slow for the load: look at its fsync times, or drain it with 'comanda node drain'",
}

// examineReplicas names the replicas that do not keep up on nodes that are alive;
// what a silent node lacks is no news.
func examineReplicas(nodes []*comandav1.Node) finding {
	var troubled []string
	for _, n := range nodes {
		if words := behindWords(n); words != "" && n.GetState() == "alive" {
			troubled = append(troubled, fmt.Sprintf("%s: %s; %s", n.GetName(), words, whatToDo[n.GetBehind()[0].GetWhy()]))
		}
	}
	if len(troubled) == 0 {
		return finding{"replicas", "ok", "all keep up with their leaders"}
	}
	named := strings.Join(troubled[:min(maxNamed, len(troubled))], ". ")
	if more := len(troubled) - maxNamed; more > 0 {
		named += fmt.Sprintf(". And %d more nodes", more)
	}
	return finding{"replicas", "warn", named}
}
