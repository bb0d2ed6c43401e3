package client_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// A handler is told that its message is cancelled, with the answer to a claim or by
// a refused extension, and what it says then is sent. The other handler goes on.
func TestCancelledMessagesCancelTheirHandlers(t *testing.T) {
	for name, f := range map[string]*fake{
		"claim": {ttl: ttl, cancels: []string{"t1", "unknown"}},
		"extension": {onSettle: func(s *comandav1.Settlement) *comandav1.SettleResult {
			if s.GetAction() == client.ActionExtend && s.GetToken() == "t1" {
				return &comandav1.SettleResult{Error: &comandav1.Error{Code: "CANCEL_REQUESTED", Message: "let it go"}}
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 2)
				w := &client.Worker{Client: start(t, f), Concurrency: 2, Handler: func(ctx context.Context, _ *client.RawJob) error {
					select {
					case <-time.After(time.Minute):
					case <-ctx.Done():
					}
					ended <- context.Cause(ctx)
					return context.Cause(ctx)
				}}
				f.put("a", "b")
				stop := work(t, w)
				<-time.After(2 * time.Minute)
				if err := stop(); err != nil {
					t.Error(err)
				}
				if first, second := <-ended, <-ended; !errors.Is(first, client.ErrCancelled) || errors.Is(first, client.ErrLeaseLost) || second != nil {
					t.Errorf("the handlers ended with %v and %v", first, second)
				}
				got := slices.DeleteFunc(f.actions(), func(a string) bool { return strings.HasSuffix(a, "EXTEND") })
				if !slices.Equal(got, []string{"t1 NACK", "t2 ACK"}) {
					t.Errorf("settled %v", got)
				}
			})
		})
	}
}
