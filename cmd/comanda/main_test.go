package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	testscript.Main(leakChecked{m}, map[string]func(){"comanda": main})
}

// Each script has a server of its own, which COMANDA_SERVER names.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			n, err := node.Start(context.Background(), node.Config{
				DataDir: filepath.Join(env.WorkDir, "data"), Listen: "127.0.0.1:0", NodeName: "one", Version: version,
				DiskReserve: 1 << 20,
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
			return nil
		},
	})
}
