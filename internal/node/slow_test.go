package node_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/node"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// With everything slow, a send and a settlement are logged with all stages and
// nothing that clients keep secret, and a receive without the time that its client has
// waited by wish.
func TestSlowOperationsAreLogged(t *testing.T) {
	var log lines
	n, err := node.Start(t.Context(), node.Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", LogSlow: time.Nanosecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if _, _, err := n.Gateway().CreateQueue(t.Context(), "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	post := func(path, body string) string {
		t.Helper()
		code, text := call(t, http.MethodPost, "http://"+n.Addr().String()+"/v1/"+path, body)
		if code != http.StatusOK {
			t.Fatal(path, code, text)
		}
		return text
	}
	post("queues/orders/messages", "a secret")
	got := post("queues/orders/receive?wait=60s", "")
	token := regexp.MustCompile(`"token": *"([^"]+)"`).FindStringSubmatch(got)
	if token == nil {
		t.Fatal(got)
	}
	post("leases/"+token[1]+"/release", "")
	text := log.String()
	for _, op := range []string{"Send", "Release"} {
		line := `msg="an operation was slow" protocol=rest op=` + op + ` queue=orders code=OK took=\S+ proposals=1 group=\d+ proposal=\S+ wait=\S+ commit=\S+ apply=\S+ reply=\S+\n`
		if !regexp.MustCompile(line).MatchString(text) {
			t.Errorf("nothing of %s in:\n%s", op, text)
		}
	}
	if line := regexp.MustCompile(`op=Receive queue=orders code=OK took=\S+ wish=(\S+)\n`).FindStringSubmatch(text); line == nil || line[1] == "1m0s" {
		t.Errorf("nothing of Receive, or all of its wish, in:\n%s", text)
	}
	for _, not := range []string{"a secret", token[1]} {
		if strings.Contains(text, not) {
			t.Errorf("%q is in:\n%s", not, text)
		}
	}
}
