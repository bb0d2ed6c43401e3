//go:build faults

package faults

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// A follower answers a read that may be a little old, by itself and says so. Cut
// off for longer it refuses, and answers again when it is back.
func TestFollowerReads(t *testing.T) {
	t.Parallel()
	s := newServers(t, 3).in(newNetwork(t, 3)).start()
	c := s.dial(0)
	if _, err := c.CreateQueue(t.Context(), queue, client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	follower := (s.leader(c, queue, "x") + 1) % 3
	s.wantFollowerRead(follower)
	heal := s.isolate(follower)
	<-time.After(6 * time.Second)
	if out, err := s.showStale(follower); err == nil || !strings.Contains(out, "UNAVAILABLE") {
		t.Errorf("cut off for 6 s, a follower answers a read with --stale 5s: %v\n%s", err, out)
	} else {
		t.Log(out)
	}
	heal()
	s.wantFollowerRead(follower)
}

// showStale asks one server for a queue as it was 5 s ago at the most.
func (s *servers) showStale(i int) (string, error) {
	s.t.Helper()
	out, err := exec.Command(serverBinary, "queue", "show", queue, "--stale", "5s", "-o", "json", "--server", s.nodes[i].addr).CombinedOutput()
	return string(out), err
}

func (s *servers) wantFollowerRead(i int) {
	s.t.Helper()
	eventually(s.t, "a follower to answer by itself", func() error {
		out, err := s.showStale(i)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var got struct {
			ServedBy string `json:"served_by"`
			Role     string `json:"role"`
			AgeMs    int    `json:"age_ms"`
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			s.t.Fatalf("%v\n%s", err, out)
		}
		if got.ServedBy != nodeName(i) || got.Role != "follower" || got.AgeMs > 5000 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}
