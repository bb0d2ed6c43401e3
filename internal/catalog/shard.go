package catalog

import (
	"slices"
	"strings"

	"github.com/comanda-mq/comanda/internal/message"
)

// Shard is a run of a queue's cells, both included, and the group that has it.
type Shard struct {
	From  int    `json:"from"`
	To    int    `json:"to"`
	Path  string `json:"path"` // its id: its place in the tree of splits
	Group uint64 `json:"group"`
	Epoch uint64 `json:"epoch"` // grows when it is split or changes its group
}

// SplitShard records a split that a group has made, in the order in which it
// made them: the cells from At on are the second child's. A repeat changes
// nothing; another epoch than the recorded one is refused with CONFLICT.
type SplitShard struct {
	Queue uint32 `json:"queue"`
	Path  string `json:"path"`
	Epoch uint64 `json:"epoch"` // before the split; the children's is one higher
	At    int    `json:"at"`
}

// MoveShard records that a shard has spun off into the group that was made for it,
// if its epoch is still Epoch (else CONFLICT); then it is one higher. A repeat
// changes nothing.
type MoveShard struct {
	Queue uint32 `json:"queue"`
	Path  string `json:"path"`
	Epoch uint64 `json:"epoch"`
	Group uint64 `json:"group"`
}

// ShardTree is a shard, or one that was split into the children.
type ShardTree struct {
	Path     string
	Shard    *Shard // nil if it was split
	Children []*ShardTree
}

// Tree shows how the queue's shards came from one.
func (q *Queue) Tree() *ShardTree {
	root := &ShardTree{Path: rootPath}
	for i := range q.Shards {
		at := root
		for at.Path != q.Shards[i].Path {
			at = at.towards(q.Shards[i].Path)
		}
		at.Shard = &q.Shards[i]
	}
	return root
}

// towards finds or makes the child on the way down to path.
func (t *ShardTree) towards(path string) *ShardTree {
	step, _, _ := strings.Cut(strings.TrimPrefix(path, t.Path+"."), ".")
	child := t.Path + "." + step
	for _, c := range t.Children {
		if c.Path == child {
			return c
		}
	}
	c := &ShardTree{Path: child}
	t.Children = append(t.Children, c)
	return c
}

// ShardPath finds a shard by its path.
func (q *Queue) ShardPath(path string) (*Shard, bool) {
	for i := range q.Shards {
		if q.Shards[i].Path == path {
			return &q.Shards[i], true
		}
	}
	return nil, false
}

// wasSplit says whether the shard of that path has children.
func (q *Queue) wasSplit(path string) bool {
	return slices.ContainsFunc(q.Shards, func(s Shard) bool { return strings.HasPrefix(s.Path, path+".") })
}

func (m *Machine) splitShard(c *SplitShard) Result {
	q, s, err := m.shard(c.Queue, c.Path)
	switch {
	case err == nil:
	case q != nil && q.wasSplit(c.Path):
		return Result{Queue: q}
	default:
		return Result{Queue: q, Err: err}
	}
	if s.Epoch != c.Epoch {
		return Result{Queue: q, Err: staleShard(q, s, c.Epoch)}
	}
	if c.At <= s.From || c.At > s.To {
		return Result{Queue: q, Err: message.Errorf(message.InvalidArgument, "shard %s of queue %q has the cells %d to %d: it can't be split at %d", s.Path, q.Name, s.From, s.To, c.At)}
	}
	low, high := *s, *s
	low.Path, low.To, low.Epoch = s.Path+".0", c.At-1, s.Epoch+1
	high.Path, high.From, high.Epoch = s.Path+".1", c.At, s.Epoch+1
	n := *q
	i := slices.IndexFunc(q.Shards, func(x Shard) bool { return x.Path == s.Path })
	n.Shards = slices.Concat(q.Shards[:i], []Shard{low, high}, q.Shards[i+1:])
	return m.reshard(&n)
}

func (m *Machine) moveShard(c *MoveShard) Result {
	q, s, err := m.shard(c.Queue, c.Path)
	if err != nil {
		return Result{Queue: q, Err: err}
	}
	if s.Group == c.Group && s.Epoch == c.Epoch+1 {
		return Result{Queue: q}
	}
	if s.Epoch != c.Epoch {
		return Result{Queue: q, Err: staleShard(q, s, c.Epoch)}
	}
	g, ok := m.view.Group(c.Group)
	if !ok {
		return Result{Queue: q, Err: noGroup(c.Group)}
	}
	if g.Origin == nil || *g.Origin != (Origin{Queue: c.Queue, Path: c.Path, Epoch: c.Epoch}) {
		return Result{Queue: q, Err: message.Errorf(message.Conflict, "group %d was not made for shard %s of queue %q at epoch %d", g.ID, s.Path, q.Name, s.Epoch)}
	}
	n := *q
	n.Shards = slices.Clone(q.Shards)
	moved, _ := n.ShardPath(c.Path)
	moved.Group, moved.Epoch = c.Group, s.Epoch+1
	return m.reshard(&n)
}

// shard finds a shard; the queue is nil if it is that which is missing.
func (m *Machine) shard(number uint32, path string) (*Queue, *Shard, *message.Error) {
	q, ok := m.view.QueueNumber(number)
	if !ok {
		return nil, nil, message.Errorf(message.QueueNotFound, "queue number %d was deleted", number)
	}
	s, ok := q.ShardPath(path)
	if !ok {
		return q, nil, message.Errorf(message.NotFound, "queue %q has no shard %s: see 'comanda shard list --queue %s'", q.Name, path, q.Name)
	}
	return q, s, nil
}

func staleShard(q *Queue, s *Shard, epoch uint64) *message.Error {
	return message.Errorf(message.Conflict, "shard %s of queue %q is at epoch %d, not %d: it changed meanwhile", s.Path, q.Name, s.Epoch, epoch)
}
