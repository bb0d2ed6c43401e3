package catalog

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
)

// rows are the meta group's rows in a map.
type rows map[string]string

func (r rows) Get(_ uint64, key []byte) ([]byte, bool) {
	v, ok := r[string(key)]
	return []byte(v), ok
}

func (r rows) Scan(_ uint64, lo, hi []byte, visit func(key, value []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(r)) {
		if k >= string(lo) && k < string(hi) && !visit([]byte(k), []byte(r[k])) {
			return
		}
	}
}

func (r rows) Set(_ uint64, key, value []byte) { r[string(key)] = string(value) }
func (r rows) Delete(_ uint64, key []byte)     { delete(r, string(key)) }

type command struct {
	Head   []byte
	Bodies [][]byte
}

// town is a catalog under test.
type town struct {
	m     *Machine
	rows  rows
	index uint64
}

func (w *town) apply(cs ...Command) []Result {
	var joined []command
	for _, c := range cs {
		joined = append(joined, command{Head: c.Encode()})
	}
	w.index++
	var out []Result
	for _, r := range w.m.Apply(w.rows, w.index, AppendEntry(nil, joined)) {
		out = append(out, r.(Result))
	}
	return out
}

func found(id string) Command {
	return Command{Found: &Found{ClusterID: id, Node: Node{ID: 1, Name: "a", Listen: "127.0.0.1:7400", StoreID: 1}, Groups: 4}}
}

// do applies one command.
func (w *town) do(c Command) Result { return w.apply(c)[0] }

// refuse applies a command that must be refused with a code and change nothing.
func (w *town) refuse(t *testing.T, code message.Code, c Command) {
	t.Helper()
	before := w.m.View()
	if r := w.do(c); message.CodeOf(r.err()) != code {
		t.Errorf("%s: %v, want %s", c.Encode(), r.Err, code)
	}
	if w.m.View() != before {
		t.Errorf("%s was refused and changed the catalog", c.Encode())
	}
}

func (r Result) err() error {
	if r.Err == nil {
		return nil
	}
	return r.Err
}

func newTown() *town {
	w := &town{m: New(), rows: rows{}}
	w.apply(found("one"))
	return w
}

// Founding a cluster that is there changes nothing: who founded it may have
// crashed after it was done.
func TestFoundOnce(t *testing.T) {
	w := newTown()
	before := w.m.View()
	w.apply(found("two"))
	v := w.m.View()
	if v != before || v.Cluster.ID != "one" || len(v.Groups()) != 5 || len(v.Nodes()) != 1 {
		t.Fatalf("%+v", v.Cluster)
	}
}

// Random queues come, change and go. At every version the shards of each queue
// cover its cells once and lie in data groups, numbers are never used again, a
// View that somebody holds never changes, and a machine that is loaded from the
// rows sees the same.
func TestCatalog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTown()
		numbers := map[uint32]string{} // every one that was ever given
		live := map[string]*Queue{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := fmt.Sprint("q", rapid.IntRange(0, 5).Draw(t, "queue"))
			held := w.m.View()
			heldQueues := fmt.Sprint(names(held))
			switch rapid.IntRange(0, 3).Draw(t, "command") {
			case 0:
				c := CreateQueue{Name: name, Shards: rapid.IntRange(1, message.Cells).Draw(t, "shards"), Settings: message.Settings{MaxAttempts: rapid.IntRange(0, 1).Draw(t, "attempts")}}
				r := w.apply(Command{CreateQueue: &c})[0]
				old := live[name]
				switch {
				case old == nil:
					if !r.Created || numbers[r.Queue.Number] != "" {
						t.Fatalf("created %+v; its number was %q's", r, numbers[r.Queue.Number])
					}
					numbers[r.Queue.Number] = name
					live[name] = r.Queue
				case old.Settings.Equal(c.Settings) && len(old.Shards) == c.Shards:
					if r.Created || r.Err != nil {
						t.Fatalf("the same again: %+v", r)
					}
				case message.CodeOf(r.Err) != message.QueueExists:
					t.Fatalf("other settings: %+v", r)
				}
			case 1:
				r := w.apply(Command{DeleteQueue: &DeleteQueue{Name: name}})[0]
				if (r.Err == nil) != (live[name] != nil) {
					t.Fatalf("delete of %s: %v", name, r.Err)
				}
				if live[name] != nil && !reflect.DeepEqual(w.m.Changes(), []Change{{Queue: r.Queue, Deleted: true}}) {
					t.Fatalf("changes: %+v", w.m.Changes())
				}
				delete(live, name)
			case 3:
				c := UpdateQueue{Name: name, Settings: message.Settings{MaxAttempts: rapid.IntRange(0, 2).Draw(t, "new attempts")}}
				old := live[name]
				if old != nil {
					c.Version = old.Version - uint64(rapid.IntRange(0, 1).Draw(t, "stale")) // 0 at the first: whatever it is
				}
				r := w.apply(Command{UpdateQueue: &c})[0]
				switch {
				case old == nil:
					if message.CodeOf(r.Err) != message.QueueNotFound {
						t.Fatal(r.Err)
					}
				case old.Settings.Equal(c.Settings):
					if r.Err != nil || r.Queue.Version != old.Version {
						t.Fatalf("the same settings again: %+v", r)
					}
				case c.Version != 0 && c.Version != old.Version:
					if message.CodeOf(r.Err) != message.Conflict {
						t.Fatalf("version %d of %d: %+v", c.Version, old.Version, r)
					}
				default:
					if r.Err != nil || !r.Queue.Settings.Equal(c.Settings) || r.Queue.Version <= old.Version {
						t.Fatalf("update: %+v, was %+v", r.Queue, old)
					}
					live[name] = r.Queue
				}
			case 2:
				paused := rapid.Bool().Draw(t, "paused")
				r := w.apply(Command{PauseQueue: &PauseQueue{Name: name, Paused: paused}})[0]
				if old := live[name]; old != nil {
					if r.Queue.Paused != paused || (old.Paused != paused) != (r.Queue.Version > old.Version) {
						t.Fatalf("pause: %+v, was %+v", r.Queue, old)
					}
					live[name] = r.Queue
				} else if message.CodeOf(r.Err) != message.QueueNotFound || !strings.Contains(r.Err.Text, "comanda queue create "+name) {
					t.Fatal(r.Err)
				}
			}
			if fmt.Sprint(names(held)) != heldQueues {
				t.Fatal("a View changed")
			}
			check(t, w, live)
		}
	})
}

func names(v *View) (ns []string) {
	for _, q := range v.Queues("", v.Len()) {
		ns = append(ns, fmt.Sprint(q.Name, q.Version, q.Paused))
	}
	return ns
}

func check(t *rapid.T, w *town, live map[string]*Queue) {
	v := w.m.View()
	if v.Len() != len(live) || len(v.Queues("", 100)) != len(live) {
		t.Fatalf("%d queues, want %d", v.Len(), len(live))
	}
	for name, q := range live {
		byName, ok := v.Queue(name)
		byNumber, also := v.QueueNumber(q.Number)
		if !ok || !also || byName != byNumber || byName.Number >= v.Cluster.NextQueue {
			t.Fatalf("%s is not found", name)
		}
		for c := range message.Cells {
			owners := 0
			for _, s := range byName.Shards {
				if s.From <= c && c <= s.To {
					owners++
					if g, ok := v.Group(s.Group); !ok || g.ID == MetaGroup {
						t.Fatalf("shard %s is in group %d", s.Path, s.Group)
					}
				}
			}
			if owners != 1 {
				t.Fatalf("cell %d of %s has %d shards", c, name, owners)
			}
		}
	}
	again := New()
	again.Load(w.rows)
	if !bytes.Equal(again.View().all(), v.all()) {
		t.Fatalf("loaded %q, want %q", again.View().all(), v.all())
	}
}

// Shards of one queue, and of several, spread over the groups.
func TestShardsSpread(t *testing.T) {
	w := newTown()
	load := map[uint64]int{}
	for i := range 40 {
		r := w.apply(Command{CreateQueue: &CreateQueue{Name: fmt.Sprint("q", i), Shards: 1 + i%3}})[0]
		for _, s := range r.Queue.Shards {
			load[s.Group]++
		}
	}
	if len(load) != 4 || slices.Max(slices.Collect(maps.Values(load))) > 2*slices.Min(slices.Collect(maps.Values(load))) {
		t.Fatalf("shards a group: %v", load)
	}
}

// What a newer version wrote stops an older one instead of being passed over.
func TestNewerVersionStops(t *testing.T) {
	for name, entry := range map[string][]byte{
		"entry":   {commandVersion + 1, '{', '}', '\n'},
		"field":   append([]byte{commandVersion}, `{"delete_queue":{"name":"a","gently":true}}`+"\n"...),
		"command": append([]byte{commandVersion}, `{"rename_queue":{"name":"a"}}`+"\n"...),
		"nothing": append([]byte{commandVersion}, "{}\n"...),
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if _, ok := recover().(error); !ok {
					t.Error("it went on")
				}
			}()
			w := newTown()
			w.m.Apply(w.rows, 2, entry)
		})
	}
	t.Run("rows", func(t *testing.T) {
		defer func() {
			if _, ok := recover().(error); !ok {
				t.Error("it went on")
			}
		}()
		New().Load(rows{string(rowVersion): strings.Repeat("\x00", 8) + string(rune(commandVersion+1))})
	})
}

// A key's place depends on its queue's secret and on nothing else.
func TestRoute(t *testing.T) {
	a, b := Queue{Secret: message.Secret{1}}, Queue{Secret: message.Secret{2}, Settings: message.Settings{KeepFinishedFor: time.Hour}}
	if a.Hash("alice") != (&Queue{Secret: message.Secret{1}}).Hash("alice") || a.Hash("alice") == b.Hash("alice") || a.Hash("alice") == a.Hash("bob") {
		t.Fatal("hashes")
	}
	q := Queue{Shards: split(7, 5, []uint64{2, 3, 4, 5})}
	if s := q.Shard(0); s.From != 0 || s.Path != "0.0" {
		t.Fatalf("%+v", s)
	}
	if s := q.Shard(message.Cells - 1); s.To != message.Cells-1 || s.Path != "0.4" {
		t.Fatalf("%+v", s)
	}
}
