package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
)

// freeAddresses are addresses that nobody listens on, in order.
func freeAddresses(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	slices.Sort(addrs)
	return addrs
}

// founder is a node that is to found a cluster with others.
type founder struct {
	*member
	addr    string
	members []string
}

// founders are three nodes that are to found a cluster together, by address.
func founders(t *testing.T) (ms []*founder, start func(context.Context, *founder) error) {
	t.Helper()
	addrs := freeAddresses(t, 3)
	for i, a := range addrs {
		ms = append(ms, &founder{member: &member{t: t, name: fmt.Sprint("node-", i+1), fs: vfs.NewMem()}, addr: a, members: addrs})
	}
	return ms, func(ctx context.Context, m *founder) error {
		n, err := Start(ctx, Config{
			FS: m.fs, DataDir: "data", NodeName: m.name, LogSegment: smallSegment, DiskReserve: 1,
			Listen: "127.0.0.1:0", ClusterListen: m.addr, InitialMembers: m.members,
		})
		if err == nil {
			m.Node = n
			t.Cleanup(m.stop)
		}
		return err
	}
}

// Three nodes that are started at once, in any order and one of them twice, found
// one cluster. No send is confirmed before each group has three voters.
func TestInitialMembers(t *testing.T) {
	for twice := range 3 {
		t.Run(fmt.Sprintf("node-%d twice", twice+1), func(t *testing.T) {
			ms, start := founders(t)
			again := ms[twice]
			short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := start(short, again); err == nil {
				t.Fatal("a cluster without the others")
			}
			var all sync.WaitGroup
			for i := range ms {
				m := ms[(i+twice)%3]
				all.Go(func() {
					if err := start(t.Context(), m); err != nil {
						t.Errorf("%s: %v", m.name, err)
					}
				})
			}
			all.Wait()
			if t.Failed() {
				return
			}
			for _, m := range ms {
				if m.ClusterID() != ms[0].ClusterID() || len(m.ClusterID()) != 32 {
					t.Errorf("%s is of cluster %s, %s of %s", m.name, m.ClusterID(), ms[0].name, ms[0].ClusterID())
				}
			}
			if _, _, err := ms[1].Gateway().CreateQueue(t.Context(), "orders", message.Settings{}, 4); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a send is confirmed", func() bool {
				rs, err := ms[2].Gateway().Send(t.Context(), "orders", []message.New{{Body: []byte("x")}})
				if message.CodeOf(err) == message.Unavailable {
					return false
				}
				if err != nil || rs[0].Err != nil {
					t.Fatal(err, rs)
				}
				return true
			})
			for _, g := range ms[0].host.Groups() {
				if len(g.Status().Voters) != 3 {
					t.Errorf("a send was confirmed while group %d had the voters %v", g.ID(), g.Status().Voters)
				}
			}
		})
	}
}

// The first member with an empty disk founds no second cluster: it asks to join the
// one that the others are of, and is not let in under a name that is taken.
func TestFounderThatLostItsDisk(t *testing.T) {
	ms, start := founders(t)
	var all sync.WaitGroup
	for _, m := range ms {
		all.Go(func() {
			if err := start(t.Context(), m); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		})
	}
	all.Wait()
	voters(t, ms[1].member, 3)
	ms[0].stop()
	wiped := ms[0]
	wiped.fs = vfs.NewMem()
	err := start(t.Context(), wiped)
	if message.CodeOf(err) != message.Conflict || !strings.Contains(err.Error(), "comanda node remove node-1") {
		t.Fatalf("a wiped founder: %v", err)
	}
	if err := ms[1].Gateway().RemoveNode(t.Context(), "node-1", false); err != nil {
		t.Fatal(err)
	}
	if err := start(t.Context(), wiped); err != nil {
		t.Fatal(err)
	}
	if wiped.id != 4 || wiped.ClusterID() != ms[1].ClusterID() {
		t.Errorf("node %d of cluster %s, want 4 of %s", wiped.id, wiped.ClusterID(), ms[1].ClusterID())
	}
}

// Members that were told of different ones found nothing.
func TestInitialMembersThatDiffer(t *testing.T) {
	ms, start := founders(t)
	waiting, stop := context.WithCancel(t.Context())
	var other sync.WaitGroup
	other.Go(func() {
		if err := start(waiting, ms[1]); err == nil {
			t.Error("a cluster without the others")
		}
	})
	ms[0].members = []string{ms[0].addr, ms[1].addr, "127.0.0.2:1"}
	if err := start(t.Context(), ms[0]); message.CodeOf(err) != message.Conflict || !strings.Contains(err.Error(), "same --initial-members") {
		t.Errorf("other members: %v", err)
	}
	stop()
	other.Wait()
	a, b, c := "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
	for _, x := range []Config{
		{InitialMembers: []string{a, b}},
		{InitialMembers: []string{a, b, b}},
		{InitialMembers: []string{b, c, "127.0.0.1:4"}},
		{InitialMembers: []string{a, b, c}, Join: []string{b}},
	} {
		x.ClusterListen = a
		x = x.withDefaults()
		if err := x.check(); message.CodeOf(err) != message.InvalidArgument {
			t.Errorf("%v, join %v: %v", x.InitialMembers, x.Join, err)
		}
	}
}
