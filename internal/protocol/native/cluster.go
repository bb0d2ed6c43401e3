package native

import (
	"context"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
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
			Group: uint32(g.Group), Leader: g.Leader, Term: g.Term, Applied: g.Applied, Voters: int32(g.Voters),
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
	resp := &comandav1.ListShardsResponse{Shards: make([]*comandav1.Shard, len(shards)), NextPage: next, Freshness: freshnessTo(fresh)}
	for i, sh := range shards {
		resp.Shards[i] = &comandav1.Shard{
			Id: sh.ID, Queue: sh.Queue, From: pointTo(sh.From), To: pointTo(sh.To), Group: uint32(sh.Group),
			Leader: sh.Leader, Followers: sh.Followers, Counts: countsTo(sh.Counts),
		}
	}
	return resp, nil
}
