package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/comanda-mq/comanda/internal/message"
)

// Kinds of results. The numbers are on the wire and in rows: they are never
// used again.
const (
	resultNone        = 0
	resultSend        = 1
	resultLease       = 2
	resultSettle      = 3
	resultRedrive     = 4
	resultRefusal     = 5
	resultRedriveSome = 8
	resultSettleSent  = 9 // as resultSettle, and each has the ids of its follow-ups
	resultRepeats     = 7 // as resultSend, and each says whether its id is an earlier message's; 6 was a kept lease
)

// AppendResult writes what Apply answered to one command, for another node.
func AppendResult(b []byte, result any) []byte {
	switch r := result.(type) {
	case nil:
		return append(b, resultNone)
	case []message.SendResult:
		return appendSent(b, r)
	case LeaseResult:
		b = appendError(append(b, resultLease), r.Err)
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.Looked)), uint64(len(r.Leased)))
		for i := range r.Leased {
			b = r.Leased[i].append(b)
		}
		return b
	case []message.SettleResult:
		return appendSettled(b, r)
	case []RedriveResult:
		b = binary.AppendUvarint(append(b, resultRedrive), uint64(len(r)))
		for _, err := range r {
			b = appendError(b, err)
		}
		return b
	case Progress:
		b = binary.AppendUvarint(append(b, resultRedriveSome), r.After)
		b = binary.AppendUvarint(binary.AppendUvarint(b, r.Redriven), r.Skipped)
		return appendError(b, r.Err)
	case *message.Error:
		return appendError(append(b, resultRefusal), r)
	}
	panic(fmt.Sprintf("queue: %T is no result of Apply", result))
}

// DecodeResult reads what AppendResult wrote. Bodies and values of attributes
// are parts of b.
func DecodeResult(b []byte) (any, error) {
	d := decoder{b: b}
	r := decodeResult(&d)
	if err := d.end("a result"); err != nil {
		return nil, err
	}
	return r, nil
}

func decodeResult(d *decoder) any {
	switch d.byte() {
	case resultNone:
		return nil
	case resultSend:
		return decodeSent(d, false)
	case resultRepeats:
		return decodeSent(d, true)
	case resultLease:
		r := LeaseResult{Err: decodeError(d), Looked: int(d.uint())}
		for range d.count(minLeased) {
			r.Leased = append(r.Leased, decodeLeased(d))
		}
		return r
	case resultSettle:
		return decodeSettled(d, false)
	case resultSettleSent:
		return decodeSettled(d, true)
	case resultRedrive:
		r := make([]RedriveResult, d.count(1))
		for i := range r {
			r[i] = decodeError(d)
		}
		return r
	case resultRedriveSome:
		return Progress{After: d.uint(), Redriven: d.uint(), Skipped: d.uint(), Err: decodeError(d)}
	case resultRefusal:
		if err := decodeError(d); err != nil {
			return err
		}
	}
	d.fail()
	return nil
}

func appendSent(b []byte, r []message.SendResult) []byte {
	kind := byte(resultSend)
	for i := range r {
		if r[i].Existing {
			kind = resultRepeats
		}
	}
	b = binary.AppendUvarint(append(b, kind), uint64(len(r)))
	for i := range r {
		b = appendError(b, r[i].Err)
		if r[i].Err != nil {
			continue
		}
		b = append(b, r[i].ID[:]...)
		if kind == resultRepeats {
			var existing byte
			if r[i].Existing {
				existing = 1
			}
			b = append(b, existing)
		}
	}
	return b
}

func decodeSent(d *decoder, repeats bool) []message.SendResult {
	r := make([]message.SendResult, d.count(2))
	for i := range r {
		if r[i].Err = decodeError(d); r[i].Err != nil {
			continue
		}
		copy(r[i].ID[:], d.take(16))
		r[i].Existing = repeats && d.byte() != 0
	}
	return r
}

func appendSettled(b []byte, r []message.SettleResult) []byte {
	kind := byte(resultSettle)
	for i := range r {
		if len(r[i].FollowUps) > 0 {
			kind = resultSettleSent
		}
	}
	b = binary.AppendUvarint(append(b, kind), uint64(len(r)))
	for i := range r {
		var done byte
		if r[i].AlreadyDone {
			done = 1
		}
		b = appendError(append(b, done, byte(r[i].State)), r[i].Err)
		if kind == resultSettleSent {
			b = appendIDs(b, r[i].FollowUps)
		}
	}
	return b
}

func decodeSettled(d *decoder, sent bool) []message.SettleResult {
	r := make([]message.SettleResult, d.count(3))
	for i := range r {
		r[i] = message.SettleResult{AlreadyDone: d.byte() == 1, State: message.State(d.byte()), Err: decodeError(d)}
		if sent {
			r[i].FollowUps = decodeIDs(d)
		}
	}
	return r
}

// minLeased is the least that a Leased takes: id, ref, four numbers and a head.
const minLeased = 16 + 4 + 4 + 4

func (x *Leased) append(b []byte) []byte {
	place := x.ID
	if x.Place != (message.ID{}) {
		place = x.Place // its head has its id
	}
	b = x.Ref.append(append(b, place[:]...))
	b = binary.AppendUvarint(b, x.Fence)
	b = putInt(putInt(putInt(b, int64(x.Attempts)), int64(x.Deliveries)), x.Deadline)
	b = appendHead(b, &x.Head, x.Body)
	if len(x.Body) > inlineBody {
		b = append(b, x.Body...)
	}
	return b
}

func decodeLeased(d *decoder) (x Leased) {
	copy(x.ID[:], d.take(16))
	x.Ref = decodeRef(d)
	x.Fence = d.uint()
	x.Attempts, x.Deliveries, x.Deadline = int(d.int()), int(d.int()), d.int()
	var apart bool
	x.Head, x.Body, apart = readHead(d)
	x.Head.Seq = x.Ref.Seq
	if apart {
		x.Body = d.take(uint64(x.Head.BodySize))
	}
	if x.Head.Foreign != (message.ID{}) {
		x.Place, x.ID = x.ID, x.Head.Foreign
	}
	return x
}

func appendError(b []byte, err *message.Error) []byte {
	if err == nil {
		return append(b, 0)
	}
	return putString(putString(b, err.Code), err.Text)
}

func decodeError(d *decoder) *message.Error {
	code := d.string()
	if code == "" {
		return nil
	}
	return &message.Error{Code: message.Code(code), Text: d.string()}
}
