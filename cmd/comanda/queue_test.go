package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// aged answers from a catalog that is younger than its counts.
type aged struct {
	comandav1.UnimplementedQueuesServer
	comandav1.UnimplementedClusterServer
}

func (aged) ListQueues(context.Context, *comandav1.ListQueuesRequest) (*comandav1.ListQueuesResponse, error) {
	return &comandav1.ListQueuesResponse{
		Queues:    []*comandav1.Queue{{Name: "orders"}, {Name: "new"}},
		Freshness: &comandav1.Freshness{ServedBy: "one", Role: "leader", AgeMs: 20},
	}, nil
}

func (aged) ListShards(context.Context, *comandav1.ListShardsRequest) (*comandav1.ListShardsResponse, error) {
	return &comandav1.ListShardsResponse{
		Shards:    []*comandav1.Shard{{Queue: "orders", Counts: &comandav1.Counts{Ready: 1}}, {Queue: "orders", Counts: &comandav1.Counts{Ready: 2}}},
		Freshness: &comandav1.Freshness{ServedBy: "two", Role: "follower", AgeMs: 700},
	}, nil
}

// A list of queues is as old as the older of what it is made of, and says nothing of what
// only 'queue show' knows.
func TestQueueListIsAsOldAsItsCounts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	comandav1.RegisterQueuesServer(s, aged{})
	comandav1.RegisterClusterServer(s, aged{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	list := func(format string) (out, said string) {
		var o, e bytes.Buffer
		root := newRoot()
		root.SetArgs([]string{"queue", "list", "--stale", "1s", "-o", format, "--server", l.Addr().String()})
		root.SetOut(&o)
		root.SetErr(&e)
		if _, err := execute(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		return o.String(), e.String()
	}
	out, _ := list("jsonl")
	orders, _, _ := strings.Cut(out, "\n")
	for _, want := range []string{`"served_by":"two","role":"follower","age_ms":700`, `"counts":{"ready":3,`} {
		if !strings.Contains(orders, want) {
			t.Errorf("%s lacks %s", orders, want)
		}
	}
	for _, unknown := range []string{"leaving", "pauses", "receivers", "totals"} {
		if strings.Contains(out, unknown) {
			t.Errorf("a list tells of %s: %s", unknown, out)
		}
	}
	if _, said := list("table"); !strings.Contains(said, "Served by two (follower), at most 700 ms old.") {
		t.Errorf("a person is told %q", said)
	}
}
