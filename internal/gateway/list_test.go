package gateway_test

import (
	"fmt"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// A page of a list ends when it is large, wherever in the queue's groups that is,
// and the next one goes on there: none is left out and none comes twice.
func TestListOfLargeMessagesComesInPages(t *testing.T) {
	const messages, each = 200, message.MaxAttributeBytes - 1_000
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	for i := range messages {
		send(t, g, "orders", message.New{Key: fmt.Sprint(i), Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeBytes, Value: make([]byte, each)}}})
	}
	seen := map[message.ID]bool{}
	pages := 0
	for page := ""; ; {
		l, err := g.List(t.Context(), "orders", message.ListOptions{State: message.Ready, Max: message.MaxBatch, Page: page})
		if err != nil {
			t.Fatal(err)
		}
		pages++
		if len(l.Messages)*each > 9<<20 {
			t.Errorf("page %d has %d messages of %d bytes", pages, len(l.Messages), each)
		}
		for i := range l.Messages {
			if seen[l.Messages[i].ID] {
				t.Fatalf("message %s comes twice", l.Messages[i].ID)
			}
			seen[l.Messages[i].ID] = true
		}
		if page = l.NextPage; page == "" {
			break
		}
	}
	if len(seen) != messages || pages > 10 {
		t.Errorf("%d pages have %d of %d messages", pages, len(seen), messages)
	}
}
