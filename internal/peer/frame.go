package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/comanda-mq/comanda/internal/message"
)

// kind says what a frame carries.
type kind byte

const (
	// framePing carries nothing: it shows that the sender is there. A request
	// that was withdrawn before it left turns into one, payload and all.
	framePing     kind = iota + 1
	frameMessages      // a batch of messages
	frameRequest       // a call: the time left, and the request
	frameHurry         // the caller of id wants the answer soon
	frameCancel        // the caller of id has given up
	frameAnswer        // to the request id, or to a stream
	frameFailure       // the error that the handler returned instead
	frameHeader        // begins a stream
	frameData          // the next bytes of a stream
	frameEnd           // the stream's body is complete
)

const (
	maxFrame    = 32 << 20 // bytes of a payload
	maxForeign  = 64 << 10 // of one that comes from a process without a node id
	headerBytes = 21       // length 4, kind 1, id 8, crc of the payload 4, crc of the header 4
	crcAt       = headerBytes - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginFrame appends the place of a header; the payload is appended next, and
// sealFrame ends the frame.
func beginFrame(b []byte) []byte { return append(b, make([]byte, headerBytes)...) }

// sealFrame writes the header of the frame that begins b and fills it.
func sealFrame(b []byte, k kind, id uint64) {
	payload := b[headerBytes:]
	binary.BigEndian.PutUint32(b, uint32(len(payload)))
	b[4] = byte(k)
	binary.BigEndian.PutUint64(b[5:], id)
	binary.BigEndian.PutUint32(b[13:], crc32.Checksum(payload, castagnoli))
	sealHeader(b)
}

func sealHeader(b []byte) {
	binary.BigEndian.PutUint32(b[crcAt:], crc32.Checksum(b[:crcAt], castagnoli))
}

// errDamaged ends a connection: nothing that follows in it can be trusted.
var errDamaged = errors.New("bytes were damaged on their way")

// frame is one that was read. Its payload is a copy of its own.
type frame struct {
	kind    kind
	id      uint64
	payload []byte
}

// readFrame reads one frame with a payload of at most so many bytes; io.EOF
// between two of them. head is room for a header.
func readFrame(r io.Reader, head *[headerBytes]byte, most uint32) (frame, error) {
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	if crc32.Checksum(head[:crcAt], castagnoli) != binary.BigEndian.Uint32(head[crcAt:]) {
		return frame{}, fmt.Errorf("%w: the checksum of a frame's header is wrong", errDamaged)
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > most {
		return frame{}, fmt.Errorf("a frame of %d bytes came, %d are allowed", length, most)
	}
	f := frame{kind: kind(head[4]), id: binary.BigEndian.Uint64(head[5:]), payload: make([]byte, length)}
	if _, err := io.ReadFull(r, f.payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	if crc32.Checksum(f.payload, castagnoli) != binary.BigEndian.Uint32(head[13:]) {
		return frame{}, fmt.Errorf("%w: the checksum of a frame of %d bytes is wrong", errDamaged, length)
	}
	return f, nil
}

// messageBytes bounds what a message takes in a batch.
func messageBytes(m Message) int { return 2*binary.MaxVarintLen64 + len(m.Data) }

func appendMessage(b []byte, m Message) []byte {
	b = binary.AppendUvarint(b, m.Group)
	return appendBytes(b, m.Data)
}

func decodeMessages(b []byte) (batch []Message, err error) {
	for len(b) > 0 {
		var m Message
		if m.Group, b, err = takeUvarint(b); err != nil {
			return nil, err
		}
		if m.Data, b, err = takeBytes(b); err != nil {
			return nil, err
		}
		if len(batch) == MaxQueuedMessages {
			return nil, errMalformed
		}
		batch = append(batch, m)
	}
	return batch, nil
}

// maxText is how many bytes of a refusal's text travel; longer ones are cut.
const maxText = 1 << 10

func appendFailure(b []byte, e *message.Error) []byte {
	return appendBytes(appendBytes(b, e.Code), e.Text[:min(len(e.Text), maxText)])
}

func decodeFailure(b []byte) (*message.Error, error) {
	code, b, err := takeBytes(b)
	if err != nil {
		return nil, err
	}
	text, b, err := takeBytes(b)
	if err != nil {
		return nil, err
	}
	if len(b) > 0 || len(code) == 0 {
		return nil, errMalformed
	}
	return &message.Error{Code: message.Code(code), Text: string(text)}, nil
}

// errMalformed is about bytes that arrived as they were sent and make no sense:
// the other side has a defect.
var errMalformed = errors.New("a frame does not hold what its kind says")

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func takeUvarint(b []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errMalformed
	}
	return v, b[n:], nil
}

// takeBytes returns a part of b, with no room to append.
func takeBytes(b []byte) (s, rest []byte, err error) {
	n, b, err := takeUvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) {
		return nil, nil, errMalformed
	}
	return b[:n:n], b[n:], nil
}
