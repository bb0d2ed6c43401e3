package peer

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkCall: a request and its answer over loopback, one at a time and with
// many callers.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		for _, size := range []int{100, 10_000} {
			b.Run(fmt.Sprintf("callers=%d/bytes=%d", callers, size), func(b *testing.B) {
				a, _ := pair(b, funcs{}, funcs{})
				request := make([]byte, size)
				if _, err := a.Call(b.Context(), 2, request); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(2 * size))
				b.ReportAllocs()
				b.ResetTimer()
				var left atomic.Int64
				left.Store(int64(b.N))
				var all sync.WaitGroup
				for range callers {
					all.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := a.Call(b.Context(), 2, request); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}

// BenchmarkSend: batches of 16 messages over loopback, at most 64 on their way.
func BenchmarkSend(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			way := make(chan struct{}, 64)
			a, _ := pair(b, funcs{}, funcs{messages: func(uint64, []Message) { <-way }})
			batch := make([]Message, 16)
			for i := range batch {
				batch[i] = Message{Group: uint64(i), Data: make([]byte, size)}
			}
			if _, err := a.Call(b.Context(), 2, nil); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size * len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				way <- struct{}{}
				a.Send(2, batch)
			}
			for range cap(way) {
				way <- struct{}{}
			}
		})
	}
}
