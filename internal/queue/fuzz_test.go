package queue_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// FuzzEntry applies anything at all as an entry. What does not read stops the
// process by an error in words (A2); it may not be a fault of memory or index,
// and what does read may not break the rows (the map refuses a wrong
// SingleDelete).
func FuzzEntry(f *testing.F) {
	configure := queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}
	send := queue.Send{Queue: 1, Messages: []queue.Sent{
		{New: message.New{Body: []byte("body"), Key: "k", Type: "t", Delay: time.Second, Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeString, Value: []byte("v")}}}},
		{Cell: 1, New: message.New{Body: []byte("body")}},
	}}
	lease := queue.Lease{Queue: 1, Worker: "w", Length: time.Second, MaxBytes: 100, Items: []queue.Ref{{Cell: 1, Seq: 2}}, Floors: []queue.Floor{{Cell: 1, Seq: 2, Index: 3}}}
	id := message.NewID(1, message.CellPoint(1), 2)
	settle := queue.Settle{Settlements: []message.Settlement{{Token: message.Token{ID: id, Fence: 3}, Action: message.Nack}}}
	expire := queue.Expire{Queue: 1, Leases: []queue.LeaseRef{{Cell: 1, Seq: 2, Fence: 3}}}
	wake := queue.Wake{Queue: 1, Timers: []queue.TimerRef{{Cell: 0, Due: 1001, Seq: 1}}}
	redrive := queue.Redrive{IDs: []message.ID{id}}
	drop := queue.Drop{Queue: 1}
	for _, c := range everyCommand() {
		f.Add(queue.AppendEntry(nil, 1, 2, []queue.Command{c}))
	}
	for _, c := range []queue.Command{configure.Command(), send.Command(), lease.Command(), settle.Command(), expire.Command(), wake.Command(), redrive.Command(), drop.Command(), queue.Tick()} {
		f.Add(queue.AppendEntry(nil, 1, 2, []queue.Command{c}))
		f.Add(queue.AppendEntry(nil, 5000, 2, []queue.Command{configure.Command(), send.Command(), lease.Command(), settle.Command(), c}))
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		defer inWords(t)
		m, rows := queue.New(), newMapRows()
		m.Apply(rows, 1, queue.AppendEntry(nil, 1, 1, []queue.Command{configure.Command()}))
		m.Apply(rows, 2, entry)
		m.Apply(rows, 3, entry)
		for n := range message.Cells {
			queue.Offers(rows, 1, n, nil, 10)
			queue.Deadlines(rows, 1, n)
		}
	})
}

// inWords lets a panic pass that says in words what does not read, and no other.
func inWords(t *testing.T) {
	r := recover()
	if r == nil {
		return
	}
	if _, ok := r.(error); !ok {
		t.Fatal(r)
	}
	if _, ok := r.(runtime.Error); ok {
		panic(r)
	}
}

// rowKinds are the kinds of a group's own rows and those of a cell's rows, each with
// the length of its keys.
var rowKinds = map[bool]map[byte]int{
	true: {'g': 1, 'q': 5, 's': 6, 'p': 5, 'w': 9, 'l': 9, 'e': 17},
	false: {
		'm': 1, 'd': 9, 'b': 9, 's': 9, 'l': 17, 'r': 14, 'y': 22, 't': 21, 'w': 21, 'v': 21, 'p': 25, 'u': 25, 'e': 21, 'k': 17, 'n': 25, 'a': 17, 'c': 21,
		'x': 9, 'f': 9, 'o': 9, 'O': 14, 'W': 9, 'F': 17, 'I': 6, 'J': 14, 'z': 1,
	},
}

// TestEveryRowKindIsFuzzed: FuzzRow knows each kind that rows.go has.
func TestEveryRowKindIsFuzzed(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "rows.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 && strings.HasPrefix(v.Names[0].Name, "row") {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.CHAR {
				kinds++
				if kind := lit.Value[1]; rowKinds[true][kind]+rowKinds[false][kind] == 0 {
					t.Errorf("FuzzRow does not know %s", v.Names[0].Name)
				}
			}
		}
		return true
	})
	if known := len(rowKinds[true]) + len(rowKinds[false]); kinds != known {
		t.Errorf("there are %d kinds of rows, and FuzzRow knows %d", kinds, known)
	}
}

// FuzzRow reads anything at all as the value of a row of each kind. What does not
// read stops the process by an error in words, and Describe never.
func FuzzRow(f *testing.F) {
	for own, kinds := range rowKinds {
		for kind := range kinds {
			f.Add(own, kind, make([]byte, 24), []byte{1, 2, 3})
			f.Add(own, kind, make([]byte, 24), make([]byte, 40))
		}
	}
	rows := newMapRows()
	m, every := queue.New(), everyCommand()
	m.Apply(rows, 1, queue.AppendEntry(nil, 1000, 2, []queue.Command{every["configure"], every["send"], every["lease"]}))
	m.Apply(rows, 2, queue.AppendEntry(nil, 2000, 3, []queue.Command{every["settle"], every["numbered"], every["deliver"]}))
	for place, value := range rows.rows { // those that read
		key := []byte(place[spaceBytes:])
		f.Add(strings.HasPrefix(place, full(0, nil)), key[0], key[1:], value)
	}
	f.Fuzz(func(t *testing.T, own bool, kind byte, rest, value []byte) {
		length, ok := rowKinds[own][kind]
		if !ok {
			return
		}
		space := uint64(257)
		if own {
			space = 0
		}
		key := make([]byte, length)
		key[0] = kind
		copy(key[1:], rest)
		if s := queue.Describe(space, key, value); strings.Contains(s, "unknown kind") {
			t.Fatal(s)
		}
		defer inWords(t)
		queue.DescribeRow(space, key, value)
	})
}
