package native

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// CreateQueue creates a queue, or finds it with the same settings.
func (s queues) CreateQueue(ctx context.Context, req *comandav1.CreateQueueRequest) (*comandav1.CreateQueueResponse, error) {
	settings, err := settingsOf(req.GetSettings())
	if err != nil {
		return nil, err
	}
	info, created, err := s.verbs.CreateQueue(ctx, req.GetQueue(), settings, orDefault(req.GetShards(), 1))
	if err != nil {
		return nil, err
	}
	return &comandav1.CreateQueueResponse{Queue: queueTo(&info), Created: created}, nil
}

// UpdateQueue gives a queue other settings.
func (s queues) UpdateQueue(ctx context.Context, req *comandav1.UpdateQueueRequest) (*comandav1.UpdateQueueResponse, error) {
	settings, err := settingsOf(req.GetSettings())
	if err != nil {
		return nil, err
	}
	info, err := s.verbs.UpdateQueue(ctx, req.GetQueue(), settings, req.GetVersion(), req.GetDryRun())
	if err != nil {
		return nil, err
	}
	return &comandav1.UpdateQueueResponse{Queue: queueTo(&info)}, nil
}

// GetQueue shows a queue with its counts.
func (s queues) GetQueue(ctx context.Context, req *comandav1.GetQueueRequest) (*comandav1.GetQueueResponse, error) {
	o, err := readOptions(req.GetStale())
	if err != nil {
		return nil, err
	}
	info, fresh, err := s.verbs.Queue(ctx, req.GetQueue(), o)
	if err != nil {
		return nil, err
	}
	q := queueTo(&info)
	q.Counts = countsTo(info.Counts)
	t := &info.Totals
	q.Totals = &comandav1.Totals{Sent: int64(t.Sent), Delivered: int64(t.Delivered), Finished: int64(t.Finished), Failed: int64(t.Failed)}
	q.Leaving = info.Leaving
	if info.OldestAge > 0 {
		q.OldestAge = durationpb.New(info.OldestAge)
	}
	if o.Stale == 0 {
		q.Receivers, q.ReceivedAt = proto.Int32(int32(info.Receivers.Waiting)), timeTo(info.Receivers.Last)
	}
	for _, p := range info.Pauses {
		q.Pauses = append(q.Pauses, &comandav1.Pause{Key: p.Key, Tenant: p.Tenant, By: p.By, At: timeTo(time.UnixMilli(p.At))})
	}
	return &comandav1.GetQueueResponse{Queue: q, Freshness: freshnessTo(fresh)}, nil
}

// ListQueues lists queues, page by page.
func (s queues) ListQueues(ctx context.Context, req *comandav1.ListQueuesRequest) (*comandav1.ListQueuesResponse, error) {
	o, err := readOptions(req.GetStale())
	if err != nil {
		return nil, err
	}
	infos, next, fresh, err := s.verbs.Queues(ctx, orDefault(req.GetMax(), defaultPage), req.GetPage(), o)
	if err != nil {
		return nil, err
	}
	resp := &comandav1.ListQueuesResponse{Queues: make([]*comandav1.Queue, len(infos)), NextPage: next, Freshness: freshnessTo(fresh)}
	for i := range infos {
		resp.Queues[i] = queueTo(&infos[i])
	}
	return resp, nil
}

// DeleteQueue deletes a queue and its messages.
func (s queues) DeleteQueue(ctx context.Context, req *comandav1.DeleteQueueRequest) (*comandav1.DeleteQueueResponse, error) {
	if err := s.verbs.DeleteQueue(ctx, req.GetQueue()); err != nil {
		return nil, err
	}
	return &comandav1.DeleteQueueResponse{}, nil
}

// PurgeQueue deletes a queue's messages.
func (s queues) PurgeQueue(ctx context.Context, req *comandav1.PurgeQueueRequest) (*comandav1.PurgeQueueResponse, error) {
	if err := s.verbs.PurgeQueue(ctx, req.GetQueue()); err != nil {
		return nil, err
	}
	return &comandav1.PurgeQueueResponse{}, nil
}

// PauseQueue stops handing out messages.
func (s queues) PauseQueue(ctx context.Context, req *comandav1.PauseQueueRequest) (*comandav1.PauseQueueResponse, error) {
	if err := s.verbs.PauseQueue(ctx, req.GetQueue(), true, message.Pause{Key: req.GetKey(), Tenant: req.GetTenant(), By: workerName(ctx, req.GetBy())}); err != nil {
		return nil, err
	}
	return &comandav1.PauseQueueResponse{}, nil
}

// ResumeQueue hands out messages again.
func (s queues) ResumeQueue(ctx context.Context, req *comandav1.ResumeQueueRequest) (*comandav1.ResumeQueueResponse, error) {
	if err := s.verbs.PauseQueue(ctx, req.GetQueue(), false, message.Pause{Key: req.GetKey(), Tenant: req.GetTenant()}); err != nil {
		return nil, err
	}
	return &comandav1.ResumeQueueResponse{}, nil
}

// LocateKey tells where a key's messages are.
func (s queues) LocateKey(ctx context.Context, req *comandav1.LocateKeyRequest) (*comandav1.LocateKeyResponse, error) {
	l, err := s.verbs.Locate(ctx, req.GetQueue(), req.GetKey())
	if err != nil {
		return nil, err
	}
	return &comandav1.LocateKeyResponse{
		Hash: pointTo(l.Hash), Shard: l.Shard, Group: uint32(l.Group), Leader: l.Leader, Followers: l.Followers,
	}, nil
}

// ListOwners tells which nodes have each shard, and which workers its keys prefer.
func (s queues) ListOwners(ctx context.Context, req *comandav1.ListOwnersRequest) (*comandav1.ListOwnersResponse, error) {
	shards, err := s.verbs.Owners(ctx, req.GetQueue())
	if err != nil {
		return nil, err
	}
	resp := &comandav1.ListOwnersResponse{Shards: make([]*comandav1.ShardOwners, len(shards))}
	for i, sh := range shards {
		out := &comandav1.ShardOwners{
			Shard: sh.ID, From: pointTo(sh.From), To: pointTo(sh.To), Group: uint32(sh.Group), Leader: sh.Leader, Followers: sh.Followers,
		}
		for _, w := range sh.Workers {
			out.Workers = append(out.Workers, &comandav1.PreferredWorker{Worker: w.Worker, Share: w.Share})
		}
		resp.Shards[i] = out
	}
	return resp, nil
}

// pointTo writes a point or hash as the 16 hex digits that people see.
func pointTo(p uint64) string { return fmt.Sprintf("%016x", p) }

func queueTo(q *message.QueueInfo) *comandav1.Queue {
	return &comandav1.Queue{Name: q.Name, Settings: settingsTo(q.Settings), Paused: q.Paused, Shards: int32(q.Shards), Version: q.Version}
}

func countsTo(c message.Counts) *comandav1.Counts {
	return &comandav1.Counts{Ready: c.Ready, Scheduled: c.Scheduled, Leased: c.Leased, Dead: c.Dead, Finished: c.Finished}
}

// backoffKinds pairs the contract's kinds with ours.
var backoffKinds = map[comandav1.BackoffKind]message.BackoffKind{
	comandav1.BackoffKind_BACKOFF_KIND_UNSPECIFIED: 0,
	comandav1.BackoffKind_BACKOFF_KIND_EXPONENTIAL: message.BackoffExponential,
	comandav1.BackoffKind_BACKOFF_KIND_FIXED:       message.BackoffFixed,
	comandav1.BackoffKind_BACKOFF_KIND_LIST:        message.BackoffList,
}

func settingsOf(in *comandav1.QueueSettings) (s message.Settings, err error) {
	s = message.Settings{
		MaxAttempts:     int(in.GetMaxAttempts()),
		MaxWorkerDeaths: int(in.GetMaxWorkerDeaths()),
		KeepFinished:    int(in.GetKeepFinished()),
		MaxMessageBytes: int(in.GetMaxMessageBytes()),
		MaxInFlight:     int(in.GetMaxInFlight()),
	}
	if s.OnFailure = message.OnFailure(in.GetOnFailure()); int32(s.OnFailure) != int32(in.GetOnFailure()) {
		return s, message.Errorf(message.InvalidArgument, "on_failure %d: want block or skip", in.GetOnFailure())
	}
	if s.OnExpired = message.ExpiredPolicy(in.GetOnExpired()); int32(s.OnExpired) != int32(in.GetOnExpired()) {
		return s, message.Errorf(message.InvalidArgument, "on_expired %d: want drop or dead", in.GetOnExpired())
	}
	if s.Assign = message.Assign(in.GetAssign()); int32(s.Assign) != int32(in.GetAssign()) {
		return s, message.Errorf(message.InvalidArgument, "assign %d: want all or single", in.GetAssign())
	}
	if s.Rate, err = rateOf("rate", in.GetRate()); err != nil {
		return s, err
	}
	if s.RatePerKey, err = rateOf("rate_per_key", in.GetRatePerKey()); err != nil {
		return s, err
	}
	switch s.DedupWindow, err = durationOf("dedup_window", in.GetDedupWindow(), 0); {
	case err != nil:
		return s, err
	case s.DedupWindow < 0:
		return s, message.Errorf(message.InvalidArgument, "dedup_window is %s: want 0s to %s", s.DedupWindow, message.MaxDedupWindow)
	case in.GetDedupWindow() != nil && s.DedupWindow == 0:
		s.DedupWindow = message.NoDedup
	}
	s.DeadLetterTo = in.GetDeadLetterTo()
	if s.KeepFinishedFor, err = durationOf("keep_finished_for", in.GetKeepFinishedFor(), 0); err != nil {
		return s, err
	}
	s.Backoff, err = backoffOf(in.GetBackoff())
	return s, err
}

func rateOf(field string, in *comandav1.Rate) (r message.Rate, err error) {
	r.Count = int(in.GetCount())
	r.Per, err = durationOf(field+" per", in.GetPer(), 0)
	return r, err
}

// rateTo is nil for no limit.
func rateTo(r message.Rate) *comandav1.Rate {
	if r.Count == 0 {
		return nil
	}
	return &comandav1.Rate{Count: int32(r.Count), Per: durationpb.New(r.Per)}
}

func backoffOf(in *comandav1.Backoff) (b message.Backoff, err error) {
	kind, known := backoffKinds[in.GetKind()]
	if !known {
		return b, message.Errorf(message.InvalidArgument, "backoff kind %d: want exponential, fixed or list", in.GetKind())
	}
	b.Kind = kind
	if b.Initial, err = durationOf("backoff initial", in.GetInitial(), 0); err != nil {
		return b, err
	}
	if b.Max, err = durationOf("backoff max", in.GetMax(), 0); err != nil {
		return b, err
	}
	for _, d := range in.GetList() {
		delay, err := durationOf("backoff list", d, 0)
		if err != nil {
			return b, err
		}
		b.List = append(b.List, delay)
	}
	return b, nil
}

func settingsTo(s message.Settings) *comandav1.QueueSettings {
	return &comandav1.QueueSettings{
		MaxAttempts:     int32(s.MaxAttempts),
		MaxWorkerDeaths: int32(s.MaxWorkerDeaths),
		Backoff:         backoffTo(&s.Backoff),
		KeepFinished:    int32(s.KeepFinished),
		KeepFinishedFor: durationpb.New(s.KeepFinishedFor),
		MaxMessageBytes: int32(s.MaxMessageBytes),
		OnFailure:       comandav1.OnFailure(s.OnFailure),
		OnExpired:       comandav1.OnExpired(s.OnExpired),
		MaxInFlight:     int32(s.MaxInFlight),
		Rate:            rateTo(s.Rate),
		RatePerKey:      rateTo(s.RatePerKey),
		Assign:          comandav1.Assign(s.Assign),
		DeadLetterTo:    s.DeadLetterTo,
		DedupWindow:     durationpb.New(max(s.DedupWindow, 0)),
	}
}

func backoffTo(b *message.Backoff) *comandav1.Backoff {
	out := &comandav1.Backoff{Initial: durationpb.New(b.Initial), Max: durationpb.New(b.Max)}
	for wire, kind := range backoffKinds {
		if kind == b.Kind {
			out.Kind = wire
		}
	}
	for _, d := range b.List {
		out.List = append(out.List, durationpb.New(d))
	}
	return out
}
