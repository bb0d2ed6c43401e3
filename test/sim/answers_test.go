//go:build !race

package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// Every n-th answer of each kind of call between nodes is lost, those to sends,
// receivers and settlements among them, while the groups change their leaders again
// and again: nothing is stored twice, nothing stays leased to a worker that does not
// know of it, and an ack that was made is not refused when its gateway repeats it.
func TestLostAnswers(t *testing.T) {
	for every := 2; every <= 7; every++ {
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			dropped, changes := 0, 0
			out := play(t, quick(uint64(every), ""), nil, func(w *world) (stop func()) {
				return w.liveThrough(func() {
					w.net.drop(every)
					for end := w.now() + 8*time.Second; w.now() < end && w.failed() == nil; {
						w.runFor(700 * time.Millisecond)
						w.happen(func() { changes += w.changeLeaders() })
					}
					dropped = w.net.dropped
				})
			})
			if out.violation != nil {
				t.Error(out.violation)
			}
			if c := out.counts; dropped < 50 || changes < 10 || c["confirmed"] < 50 || c["acked"] < 50 {
				t.Errorf("too little happened: %d answers dropped, %d changes of leaders, %v", dropped, changes, c)
			}
		})
	}
}

// changeLeaders has each group of messages try to go on with another leader.
func (w *world) changeLeaders() (asked int) {
	for _, n := range w.nodes {
		p := n.process()
		if p == nil {
			continue
		}
		for _, g := range p.inOrder() {
			st, ok := p.host.Group(g.ID())
			if !ok || g.ID() == catalog.MetaGroup || !st.Leading() {
				continue
			}
			for _, v := range st.Status().Voters {
				if v != st.Replica() {
					st.TransferLeader(v)
					asked++
					break
				}
			}
		}
	}
	return asked
}
