package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/placement"
	"github.com/comanda-mq/comanda/internal/replica"
)

// options say what is run.
type options struct {
	seed     uint64
	control  string
	duration time.Duration // simulated, with faults
	pace     time.Duration // the longest pause of a sender between two calls
	keep     bool          // the lines of the history
	loose    bool          // it uses all processors
}

// outcome is what came of a run.
type outcome struct {
	history   uint64
	entries   int
	lines     []string // of the history, if they were to be kept
	counts    counts
	violation error
}

const (
	founders  = 3
	producers = 3
	workers   = 4
)

// run runs one seed, in a bubble of its own with a clock of its own.
func run(t *testing.T, o options, trace io.Writer) (out outcome) {
	return play(t, o, trace, (*world).live)
}

// play runs one life.
func play(t *testing.T, o options, trace io.Writer, live func(*world) (stop func())) (out outcome) {
	var seed [32]byte
	copy(seed[:], fmt.Sprintf("%d", o.seed))
	was := rand.Reader
	rand.Reader = mathrand.NewChaCha8(seed) // raft's election timeouts, marks of segments
	defer func() { rand.Reader = was }()
	var w *world
	defer func() {
		r := recover()
		out = outcome{w.history, w.entries, w.lines, w.tally.counts, w.failed()}
		if r != nil && out.violation == nil {
			out.violation = fmt.Errorf("%v", r)
		}
	}()
	synctest.Test(t, func(*testing.T) {
		w = newWorld(o, trace)
		live(w)()
	})
	return out
}

// rise makes three nodes a cluster with queues. stop ends all.
func (w *world) rise() (stop func(), ok bool) {
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx, w.quiet = ctx, cancel
	stop = func() {
		cancel()
		w.over.Store(true)
		for _, n := range w.nodes {
			n.die()
		}
		for ended := w.ended(); !ended(); {
			w.step()
		}
		time.Sleep(time.Minute) // what the dead still do by themselves ends in that time
	}
	for range founders + 1 {
		w.addNode()
	}
	for _, n := range w.nodes[:founders] {
		w.happen(n.start)
		if !w.expect("a node comes up", func() bool { return n.member.Load() }, 30*time.Second) {
			return stop, false
		}
	}
	return stop, w.expect("three voters in each group", w.settled, 60*time.Second) && w.createQueues()
}

// live is the life of a world: three nodes become a cluster, clients and workers
// come, faults happen and end, and all comes to rest. stop ends it.
func (w *world) live() (stop func()) {
	return w.liveThrough(func() { w.faults(w.now() + w.o.duration) })
}

// liveThrough is a life with other faults.
func (w *world) liveThrough(faults func()) (stop func()) {
	end, ok := w.rise()
	if !ok {
		return end
	}
	for i := range producers {
		w.spawn(func() { w.produce(i) })
	}
	for _, q := range queues {
		w.spawn(func() { w.operate(q.name) })
		w.spawn(func() { w.purge(q.name) })
		if q.settings.MaxInFlight > 0 {
			w.spawn(func() { w.limit(q) })
		}
	}
	w.spawn(func() { w.redrive(queues[0].name) }) // the dead of the other leave it
	working, endWork := context.WithCancel(context.Background())
	var busy atomic.Int32
	for i := range workers {
		busy.Add(1)
		w.spawn(func() { w.work(working, i); busy.Add(-1) })
	}
	stop = func() { endWork(); end() }
	faults()
	w.heal()
	w.quiet() // nobody sends any more
	if w.drain() {
		endWork()
		if w.expect("the workers end", func() bool { return busy.Load() == 0 }, 30*time.Second) {
			w.takeTurns(queues[2]) // its shards are together, so one leader has all of its tenants
		}
	}
	w.rest()
	return stop
}

func (w *world) expect(what string, is func() bool, within time.Duration) bool {
	if w.runUntil(is, within) {
		return true
	}
	w.fail("it did not come within %v: %s", within, what)
	return false
}

// settled says that every group has its three voters.
func (w *world) settled() bool {
	for _, n := range w.nodes {
		p := n.process()
		if !n.born {
			continue
		}
		if p == nil || p.view.Load() == nil {
			return false
		}
		for _, g := range p.view.Load().Groups() {
			if g.Unborn() {
				continue // nothing waits for it
			}
			if g.Voters() < 3 || !placement.Settled(g) {
				return false
			}
		}
	}
	return true
}

func (w *world) createQueues() bool {
	var made atomic.Int32
	w.spawn(func() {
		for _, q := range queues {
			p := w.node(1).process()
			if _, _, err := p.gateway.CreateQueue(p.ctx, q.name, w.hook.settings(q.settings), q.shards); err != nil {
				w.fail("queue %s can't be created: %v", q.name, err)
			}
			made.Add(1)
		}
	})
	return w.expect("the queues are there", func() bool { return int(made.Load()) == len(queues) }, 30*time.Second)
}

// drainWithin is how long all messages may take to come to an end after the last
// fault.
const drainWithin = 150 * time.Second

// drain lets the workers work until nothing waits.
func (w *world) drain() bool {
	next := time.Duration(0)
	return w.runUntil(func() bool {
		if w.now() < next {
			return false
		}
		next = w.now() + time.Second
		return w.operationsEnded() && !w.tally.waits()
	}, drainWithin)
}

// rest looks whether all is well when nothing happens any more.
func (w *world) rest() {
	if w.failed() == nil {
		w.tally.final()
	}
	if w.failed() == nil && w.expect("all operations end", w.operationsEnded, time.Second) && w.expect("all groups are as they should be", w.settled, 60*time.Second) && w.expect("all replicas are equally far", w.equallyFar, 20*time.Second) {
		for _, o := range w.nodes[0].process().view.Load().Operations() {
			if o.State == catalog.Done {
				w.tally.count("moves")
			}
		}
		w.compare()
	}
}

// equallyFar says that all replicas of each group have applied the same.
func (w *world) equallyFar() bool {
	applied := map[uint64]uint64{}
	for _, n := range w.nodes {
		p := n.process()
		if !n.born {
			continue
		}
		if p == nil {
			return false
		}
		for _, g := range p.host.Groups() {
			at := g.Status().Applied
			if was, ok := applied[g.ID()]; ok && was != at || g.Status().Commit != at {
				return false
			}
			applied[g.ID()] = at
		}
	}
	return true
}

// compare compares each replica's rows with those that the log makes from
// nothing.
func (w *world) compare() {
	for _, n := range w.nodes {
		if p := n.process(); p != nil {
			for _, g := range p.host.Groups() {
				w.compareOne(n, g)
			}
		}
	}
}

func (w *world) compareOne(n *node, g *replica.Group) {
	v := g.View()
	defer v.Close()
	want := w.logs.group(g.ID()).rows
	for space, s := range want {
		i := 0
		v.Scan(space, nil, bytes.Repeat([]byte{0xff}, 64), func(key, value []byte) bool {
			if i >= len(s.keys) || !bytes.Equal(s.keys[i], key) || !bytes.Equal(s.values[i], value) {
				w.fail("node %d has another row %x in space %x of group %d than its log makes", n.number, key, space, g.ID())
				return false
			}
			i++
			return true
		})
		if i < len(s.keys) && w.failed() == nil {
			w.fail("node %d lacks the row %x in space %x of group %d", n.number, s.keys[i], space, g.ID())
		}
	}
}

// ended says whether all that ran in the world has ended.
func (w *world) ended() func() bool {
	over := make(chan struct{})
	go func() { w.running.Wait(); close(over) }()
	return func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
}
