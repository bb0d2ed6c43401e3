package replica

import (
	"bytes"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// nopMachine leaves the host's own costs.
type nopMachine struct{ results []any }

func (m *nopMachine) Join(buf []byte, cmds []Command) []byte {
	m.results = m.results[:0]
	for _, c := range cmds {
		buf = append(buf, c.Head...)
		for _, b := range c.Bodies {
			buf = append(buf, b...)
		}
	}
	return append(buf, byte(len(cmds)))
}

func (m *nopMachine) Applied() {}

func (m *nopMachine) Apply(_ Rows, _ uint64, entry []byte) []any {
	return make([]any, entry[len(entry)-1])
}
func (m *nopMachine) Lead(uint64) {}
func (m *nopMachine) Follow()     {}

// BenchmarkPropose is the way of a command of 1 KiB from one of 64 proposers,
// who each wait for the result, through a group of one on a memory file system.
func BenchmarkPropose(b *testing.B) {
	n := newNode(b, vfs.NewMem())
	n.tune = func(o *Options) {
		o.Machine = func(*Group) StateMachine { return &nopMachine{} }
		o.Log.SegmentBytes, o.State.MemTable = 0, 0
	}
	n.start()
	g := n.create(testGroup)
	c := Command{Head: []byte("head"), Bodies: [][]byte{bytes.Repeat([]byte{1}, 1024)}}
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range 64 {
		all.Go(func() {
			next := make(chan struct{}, 1)
			done := func(_ any, err error) {
				if err != nil {
					b.Error(err)
				}
				next <- struct{}{}
			}
			for i := w; i < b.N; i += 64 {
				g.Propose(c, done)
				<-next
			}
		})
	}
	all.Wait()
	b.StopTimer()
	s := n.host.Stats()
	b.ReportMetric(float64(s.Commands)/float64(s.Entries), "commands/entry")
}
