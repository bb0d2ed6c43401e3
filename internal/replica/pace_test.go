package replica

import (
	"fmt"
	"strings"
	"testing"
)

// loaded is a voter under a load that never lets up, and an empty replica that
// takes less of it than comes in.
type loaded struct {
	*stepped
	group *Group
	body  string
	done  int // bytes applied
	ended bool
}

const loadPerStep, takenPerStep = 256 << 10, 96 << 10

func newLoaded(t *testing.T) *loaded {
	s := newStepped(t, func(o *Options) {
		o.Log.SegmentBytes, o.LogBudget = 1<<20, 8<<20
	})
	l := &loaded{stepped: s, group: s.nodes[1].create(testGroup), body: strings.Repeat("x", 16<<10)}
	s.nodes[2].join(testGroup, 2)
	s.nodes[3].join(testGroup, 3)
	s.perStep[2] = takenPerStep
	s.leader()
	t.Cleanup(func() {
		l.ended = true
		for _, n := range s.nodes {
			if err := n.host.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return l
}

// load proposes what comes in in a step, an entry each if it may, and steps.
func (l *loaded) load() {
	l.t.Helper()
	for i := range loadPerStep / len(l.body) {
		l.group.Propose(Command{Head: fmt.Appendf(nil, "%d%s", i, l.body)}, func(_ any, err error) {
			if err != nil && !l.ended {
				l.t.Errorf("a command was refused: %v", err)
			}
			l.done += len(l.body)
		})
		if err := l.nodes[1].host.Step(false); err != nil {
			l.t.Fatal(err)
		}
	}
	l.step()
}

func (l *loaded) member(voters, learners []uint64) (is bool) {
	l.t.Helper()
	for range 5 {
		l.group.host.call(l.group, func(err error) {
			if err == nil {
				err = l.group.begin(&change{voters: voters, learners: learners, done: make(chan error, 1)})
			}
			is = err == nil
		})
		l.load()
		if is {
			return true
		}
	}
	return false
}

// A new replica gets there although its snapshot takes so long that at full speed
// the log would have grown over twice its budget, and although it then takes less
// than comes in. Meanwhile no command is refused, and afterwards the load is back
// at full speed.
func TestLoadIsSlowedForAReplicaThatCatchesUp(t *testing.T) {
	l := newLoaded(t)
	for range 20 {
		l.load()
	}
	var whileSent []int // bytes applied at each step
	l.onSnapshot = func() {
		if whileSent != nil {
			t.Error("a second snapshot was needed")
			l.onSnapshot = func() {}
		}
		for range 80 {
			before := l.done
			l.load()
			whileSent = append(whileSent, l.done-before)
		}
	}
	if !l.member([]uint64{1}, []uint64{2}) {
		t.Fatal("the new replica was not made a learner")
	}
	votes := false
	for i := 0; i < 1_000 && !votes; i++ {
		l.load()
		votes = i%4 == 0 && l.member([]uint64{1, 2}, nil)
	}
	if !votes {
		t.Fatalf("it did not catch up: %+v", l.group.Progress())
	}
	last := 0
	for _, n := range whileSent[len(whileSent)-10:] {
		last += n
	}
	if last < 10*leastPace*3/4 || last > 10*leastPace*5/4 {
		t.Errorf("in the last 10 ticks of the snapshot %d bytes were applied, want about %d", last, 10*leastPace)
	}
	for range 20 {
		l.load()
	}
	if l.group.paced.most != 0 {
		t.Errorf("the load is still slowed: %+v", l.group.paced)
	}
}

// A group is slowed to no less than a sixteenth of its own rate.
func TestPaceHasALimit(t *testing.T) {
	const rate = 64 * leastPace
	g := &Group{}
	for range 100 {
		g.paced.spent = rate
		g.setPace(1)
	}
	g.setPace(slowestPace)
	if got := g.paced.left(); got < rate/17 || got > rate/16 {
		t.Errorf("of %d bytes a tick %d are left", rate, got)
	}
	g.paced.spent += 10 * rate // one command, far over what is left
	ticks := 0
	for ; g.paced.left() <= 0; ticks++ {
		g.setPace(slowestPace)
	}
	if ticks < 160 || ticks > 170 {
		t.Errorf("what takes 160 ticks at this pace was waited for %d", ticks)
	}
	if g.setPace(1); g.paced.most != 0 || g.paced.spent != 0 {
		t.Errorf("at full speed there is %+v", g.paced)
	}
}
