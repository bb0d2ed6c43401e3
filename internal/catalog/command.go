package catalog

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/comanda-mq/comanda/internal/message"
)

// commandVersion is what this binary writes into a new catalog.
const commandVersion = 1

// Command is one change; exactly one field is set.
type Command struct {
	Found       *Found       `json:"found,omitempty"`
	CreateQueue *CreateQueue `json:"create_queue,omitempty"`
	DeleteQueue *DeleteQueue `json:"delete_queue,omitempty"`
	UpdateQueue *UpdateQueue `json:"update_queue,omitempty"`
	PauseQueue  *PauseQueue  `json:"pause_queue,omitempty"`
	SplitShard  *SplitShard  `json:"split_shard,omitempty"`
	MoveShard   *MoveShard   `json:"move_shard,omitempty"`

	AddNode      *AddNode      `json:"add_node,omitempty"`
	SetNode      *SetNode      `json:"set_node,omitempty"`
	SetNodeState *SetNodeState `json:"set_node_state,omitempty"`
	SetNodeClock *SetNodeClock `json:"set_node_clock,omitempty"`
	DrainNode    *DrainNode    `json:"drain_node,omitempty"`

	AddGroup    *AddGroup    `json:"add_group,omitempty"`
	SetReplicas *SetReplicas `json:"set_replicas,omitempty"`
	Confirm     *Confirm     `json:"confirm,omitempty"`

	OpenSession    *OpenSession    `json:"open_session,omitempty"`
	EndSession     *EndSession     `json:"end_session,omitempty"`
	DrainWorker    *DrainWorker    `json:"drain_worker,omitempty"`
	ForgetSessions *ForgetSessions `json:"forget_sessions,omitempty"`

	BeginOperation   *BeginOperation   `json:"begin_operation,omitempty"`
	AdvanceOperation *AdvanceOperation `json:"advance_operation,omitempty"`
	FinishOperation  *FinishOperation  `json:"finish_operation,omitempty"`
	CancelOperation  *CancelOperation  `json:"cancel_operation,omitempty"`
	PauseOperation   *PauseOperation   `json:"pause_operation,omitempty"`
}

// Found makes the cluster, with its first node and groups on it.
type Found struct {
	ClusterID string         `json:"cluster_id"`
	Secret    message.Secret `json:"secret"`
	Node      Node           `json:"node"` // id 1
	Groups    int            `json:"groups"`
	Voters    int            `json:"voters,omitempty"` // that each group is to have before sends are taken
}

// Encode writes a command for AppendEntry, and for the way to another node.
func (c Command) Encode() []byte { return encode(c) }

// DecodeCommand reads what Encode wrote. What Apply does not know is refused: in
// the log it would stop every node that holds the catalog.
func DecodeCommand(b []byte) (Command, error) {
	var c Command
	if err := decode(b, &c); err != nil {
		return Command{}, err
	}
	if c == (Command{}) {
		return Command{}, errors.New("catalog: a command of another node is empty")
	}
	return c, nil
}

// AppendEntry joins encoded commands (JSON) to one entry: the command version,
// then a command a line.
func AppendEntry[C ~struct {
	Head   []byte
	Bodies [][]byte
}](b []byte, cmds []C) []byte {
	b = append(b, commandVersion)
	for _, c := range cmds {
		b = append(b, struct {
			Head   []byte
			Bodies [][]byte
		}(c).Head...)
		b = append(b, '\n')
	}
	return b
}

// Result is the answer to a command: what it was about, as it is now.
type Result struct {
	Queue     *Queue         `json:"queue,omitempty"`
	Node      *Node          `json:"node,omitempty"`
	Group     *Group         `json:"group,omitempty"`
	Session   *Session       `json:"session,omitempty"`
	Operation *Operation     `json:"operation,omitempty"`
	Created   bool           `json:"created,omitempty"` // it was not there before
	Err       *message.Error `json:"error,omitempty"`
}

// Encode writes a result for the way to another node.
func (r Result) Encode() []byte { return encode(r) }

// DecodeResult reads what Encode wrote.
func DecodeResult(b []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return Result{}, fmt.Errorf("read the catalog's answer: %w", err)
	}
	return r, nil
}

// Change is one thing that an entry changed; exactly one pointer is set.
type Change struct {
	Queue     *Queue
	Node      *Node
	Group     *Group
	Session   *Session // opened, told to drain, or (not Live) ended
	Operation *Operation
	Deleted   bool // it is no more; the pointer shows what it was
}
