package native

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// GetServer tells what the server is and how it does.
func (s cluster) GetServer(ctx context.Context, _ *comandav1.GetServerRequest) (*comandav1.GetServerResponse, error) {
	i, err := s.verbs.Server(ctx)
	if err != nil {
		return nil, err
	}
	resp := &comandav1.GetServerResponse{
		Version:   i.Version,
		ClusterId: i.ClusterID,
		Node:      i.Node,
		StartedAt: timeTo(i.StartedAt),
		Listen:    i.Listen,
		DataDir:   i.DataDir,
		Now:       timeTo(i.Now),
		Voters:    int32(i.Voters),
		Disk: &comandav1.DiskStatus{
			FreeBytes:    i.DiskFree,
			TotalBytes:   i.DiskTotal,
			ReserveBytes: i.DiskReserve,
			BelowReserve: i.BelowReserve,
			FsyncP50Us:   uint64(i.FsyncP50.Microseconds()),
			FsyncP99Us:   uint64(i.FsyncP99.Microseconds()),
		},
		Memory: &comandav1.MemoryStatus{LimitBytes: i.MemoryLimit, UsedBytes: i.MemoryUsed},
	}
	for _, g := range i.Groups {
		resp.Groups = append(resp.Groups, &comandav1.GroupStatus{
			Group: uint32(g.Group), Leader: g.Leader, Term: g.Term, Applied: g.Applied,
			Voters: int32(g.Voters), Learners: int32(g.Learners), WantedVoters: int32(g.WantedVoters), AliveVoters: int32(g.AliveVoters),
		})
	}
	return resp, nil
}

// ListShards lists the shards of one queue, or of all, page by page.
func (s cluster) ListShards(ctx context.Context, req *comandav1.ListShardsRequest) (*comandav1.ListShardsResponse, error) {
	o, err := readOptions(req.GetStale())
	if err != nil {
		return nil, err
	}
	shards, next, fresh, err := s.verbs.Shards(ctx, req.GetQueue(), orDefault(req.GetMax(), defaultPage), req.GetPage(), o)
	if err != nil {
		return nil, err
	}
	return &comandav1.ListShardsResponse{Shards: shardsTo(shards), NextPage: next, Freshness: freshnessTo(fresh)}, nil
}

// SplitShard makes two shards of one.
func (s cluster) SplitShard(ctx context.Context, req *comandav1.SplitShardRequest) (*comandav1.SplitShardResponse, error) {
	halves, err := s.verbs.SplitShard(ctx, req.GetQueue(), req.GetShard())
	if err != nil {
		return nil, err
	}
	return &comandav1.SplitShardResponse{Shards: shardsTo(halves)}, nil
}

// ListNodes lists the nodes that are not removed.
func (s cluster) ListNodes(ctx context.Context, _ *comandav1.ListNodesRequest) (*comandav1.ListNodesResponse, error) {
	nodes, err := s.verbs.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	resp := &comandav1.ListNodesResponse{Nodes: make([]*comandav1.Node, len(nodes))}
	for i := range nodes {
		resp.Nodes[i] = nodeTo(&nodes[i])
	}
	return resp, nil
}

// DrainNode asks that a node holds nothing, or takes that back.
func (s cluster) DrainNode(ctx context.Context, req *comandav1.DrainNodeRequest) (*comandav1.DrainNodeResponse, error) {
	n, err := s.verbs.DrainNode(ctx, req.GetNode(), req.GetUndo())
	if err != nil {
		return nil, err
	}
	return &comandav1.DrainNodeResponse{Node: nodeTo(&n)}, nil
}

// RemoveNode takes a node out of the cluster.
func (s cluster) RemoveNode(ctx context.Context, req *comandav1.RemoveNodeRequest) (*comandav1.RemoveNodeResponse, error) {
	if err := s.verbs.RemoveNode(ctx, req.GetNode(), req.GetAcceptOneDisk()); err != nil {
		return nil, err
	}
	return &comandav1.RemoveNodeResponse{}, nil
}

// ListWorkers lists the sessions of workers, page by page.
func (s cluster) ListWorkers(ctx context.Context, req *comandav1.ListWorkersRequest) (*comandav1.ListWorkersResponse, error) {
	l, err := s.verbs.Workers(ctx, orDefault(req.GetMax(), defaultPage), req.GetPage())
	if err != nil {
		return nil, err
	}
	return &comandav1.ListWorkersResponse{Workers: workersTo(l.Workers), NextPage: l.NextPage, Unreached: groupsTo(l.Unreached)}, nil
}

// DrainWorker has a worker finish what it holds and get nothing more.
func (s cluster) DrainWorker(ctx context.Context, req *comandav1.DrainWorkerRequest) (*comandav1.DrainWorkerResponse, error) {
	l, err := s.verbs.DrainWorker(ctx, req.GetWorker())
	if err != nil {
		return nil, err
	}
	return &comandav1.DrainWorkerResponse{Workers: workersTo(l.Workers), Unreached: groupsTo(l.Unreached)}, nil
}

func groupsTo(groups []uint64) (out []uint32) {
	for _, group := range groups {
		out = append(out, uint32(group))
	}
	return out
}

func workersTo(workers []message.WorkerInfo) []*comandav1.Worker {
	out := make([]*comandav1.Worker, len(workers))
	for i, w := range workers {
		out[i] = &comandav1.Worker{
			Id: w.Worker, State: w.State, LastBeatMs: int32(w.Silent.Milliseconds()), Holds: int32(w.Holds), Queues: w.Queues, Slots: uint32(w.Slots),
			Node: w.Node, Session: w.Session, Reason: w.Reason, Ttl: durationpb.New(w.TTL),
		}
	}
	return out
}

func shardsTo(shards []message.ShardInfo) []*comandav1.Shard {
	out := make([]*comandav1.Shard, len(shards))
	for i, sh := range shards {
		out[i] = &comandav1.Shard{
			Id: sh.ID, Queue: sh.Queue, From: pointTo(sh.From), To: pointTo(sh.To), Group: uint32(sh.Group),
			Leader: sh.Leader, Followers: sh.Followers, Counts: countsTo(sh.Counts),
		}
	}
	return out
}

func nodeTo(n *message.NodeInfo) *comandav1.Node {
	out := &comandav1.Node{
		Id: n.ID, Name: n.Name, State: n.State, Draining: n.Draining, ClockOff: n.ClockOff, Boot: n.Boot, Labels: n.Labels,
		Listen: n.Listen, Advertise: n.Advertise, Version: n.Version, Replicas: int32(n.Replicas), Leads: int32(n.Leads),
	}
	for _, b := range n.Behind {
		out.Behind = append(out.Behind, &comandav1.ReplicaBehind{
			Group: uint32(b.Group), Entries: b.Entries, Since: timeTo(b.Since), Why: b.Why, Leader: b.Leader,
		})
	}
	return out
}
