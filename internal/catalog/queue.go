package catalog

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// Queue is a queue with its range table.
type Queue struct {
	Number   uint32           `json:"number"`
	Name     string           `json:"name"`
	Version  uint64           `json:"version"` // grows with each change of the queue
	Settings message.Settings `json:"settings"`
	Paused   bool             `json:"paused,omitempty"`
	Pause    message.Pause    `json:"pause,omitzero"`   // who paused the queue and when, while it is
	Pauses   []message.Pause  `json:"pauses,omitempty"` // of keys and tenants, in order
	Secret   message.Secret   `json:"secret"`           // places keys
	Shards   []Shard          `json:"shards"`           // by their first cell; they cover all cells
	// DeadLetter is the number of the queue that dead_letter_to named when it was set: a
	// queue that is deleted and created anew is another one.
	DeadLetter uint32 `json:"dead_letter,omitempty"`
}

// CreateQueue creates a queue.
type CreateQueue struct {
	Name     string           `json:"name"`
	Settings message.Settings `json:"settings"`
	Shards   int              `json:"shards"`
	Secret   message.Secret   `json:"secret"`
}

// DeleteQueue deletes a queue; its groups drop their rows when they see it.
type DeleteQueue struct {
	Name string `json:"name"`
}

// UpdateQueue gives a queue other settings, if its version is still Version (else
// CONFLICT); 0: whatever it is. The same settings change nothing.
type UpdateQueue struct {
	Name     string           `json:"name"`
	Settings message.Settings `json:"settings"`
	Version  uint64           `json:"version,omitempty"`
}

// PauseQueue stops or resumes a queue's deliveries, or those of one of its keys or
// tenants. The first pause of one stays, with who and when.
type PauseQueue struct {
	Name   string        `json:"name"`
	Paused bool          `json:"paused"`
	Of     message.Pause `json:"of,omitzero"` // names nothing: of the queue
}

func (q *Queue) key() []byte { return binary.BigEndian.AppendUint32([]byte{rowQueue}, q.Number) }

func (m *Machine) createQueue(c *CreateQueue) Result {
	if q, ok := m.view.Queue(c.Name); ok {
		if !q.Settings.Equal(c.Settings) || len(q.Shards) != c.Shards {
			return Result{Queue: q, Err: message.Errorf(message.QueueExists, "queue %q exists with other settings: see them with 'comanda queue show %s', change them with 'comanda queue update %s' (PUT /v1/queues/%s/settings)", c.Name, c.Name, c.Name, c.Name)}
		}
		return Result{Queue: q}
	}
	settings := c.Settings.WithDefaults()
	err := cmp.Or(message.CheckQueueName(c.Name), settings.Check())
	switch {
	case err != nil:
		return Result{Err: message.Errorf(message.CodeOf(err), "%v", err)}
	case c.Shards < 1 || c.Shards > message.Cells:
		return Result{Err: message.Errorf(message.InvalidArgument, "shards is %d: want 1 to %d", c.Shards, message.Cells)}
	}
	if err := checkShards(c); err != nil {
		return Result{Err: err}
	}
	deadLetter, refusal := m.deadLetter(c.Name, settings.DeadLetterTo)
	if refusal != nil {
		return Result{Err: refusal}
	}
	cluster := m.view.Cluster
	if m.view.Len() >= message.MaxQueues || cluster.NextQueue > message.MaxQueueNumber {
		return Result{Err: message.Errorf(message.ResourceExhausted, "the cluster has %d queues, the most it can have: delete some", m.view.Len())}
	}
	groups := m.sharedGroups()
	if c.Settings.Together() != "" {
		one := int(cluster.NextQueue) % len(groups)
		groups = groups[one : one+1]
	}
	q := &Queue{
		Number: cluster.NextQueue, Name: c.Name, Version: m.index, Settings: settings,
		Secret: c.Secret, Shards: split(cluster.NextQueue, c.Shards, groups), DeadLetter: deadLetter,
	}
	cluster.NextQueue++
	m.set(cluster)
	m.set(q)
	return Result{Queue: q, Created: true}
}

// deadLetter finds the queue that the dead of another one are to go to.
func (m *Machine) deadLetter(name, to string) (number uint32, err *message.Error) {
	if to == "" {
		return 0, nil
	}
	if to == name {
		return 0, message.Errorf(message.InvalidArgument, "dead_letter_to of queue %s names itself: leave it out, and its dead stay in it", name)
	}
	q, ok := m.view.Queue(to)
	if !ok {
		return 0, message.NoQueue(to)
	}
	return q.Number, nil
}

// checkShards refuses more shards than the settings allow.
func checkShards(c *CreateQueue) *message.Error {
	if c.Settings.Assign == message.AssignSingle && c.Shards > 1 {
		return message.Errorf(message.InvalidArgument, "queue %q: with assign single all messages go to one worker, so it has one shard, not %d", c.Name, c.Shards)
	}
	return nil
}

// sharedGroups are the data groups that new queues go into. A group that a shard
// span off into is that shard's own.
func (m *Machine) sharedGroups() (ids []uint64) {
	for _, g := range m.view.Groups() {
		if g.ID != MetaGroup && g.Origin == nil {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

func (m *Machine) deleteQueue(c *DeleteQueue) Result {
	q, ok := m.view.Queue(c.Name)
	if !ok {
		return Result{Err: message.NoQueue(c.Name)}
	}
	m.remove(q)
	m.retire(q.Number)
	return Result{Queue: q}
}

// Takes refuses settings that the queue can't have because of its shards.
func (q *Queue) Takes(s message.Settings) *message.Error {
	why := s.Together()
	if s.Assign == message.AssignSingle && len(q.Shards) > 1 {
		return message.Errorf(message.InvalidArgument, "queue %s has %d shards: with assign single all messages go to one worker, so it must have one", q.Name, len(q.Shards))
	}
	apart := func(x Shard) bool { return x.Group != q.Shards[0].Group }
	if why != "" && slices.ContainsFunc(q.Shards, apart) {
		return message.Errorf(message.InvalidArgument, "the shards of queue %s are in several groups, and %s counts over all its messages: create a queue with that setting instead", q.Name, why)
	}
	return nil
}

func (m *Machine) updateQueue(c *UpdateQueue) Result {
	q, ok := m.view.Queue(c.Name)
	switch {
	case !ok:
		return Result{Err: message.NoQueue(c.Name)}
	case q.Settings.Equal(c.Settings) && m.same(q):
		return Result{Queue: q}
	case c.Version != 0 && c.Version != q.Version:
		return Result{Queue: q, Err: message.Errorf(message.Conflict, "queue %s was changed meanwhile: its version is %d, not %d; look at it again and decide anew", q.Name, q.Version, c.Version)}
	}
	if err := q.Takes(c.Settings); err != nil {
		return Result{Queue: q, Err: err}
	}
	n := *q
	n.Settings = c.Settings.WithDefaults()
	var refusal *message.Error
	if n.DeadLetter, refusal = m.deadLetter(n.Name, n.Settings.DeadLetterTo); refusal != nil {
		return Result{Queue: q, Err: refusal}
	}
	return m.changeQueue(&n)
}

// same says that the queue's dead_letter_to still names what it named when it was
// set.
func (m *Machine) same(q *Queue) bool {
	number, err := m.deadLetter(q.Name, q.Settings.DeadLetterTo)
	return err != nil || number == q.DeadLetter
}

func (m *Machine) pauseQueue(c *PauseQueue) Result {
	q, ok := m.view.Queue(c.Name)
	if !ok {
		return Result{Err: message.NoQueue(c.Name)}
	}
	if err := c.Of.Check(); err != nil {
		return Result{Err: message.Errorf(message.CodeOf(err), "%v", err)}
	}
	if c.Of.Names() {
		return m.pausePart(q, c)
	}
	if q.Paused == c.Paused {
		return Result{Queue: q}
	}
	n := *q
	n.Paused, n.Pause = c.Paused, message.Pause{}
	if c.Paused {
		n.Pause = c.Of
	}
	return m.changeQueue(&n)
}

func (m *Machine) pausePart(q *Queue, c *PauseQueue) Result {
	i, found := message.FindPause(q.Pauses, c.Of)
	if found == c.Paused {
		return Result{Queue: q}
	}
	n := *q
	if !c.Paused {
		n.Pauses = slices.Delete(slices.Clone(q.Pauses), i, i+1)
		return m.changeQueue(&n)
	}
	size := 0
	n.Pauses = slices.Insert(slices.Clone(q.Pauses), i, c.Of)
	for _, p := range n.Pauses {
		size += len(p.Key) + len(p.Tenant) + len(p.By)
	}
	if len(n.Pauses) > message.MaxPauses || size > message.MaxPauseBytes {
		return Result{Queue: q, Err: message.Errorf(message.ResourceExhausted, "queue %q has %d pauses, and with one more would have more than %d, or more than %d bytes of them: resume some, or pause the queue", q.Name, len(q.Pauses), message.MaxPauses, message.MaxPauseBytes)}
	}
	return m.changeQueue(&n)
}

// changeQueue puts a changed copy of a queue in its place.
func (m *Machine) changeQueue(q *Queue) Result {
	q.Version = max(m.index, q.Version+1) // several changes may be in one entry
	m.set(q)
	return Result{Queue: q}
}
