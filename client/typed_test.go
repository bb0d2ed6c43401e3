package client_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

type bake struct {
	Pizza string `json:"pizza"`
}

func (bake) Type() string { return "bake" }

type deliver struct{ To string }

func (*deliver) Type() string { return "deliver" }

// A typed send sets type and body, and what its options say.
func TestTypedSend(t *testing.T) {
	var got []*comandav1.NewMessage
	f := &fake{onSend: func(_ context.Context, req *comandav1.SendRequest) error {
		got = append(got, req.GetMessages()...)
		return nil
	}}
	c := start(t, f)
	if _, err := client.Send(t.Context(), c, "q", bake{"margherita"}, func(m *client.Message) { m.Key = "alice" }); err != nil {
		t.Fatal(err)
	}
	if m := got[0]; m.GetType() != "bake" || string(m.GetBody()) != `{"pizza":"margherita"}` || m.GetKey() != "alice" {
		t.Errorf("sent %v", m)
	}
	if _, err := client.Send(t.Context(), c, "q", odd{}); client.CodeOf(err) != client.CodeInvalidArgument || !strings.Contains(err.Error(), `"odd"`) {
		t.Errorf("what is no JSON: %v", err)
	}
	if len(got) != 1 {
		t.Errorf("sent %v", got)
	}
}

type odd struct{ F func() }

func (odd) Type() string { return "odd" }

// Each message gets to the handler of its type, with its arguments. One of an
// unknown type fails, and tells what this worker knows; one whose body is something
// else is rejected.
func TestMux(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		var mux client.Mux
		var saw []string
		client.Handle(&mux, func(_ context.Context, j *client.Job[bake]) error {
			saw = append(saw, j.ID()+" bake "+j.Args.Pizza)
			return nil
		})
		client.Handle(&mux, func(_ context.Context, j *client.Job[*deliver]) error {
			saw = append(saw, j.ID()+" deliver to "+j.Args.To)
			return nil
		})
		mux.Handle("", func(_ context.Context, j *client.RawJob) error {
			saw = append(saw, j.ID()+" "+string(j.Body()))
			return nil
		})
		w := &client.Worker{Client: start(t, f), Concurrency: 1, Handler: mux.Run}
		for _, m := range []struct{ typ, body string }{{"bake", `{"pizza":"napoli"}`}, {"deliver", `{"To":"bob"}`}, {"", "plain"}, {"sing", "{}"}, {"bake", `["napoli"]`}} {
			f.put(m.body)
			f.ready[len(f.ready)-1].Type = m.typ
		}
		stop := work(t, w)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if want := []string{`id-{"pizza":"napoli"} bake napoli`, `id-{"To":"bob"} deliver to bob`, "id-plain plain"}; !slices.Equal(saw, want) {
			t.Errorf("handled %q", saw)
		}
		if got := f.actions(); !slices.Equal(got, []string{"t1 ACK", "t2 ACK", "t3 ACK", "t4 NACK", "t5 REJECT"}) {
			t.Fatalf("settled %q", got)
		}
		if got := f.settled[3].GetError(); got != `no handler of type "sing": this worker has "", "bake", "deliver"` {
			t.Errorf("an unknown type: %s", got)
		}
		if got := f.settled[4].GetError(); !strings.HasPrefix(got, "the body is not a client_test.bake: ") {
			t.Errorf("another body: %s", got)
		}
	})
}

// Two handlers of one type are a fault of the program.
func TestMuxRefusesASecondHandler(t *testing.T) {
	var mux client.Mux
	h := func(context.Context, *client.Job[bake]) error { return nil }
	client.Handle(&mux, h)
	defer func() {
		if recover() == nil {
			t.Error("it was taken")
		}
	}()
	client.Handle(&mux, h)
}
