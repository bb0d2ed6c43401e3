package leader

import (
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// FuzzWire: whatever another node asks or answers, it is read or refused.
func FuzzWire(f *testing.F) {
	for kind := range byte(askHeard + 1) {
		f.Add(append(appendRequest(nil, kind, 1), `{"room":1}`...))
		f.Add(appendRequest(nil, kind, 2))
	}
	f.Add(appendRefusal(nil, message.Errorf(message.Unavailable, "try again")))
	f.Add([]byte{elsewhere, 7})
	f.Add(append([]byte{answered, 2}, "{}{}"...))
	s := Service{
		Group: func(uint64) (*Group, bool) { return nil, false },
		Meta:  func() *Meta { return nil },
		Leads: func(uint64) uint64 { return 3 },
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, leads, err := readAnswer(s.Answer(t.Context(), b)); err == nil || leads != 0 && message.CodeOf(err) != message.NotLeader {
			t.Fatalf("%x is answered with %v, leader %d", b, err, leads)
		}
		if fields, _, err := readAnswer(b); err == nil {
			_, _, _ = readFresh(fields)
		}
	})
}
