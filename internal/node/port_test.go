package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

func dial(t *testing.T, n *Node) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(n.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// do sends an HTTP request with headers in pairs, "Host" among them.
func do(t *testing.T, n *Node, method, path, body string, headers ...string) (code int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// gRPC and HTTP meet on one port.
func TestOnePortServesBoth(t *testing.T) {
	n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data"})
	w := &workload{t: t, g: n.Gateway()}
	w.create("orders", 1, message.Settings{})
	sent, err := comandav1.NewMessagesClient(dial(t, n)).Send(t.Context(), &comandav1.SendRequest{Queue: "orders", Messages: []*comandav1.NewMessage{{Body: []byte("pizza")}}})
	if err != nil {
		t.Fatal(err)
	}
	id := sent.GetResults()[0].GetId()
	if code, answer := do(t, n, "GET", "/v1/messages/"+id, ""); code != http.StatusOK || !strings.Contains(answer, id) {
		t.Errorf("%d %s", code, answer)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if code, answer := do(t, n, "GET", path, ""); code != http.StatusOK || answer != "ok\n" {
			t.Errorf("%s: %d %s", path, code, answer)
		}
	}
	end(t, n)
}

// A page of another site, and a name that was rebound to loopback, store
// nothing and learn nothing.
func TestForeignPageChangesNothing(t *testing.T) {
	n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data", AllowedHosts: []string{"queue.example"}})
	w := &workload{t: t, g: n.Gateway()}
	w.create("orders", 1, message.Settings{})
	send := func(headers ...string) int {
		code, _ := do(t, n, "POST", "/v1/queues/orders/messages", "x", headers...)
		return code
	}
	for _, headers := range [][]string{{"Origin", "http://evil.test"}, {"Origin", "null"}, {"Host", "evil.test"}, {"Host", "evil.test", "Origin", "http://localhost"}} {
		if code := send(headers...); code != http.StatusForbidden {
			t.Errorf("%v: %d", headers, code)
		}
	}
	if info, _, err := n.Gateway().Queue(t.Context(), "orders", message.ReadOptions{}); err != nil || info.Counts != (message.Counts{}) {
		t.Errorf("%+v, %v", info.Counts, err)
	}
	for _, headers := range [][]string{{}, {"Origin", "http://localhost:3000"}, {"Host", "queue.example"}} {
		if code := send(headers...); code != http.StatusOK {
			t.Errorf("%v: %d", headers, code)
		}
	}
	if info, _, err := n.Gateway().Queue(t.Context(), "orders", message.ReadOptions{}); err != nil || info.Counts != (message.Counts{Ready: 3}) {
		t.Errorf("%+v, %v", info.Counts, err)
	}
	end(t, n)
}

// pipes is a listener whose connections are pipes in memory.
type pipes struct{ *handoff }

func newPipes() pipes { return pipes{newHandoff(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7400})} }

func (p pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.give(server)
	return client
}

// Whoever connects and says nothing is sent away after sniffWithin; whoever has
// begun to speak HTTP, after as long for the head of the request.
func TestSilentConnectionIsClosed(t *testing.T) {
	for _, said := range []string{"", "PR", "GET / HT"} {
		synctest.Test(t, func(t *testing.T) {
			l := newPipes()
			p := newPort(l, grpc.NewServer(), func() {}, http.NotFoundHandler())
			p.start()
			c := l.dial()
			begun := time.Now()
			if _, err := io.WriteString(c, said); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(begun.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			_, err := io.ReadAll(c)
			if waited := time.Since(begun); err != nil && !errors.Is(err, io.EOF) || waited != sniffWithin {
				t.Errorf("after %q and %s: %v", said, waited, err)
			}
			if len(p.slots) != 0 {
				t.Error("the connection still counts")
			}
			c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			p.stop(ctx)
		})
	}
}
