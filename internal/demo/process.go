package demo

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const maxSaid = 4 << 10 // of what a process said last, for when it fails

// process is a server or a kitchen.
type process struct {
	name     string
	cmd      *exec.Cmd
	said     said
	expected atomic.Bool   // its end is the shop's doing
	ended    chan struct{} // closed when it has ended, and all it said was read
}

// start starts a process of this program. What it writes to standard output goes
// to read, if that is set; failed is told when it ends by itself.
func start(name, binary string, read func(io.Reader), failed func(error), args ...string) (*process, error) {
	p := &process{name: name, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), binary, args...)
	bind(p.cmd)
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	var out io.ReadCloser
	if read != nil {
		p.cmd.Stdout = nil
		var err error
		if out, err = p.cmd.StdoutPipe(); err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		if read != nil {
			read(out)
		}
		_ = p.cmd.Wait() // how it ended is in ProcessState
		if !p.expected.Load() {
			failed(fmt.Errorf("%s ended by itself (%s): %s", name, p.cmd.ProcessState, p.said.String()))
		}
	}()
	return p, nil
}

// kill ends it as kill -9 does, and says when. Twice is fine.
func (p *process) kill() time.Time {
	p.expected.Store(true)
	_ = p.cmd.Process.Kill() // it may be gone
	at := time.Now()
	<-p.ended
	return at
}

// stop asks it to end, and kills it if it hasn't within the time.
func (p *process) stop(within time.Duration) {
	p.expected.Store(true)
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	select {
	case <-p.ended:
	case <-time.After(within):
		p.kill()
	}
}

// said keeps the end of what a process says.
type said struct {
	mu  sync.Mutex
	buf []byte
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = append(s.buf, p[max(0, len(p)-maxSaid):]...)
	s.buf = s.buf[max(0, len(s.buf)-maxSaid):]
	return len(p), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSpace(string(s.buf))
}
