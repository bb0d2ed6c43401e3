package native

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// durationOf reads a duration, or takes unset if there is none.
func durationOf(field string, d *durationpb.Duration, unset time.Duration) (time.Duration, error) {
	if d == nil {
		return unset, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, message.Errorf(message.InvalidArgument, "%s: %s", field, err)
	}
	return d.AsDuration(), nil
}

// timeOf reads a time; the zero time if there is none.
func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, message.Errorf(message.InvalidArgument, "%s: %s", field, err)
	}
	return t.AsTime(), nil
}

// readOptions say how fresh an answer must be.
func readOptions(stale *durationpb.Duration) (o message.ReadOptions, err error) {
	if o.Stale, err = durationOf("stale", stale, 0); err == nil {
		err = o.Check()
	}
	return o, err
}

// orDefault is v, or unset if v is 0, which is how the contract says 'not set'.
func orDefault(v int32, unset int) int {
	if v == 0 {
		return unset
	}
	return int(v)
}

// checkCount refuses batches that are empty or too long.
func checkCount(what string, n int) error {
	if n < 1 || n > message.MaxBatch {
		return message.Errorf(message.InvalidArgument, "%d %s: want 1 to %d in one call", n, what, message.MaxBatch)
	}
	return nil
}

// checkAnswers is a defect of the verbs: they must answer for each item.
func checkAnswers(verb string, got, want int) error {
	if got != want {
		return fmt.Errorf("%s answered for %d of %d items", verb, got, want)
	}
	return nil
}

// attributesOf reads attributes into the order that the verbs want.
func attributesOf(in map[string]*comandav1.Attribute) []message.Attribute {
	if len(in) == 0 {
		return nil
	}
	as := make([]message.Attribute, 0, len(in))
	for name, v := range in {
		a := message.Attribute{Name: name}
		switch v := v.GetValue().(type) {
		case *comandav1.Attribute_String_:
			a.Kind, a.Value = message.AttributeString, []byte(v.String_)
		case *comandav1.Attribute_Number:
			a.Kind, a.Value = message.AttributeNumber, []byte(v.Number)
		case *comandav1.Attribute_Bytes:
			a.Kind, a.Value = message.AttributeBytes, v.Bytes
		}
		as = append(as, a) // one without a value is refused by the verb
	}
	message.SortAttributes(as)
	return as
}

func attributesTo(in []message.Attribute) map[string]*comandav1.Attribute {
	if len(in) == 0 {
		return nil
	}
	as := make(map[string]*comandav1.Attribute, len(in))
	for _, a := range in {
		switch a.Kind {
		case message.AttributeString:
			as[a.Name] = &comandav1.Attribute{Value: &comandav1.Attribute_String_{String_: string(a.Value)}}
		case message.AttributeNumber:
			as[a.Name] = &comandav1.Attribute{Value: &comandav1.Attribute_Number{Number: string(a.Value)}}
		case message.AttributeBytes:
			as[a.Name] = &comandav1.Attribute{Value: &comandav1.Attribute_Bytes{Bytes: a.Value}}
		}
	}
	return as
}

// timeTo leaves out a time that is not known.
func timeTo(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func freshnessTo(f message.Freshness) *comandav1.Freshness {
	return &comandav1.Freshness{ServedBy: f.ServedBy, Role: f.Role, AgeMs: int32(f.Age.Milliseconds())}
}

// deliveriesTo encodes a batch; bodies are not copied.
func deliveriesTo(ds []message.Delivery) []*comandav1.Delivery {
	out := make([]*comandav1.Delivery, len(ds))
	slab := make([]comandav1.Delivery, len(ds))
	times := make([]timestamppb.Timestamp, len(ds))
	var lease *durationpb.Duration // one for all that are equal: they only get written
	for i := range ds {
		d, p := &ds[i], &slab[i]
		switch {
		case d.Lease == 0: // bound to a session
			lease = nil
		case lease == nil || lease.AsDuration() != d.Lease:
			lease = durationpb.New(d.Lease)
		}
		p.Id, p.Token, p.Queue = d.ID.String(), d.Token, d.Queue
		p.Key, p.Type, p.Tenant, p.Body = d.Key, d.Type, d.Tenant, d.Body
		p.Attributes = attributesTo(d.Attributes)
		p.Attempt, p.Deliveries, p.Fence = int32(d.Attempt), int32(d.Deliveries), d.Fence
		times[i].Seconds, times[i].Nanos = d.SentAt.Unix(), int32(d.SentAt.Nanosecond())
		p.SentAt, p.Lease = &times[i], lease
		out[i] = p
	}
	return out
}
