package queue

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Describe puts a row into words, for people who look at the rows of a stopped
// server. It never fails: what can't be read is shown in hex.
func Describe(space uint64, key, value []byte) (s string) {
	defer func() {
		if recover() != nil {
			s = fmt.Sprintf("damaged row %x → %x", key, value)
		}
	}()
	return describe(space, key, value)
}

func describe(space uint64, key, value []byte) string {
	if space == groupSpace {
		return describeGroupRow(key, value)
	}
	where := fmt.Sprintf("queue %d cell %d: ", space>>8, space&0xff)
	switch key[0] {
	case rowCell:
		c := &cell{}
		c.decode(value)
		return where + fmt.Sprintf("cell ready=%d scheduled=%d leased=%d dead=%d finished=%d ring=%d..%d floors=%v", c.counts.Ready, c.counts.Scheduled, c.counts.Leased, c.counts.Dead, c.counts.Finished, c.head, c.tail, c.floors)
	case rowData:
		h, _, _ := decodeHead(beUint64(key[1:]), value)
		return where + fmt.Sprintf("data seq=%d key=%q tenant=%q type=%q priority=%d sent=%s body=%d bytes", h.Seq, h.Key, h.Tenant, h.Type, h.Priority, wallTime(h.SentAt), h.BodySize)
	case rowBody:
		return where + fmt.Sprintf("body seq=%d %d bytes", beUint64(key[1:]), len(value))
	case rowState:
		st := decodeStanding(value)
		s := where + fmt.Sprintf("state seq=%d %s counter=%d attempts=%d deliveries=%d worker-deaths=%d history=%d lines", beUint64(key[1:]), st.state, st.counter, st.attempts, st.deliveries, st.deaths, len(st.history))
		if st.bound.Queue != 0 {
			s += fmt.Sprintf(" bound for queue %d", st.bound.Queue)
		}
		return s
	case rowLease:
		l := decodeLease(value)
		until := fmt.Sprintf("deadline=%d ms group time", l.deadline)
		if l.session != 0 {
			until = fmt.Sprintf("session=%d incarnation=%d", l.session, l.incarnation)
		}
		return where + fmt.Sprintf("lease seq=%d fence=%d worker=%q %s", beUint64(key[1:]), beUint64(key[9:]), l.worker, until)
	case rowReady:
		return where + fmt.Sprintf("ready priority=%d seq=%d counter=%d key=%x", message.MaxPriority-int(key[1]), beUint64(key[2:]), binary.BigEndian.Uint32(key[10:]), value)
	case rowTurn:
		return where + fmt.Sprintf("ready priority=%d tenant=%x seq=%d counter=%d key=%x", message.MaxPriority-int(key[1]), key[2:10], beUint64(key[10:]), binary.BigEndian.Uint32(key[18:]), value)
	case rowDedup:
		d := decoder{b: value}
		return where + fmt.Sprintf("dedup id %x first-seq=%d until=%d ms group time", key[9:], d.uint(), d.int())
	case rowUnique:
		d := decoder{b: value}
		return where + fmt.Sprintf("unique key %x seq=%d", key[9:], d.uint())
	case rowKeyPace:
		p := decodeKeyPace(value)
		return where + fmt.Sprintf("pace of key %x: one more message is due at %d ns group time rests=%t", key[1:17], p.next, p.rests)
	case rowTimer, rowWindow, rowDeliver, rowExpire, rowPaceTime:
		due := fmt.Sprintf("timer due=%d ms group time", beUint64(key[1:]))
		switch key[0] {
		case rowWindow:
			due = "dedup window" + due[len("timer"):]
		case rowPaceTime:
			due = "pace" + due[len("timer"):]
		case rowDeliver:
			due = "timer deliver-at=" + wallTime(int64(beUint64(key[1:])))
		case rowExpire:
			due = "timer expires=" + wallTime(int64(beUint64(key[1:])))
		}
		return where + fmt.Sprintf("%s seq=%d counter=%d", due, beUint64(key[9:]), binary.BigEndian.Uint32(key[17:]))
	case rowLine:
		d := decoder{b: value}
		return where + fmt.Sprintf("line of key %x first=%d leased=%d messages=%d", key[1:17], d.uint(), d.uint(), d.uint())
	case rowBehind:
		return where + fmt.Sprintf("in line of key %x seq=%d", key[1:17], beUint64(key[17:]))
	case rowDead:
		return where + fmt.Sprintf("dead seq=%d", beUint64(key[1:]))
	case rowOutbox:
		seq, _ := decodeOutbox(value)
		return where + fmt.Sprintf("outbox to queue %d cell %d n=%d seq=%d", binary.BigEndian.Uint32(key[1:]), key[5], beUint64(key[6:]), seq)
	case rowForward:
		f := decodeForward(value)
		return where + fmt.Sprintf("seq=%d went to queue %d cell %d", beUint64(key[1:]), f.to.Queue, f.to.Cell)
	case rowForeign:
		return where + fmt.Sprintf("message %s, sent elsewhere, seq=%d", message.ID(key[1:17]), decodeForeign(value))
	case rowInbox:
		return where + fmt.Sprintf("inbox of queue %d cell %d floor=%d", binary.BigEndian.Uint32(key[1:]), key[5], beUint64(value))
	case rowArrived:
		return where + fmt.Sprintf("arrived from queue %d cell %d n=%d, %d bytes", binary.BigEndian.Uint32(key[1:]), key[5], beUint64(key[6:]), len(value))
	case rowRedrive:
		operation, p := decodeProgress(value)
		return where + fmt.Sprintf("redrive of operation %d after seq=%d redriven=%d skipped=%d", operation, p.After, p.Redriven, p.Skipped)
	case rowFinished:
		f := decodeFinished(value)
		return where + fmt.Sprintf("finished seq=%d key=%q at=%s attempts=%d", beUint64(key[1:]), f.key, wallTime(f.at), f.attempts)
	case rowRing:
		at, seqs := decodeChunk(value)
		return where + fmt.Sprintf("ring n=%d at=%d ms group time %d messages", beUint64(key[1:]), at, len(seqs))
	}
	return where + fmt.Sprintf("row of an unknown kind %x → %x", key, value)
}

func describeGroupRow(key, value []byte) string {
	switch key[0] {
	case rowGroup:
		m := decodeGroupMeta(value)
		return fmt.Sprintf("group command-version=%d group-time=%d ms wall=%s catalog-version=%d", m.command, m.groupTime, wallTime(m.wall), m.catalog)
	case rowQueue:
		i := decodeInfo(binary.BigEndian.Uint32(key[1:]), value)
		return fmt.Sprintf("queue %d settings version=%d paused=%t pauses=%d max-attempts=%d keep-finished=%d", i.Number, i.Version, i.Paused, len(i.Pauses), i.Settings.MaxAttempts, i.Settings.KeepFinished)
	case rowPace:
		return fmt.Sprintf("pace of queue %d: one more message is due at %d ns group time", binary.BigEndian.Uint32(key[1:]), beUint64(value))
	case rowShard:
		s := decodeShard(int(key[5]), value)
		return fmt.Sprintf("shard %s of queue %d cells %d–%d epoch=%d counter=%d", s.path, binary.BigEndian.Uint32(key[1:]), s.from, s.to, s.epoch, s.counter)
	case rowSession:
		s := decodeSessionRow(key, value)
		state := "attached"
		if s.ended {
			state = "ended"
		}
		return fmt.Sprintf("session %d incarnation=%d %s as of catalog version %d", s.ID, s.Incarnation, state, s.CatalogVersion)
	case rowLane:
		l := decodeLaneRow(key, value)
		return fmt.Sprintf("lane of node %d boot=%d floor=%d", l.node, l.boot, l.floor)
	case rowExecuted:
		return fmt.Sprintf("answer to command %d of node %d, %d bytes", beUint64(key[9:]), beUint64(key[1:]), len(value))
	}
	return fmt.Sprintf("row of an unknown kind %q → %x", strings.ToValidUTF8(string(key), "?"), value)
}

func wallTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
