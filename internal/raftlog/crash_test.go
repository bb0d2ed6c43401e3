package raftlog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// model is what a log must say, in the words of describe: one line list a
// group, and one version of everything for each record that was written.
type model struct {
	handles   uint64
	groups    map[uint64]*modelGroup
	destroyed map[uint64]uint64
}

type modelGroup struct {
	replica Replica
	entries []*raftpb.Entry // all since Base, truncated or not
}

func (m *model) describe(from func(uint64) uint64) string {
	var w strings.Builder
	fmt.Fprintf(&w, "handles %d\n", m.handles)
	for _, group := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[group]
		r, hs := g.replica, g.replica.HardState
		fmt.Fprintf(&w, "group %d id %d root %d base %v voters %v hard %d %d %d\n", group, r.ID, r.Root, r.Base, r.Conf.GetVoters(), hs.GetTerm(), hs.GetVote(), hs.GetCommit())
		for _, e := range g.entries {
			if e.GetIndex() >= from(group) {
				fmt.Fprintf(&w, " %d/%d %q\n", e.GetIndex(), e.GetTerm(), e.GetData())
			}
		}
	}
	for _, group := range slices.Sorted(maps.Keys(m.destroyed)) {
		fmt.Fprintf(&w, "group %d from replica %d\n", group, m.destroyed[group])
	}
	return w.String()
}

func (m *model) clone() *model {
	c := &model{handles: m.handles, groups: map[uint64]*modelGroup{}, destroyed: maps.Clone(m.destroyed)}
	for group, g := range m.groups {
		c.groups[group] = &modelGroup{replica: g.replica, entries: slices.Clip(g.entries)}
	}
	return c
}

func (g *modelGroup) last() uint64 { return g.replica.Base.Index + uint64(len(g.entries)) }

// workload drives a log and a model with random operations. versions are the
// states after each record since the last one that was confirmed.
type workload struct {
	t        *testing.T
	rng      *rand.Rand
	log      *Log
	now      *model
	versions []*model
	written  int
	options  Options
}

func (w *workload) open(fs vfs.FS) *Log {
	w.t.Helper()
	o := w.options
	o.FS = fs
	l, err := Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *workload) record(b *Batch) {
	w.now = w.now.clone()
	group := 1 + w.rng.Uint64N(4)
	g := w.now.groups[group]
	switch n := w.rng.IntN(20); {
	case g == nil:
		r := newReplica(group)
		r.ID = max(1, w.now.destroyed[group])
		r.HardState = hard(1, 0, 0)
		b.Create(r)
		w.now.groups[group] = &modelGroup{replica: r}
		delete(w.now.destroyed, group)
	case n == 0:
		b.Destroy(group, g.replica.ID+1)
		w.now.destroyed[group] = g.replica.ID + 1
		delete(w.now.groups, group)
	case n == 1:
		hs := g.replica.HardState
		base := Position{Index: g.last() + 3, Term: hs.GetTerm()}
		g.replica.Base, g.replica.Root, g.entries = base, g.replica.Root+1, nil
		g.replica.HardState = hard(hs.GetTerm(), hs.GetVote(), base.Index)
		b.Reset(group, base, g.replica.Conf, g.replica.Root, g.replica.HardState)
	case n == 2:
		w.now.handles += 1000
		b.ReserveHandles(w.now.handles)
	default:
		w.append(b, group, g)
	}
	w.versions = append(w.versions, w.now)
}

func (w *workload) append(b *Batch, group uint64, g *modelGroup) {
	hs := g.replica.HardState
	term, commit, first := hs.GetTerm(), hs.GetCommit(), g.last()+1
	if uncommitted := g.last() - max(commit, g.replica.Base.Index); w.rng.IntN(4) == 0 && uncommitted > 0 {
		term++
		first -= w.rng.Uint64N(uncommitted + 1)
	}
	es := entries(group, term, first, w.rng.IntN(6), w.rng.IntN(200))
	if len(es) > 0 {
		g.entries = append(g.entries[:first-g.replica.Base.Index-1:first-g.replica.Base.Index-1], es...)
	}
	g.replica.HardState = hard(term, w.rng.Uint64N(4), commit)
	b.Append(group, g.replica.HardState, es)
}

// commit moves commit indexes without a sync.
func (w *workload) commit() {
	var b Batch
	for _, group := range slices.Sorted(maps.Keys(w.now.groups)) {
		g := w.now.groups[group]
		hs := g.replica.HardState
		commit := g.last() - min(2, uint64(len(g.entries)))
		if commit <= hs.GetCommit() {
			continue
		}
		w.now = w.now.clone()
		g = w.now.groups[group]
		g.replica.HardState = hard(hs.GetTerm(), hs.GetVote(), commit)
		b.Append(group, g.replica.HardState, nil)
		w.versions = append(w.versions, w.now)
	}
	if err := w.log.WriteNoSync(&b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workload) step() {
	switch w.rng.IntN(10) {
	case 0:
		w.commit()
	case 1:
		for _, r := range w.log.Replicas() {
			if w.now.groups[r.Group] == nil || w.rng.IntN(2) == 0 {
				continue
			}
			if err := w.log.Truncate(r.Group, r.HardState.GetCommit()); err != nil {
				w.t.Fatal(err)
			}
		}
	case 2:
		for _, group := range w.log.Pinned() {
			if err := w.log.Relocate(group); err != nil {
				w.t.Fatal(err)
			}
		}
	default:
		var b Batch
		for range 1 + w.rng.IntN(4) {
			w.record(&b)
		}
		if err := w.log.Write(&b); err != nil {
			w.t.Fatal(err)
		}
		w.versions = []*model{w.now}
	}
}

// check opens what a crash left and wants it to be one of the versions: all
// that was confirmed, nothing that was never written, nothing half.
func (w *workload) check(fs *vfs.MemFS, what string) {
	l := w.open(fs)
	defer closeLog(w.t, l)
	from := func(group uint64) uint64 {
		r, _ := l.Replica(group)
		return r.Truncated.Index + 1
	}
	got := describe(w.t, l, all)
	for _, m := range w.versions {
		if m.describe(from) == got {
			// Open has synced all of it.
			after := w.open(fs.CrashClone(vfs.CrashCloneCfg{}))
			defer closeLog(w.t, after)
			if again := describe(w.t, after, all); again != got {
				w.t.Errorf("%s: a power cut right after Open leaves\n%sof\n%s", what, again, got)
			}
			return
		}
	}
	w.t.Errorf("%s: found\n%swhich is none of the %d states since the last confirmed\n%s", what, got, len(w.versions), w.versions[0].describe(from))
}

// A crash at any sync, whatever of the unsynced pages reached the disk, leaves
// what was confirmed and a prefix of the records after it.
func TestCrashAtEverySync(t *testing.T) {
	seeds := uint64(6)
	if racing {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			mem := vfs.NewCrashableMem()
			fs := &watchedFS{FS: mem}
			w := &workload{t: t, rng: rng, options: testOptions(nil), now: &model{handles: 1, groups: map[uint64]*modelGroup{}, destroyed: map[uint64]uint64{}}}
			w.versions = []*model{w.now}
			if w.options.SegmentBytes = 8 << 10; seed%2 == 1 {
				w.options.SegmentBytes = 40 << 10
			}
			w.log = w.open(fs)
			clones := 0
			crash := func() error {
				for _, percent := range []int{0, 50, 99} {
					clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
					clones++
					if w.check(clone, fmt.Sprintf("step %d, %d %% kept", w.written, percent)); t.Failed() {
						t.FailNow()
					}
				}
				return nil
			}
			fs.beforeSync = crash
			for w.written = range 120 {
				w.step()
				_ = crash()
				if w.rng.IntN(25) == 0 {
					w.restart(fs)
				}
			}
			fs.beforeSync = nil
			closeLog(t, w.log)
			t.Logf("%d crashes", clones)
		})
	}
}

// restart goes on with what a kill (everything written is there) leaves, in the
// same files.
func (w *workload) restart(fs *watchedFS) {
	killed := w.log
	if killed.spare != nil {
		r := <-killed.spare // its file is there, but nobody knows
		if r.err != nil {
			w.t.Fatal(r.err)
		}
	}
	w.log = w.open(fs)
	from := func(group uint64) uint64 {
		r, _ := w.log.Replica(group)
		return r.Truncated.Index + 1
	}
	if got, want := describe(w.t, w.log, all), w.now.describe(from); got != want {
		w.t.Fatalf("after a kill:\n%swant\n%s", got, want)
	}
	w.versions = []*model{w.now}
}
