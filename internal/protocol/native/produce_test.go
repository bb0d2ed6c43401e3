package native

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/metrics"
)

func produceRequest(queue string, bodies ...string) *comandav1.ProduceRequest {
	send := &comandav1.SendRequest{Queue: queue}
	for _, b := range bodies {
		send.Messages = append(send.Messages, &comandav1.NewMessage{Body: []byte(b)})
	}
	return &comandav1.ProduceRequest{Send: send}
}

// Requests are done and answered in order; one that is refused leaves the stream as it
// was, and so does a defect.
func TestProduce(t *testing.T) {
	f := newFake()
	stream, err := dialMessages(t, f).Produce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *comandav1.ProduceRequest) *comandav1.ProduceResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if r := ask(produceRequest("q", "a", "b")); r.GetError() != nil || len(r.GetSent().GetResults()) != 2 {
		t.Errorf("two messages: %v", r)
	}
	if r := ask(produceRequest("q")); r.GetError().GetCode() != "INVALID_ARGUMENT" || r.GetSent() != nil {
		t.Errorf("no message: %v", r)
	}
	if r := ask(&comandav1.ProduceRequest{}); r.GetError().GetCode() != "INVALID_ARGUMENT" {
		t.Errorf("nothing: %v", r)
	}
	f.err = message.Errorf(message.QueueNotFound, "no queue")
	if r := ask(produceRequest("q", "c")); r.GetError().GetCode() != "QUEUE_NOT_FOUND" || r.GetError().GetMessage() != "no queue" {
		t.Errorf("no queue: %v", r)
	}
	f.err = nil
	for i := range 5 { // all at once, answered one after the other
		if err := stream.Send(produceRequest(fmt.Sprint("q", i), "d")); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if r, err := stream.Recv(); err != nil || r.GetError() != nil {
			t.Errorf("%v, %v", r, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	var queues []string
	for _, s := range f.seen() {
		queues = append(queues, strings.Fields(s)[1])
	}
	if want := []string{"q", "q", "q0", "q1", "q2", "q3", "q4"}; !slices.Equal(queues, want) {
		t.Errorf("got %v, want %v", queues, want)
	}
}

// A server that drains answers what it has begun, and then says that nothing more was
// done. New streams end at once. None of it is counted as a failure.
func TestProduceEndsWhenTheServerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.sending = make(chan struct{})
		s := newServer(t, f)
		s.metrics = metrics.New(clock.System(), func() metrics.Report { return metrics.Report{} })
		c := comandav1.NewMessagesClient(serve(t, s, "localhost"))
		stream, err := c.Produce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"begun", "not begun"} {
			if err := stream.Send(produceRequest("q", body)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		s.Drain()
		s.Drain()
		close(f.sending)
		if r, err := stream.Recv(); err != nil || len(r.GetSent().GetResults()) != 1 {
			t.Errorf("what was begun: %v, %v", r, err)
		}
		_, err = stream.Recv()
		if err == nil { // the second one was next in line
			_, err = stream.Recv()
		}
		if reason(err) != "UNAVAILABLE" {
			t.Errorf("what was not begun: %v", err)
		}
		if stream, err = c.Produce(t.Context()); err == nil {
			_, err = stream.Recv()
		}
		if reason(err) != "UNAVAILABLE" {
			t.Errorf("a new stream: %v", err)
		}
		synctest.Wait()
		w := httptest.NewRecorder()
		s.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if text := w.Body.String(); strings.Contains(text, "UNAVAILABLE") || !strings.Contains(text, `comanda_requests_total{code="OK",op="Produce",protocol="grpc"} 2`) {
			t.Errorf("the ends of the streams are counted as failures:\n%s", text)
		}
	})
}
