package queue_test

import (
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// What repeats an earlier message, or has a unique key that another one has.

// dedups are the dedup ids that count, each within its key.
type dedups struct {
	window time.Duration
	first  map[[2]string]firstSent
}

type firstSent struct {
	id    message.ID
	until int64 // group time
}

func drawMarks(t *rapid.T, m *queue.Sent) {
	m.DedupID = rapid.SampledFrom([]string{"", "", "x", "y"}).Draw(t, "dedup id")
	if m.Key != "" || m.DedupID == "" {
		m.UniqueKey = rapid.SampledFrom([]string{"", "", "u"}).Draw(t, "unique key")
	}
	if m.UniqueKey != "" && rapid.Bool().Draw(t, "existing") {
		m.OnConflict = message.ConflictExisting
	}
	mark(m)
}

func (d *dedups) remember(m message.New, id message.ID, now int64) {
	window := d.window
	if window == 0 {
		window = message.DefaultDedupWindow
	}
	if m.DedupID == "" || window < 0 {
		return
	}
	if d.first == nil {
		d.first = map[[2]string]firstSent{}
	}
	d.first[[2]string{m.Key, m.DedupID}] = firstSent{id, now + window.Milliseconds()}
}

// holder is the unfinished message that has m's unique key.
func (w *trial) holder(m *message.New) *known {
	for _, k := range w.order {
		if m.UniqueKey != "" && k.sent.UniqueKey == m.UniqueKey && k.key == m.Key && (w.waits(k) || k.state == message.Leased) {
			return k
		}
	}
	return nil
}

// there checks the answer to a message that adds nothing; false: it is a new one.
func (w *trial) there(t *rapid.T, m *message.New, r message.SendResult) bool {
	first, ok := w.dedups.first[[2]string{m.Key, m.DedupID}]
	holder := w.holder(m)
	switch {
	case m.DedupID != "" && ok && first.until > w.now:
		if r.Err != nil || !r.Existing || r.ID != first.id {
			t.Fatalf("%+v repeats %s and is answered %+v", m, first.id, r)
		}
	case holder == nil:
		return false
	case m.OnConflict == message.ConflictExisting:
		if r.Err != nil || !r.Existing || r.ID != holder.id {
			t.Fatalf("%s has the unique key of %+v, which is answered %+v", holder.name, m, r)
		}
	case r.Err == nil || r.Err.Code != message.Conflict:
		t.Fatalf("%s has the unique key of %+v, which is answered %+v", holder.name, m, r)
	}
	return true
}
