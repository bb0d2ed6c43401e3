package demo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	kitchenCount = 3
	kitchenEnd   = 10 * time.Second // to bake what is in the ovens, after a signal
)

// kitchens are the shop's workers.
type kitchens struct {
	binary, server string
	failed         func(error)
	ledger         *ledger
	takenOver      func(*death) // told when others have begun what a dead kitchen held
	running        []*process
	opened         int
}

// open starts one more.
func (k *kitchens) open() error {
	k.opened++
	name := fmt.Sprint("kitchen-", k.opened)
	p, err := start(name, k.binary, func(out io.Reader) { k.read(name, out) }, k.failed, "demo", "kitchen", "--server", k.server, "--name", name)
	if err != nil {
		return err
	}
	k.running = append(k.running, p)
	return nil
}

// read takes a kitchen's reports down, up to its end.
func (k *kitchens) read(name string, out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			k.failed(fmt.Errorf("%s reports %q: %w", name, lines.Text(), err))
			continue
		}
		if over := k.ledger.report(name, r, time.Now()); over != nil {
			k.takenOver(over)
		}
	}
	if err := lines.Err(); err != nil {
		k.failed(fmt.Errorf("read the reports of %s: %w", name, err))
		_, _ = io.Copy(io.Discard, out) // so that the kitchen is not stopped by it
	}
}

// killBusiest kills the kitchen that bakes the most.
func (k *kitchens) killBusiest() *death {
	held := k.ledger.held()
	p := slices.MaxFunc(k.running, func(a, b *process) int { return held[a.name] - held[b.name] })
	k.running = slices.DeleteFunc(k.running, func(x *process) bool { return x == p })
	return k.ledger.die(p.name, false, p.kill())
}

// close ends them all, after what they have in the ovens.
func (k *kitchens) close() {
	var all sync.WaitGroup
	for _, p := range k.running {
		all.Go(func() { p.stop(kitchenEnd) })
	}
	all.Wait()
}
