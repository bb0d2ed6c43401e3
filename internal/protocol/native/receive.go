package native

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// releaseTimeout limits how long the end of a call waits for giving back what
// its client never got.
const releaseTimeout = 5 * time.Second

// workerHeader names the receiver, as an HTTP header or gRPC metadata.
const workerHeader = "Comanda-Worker"

// Receive leases messages and waits for a first one.
func (s messages) Receive(ctx context.Context, req *comandav1.ReceiveRequest) (*comandav1.ReceiveResponse, error) {
	wait, err := durationOf("wait", req.GetWait(), 0)
	if err != nil {
		return nil, err
	}
	lease, err := durationOf("lease", req.GetLease(), message.DefaultLease)
	if err != nil {
		return nil, err
	}
	ds, err := s.verbs.Receive(ctx, req.GetQueue(), message.ReceiveOptions{
		Max:    orDefault(req.GetMax(), 1),
		PerKey: int(req.GetMaxPerKey()),
		Wait:   wait,
		Lease:  lease,
		Worker: workerName(ctx, req.GetWorker()),
	})
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // nobody is left to take them
		s.release(ctx, ds)
		return nil, ctx.Err()
	}
	return &comandav1.ReceiveResponse{Messages: deliveriesTo(ds)}, nil
}

// release gives back deliveries that will not reach their receiver, whose call
// has ended, so that others need not wait for the deadline.
func (s *Server) release(ctx context.Context, ds []message.Delivery) {
	if len(ds) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	batch := make([]message.Settlement, 0, len(ds))
	for _, d := range slices.Backward(ds) { // later ones of a key first: an earlier one would take them with it
		token, err := s.verbs.OpenToken(d.Token)
		if err != nil {
			s.log.ErrorContext(ctx, "a token of our own does not open", "message", d.ID.String(), "error", err)
			continue
		}
		batch = append(batch, message.Settlement{Token: token, Action: message.Release})
	}
	for len(batch) > 0 {
		n := min(len(batch), message.MaxBatch)
		if _, err := s.verbs.Settle(ctx, batch[:n]); err != nil {
			s.log.WarnContext(ctx, "could not release messages whose receiver is gone; they wait for their deadline",
				"messages", len(batch), "error", err)
			return
		}
		batch = batch[n:]
	}
}

// workerName is the name that the receiver gave itself in the field or else the
// header, or else its address.
func workerName(ctx context.Context, field string) string {
	if field != "" {
		return field
	}
	if h := metadata.ValueFromIncomingContext(ctx, workerHeader); len(h) > 0 && h[0] != "" {
		return h[0]
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
