//go:build faults

package faults

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// beWorkers makes this binary a process of workers, which a test can stop and
// kill: the tests start themselves so.
var beWorkers = flag.String("be-workers", "", "for the tests' own use: the workers to be, as JSON")

// crew is a number of workers in one process, each with a connection and with Each
// messages, default one. They take them, say so, and ack them when they are told to. What they are
// told to stop they ack at once, although it is or will be others', or do not heed
// it.
type crew struct {
	Servers string        `json:"servers"`
	Queue   string        `json:"queue"`
	Name    string        `json:"name"`
	Count   int           `json:"count"`
	Each    int           `json:"each"`
	TTL     time.Duration `json:"ttl"`
	Deaf    bool          `json:"deaf"` // to being told to stop
}

func runCrew(spec string) error {
	var w crew
	if err := json.Unmarshal([]byte(spec), &w); err != nil {
		return err
	}
	return w.run()
}

// run is the process. It says what happens line by line.
func (w crew) run() error {
	release := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it
		close(release)
	}()
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	failed, each := make(chan error, w.Count), cmp.Or(w.Each, 1)
	for i := range w.Count {
		c, err := client.New(w.Servers)
		if err != nil {
			return err
		}
		defer c.Close()
		one := &client.Worker{
			Client: c, Queue: w.Queue, Concurrency: each, MaxMessages: each, TTL: w.TTL, Name: fmt.Sprint(w.Name, "-", i),
			Handler: func(ctx context.Context, j *client.RawJob) error {
				say("begun %s", j.ID())
				stop := ctx.Done()
				if w.Deaf {
					stop = nil
				}
				select {
				case <-release:
				case <-stop:
					say("cancelled %s %v", j.ID(), context.Cause(ctx))
				}
				return nil
			},
			Settled: func(j *client.RawJob, err error) { say("settled %s %s", j.ID(), settledAs(err)) },
		}
		go func() { failed <- one.Run(context.Background()) }()
	}
	for range w.Count {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// settledAs is what became of a settlement, in a word, and the server's words.
func settledAs(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, client.ErrLeaseLost): // the server said so before
		return "LOST"
	}
	return fmt.Sprintf("%v %v", client.CodeOf(err), err)
}

// hands is a process of workers.
type hands struct {
	cmd     *exec.Cmd
	said    *output
	release func() // lets the handlers go on
	ended   chan struct{}
}

func startCrew(t *testing.T, w crew) *hands {
	t.Helper()
	spec, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	h := &hands{cmd: exec.Command(os.Args[0], "-be-workers", string(spec)), said: &output{}, ended: make(chan struct{})}
	h.cmd.Stdout, h.cmd.Stderr = h.said, h.said
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.release = sync.OnceFunc(func() { in.Close() })
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = h.cmd.Wait() // how it ended does not matter, what it said does
		close(h.ended)
	}()
	t.Cleanup(h.kill)
	return h
}

func (h *hands) kill() {
	_ = h.cmd.Process.Kill()
	<-h.ended
}

func (h *hands) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := h.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// holds waits until n messages have been begun.
func (h *hands) holds(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages to be begun", n), func() error {
		if got := bytes.Count(h.said.bytes(), []byte("begun ")); got != n {
			return fmt.Errorf("%d are\n%s", got, tail(h.said.String()))
		}
		return nil
	})
}

var settledLine = regexp.MustCompile(`(?m)^settled (\S+) (.*)$`)

// settled waits until n settlements are answered, and returns the answers by id.
func (h *hands) settled(t *testing.T, n int) map[string]string {
	t.Helper()
	answers := map[string]string{}
	eventually(t, fmt.Sprintf("%d settlements to be answered", n), func() error {
		clear(answers)
		for _, m := range settledLine.FindAllStringSubmatch(h.said.String(), -1) {
			answers[m[1]] = m[2]
		}
		if len(answers) < n {
			return fmt.Errorf("%d are\n%s", len(answers), tail(h.said.String()))
		}
		return nil
	})
	return answers
}

// lost says that the answer to an ack is that others have the message.
func lost(answer string) bool {
	return answer == "LOST" || strings.HasPrefix(answer, string(client.CodeFenced)) || strings.HasPrefix(answer, string(client.CodeSessionEnded))
}

func (h *hands) cancelled(id string) bool {
	return strings.Contains(h.said.String(), "cancelled "+id)
}

func tail(s string) string { return s[max(0, len(s)-4<<10):] }
