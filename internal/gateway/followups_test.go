package gateway_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

// ackAndSend settles one delivery.
func ackAndSend(t *testing.T, g *gateway.Gateway, d message.Delivery, fs ...message.FollowUp) message.SettleResult {
	t.Helper()
	tok, err := g.OpenToken(d.Token)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := g.Settle(t.Context(), []message.Settlement{{Token: tok, Action: message.Ack, FollowUps: fs}})
	if err != nil {
		t.Fatal(err)
	}
	return rs[0]
}

// What can't be sent is refused before there is an ack: the message is still held, and the
// same worker may ack it.
func TestRefusedFollowUps(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 1)
	create(t, g, "small", message.Settings{MaxMessageBytes: 10}, 1)
	send(t, g, "q", message.New{})
	d := receive(t, g, "q", 1, time.Second)[0]
	good := message.FollowUp{Queue: "q"}
	many := make([]message.FollowUp, message.MaxFollowUps+1)
	for i := range many {
		many[i] = good
	}
	half := message.FollowUp{Queue: "q", New: message.New{Body: make([]byte, message.MaxEntryBytes/2)}}
	for name, x := range map[string]struct {
		fs   []message.FollowUp
		want message.Code
		text string
	}{
		"an unknown queue":   {[]message.FollowUp{good, {Queue: "none"}}, message.QueueNotFound, "follow-up 2 of 2: queue \"none\" does not exist: create it"},
		"no queue":           {[]message.FollowUp{{}}, message.InvalidArgument, "follow-up 1 of 1"},
		"too large for it":   {[]message.FollowUp{good, {Queue: "small", New: message.New{Body: make([]byte, 11)}}}, message.TooLarge, "max_message_bytes"},
		"too large together": {[]message.FollowUp{half, half}, message.TooLarge, "send large ones before the ack"},
		"too many":           {many, message.InvalidArgument, "at most 16"},
		"a dedup id":         {[]message.FollowUp{good, {Queue: "q", New: message.New{DedupID: "d"}}}, message.InvalidArgument, "follow-up 2 has a dedup id"},
		"a unique key":       {[]message.FollowUp{{Queue: "q", New: message.New{Key: "k", UniqueKey: "u"}}}, message.InvalidArgument, "unique key"},
		"two times":          {[]message.FollowUp{{Queue: "q", New: message.New{Delay: 1, DeliverAt: time.Now().Add(time.Hour)}}}, message.InvalidArgument, "delay and deliver_at"},
		"a time too early":   {[]message.FollowUp{good, {Queue: "q", New: message.New{Expires: time.Now().Add(-time.Hour)}}}, message.InvalidArgument, "follow-up 2 of 2: expires"},
	} {
		r := ackAndSend(t, g, d, x.fs...)
		if r.Err == nil || r.Err.Code != x.want || !strings.Contains(r.Err.Text, x.text) || len(r.FollowUps) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	tok, _ := g.OpenToken(d.Token)
	rs, err := g.Settle(t.Context(), []message.Settlement{{Token: tok, Action: message.Nack, FollowUps: []message.FollowUp{good}}, {Token: tok, Action: message.Extend, Lease: time.Minute}})
	if err != nil || rs[0].Err == nil || rs[0].Err.Code != message.InvalidArgument || rs[1].Err != nil {
		t.Errorf("with a nack: %+v, %v", rs, err)
	}
	if c := counts(t, g, "q"); c.Leased != 1 || c.Ready != 0 {
		t.Fatalf("%+v", c)
	}
	if r := ackAndSend(t, g, d, good); r.Err != nil || len(r.FollowUps) != 1 {
		t.Errorf("%+v", r)
	}
	if r := settle(t, g, receive(t, g, "q", 1, time.Second)[0], message.Ack); r.Err != nil {
		t.Error(r.Err)
	}
}

// An ack with follow-ups that was done is answered so again when they could not be sent any
// more: their queue was deleted meanwhile. Another ack is refused.
func TestRepeatedAckAfterItsQueueIsGone(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 1)
	create(t, g, "next", message.Settings{}, 1)
	send(t, g, "q", message.New{}, message.New{})
	ds := receive(t, g, "q", 2, time.Second)
	next := message.FollowUp{Queue: "next"}
	done := ackAndSend(t, g, ds[0], next, next)
	if done.Err != nil || len(done.FollowUps) != 2 {
		t.Fatalf("%+v", done)
	}
	if err := g.DeleteQueue(t.Context(), "next"); err != nil {
		t.Fatal(err)
	}
	if again := ackAndSend(t, g, ds[0], next, next); again.Err != nil || !again.AlreadyDone || again.State != message.Finished || !slices.Equal(again.FollowUps, done.FollowUps) {
		t.Errorf("the same again: %+v, want the ids %v", again, done.FollowUps)
	}
	for name, r := range map[string]message.SettleResult{
		"with fewer":          ackAndSend(t, g, ds[0], next),
		"of one that is held": ackAndSend(t, g, ds[1], next, next),
	} {
		if r.Err == nil || r.Err.Code != message.QueueNotFound || r.AlreadyDone || len(r.FollowUps) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Many acks of one call, with more follow-ups than fit an entry, to shards all over the
// server: each is sent once, in the order of its key.
func TestManyFollowUps(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 4)
	create(t, g, "next", message.Settings{}, 4)
	const acks, size = 40, 100 << 10
	for range acks {
		send(t, g, "q", message.New{})
	}
	var ss []message.Settlement
	for len(ss) < acks {
		for _, d := range receive(t, g, "q", acks, 10*time.Second) {
			tok, err := g.OpenToken(d.Token)
			if err != nil {
				t.Fatal(err)
			}
			s := message.Settlement{Token: tok, Action: message.Ack}
			for i := range len(ss) % 4 { // some have none
				s.FollowUps = append(s.FollowUps, message.FollowUp{Queue: "next", New: message.New{Key: fmt.Sprint(len(ss)), Type: fmt.Sprint(i), Body: make([]byte, size)}})
			}
			ss = append(ss, s)
		}
	}
	want := map[message.ID]bool{}
	for range 2 { // the second after an answer that was lost
		rs, err := g.Settle(t.Context(), ss)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range rs {
			if r.Err != nil || len(r.FollowUps) != len(ss[i].FollowUps) {
				t.Fatalf("%+v", r)
			}
			for _, id := range r.FollowUps {
				want[id] = true
			}
		}
	}
	if len(want) != acks/4*6 {
		t.Fatalf("%d ids", len(want))
	}
	turn := map[string]int{}
	for n := 0; n < acks/4*6; {
		for _, d := range receive(t, g, "next", 100, 20*time.Second) {
			if !want[d.ID] || d.Type != fmt.Sprint(turn[d.Key]) {
				t.Fatalf("message %s of key %s and type %s, want type %d", d.ID, d.Key, d.Type, turn[d.Key])
			}
			turn[d.Key]++
			n++
			if r := settle(t, g, d, message.Ack); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	if c := counts(t, g, "next"); c.Ready+c.Scheduled+c.Leased+c.Dead != 0 {
		t.Errorf("%+v", c)
	}
	if c := counts(t, g, "q"); c.Ready+c.Scheduled+c.Leased+c.Dead != 0 {
		t.Errorf("%+v", c)
	}
}
