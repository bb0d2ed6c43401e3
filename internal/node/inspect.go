package node

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/state"
)

// InspectOptions say how much Inspect shows.
type InspectOptions struct {
	Records bool // each record of the log
	Rows    bool // each row
}

// Inspect writes what lies in the data directory of a stopped server, also when
// the server refuses to start on it. It changes nothing.
func Inspect(fs vfs.FS, dir string, o InspectOptions, w io.Writer) error {
	id, err := readIdentity(fs, dir)
	if err != nil {
		fmt.Fprintf(w, "identity   %v\n", err)
	} else {
		fmt.Fprintf(w, "identity   format %d, store %016x\n", id.Format, id.StoreID)
	}
	return errors.Join(inspectLog(fs, fs.PathJoin(dir, logDir), o, w), inspectRows(fs, fs.PathJoin(dir, stateDir), o, w))
}

// inspectLog shows a line a segment, or a line a record.
func inspectLog(fs vfs.FS, dir string, o InspectOptions, w io.Writer) error {
	records, size := 0, int64(0)
	return raftlog.Inspect(fs, dir, func(i raftlog.Item) error {
		switch {
		case i.Kind == "head":
			records, size = 0, 0
			fmt.Fprintf(w, "log        %s generation %d: %s\n", i.File, i.Generation, i.Note)
		case i.Kind == "end":
			fmt.Fprintf(w, "log        %s: %d records, %d bytes, then: %s\n", i.File, records, size, i.Note)
		default:
			records++
			size += i.Bytes
		}
		if o.Records && i.Kind != "head" && i.Kind != "end" {
			fmt.Fprintf(w, "  record   %s+%d %s", i.File, i.Offset, i.Kind)
			if i.Group != 0 {
				fmt.Fprintf(w, " group %d", i.Group)
			}
			if i.Last != 0 {
				fmt.Fprintf(w, " index %d–%d", i.First, i.Last)
			}
			fmt.Fprintf(w, " %d bytes %s\n", i.Bytes, i.Note)
		}
		return nil
	})
}

// inspectRows shows the replicas as their rows were last made durable: entries
// after that are in the log only.
func inspectRows(fs vfs.FS, dir string, o InspectOptions, w io.Writer) (err error) {
	s, err := state.Open(state.Options{FS: fs, Dir: dir, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("the rows can't be read: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	roots, err := s.Roots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		r, err := s.OpenReplica(root, func() (uint64, error) { return 0, errors.New("read only") })
		if err != nil {
			return err
		}
		if err := inspectReplica(r, root, o, w); err != nil {
			return err
		}
	}
	return nil
}

func inspectReplica(r *state.Replica, root uint64, o InspectOptions, w io.Writer) error {
	v := r.View()
	defer v.Close()
	index, term, err := replica.ReadApplied(v.Applied())
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "replica    root %d, applied index %d term %d\n", root, index, term)
	if v.Has(state.GroupSpace, []byte{'v'}) {
		inspectCatalog(v, w)
		return nil
	}
	for _, q := range queue.Queues(v) {
		for _, s := range q.Shards {
			fmt.Fprintf(w, "  shard    queue %d, %s, cells %d–%d: %+v\n", q.Number, s.Path, s.From, s.To, s.Counts)
		}
	}
	if !o.Rows {
		return nil
	}
	for _, space := range r.Spaces() {
		v.Scan(space, nil, []byte{0xff}, func(k, val []byte) bool {
			_, err = fmt.Fprintf(w, "  row      %s\n", queue.Describe(space, k, val))
			return err == nil
		})
	}
	return err
}

func inspectCatalog(v *state.View, w io.Writer) {
	m := catalog.New()
	m.Load(v)
	c := m.View()
	fmt.Fprintf(w, "  cluster  %s, version %d, %d queues\n", c.Cluster.ID, c.Version, c.Len())
	for _, n := range c.Nodes() {
		fmt.Fprintf(w, "  node     %d %s %s\n", n.ID, n.Name, n.Listen)
	}
	for _, q := range c.Queues("", c.Len()) {
		fmt.Fprintf(w, "  queue    %d %s, version %d, %d shards\n", q.Number, q.Name, q.Version, len(q.Shards))
	}
}
