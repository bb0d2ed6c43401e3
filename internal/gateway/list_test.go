package gateway_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

// A page of a list ends when it is large, wherever in the queue's groups that is,
// and the next one goes on there: none is left out and none comes twice.
func TestListOfLargeMessagesComesInPages(t *testing.T) {
	const messages, each = 200, message.MaxAttributeBytes - 1_000
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	for i := range messages {
		send(t, g, "orders", message.New{Key: fmt.Sprint(i), Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeBytes, Value: make([]byte, each)}}})
	}
	seen := map[message.ID]bool{}
	pages := 0
	for page := ""; ; {
		l, err := g.List(t.Context(), "orders", message.ListOptions{State: message.Ready, Max: message.MaxBatch, Page: page})
		if err != nil {
			t.Fatal(err)
		}
		pages++
		if len(l.Messages)*each > 9<<20 {
			t.Errorf("page %d has %d messages of %d bytes", pages, len(l.Messages), each)
		}
		for i := range l.Messages {
			if seen[l.Messages[i].ID] {
				t.Fatalf("message %s comes twice", l.Messages[i].ID)
			}
			seen[l.Messages[i].ID] = true
		}
		if page = l.NextPage; page == "" {
			break
		}
	}
	if len(seen) != messages || pages > 10 {
		t.Errorf("%d pages have %d of %d messages", pages, len(seen), messages)
	}
}

// pages reads a whole list and calls between before each page but the first.
func pages(t *testing.T, g *gateway.Gateway, name string, o message.ListOptions, between func(page int)) (all []message.Shown, plans []message.ListPlan) {
	t.Helper()
	for {
		l, err := g.List(t.Context(), name, o)
		if err != nil {
			t.Fatal(err)
		}
		all, plans = append(all, l.Messages...), append(plans, l.Plan)
		if o.Page = l.NextPage; o.Page == "" {
			return all, plans
		}
		between(len(plans))
	}
}

// A list goes on where it was although its shard is split again and again
// meanwhile: each message comes once.
func TestListGoesOnAfterSplit(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 1)
	var want []message.ID
	for i := range 60 {
		want = append(want, send(t, g, "orders", message.New{Key: fmt.Sprint(i)})...)
	}
	all, plans := pages(t, g, "orders", message.ListOptions{Max: 7}, func(page int) {
		if page <= 3 {
			if _, err := g.SplitShard(t.Context(), "orders", "0"+strings.Repeat(".1", page-1)); err != nil {
				t.Fatal(err)
			}
		}
	})
	var got []message.ID
	for i := range all {
		got = append(got, all[i].ID)
	}
	slices.SortFunc(got, func(a, b message.ID) int { return bytes.Compare(a[:], b[:]) })
	slices.SortFunc(want, func(a, b message.ID) int { return bytes.Compare(a[:], b[:]) })
	if !slices.Equal(got, want) {
		t.Errorf("%d messages came in %d pages, want each of %d once", len(got), len(plans), len(want))
	}
}

// Messages are found by key, type and time, in one queue and in all of them, and
// the plan tells what that took.
func TestListFilters(t *testing.T) {
	g := start(t)
	for i, name := range []string{"a", "b", "c"} {
		create(t, g, name, message.Settings{}, 1+3*(i%2))
		for n := range 10 {
			send(t, g, name, message.New{Key: fmt.Sprint("k", n), Type: fmt.Sprint("t", n%2), Body: []byte{byte(n)}})
		}
		send(t, g, name, message.New{Key: "k3", Delay: time.Hour})
	}
	now := time.Now()
	none := func(int) {}
	for _, c := range []struct {
		name  string
		queue string
		o     message.ListOptions
		want  int
		plan  message.ListPlan // of all pages
	}{
		{"ready ones", "b", message.ListOptions{}, 10, message.ListPlan{Index: "arrival", Rows: 11, Queues: 1, Reads: 4}},
		{"by type", "b", message.ListOptions{Type: "t1"}, 5, message.ListPlan{Index: "arrival", Rows: 11, Queues: 1, Reads: 4}},
		{"by key", "b", message.ListOptions{Key: "k3"}, 2, message.ListPlan{Index: "key", Rows: 2, Queues: 1, Reads: 1}},
		{"by key and state", "b", message.ListOptions{Key: "k3", State: message.Scheduled}, 1, message.ListPlan{Index: "key", Rows: 2, Queues: 1, Reads: 1}},
		{"of the future", "b", message.ListOptions{Since: now.Add(time.Hour)}, 0, message.ListPlan{Index: "arrival", Rows: 11, Queues: 1, Reads: 4}},
		{"of the past", "b", message.ListOptions{Until: now.Add(-time.Hour)}, 0, message.ListPlan{Index: "arrival", Rows: 11, Queues: 1, Reads: 4}},
		{"of this hour", "b", message.ListOptions{Since: now.Add(-time.Hour), Until: now.Add(time.Hour)}, 10, message.ListPlan{Index: "arrival", Rows: 11, Queues: 1, Reads: 4}},
		{"in all queues", message.AllQueues, message.ListOptions{}, 30, message.ListPlan{Index: "arrival", Rows: 33, Queues: 3, Reads: 6}},
		{"by key in all queues", message.AllQueues, message.ListOptions{Key: "k3"}, 6, message.ListPlan{Index: "key", Rows: 6, Queues: 3, Reads: 3}},
	} {
		c.o.Max = 100
		whole, plans := pages(t, g, c.queue, c.o, none)
		if len(whole) != c.want || len(plans) != 1 || plans[0] != c.plan {
			t.Errorf("%s: %d messages by %+v, want %d by %+v", c.name, len(whole), plans, c.want, c.plan)
		}
		c.o.Max = 1
		if all, _ := pages(t, g, c.queue, c.o, none); !slices.EqualFunc(all, whole, func(a, b message.Shown) bool { return a.ID == b.ID }) {
			t.Errorf("%s: one at a time %d messages, want %d in the same order", c.name, len(all), len(whole))
		}
	}
	for _, o := range []message.ListOptions{{Max: 1, Since: now, Until: now}, {Max: 1, Key: "\xff"}, {Max: 1, Type: "\xff"}, {Max: 1001}, {}, {Max: 1, Page: "x"}} {
		if _, err := g.List(t.Context(), "a", o); message.CodeOf(err) != message.InvalidArgument {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// A list that finds nothing looks at so many rows and no more, and goes on there.
func TestListEndsAfterManyRows(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	const messages = 2*message.MaxExamined + message.MaxBatch
	for range messages / message.MaxBatch {
		send(t, g, "orders", make([]message.New, message.MaxBatch)...)
	}
	all, plans := pages(t, g, "orders", message.ListOptions{Type: "none", Max: 10}, func(int) {})
	rows := 0
	for _, p := range plans {
		rows += p.Rows
		if p.Rows > message.MaxExamined {
			t.Errorf("a page looked at %d rows", p.Rows)
		}
	}
	if len(all) != 0 || len(plans) != 3 || rows != messages {
		t.Errorf("%d messages, %d pages and %d rows, want 0, 3 and %d", len(all), len(plans), rows, messages)
	}
}
