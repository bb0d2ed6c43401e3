package main

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// control is a bug that is put in on purpose. Each of them must be found.
type control struct {
	lazyDisk    bool // the log is not synced
	doubleLease bool // a second worker gets what one holds
	skipFence   bool // a settlement is taken for one with the newest fence
	reorder     bool // two messages of a key change their places
	dropAck     bool // an ack is confirmed and not made
	staleRead   bool // a follower answers with whatever it has
	hideAge     bool // a read that may be old says that it is not
	tearBatch   bool // the messages of an atomic batch are sent as any others
	dropPause   bool // a pause is confirmed and not made
	loseLetter  bool // what is to leave a group finds no queue
	tearAck     bool // what is sent with an ack is sent by itself, before
	skipRedrive bool // a redrive is done without its steps
	dropPurge   bool // a purge is confirmed and not made
	dropLimit   bool // a limit is confirmed and not made
	dropExpiry  bool // messages are sent without their times of expiry
	skipKey     bool // after a failure each queue lets others of the key overtake
	dropRate    bool // a queue has no rate
	dropKeyRate bool // a queue has no rate of each key
	dropAssign  bool // a queue that is to have one worker has all
	dropTenant  bool // messages are sent without their tenants
}

var controls = map[string]control{
	"no-sync":          {lazyDisk: true},
	"doubled-lease":    {doubleLease: true},
	"skipped-fencing":  {skipFence: true},
	"reordered-key":    {reorder: true},
	"dropped-ack":      {dropAck: true},
	"stale-read":       {staleRead: true},
	"hidden-age":       {hideAge: true},
	"torn-batch":       {tearBatch: true},
	"dropped-pause":    {dropPause: true},
	"lost-letter":      {loseLetter: true},
	"torn-ack":         {tearAck: true},
	"skipped-redrive":  {skipRedrive: true},
	"dropped-purge":    {dropPurge: true},
	"dropped-limit":    {dropLimit: true},
	"dropped-expiry":   {dropExpiry: true},
	"overtaken-key":    {skipKey: true},
	"dropped-rate":     {dropRate: true},
	"dropped-key-rate": {dropKeyRate: true},
	"dropped-assign":   {dropAssign: true},
	"dropped-tenant":   {dropTenant: true},
}

// settings are those that a queue gets, of those that were asked for.
func (c control) settings(s message.Settings) message.Settings {
	if c.skipKey {
		s.OnFailure = message.SkipKey
	}
	if c.dropRate {
		s.Rate = message.Rate{}
	}
	if c.dropKeyRate {
		s.RatePerKey = message.Rate{}
	}
	if c.dropAssign {
		s.Assign = message.AssignAll
	}
	return s
}

// tornAck sends what goes with an ack, and then acks.
func tornAck(ctx context.Context, p *process, s message.Settlement) ([]message.SettleResult, error) {
	var ids []message.ID
	for _, f := range s.FollowUps {
		sent, err := p.gateway.Send(ctx, f.Queue, []message.New{f.New})
		if err != nil {
			return nil, err
		}
		ids = append(ids, sent[0].ID)
	}
	s.FollowUps = nil
	results, err := p.gateway.Settle(ctx, []message.Settlement{s})
	if err == nil {
		results[0].FollowUps = ids
	}
	return results, err
}

// staleReader reads whatever is here.
type staleReader struct {
	p     *process
	group uint64
}

func (s staleReader) Read(_ context.Context, q *queue.Query, _ time.Duration) (a queue.Answer, f message.Freshness, err error) {
	g, ok := s.p.host.Group(s.group)
	if !ok {
		return a, f, errNotSent
	}
	v := g.View()
	if v == nil {
		return a, f, errNotSent
	}
	defer v.Close()
	return q.Run(v), f, nil
}
