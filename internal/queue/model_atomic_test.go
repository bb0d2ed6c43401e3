package queue_test

import (
	"maps"
	"slices"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// sendAtomic sends a batch of which all is stored or nothing: which it is to be is
// found out message by message, as if each were sent alone after those before it.
func (w *trial) sendAtomic(t *rapid.T) {
	c := queue.Send{Queue: 1, Messages: w.draw(t), Atomic: true}
	before, shown := w.content(), len(w.entries)
	results := w.apply(t, c.Command())[0].([]message.SendResult)
	one := w.inOneShard(c.Messages)
	want := w.verdicts(c.Messages)
	refused := slices.ContainsFunc(want, func(code message.Code) bool { return code != "" })
	if !one || refused {
		for i, r := range results {
			switch {
			case r.Err == nil || r.Existing || r.ID != (message.ID{}):
				t.Fatalf("entry %d: message %d of a batch that is refused is answered %+v", shown, i, r)
			case !one && r.Err.Code != message.WrongShard:
				t.Fatalf("entry %d: message %d of a batch in two shards is answered %+v", shown, i, r)
			case one && want[i] != "" && r.Err.Code != want[i], one && want[i] == "" && r.Err.Code != message.BatchRefused:
				t.Fatalf("entry %d: message %d of a batch is answered %+v, want %q", shown, i, r, want[i])
			}
		}
		if after := w.content(); !maps.Equal(after, before) {
			t.Fatalf("entry %d: a batch that was refused changed rows", shown)
		}
		if effects := w.plain.Effects(); len(effects) > 0 {
			t.Fatalf("entry %d: a batch that was refused has effects %+v", shown, effects)
		}
		return
	}
	for i, r := range results {
		if m := &c.Messages[i].New; !w.there(t, m, r) {
			if r.Err != nil || r.Existing {
				t.Fatalf("entry %d: %+v is answered %+v", shown, m, r)
			}
			w.stored(m, r.ID)
		}
	}
}

// verdicts are the codes of those messages of a batch that can't be stored.
func (w *trial) verdicts(msgs []queue.Sent) []message.Code {
	type mark struct{ key, name string }
	dedups, uniques := map[mark]bool{}, map[mark]bool{}
	codes := make([]message.Code, len(msgs))
	for i := range msgs {
		m := &msgs[i].New
		dedup, unique := mark{m.Key, m.DedupID}, mark{m.Key, m.UniqueKey}
		first, ok := w.dedups.first[[2]string{m.Key, m.DedupID}]
		switch {
		case w.refused(m):
			codes[i] = message.InvalidArgument
		case m.DedupID != "" && (ok && first.until > w.now || dedups[dedup]):
		case m.UniqueKey != "" && (w.holder(m) != nil || uniques[unique]):
			if m.OnConflict != message.ConflictExisting {
				codes[i] = message.Conflict
			}
		default:
			dedups[dedup], uniques[unique] = w.dedups.window >= 0, true
		}
	}
	return codes
}

func (w *trial) inOneShard(msgs []queue.Sent) bool {
	info, _ := w.plain.Info(1)
	shard := func(s *queue.Sent) int {
		cell := s.Cell
		switch {
		case s.Key != "":
			cell = s.Hash.Point().Cell()
		case s.UniqueKey != "":
			cell = s.UniqueHash.Point().Cell()
		case s.DedupID != "":
			cell = s.DedupHash.Point().Cell()
		}
		return slices.IndexFunc(info.Shards, func(b queue.ShardInfo) bool { return b.From <= cell && cell <= b.To })
	}
	for i := range msgs {
		if shard(&msgs[i]) != shard(&msgs[0]) {
			return false
		}
	}
	return true
}

// content is what the rows say, without those of the group.
func (w *trial) content() map[string]string {
	rows := map[string]string{}
	for k, v := range w.rows.rows {
		if k[:spaceBytes] != full(0, nil) {
			rows[k] = string(v)
		}
	}
	return rows
}
