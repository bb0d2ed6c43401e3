//go:build faults

package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	rounds  = flag.Int("rounds", 10, "how often each random fault strikes")
	waiting = flag.Int("waiting", 20_000, "messages that wait when the start after kill -9 is measured")
	seed    = flag.Uint64("seed", 0, "of the random moments; 0 takes a new one")
)

// The binaries under test: the server as it is, and one whose disk does not sync.
var serverBinary, nosyncBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *beWorkers != "" {
		if err := runCrew(*beWorkers); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests mount disks and trace processes: run them as root")
		return 1
	}
	for _, tool := range []string{"strace", "mkfs.ext4", "mount", "umount", "fallocate", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "these tests want %s: install it (%v)\n", tool, err)
			return 1
		}
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	fmt.Printf("seed %d, %d rounds\n", *seed, *rounds)
	dir, err := os.MkdirTemp("", "comanda-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	serverBinary, nosyncBinary = filepath.Join(dir, "comanda"), filepath.Join(dir, "comanda-nosync")
	for binary, tags := range map[string]string{serverBinary: "", nosyncBinary: "nosync"} {
		build := exec.Command("go", "build", "-tags", tags, "-o", binary, "github.com/comanda-mq/comanda/cmd/comanda")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return 1
		}
	}
	return m.Run()
}

// newRand is a test's own source of random moments.
func newRand() *rand.Rand { return rand.New(rand.NewPCG(*seed, 0)) }

// between is a random time in a range.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}
