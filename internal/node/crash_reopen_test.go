package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/state"
)

// leftover is a group as a cut left it: the last index of its log, and the rows
// after it.
type leftover struct {
	index uint64
	rows  *modelRows
}

// reopen starts the replicas on a disk, without leaders and network, until each
// has replayed its log.
func reopen(ctx context.Context, disk vfs.FS) (map[uint64]leftover, error) {
	id, err := readIdentity(disk, "data")
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	left := map[uint64]leftover{}
	replayed := make(chan struct{}, 64)
	h, err := replica.New(replica.Options{
		Log:   raftlog.Options{FS: disk, Dir: disk.PathJoin("data", logDir), StoreID: id.StoreID, SegmentBytes: 64 << 10},
		State: state.Options{FS: disk, Dir: disk.PathJoin("data", stateDir), StoreID: id.StoreID, CacheBytes: 1 << 20, MemTable: 1 << 20},
		Machine: func(g *replica.Group) replica.StateMachine {
			return &replayer{apply: newApplier(g.ID()), lead: func() {
				rows := dump(g)
				mu.Lock()
				defer mu.Unlock()
				left[g.ID()] = leftover{index: g.Status().Applied, rows: rows} // the new term's own entry is told of after this
				replayed <- struct{}{}
			}}
		},
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	for range h.Groups() {
		select {
		case <-replayed:
		case <-time.After(20 * time.Second):
			cancel()
			return nil, errors.Join(errors.New("the replay does not end"), <-ended)
		case err := <-ended:
			cancel()
			return nil, fmt.Errorf("the host has ended: %w", err)
		}
	}
	cancel()
	return left, <-ended
}

// dump copies all rows of a group, without the handles under which they lie.
func dump(g *replica.Group) *modelRows {
	view := g.View()
	defer view.Close()
	rows := newModelRows()
	copySpace := func(space uint64) {
		view.Scan(space, nil, []byte{0xff}, func(k, v []byte) bool {
			rows.Set(space, k, v)
			return true
		})
	}
	copySpace(state.GroupSpace)
	for queue := range uint64(256) { // more than the workload creates
		for cell := range uint64(message.Cells) {
			copySpace((queue+1)<<8 | cell)
		}
	}
	return rows
}

// replayer applies entries and says when that is done.
type replayer struct {
	apply applier
	lead  func()
}

func (r *replayer) Join([]byte, []replica.Command) []byte { panic("nobody proposes") }

func (r *replayer) Apply(rows replica.Rows, index uint64, entry []byte) []any {
	return r.apply(rows, index, entry)
}
func (r *replayer) Applied()    {}
func (r *replayer) Lead(uint64) { r.lead() }
func (r *replayer) Follow()     {}
