package catalog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// A queue is paused by somebody, once; to resume it forgets who did.
func TestPausedQueue(t *testing.T) {
	w := towns(3)
	w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 1}})
	pause := func(paused bool, of message.Pause) Result {
		return w.do(Command{PauseQueue: &PauseQueue{Name: "q", Paused: paused, Of: of}})
	}
	first := message.Pause{By: "ann", At: 7}
	pause(true, first)
	if q := pause(true, message.Pause{By: "eve", At: 9}).Queue; !q.Paused || q.Pause != first {
		t.Fatalf("it is paused by %+v, want %+v", q.Pause, first)
	}
	if q := pause(false, message.Pause{At: 10}).Queue; q.Paused || q.Pause != (message.Pause{}) {
		t.Fatalf("after it was resumed: %+v", q)
	}
	if r := pause(true, message.Pause{By: strings.Repeat("x", message.MaxWorker+1)}); message.CodeOf(r.Err) != message.TooLarge {
		t.Fatalf("a long name: %v", r.Err)
	}
}

// Keys and tenants of a queue are paused by somebody, once, and resumed; a limit keeps
// them few.
func TestPausedParts(t *testing.T) {
	w := towns(3)
	w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 1}})
	pause := func(paused bool, of message.Pause) Result {
		return w.do(Command{PauseQueue: &PauseQueue{Name: "q", Paused: paused, Of: of}})
	}
	first := pause(true, message.Pause{Key: "k", By: "ann", At: 7}).Queue
	pause(true, message.Pause{Tenant: "k", By: "bob", At: 8})
	again := pause(true, message.Pause{Key: "k", By: "eve", At: 9}).Queue
	want := []message.Pause{{Tenant: "k", By: "bob", At: 8}, {Key: "k", By: "ann", At: 7}}
	if fmt.Sprint(again.Pauses) != fmt.Sprint(want) || again.Paused || len(first.Pauses) != 1 {
		t.Fatalf("paused are %+v, want %+v; before %+v", again.Pauses, want, first.Pauses)
	}
	q := pause(false, message.Pause{Key: "k"}).Queue
	if fmt.Sprint(q.Pauses) != fmt.Sprint(want[:1]) {
		t.Fatalf("after a key was resumed: %+v", q.Pauses)
	}
	if r := pause(false, message.Pause{Key: "k"}); r.Queue.Version != q.Version {
		t.Fatal("to resume what is not paused made a version")
	}
	if r := pause(true, message.Pause{Key: "k", Tenant: "k"}); message.CodeOf(r.Err) != message.InvalidArgument {
		t.Fatalf("a key and a tenant: %v", r.Err)
	}
	taken := 1
	for n := range message.MaxPauses + 1 {
		r := pause(true, message.Pause{Key: fmt.Sprint(n), By: "ann"})
		if r.Err == nil {
			taken++
		} else if message.CodeOf(r.Err) != message.ResourceExhausted {
			t.Fatal(r.Err)
		}
	}
	if taken != message.MaxPauses {
		t.Fatalf("%d pauses were taken", taken)
	}
	w = towns(3)
	w.do(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 1}})
	for taken = 0; pause(true, message.Pause{Key: fmt.Sprint(taken, strings.Repeat("k", 200)), By: "ann"}).Err == nil; taken++ {
	}
	if taken < 600 || taken > 660 {
		t.Fatalf("%d long names were taken", taken)
	}
}
