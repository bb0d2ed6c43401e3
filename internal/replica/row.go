package replica

import (
	"encoding/binary"
	"errors"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/raftlog"
)

// The applied row of a replica:
//
//	format (1) | index (8) | term (8) | configuration
//
// and a configuration is, in uvarints, four lists with their lengths in front
// (voters, learners, outgoing voters, next learners) and 1 for auto-leave.

const rowFormat = 1

func appendApplied(b []byte, index, term uint64, conf []byte) []byte {
	b = append(b, rowFormat)
	b = binary.BigEndian.AppendUint64(b, index)
	b = binary.BigEndian.AppendUint64(b, term)
	return append(b, conf...)
}

func appendConf(b []byte, c *raftpb.ConfState) []byte {
	for _, ids := range [][]uint64{c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext()} {
		b = binary.AppendUvarint(b, uint64(len(ids)))
		for _, id := range ids {
			b = binary.AppendUvarint(b, id)
		}
	}
	if c.GetAutoLeave() {
		return append(b, 1)
	}
	return append(b, 0)
}

// ReadApplied reads an applied row, for inspection.
func ReadApplied(row []byte) (index, term uint64, err error) {
	at, _, err := decodeApplied(row)
	return at.Index, at.Term, err
}

var errRow = errors.New("the applied row can't be read: its directory is damaged or of a newer version")

func decodeApplied(b []byte) (at raftlog.Position, conf *raftpb.ConfState, err error) {
	if len(b) < 17 || b[0] != rowFormat {
		return at, nil, errRow
	}
	at.Index, at.Term = binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])
	conf, err = decodeConf(b[17:])
	return at, conf, err
}

func decodeConf(b []byte) (*raftpb.ConfState, error) {
	var lists [4][]uint64
	for i := range lists {
		n, rest, ok := uvarint(b)
		if !ok || n > uint64(len(rest)) {
			return nil, errRow
		}
		b = rest
		for range n {
			var id uint64
			if id, b, ok = uvarint(b); !ok {
				return nil, errRow
			}
			lists[i] = append(lists[i], id)
		}
	}
	if len(b) != 1 || b[0] > 1 {
		return nil, errRow
	}
	return &raftpb.ConfState{
		Voters: lists[0], Learners: lists[1], VotersOutgoing: lists[2], LearnersNext: lists[3],
		AutoLeave: new(b[0] == 1),
	}, nil
}

func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}
