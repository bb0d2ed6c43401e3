//go:build faults

package faults

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// After kill -9 at any moment everything confirmed is there, in order, once.
func TestKill(t *testing.T) {
	t.Parallel()
	c := crashes{binary: serverBinary, dir: t.TempDir(), args: []string{smallLog}, strike: (*process).kill}
	r := &record{}
	if round, wrong := c.run(t, r); round > 0 {
		t.Fatalf("after kill %d: %s", round, wrong)
	}
	finish(t, c, r)
}

// After a power cut at any moment everything confirmed is there, in order, once.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	c := onDisk(newDisk(t, 2<<30), serverBinary)
	r := &record{}
	if round, wrong := c.run(t, r); round > 0 {
		t.Fatalf("after cut %d: %s", round, wrong)
	}
	finish(t, c, r)
}

// The same test must report loss for a server that does not sync: otherwise it
// would not see loss at all.
func TestPowerCutWithoutSync(t *testing.T) {
	c := onDisk(newDisk(t, 2<<30), nosyncBinary)
	round, wrong := c.run(t, &record{})
	if round == 0 {
		t.Fatalf("a server that never syncs lost nothing in %d power cuts: the test is blind", *rounds)
	}
	t.Logf("as it must be, cut %d shows: %s", round, wrong)
	if !strings.Contains(wrong, "lost") {
		t.Errorf("want a report of loss")
	}
}

// smallLog makes a server flush rows and let go of its log all the time, so that
// crashes meet that too; smallReserve makes it content with a small disk.
const (
	smallLog     = "--log-budget=4MiB"
	smallReserve = "--disk-reserve=1MiB"
)

// crashes is a server that is struck again and again under load.
type crashes struct {
	binary string
	dir    string
	args   []string
	// strike makes the server end in the middle of its work.
	strike func(*process)
}

// onDisk is a server whose disk loses its power.
func onDisk(d *disk, binary string) crashes {
	return crashes{binary: binary, dir: d.data(), args: []string{smallLog, smallReserve}, strike: func(p *process) {
		d.cut()
		p.kill()
		d.unmount()
		d.mount()
	}}
}

// run strikes -rounds times and returns the first round after which something
// is wrong, and what; 0 if there is none.
func (c crashes) run(t *testing.T, r *record) (round int, wrong string) {
	random := newRand()
	p, err := c.start(t)
	if err != nil {
		t.Fatal(err)
	}
	createQueue(t, p.dial(t))
	if out, err := exec.Command("sync", "--file-system", c.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out) // also without fsync there is something to come back to
	}
	for round := 1; round <= *rounds; round++ {
		l := startLoad(t, p, r)
		<-time.After(between(random, 50*time.Millisecond, 1500*time.Millisecond))
		c.strike(p)
		l.stop()
		if random.IntN(4) == 0 { // and again, in the middle of the start
			p = launch(t, c.binary, c.dir, c.args...)
			<-time.After(between(random, 0, 300*time.Millisecond))
			c.strike(p)
		}
		if p, err = c.start(t); err != nil {
			return round, fmt.Sprint("everything is lost: ", err)
		}
		if wrong := check(t, p, r); len(wrong) > 0 {
			p.kill()
			return round, fmt.Sprintf("%s\n(%s)", strings.Join(wrong, "\n"), r.summary())
		}
	}
	p.stop(t)
	return 0, ""
}

func (c crashes) start(t *testing.T) (*process, error) {
	p := launch(t, c.binary, c.dir, c.args...)
	return p, p.ready()
}

// finish works off what the last round left.
func finish(t *testing.T, c crashes, r *record) {
	p := start(t, c.dir, c.args...)
	drain(t, p, r)
	p.stop(t)
}
