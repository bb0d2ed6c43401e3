package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/internal/node"
)

// leakChecked runs the tests and then looks for goroutines that they left.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // scripts wait more than they compute
	testscript.Main(leakChecked{m}, map[string]func(){"comanda": main})
}

// process is a server that runs as one.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// kill ends it at once; twice is fine.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// nodeProcess is a script's command. "node start NAME [FLAG…]" runs a server as a
// process, waits until it serves and names its addresses NAME and NAME_peer; "node
// kill NAME" ends it.
func nodeProcess(ts *testscript.TestScript, _ bool, given []string) {
	verb, name := given[0], given[1]
	running := ts.Value("nodes").(map[string]*process)
	if verb == "kill" {
		running[name].kill()
		return
	}
	exe, err := exec.LookPath("comanda")
	ts.Check(err)
	out, in, err := os.Pipe()
	ts.Check(err)
	logs, err := os.Create(ts.MkAbs(name + ".log"))
	ts.Check(err)
	cmd := exec.Command(exe, append([]string{
		"serve", "--node-name", name, "--data-dir", name, "--listen", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0", "--disk-reserve", "1MiB",
	}, given[2:]...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.Getenv("WORK"), in, logs
	ts.Check(cmd.Start())
	p := &process{cmd, make(chan struct{})}
	running[name] = p
	go func() {
		_ = cmd.Wait() // it was killed
		close(p.ended)
	}()
	ts.Check(errors.Join(in.Close(), logs.Close()))
	ts.Defer(func() {
		p.kill()
		_ = out.Close()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, addr, ok := strings.Cut(lines.Text(), "listening on "); ok {
			ts.Setenv(name, strings.Fields(addr)[0])
		}
		if _, addr, ok := strings.Cut(lines.Text(), "--join "); ok {
			ts.Setenv(name+"_peer", addr)
			return
		}
	}
	ts.Fatalf("node %s does not serve: %s", name, ts.ReadFile(name+".log"))
}

// Each script has a server of its own, which COMANDA_SERVER names.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"node": nodeProcess},
		Setup: func(env *testscript.Env) error {
			n, err := node.Start(context.Background(), node.Config{
				DataDir: filepath.Join(env.WorkDir, "data"), Listen: "127.0.0.1:0", NodeName: "one", Version: version,
				DiskReserve: 1 << 20, LogSegment: 1 << 20,
			})
			if err != nil {
				return err
			}
			env.Defer(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if err := n.Stop(ctx); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("COMANDA_SERVER", n.Addr().String())
			env.Values["nodes"] = map[string]*process{}
			return nil
		},
	})
}
