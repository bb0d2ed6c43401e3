package replica

import (
	"bytes"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// FuzzConf: whatever a row says of a configuration, it is read or refused, and what
// is read is written the same.
func FuzzConf(f *testing.F) {
	f.Add(appendConf(nil, &raftpb.ConfState{Voters: []uint64{1, 2, 300}, Learners: []uint64{4}}))
	f.Add(appendConf(nil, &raftpb.ConfState{Voters: []uint64{1}, VotersOutgoing: []uint64{2, 3}, LearnersNext: []uint64{2}, AutoLeave: new(true)}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		conf, err := decodeConf(b)
		if err != nil {
			return
		}
		written := appendConf(nil, conf)
		again, err := decodeConf(written)
		if err != nil || !bytes.Equal(appendConf(nil, again), written) {
			t.Fatalf("%x is read as %v, and that as %v, %v", b, conf, again, err)
		}
	})
}
