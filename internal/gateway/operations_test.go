package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// What can't be moved, shown or cancelled is refused before anything is begun.
func TestOperationsRefused(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 1)
	create(t, g, "limited", message.Settings{MaxInFlight: 1}, 2)
	nodes, err := g.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	me := nodes[0].Name
	move := func(queue, path, node string) func() error {
		return func() error {
			_, err := g.MoveShard(t.Context(), queue, path, node, "ann")
			return err
		}
	}
	redrive := func(queue string, r message.Redrive) func() error {
		return func() error {
			_, err := g.RedriveQueue(t.Context(), queue, r, "ann", false)
			return err
		}
	}
	list := func(limit int, page string) func() error {
		return func() error {
			_, _, err := g.Operations(t.Context(), limit, page)
			return err
		}
	}
	drain := func(undo bool) {
		t.Helper()
		if _, err := g.DrainNode(t.Context(), me, undo); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what string
		do   func() error
		code message.Code
		says string
	}{
		{"no such node", move("orders", "0", "nobody"), message.NotFound, "comanda node list"},
		{"no such queue", move("other", "0", me), message.QueueNotFound, "comanda queue create other"},
		{"no such shard", move("orders", "0.1", me), message.NotFound, "comanda shard list --queue orders"},
		{"no path", move("orders", "", me), message.NotFound, "no shard"},
		{"bad name", move("or ders", "0", me), message.InvalidArgument, "queue name"},
		{"counted as a whole", move("limited", "0.1", me), message.InvalidArgument, "max_in_flight"},
		{"no such operation", func() error {
			_, err := g.Operation(t.Context(), 7)
			return err
		}, message.NotFound, "comanda operation list"},
		{"nor to pause", func() error {
			_, err := g.PauseOperation(t.Context(), 7, true, "ann")
			return err
		}, message.NotFound, "comanda operation list"},
		{"no such reason", redrive("orders", message.Redrive{Filter: message.DeadFilter{Reason: "bored"}}), message.InvalidArgument, "worker_lost"},
		{"no such rate", redrive("orders", message.Redrive{Rate: -1}), message.InvalidArgument, "rate"},
		{"no time", redrive("orders", message.Redrive{Filter: message.DeadFilter{Since: time.Unix(2, 0), Until: time.Unix(2, 0)}}), message.InvalidArgument, "dead_until"},
		{"no queue to redrive", redrive("other", message.Redrive{}), message.QueueNotFound, "comanda queue create other"},
		{"nor to cancel", func() error {
			_, err := g.CancelOperation(t.Context(), 7, "ann")
			return err
		}, message.NotFound, "comanda operation list"},
		{"too few", list(0, ""), message.InvalidArgument, "1 to 1000"},
		{"too many", list(1001, ""), message.InvalidArgument, "1 to 1000"},
		{"no page", list(1, "x"), message.InvalidArgument, "next_page"},
		{"draining", func() error {
			drain(false)
			defer drain(true)
			return move("orders", "0", me)()
		}, message.Conflict, "--undo"},
	} {
		if err := c.do(); message.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s and %q", c.what, err, c.code, c.says)
		}
	}
	if os, next, err := g.Operations(t.Context(), 1, ""); err != nil || len(os) != 0 || next != "" {
		t.Errorf("refusals began %+v, %q, %v", os, next, err)
	}
}

// Operations are listed in pages, the newest first. One that has ended can be
// cancelled, and stays as it is.
func TestOperationsInPages(t *testing.T) {
	g := start(t)
	nodes, err := g.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"a", "b", "c"} {
		create(t, g, q, message.Settings{}, 1)
		if o, err := g.MoveShard(t.Context(), q, "0", nodes[0].Name, "ann"); err != nil || o.Title != "move shard "+q+"/0 to "+nodes[0].Name || o.State != "running" {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	var got []string
	for page := ""; ; {
		os, next, err := g.Operations(t.Context(), 2, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range os {
			got = append(got, o.Title[len("move shard "):len("move shard ")+1])
		}
		if page = next; page == "" {
			break
		}
	}
	if strings.Join(got, " ") != "c b a" {
		t.Errorf("listed %v", got)
	}
	for {
		o, err := g.Operation(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if o.State == "done" { // it is there
			break
		}
		if o.State != "running" {
			t.Fatalf("%+v", o)
		}
	}
	if o, err := g.CancelOperation(t.Context(), 1, "ann"); message.CodeOf(err) != message.Ended {
		t.Errorf("cancelled after its end: %+v, %v", o, err)
	}
}
