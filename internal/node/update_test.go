package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/peer"
	"github.com/comanda-mq/comanda/internal/replica"
)

type catalogRows map[string]string

func (r catalogRows) Get(_ uint64, key []byte) ([]byte, bool) {
	v, ok := r[string(key)]
	return []byte(v), ok
}
func (r catalogRows) Scan(uint64, []byte, []byte, func(_, _ []byte) bool) {}
func (r catalogRows) Set(_ uint64, key, value []byte)                     { r[string(key)] = string(value) }
func (r catalogRows) Delete(_ uint64, key []byte)                         { delete(r, string(key)) }

// The whole catalog of the most queues that a cluster may have fits one answer to
// a node that follows it, and comes out as it went in.
func TestLargestCatalogFitsAnAnswer(t *testing.T) {
	const queues, perEntry = 5_000, 500
	m, rows := catalog.New(), catalogRows{}
	index := uint64(1)
	apply := func(cs ...catalog.Command) {
		var joined []replica.Command
		for _, c := range cs {
			joined = append(joined, replica.Command{Head: c.Encode()})
		}
		m.Apply(rows, index, catalog.AppendEntry(nil, joined))
		index++
	}
	apply(catalog.Command{Found: &catalog.Found{ClusterID: newID(), Secret: newSecret(), Node: catalog.Node{ID: 1, Name: "a"}, Groups: dataGroups}})
	for i := 0; i < queues; i += perEntry {
		var cs []catalog.Command
		for j := i; j < i+perEntry; j++ {
			cs = append(cs, catalog.Command{CreateQueue: &catalog.CreateQueue{
				Name: fmt.Sprintf("the-orders-of-customer-number-%d", j*7919), Settings: message.Settings{}.WithDefaults(), Shards: 1 + j%2, Secret: newSecret(),
			}})
		}
		apply(cs...)
	}
	v := m.View()
	if v.Len() != queues {
		t.Fatalf("there are %d queues", v.Len())
	}
	update := v.Since(0)
	a := nodeAnswer{Update: packUpdate(update)}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	size := len(b)
	t.Logf("%d bytes a queue, %d packed", len(update)/queues, size/queues)
	if most := size / queues * message.MaxQueues; most > peer.MaxRequest {
		t.Errorf("%d queues are %d bytes, and an answer has at most %d", message.MaxQueues, most, peer.MaxRequest)
	}
	got, err := unpackUpdate(a.Update)
	if err != nil {
		t.Fatal(err)
	}
	if copied, _, err := catalog.Follow(nil, got); err != nil || copied.Len() != queues {
		t.Errorf("what was unpacked: %v", err)
	}
	if _, err := unpackUpdate(a.Update[:len(a.Update)/2]); err == nil {
		t.Error("half an update was taken")
	}
}

// An update that does not fit is asked for anew, as a whole.
func TestFollowAsksAnew(t *testing.T) {
	m := catalog.New()
	m.Apply(catalogRows{}, 1, catalog.AppendEntry(nil, []replica.Command{{Head: (catalog.Command{Found: &catalog.Found{ClusterID: newID(), Secret: newSecret(), Node: catalog.Node{ID: 1, Name: "a"}, Groups: dataGroups}}).Encode()}}))
	v := m.View()
	var asked []uint64
	newer, changes, err := follow(&catalog.View{Version: 7}, func(version uint64) ([]byte, error) {
		asked = append(asked, version)
		if version > 0 {
			return []byte("of another time"), nil
		}
		return v.Since(0), nil
	})
	if err != nil || newer.Version != v.Version || changes != nil || !slices.Equal(asked, []uint64{7, 0}) {
		t.Errorf("asked for what is newer than %v: %v", asked, err)
	}
}
