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

// printer writes lines and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// Inspect writes what lies in the data directory of a stopped server, also when
// the server refuses to start on it. It changes nothing.
func Inspect(fs vfs.FS, dir string, o InspectOptions, w io.Writer) error {
	p := &printer{w: w}
	id, err := readIdentity(fs, dir)
	if err != nil {
		p.line("identity   %v", err)
	} else {
		p.line("identity   format %d, store %016x", id.Format, id.StoreID)
	}
	err = errors.Join(inspectLog(fs, fs.PathJoin(dir, logDir), o, p), inspectRows(fs, fs.PathJoin(dir, stateDir), o, p))
	return errors.Join(err, p.err)
}

// inspectLog shows a line a segment, or a line a record.
func inspectLog(fs vfs.FS, dir string, o InspectOptions, p *printer) error {
	records, size := 0, int64(0)
	return raftlog.Inspect(fs, dir, func(i raftlog.Item) error {
		switch i.Kind {
		case "head":
			records, size = 0, 0
			p.line("log        %s generation %d: %s", i.File, i.Generation, i.Note)
		case "end":
			p.line("log        %s: %d records, %d bytes, then: %s", i.File, records, size, i.Note)
		default:
			records++
			size += i.Bytes
		}
		if o.Records && i.Kind != "head" && i.Kind != "end" {
			p.line("  record   %s+%d %s group %d index %d–%d %d bytes %s", i.File, i.Offset, i.Kind, i.Group, i.First, i.Last, i.Bytes, i.Note)
		}
		return nil
	})
}

// inspectRows shows the replicas as their rows were last made durable: entries
// after that are in the log only.
func inspectRows(fs vfs.FS, dir string, o InspectOptions, p *printer) (err error) {
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
		if err := inspectReplica(r, root, o, p); err != nil {
			return err
		}
	}
	return nil
}

func inspectReplica(r *state.Replica, root uint64, o InspectOptions, p *printer) error {
	v := r.View()
	defer v.Close()
	index, term, err := replica.ReadApplied(v.Applied())
	if err != nil {
		return err
	}
	p.line("replica    root %d, applied index %d term %d", root, index, term)
	if v.Has(state.GroupSpace, []byte{'v'}) {
		inspectCatalog(v, p)
		return nil
	}
	for _, q := range queue.Queues(v) {
		for _, s := range q.Shards {
			p.line("  shard    queue %d, %s, cells %d–%d: %+v", q.Number, s.Path, s.From, s.To, s.Counts)
		}
	}
	if !o.Rows {
		return nil
	}
	for _, space := range r.Spaces() {
		v.Scan(space, nil, []byte{0xff}, func(k, val []byte) bool {
			p.line("  row      %s", queue.Describe(space, k, val))
			return p.err == nil
		})
	}
	return nil
}

func inspectCatalog(v *state.View, p *printer) {
	m := catalog.New()
	m.Load(v)
	c := m.View()
	p.line("  cluster  %s, version %d, %d queues", c.Cluster.ID, c.Version, c.Len())
	for _, n := range c.Nodes() {
		p.line("  node     %d %s %s", n.ID, n.Name, n.Listen)
	}
	for _, q := range c.Queues("", c.Len()) {
		p.line("  queue    %d %s, version %d, %d shards", q.Number, q.Name, q.Version, len(q.Shards))
	}
}
