package queue_test

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// crash cuts the power: what was not flushed is gone, in part or in whole, and
// the log is applied again from where the rows stand.
func (w *trial) crash(t *rapid.T) {
	if rapid.Bool().Draw(t, "flush") {
		if err := w.store.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	keep := rapid.SampledFrom([]int{0, 50, 99}).Draw(t, "keep")
	clone := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))})
	w.close()
	w.fs = clone
	w.open(t)
	applied, err := w.replica.Applied()
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(0)
	if applied != nil {
		at = binary.BigEndian.Uint64(applied)
	}
	for at < uint64(len(w.entries)) {
		at++
		w.applyPebble(at)
	}
	w.sameRows(t)
	if rapid.Bool().Draw(t, "restart the map's machine") {
		w.plain = queue.New()
		w.pebble = queue.New() // they must agree on effects, so both forget
	}
}

// sameRows compares every row that a reader can see.
func (w *trial) sameRows(t *rapid.T) {
	view := w.replica.View()
	defer view.Close()
	got := newMapRows()
	for _, space := range append([]uint64{0}, spaces()...) {
		view.Scan(space, nil, []byte{0xff}, func(k, v []byte) bool {
			got.Set(space, k, v)
			return true
		})
	}
	if !got.equal(w.rows) {
		for k, v := range w.rows.rows {
			if g, ok := got.rows[k]; !ok || string(g) != string(v) {
				t.Errorf("row %q: %x on the map, %x on Pebble", k, v, g)
			}
		}
		t.Fatalf("%d rows on Pebble, %d on the map", len(got.rows), len(w.rows.rows))
	}
}

func spaces() (s []uint64) {
	for n := range message.Cells {
		s = append(s, 1<<8|uint64(n))
	}
	return s
}
