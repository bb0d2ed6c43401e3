package raftlog

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FuzzRecord shows that no payload, however it got its checksum, makes replay
// panic or breaks the index of entries.
func FuzzRecord(f *testing.F) {
	var b Batch
	b.Create(newReplica(2))
	b.Append(1, hard(2, 1, 1), entries(1, 2, 4, 3, 10))
	b.moved(1, entries(1, 1, 2, 2, 10))
	b.Reset(1, Position{9, 3}, newReplica(1).Conf, 5, hard(3, 0, 9))
	b.ReserveHandles(5)
	b.Destroy(1, 4)
	for _, r := range b.recs {
		f.Add(byte(r.kind), b.buf[r.start+headerBytes:r.end])
	}
	l, err := Open(testOptions(vfs.NewMem()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(kindTable), l.putTable(nil, 1))
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, k byte, payload []byte) {
		s := &segment{slot: 1, live: map[uint64]int{}}
		l := &Log{slots: map[uint32]*segment{1: s}, replicas: map[uint64]*replica{}, destroyed: map[uint64]uint64{}, strict: true}
		var seed Batch
		seed.Create(newReplica(1))
		seed.Append(1, nil, entries(1, 1, 1, 5, 10))
		for i := range seed.recs {
			if err := l.apply(s, seed.finish(&seed.recs[i], 1, 200, 0)); err != nil {
				t.Fatal(err)
			}
		}
		rec := record{kind: kind(k), payload: payload, off: recordsAt}
		if err := l.apply(s, rec); err != nil {
			return
		}
		count := 0
		for _, r := range l.replicas {
			for _, e := range r.entries {
				if e.slot == s.slot {
					count++
				}
			}
		}
		for _, n := range s.live {
			count -= n
		}
		if count != 0 {
			t.Errorf("%d entries more than the segment counts", count)
		}
		l.putTable(nil, 0)
	})
}

// FuzzParseRecord shows that bytes of any kind are never read beyond their end,
// and that what is read is what was written.
func FuzzParseRecord(f *testing.F) {
	r := append(openRecord(nil, kindHandles), 5)
	finishRecord(r, 7, 128)
	f.Add(r, uint32(128))
	f.Fuzz(func(t *testing.T, data []byte, off uint32) {
		before := bytes.Clone(data)
		rec, ok := parseRecord(data, 7, off)
		if !bytes.Equal(before, data) {
			t.Fatal("parsing changed the bytes")
		}
		if !ok {
			return
		}
		again := append(openRecord(nil, rec.kind), rec.payload...)
		finishRecord(again, 7, off)
		if !bytes.Equal(again, data[:len(again)]) {
			t.Error("what was read is not what was written")
		}
	})
}

// 64 entries of 1 KiB in one batch, without what a disk costs.
func BenchmarkWrite(b *testing.B) {
	o := testOptions(vfs.NewMem())
	o.SegmentBytes, o.CacheBytes = 4<<20, 1<<20
	l, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var batch Batch
	batch.Create(newReplica(1))
	if err := l.Write(&batch); err != nil {
		b.Fatal(err)
	}
	es, hs, index := entries(1, 1, 1, 64, 1024), hard(1, 1, 1), uint64(1)
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range es {
			*e.Index = index
			index++
		}
		batch.Append(1, hs, es)
		if err := l.Write(&batch); err != nil {
			b.Fatal(err)
		}
		if err := l.Truncate(1, index-64); err != nil {
			b.Fatal(err)
		}
	}
}
