package leader

import (
	"fmt"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// BenchmarkDrainFewKeys drains 1,000 messages of four keys by one receiver that takes up
// to 100 at a time, so many of a key.
func BenchmarkDrainFewKeys(b *testing.B) {
	for _, perKey := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("per-key=%d", perKey), func(b *testing.B) {
			r := newRig(b)
			for b.Loop() {
				b.StopTimer()
				r.sendKeys(250, "a", "b", "c", "d")
				b.StartTimer()
				for left := 1000; left > 0; {
					c := NewCall(1, message.ReceiveOptions{Max: 100, PerKey: perKey, Lease: time.Minute, Worker: "w"}, 1)
					r.Wait(c)
					got, err := c.Collect(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					r.settle(got, message.Ack, 0)
					left -= len(got)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/message")
		})
	}
}
