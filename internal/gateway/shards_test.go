package gateway_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// The shards of all queues come in pages, none left out and none twice, by queue
// and range.
func TestShardsInPages(t *testing.T) {
	g := start(t)
	var want, got []string
	for i := range 7 {
		name := fmt.Sprint("q", i)
		if create(t, g, name, message.Settings{}, 1+i%2); i%2 == 0 {
			want = append(want, name+"/0")
		} else {
			want = append(want, name+"/0.0", name+"/0.1")
		}
	}
	pages := 0
	for page := ""; ; pages++ {
		shards, next, _, err := g.Shards(t.Context(), "", 3, page, message.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range shards {
			got = append(got, shards[i].ID)
		}
		if page = next; page == "" {
			break
		}
	}
	if !slices.Equal(got, want) || pages != 2 {
		t.Errorf("in %d pages %v, want %v", pages+1, got, want)
	}
	one, next, _, err := g.Shards(t.Context(), "q5", 1, "", message.ReadOptions{})
	if err != nil || next != "" || len(one) != 2 || one[1].To != 1<<64-1 {
		t.Errorf("of one queue: %+v, next page %q, %v", one, next, err)
	}
	for _, limit := range []int{0, 1001} {
		if _, _, _, err := g.Shards(t.Context(), "", limit, "", message.ReadOptions{}); message.CodeOf(err) != message.InvalidArgument {
			t.Errorf("max %d: %v", limit, err)
		}
	}
}
