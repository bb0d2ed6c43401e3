package queue_test

import (
	"slices"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// drawFollowUps draws messages to go with each of some acks, for this queue or for one of
// another group, and says whether one of them can't be.
func (w *trial) drawFollowUps(t *rapid.T, ss []message.Settlement) (all [][]queue.FollowUp, refused []bool) {
	all, refused = make([][]queue.FollowUp, len(ss)), make([]bool, len(ss))
	if rapid.IntRange(0, 2).Draw(t, "with follow-ups") > 0 {
		return nil, refused
	}
	for i := range ss {
		if ss[i].Action != message.Ack {
			continue
		}
		for _, m := range w.draw(t) {
			m.DedupID, m.UniqueKey, m.OnConflict = "", "", 0
			f := queue.FollowUp{To: queue.Target{Queue: rapid.SampledFrom([]uint32{1, 3}).Draw(t, "queue")}, Sent: m}
			all[i] = append(all[i], f)
			refused[i] = refused[i] || w.refused(&m.New)
		}
	}
	return all, refused
}

// followed takes in what was sent with an ack.
func (w *trial) followed(fs []queue.FollowUp, ids []message.ID) {
	for i, id := range ids {
		if fs[i].To.Queue == 1 {
			w.stored(&fs[i].New, id)
		} else {
			w.away = append(w.away, id)
		}
	}
}

// leave delivers all that is on its way to another group, in parts: it is what acks sent
// there, each once.
func (w *trial) leave(t *rapid.T) {
	var left []message.ID
	for n := range message.Cells {
		from := queue.Line{Queue: 1, Cell: n}
		for lines := queue.Lines(w.rows, 1, n, nil, 100); len(lines) > 0; lines = queue.Lines(w.rows, 1, n, nil, 100) {
			c := queue.NextDelivery(w.rows, from, lines[0], 2, w.now)
			done := queue.Delivered{From: c.From, To: c.To}
			for _, p := range c.Parcels {
				left = append(left, p.Head.Foreign)
				done.Results = append(done.Results, queue.DeliveredResult{Seq: p.Seq})
			}
			w.apply(t, done.Command())
		}
	}
	less := func(a, b message.ID) int { return slices.Compare(a[:], b[:]) }
	slices.SortFunc(left, less)
	slices.SortFunc(w.away, less)
	if !slices.Equal(left, w.away) {
		t.Fatalf("%v have left, want %v", left, w.away)
	}
	w.away = nil
}
