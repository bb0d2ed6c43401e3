package leader

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// What nodes ask one another about groups. A request is
//
//	kind (1) | group (uvarint) | fields
//
// and its answer
//
//	answered (1)  | fields
//	refused (1)   | length of the code (uvarint) | code | words
//	elsewhere (1) | the node that leads the group (uvarint; 0: not known)
const (
	askPropose   = 1  // a command → its result
	askRead      = 2  // a query and how old its answer may be → the answer and its freshness
	askTake      = 3  // what a receiver that waits wants → what it got
	askPeek      = 4  // a queue and a worker → nothing, as soon as it has a message that may go out
	askStatus    = 5  // → the replica's status
	askCatalog   = 6  // a change of the catalog → its result
	askBeat      = 7  // a bundle of beats → those that may be answered
	askReceivers = 8  // a queue → who receives from it
	askClaim     = 9  // what a session knows to hold → what of it is to be given back
	askOwners    = 10 // a queue → the workers that its keys prefer
	askAwait     = 11 // a message → nothing, as soon as it has ended
	askHolds     = 12 // sessions → how much they hold
	askHeard     = 13 // sessions → when they were heard
)

const (
	answered  = 1
	refused   = 2
	elsewhere = 3
)

// taking is what a receiver that waits on another node wants.
type taking struct {
	Room  int           `json:"room"`
	Wait  time.Duration `json:"wait"`
	Lease queue.Lease   `json:"lease"`
}

var errWire = errors.New("it can't be read: the other node is of another version")

// appendRequest begins a request.
func appendRequest(b []byte, kind byte, group uint64) []byte {
	return binary.AppendUvarint(append(b, kind), group)
}

// readRequest reads how a request begins, and returns its fields.
func readRequest(b []byte) (kind byte, group uint64, fields []byte, ok bool) {
	if len(b) == 0 {
		return 0, 0, nil, false
	}
	group, n := binary.Uvarint(b[1:])
	return b[0], group, b[1+max(n, 0):], n > 0
}

// appendRefusal is the answer to a request that was refused for good or for
// now, but not because the group is led elsewhere.
func appendRefusal(b []byte, err error) []byte {
	e := asError(err)
	b = binary.AppendUvarint(append(b, refused), uint64(len(e.Code)))
	b = append(b, e.Code...)
	return append(b, e.Text...)
}

// readAnswer returns the fields of an answer, or the error that it carries.
// leads is the node that it names as the leader.
func readAnswer(b []byte) (fields []byte, leads uint64, err error) {
	if len(b) == 0 {
		return nil, 0, errWire
	}
	switch b[0] {
	case answered:
		return b[1:], 0, nil
	case elsewhere:
		leads, n := binary.Uvarint(b[1:])
		if n <= 0 {
			return nil, 0, errWire
		}
		return nil, leads, message.Errorf(message.NotLeader, "the group is not led there")
	case refused:
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || size > uint64(len(b)-1-n) {
			return nil, 0, errWire
		}
		code, words := b[1+n:1+n+int(size)], b[1+n+int(size):]
		return nil, 0, &message.Error{Code: message.Code(code), Text: string(words)}
	}
	return nil, 0, errWire
}

// asError is err with its code, without the words before it.
func asError(err error) *message.Error {
	var e *message.Error
	if errors.As(err, &e) {
		return e
	}
	return message.Errorf(message.Internal, "%v", err)
}
