package native

import (
	"context"
	"testing"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// instant is a gateway that costs nothing, to see what the protocol costs.
type instant struct{ *fake }

func (instant) Send(ctx context.Context, _ string, msgs []message.New) ([]message.SendResult, error) {
	return make([]message.SendResult, len(msgs)), ctx.Err()
}

func (instant) Receive(ctx context.Context, _ string, o message.ReceiveOptions) ([]message.Delivery, error) {
	return make([]message.Delivery, o.Max), ctx.Err()
}

func (instant) Settle(ctx context.Context, s []message.Settlement) ([]message.SettleResult, error) {
	return make([]message.SettleResult, len(s)), ctx.Err()
}

// One message is granted, delivered, settled and answered.
func BenchmarkWork(b *testing.B) {
	const window = 256
	stream, err := comandav1.NewMessagesClient(serve(b, New(Options{
		Verbs: instant{newFake()}, Allowed: AllowHosts(), Logger: discard,
	}), "localhost")).Work(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if err := stream.Send(openRequest(window, "q")); err != nil {
		b.Fatal(err)
	}
	token := tokenAt(1)
	b.ReportAllocs()
	for settled := 0; settled < b.N; {
		resp, err := stream.Recv()
		if err != nil {
			b.Fatal(err)
		}
		settled += len(resp.GetSettled())
		if len(resp.GetDeliveries()) == 0 {
			continue
		}
		req := &comandav1.WorkRequest{Credits: uint32(len(resp.GetDeliveries()))}
		for range resp.GetDeliveries() {
			req.Settlements = append(req.Settlements, &comandav1.NumberedSettlement{
				Settlement: &comandav1.Settlement{Token: token, Action: comandav1.Action_ACTION_ACK},
			})
		}
		if err := stream.Send(req); err != nil {
			b.Fatal(err)
		}
	}
}

// One call sends a hundred messages of 1 KiB.
func BenchmarkSend100(b *testing.B) {
	client := comandav1.NewMessagesClient(serve(b, New(Options{
		Verbs: instant{newFake()}, Allowed: AllowHosts(), Logger: discard,
	}), "localhost"))
	req := &comandav1.SendRequest{Queue: "q"}
	for range 100 {
		req.Messages = append(req.Messages, &comandav1.NewMessage{Body: make([]byte, 1<<10), Key: "k"})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Send(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}
