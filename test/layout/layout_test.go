// Package layout keeps the rooms of the house apart: plan_test.go is the plan,
// rules_test.go the rules, and this file holds the project to them and shows
// that each rule can fail.
package layout

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestProject holds the project to the plan.
func TestProject(t *testing.T) {
	root := os.DirFS("../..")
	mod, err := fs.ReadFile(root, "go.mod")
	if err != nil || !strings.HasPrefix(string(mod), "module "+strings.TrimSuffix(module, "/")+"\n") {
		t.Fatalf("../.. is not the root of %s: %v", module, err)
	}
	source, err := read(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems(source) {
		t.Error(p)
	}
}

// TestPlan finds words of the plan that name nothing.
func TestPlan(t *testing.T) {
	isRoom := func(name string) bool {
		return slices.ContainsFunc(rooms, func(r room) bool { return r.name == name })
	}
	for _, r := range rooms {
		for m := range strings.FieldsSeq(r.may) {
			if !isRoom(m) && m != "internal" {
				t.Errorf("%s may import %s, which is no room", r.name, m)
			}
		}
		if r.why == "" {
			t.Errorf("%s does not say why", r.name)
		}
	}
	for _, name := range slices.Concat(pure, modules) {
		if !isRoom(name) {
			t.Errorf("%s is no room", name)
		}
	}
}

// TestRules shows each rule fail on a tree that breaks it, and pass on one that
// does not.
func TestRules(t *testing.T) {
	const comanda = `"github.com/comanda-mq/comanda/`
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{
			name: "a house in order",
			files: map[string]string{
				"internal/queue/queue.go":             "// Package queue is the life of a message.\npackage queue\nimport (\n\"time\"\n" + comanda + "internal/message\"\n)\nconst Day = 24 * time.Hour\n",
				"internal/queue/queue_test.go":        "package queue\nimport \"os\"\nvar now = time.Now()\n",
				"internal/message/message.go":         "// Package message is the dictionary.\npackage message\n",
				"internal/message/id.go":              "package message\n",
				"internal/leader/leader.go":           "// Package leader leads.\npackage leader\nimport " + comanda + "internal/queue\"\n",
				"internal/protocol/sqs/sqs.go":        "// Package sqs translates.\npackage sqs\nimport " + comanda + "internal/protocol/sqs/wire\"\n",
				"internal/protocol/sqs/wire/wire.go":  "// Package wire is the codec.\npackage wire\n",
				"internal/protocol/native/native.go":  "// Package native translates.\npackage native\nimport " + comanda + "api/comanda/v1\"\n",
				"internal/node/node.go":               "// Package node wires.\npackage node\nimport " + comanda + "internal/protocol/sqs\"\n",
				"cmd/comanda/main.go":                 "// Comanda is the command.\npackage main\n",
				"bench/go.mod":                        "module x\n",
				"bench/main.go":                       "// Bench compares.\npackage main\nimport " + comanda + "internal/load\"\n",
				"examples/pizzashop/go.mod":           "module y\n",
				"internal/queue/testdata/broken.go":   "not Go",
				".ci/tool.go":                         "not Go",
				"internal/dashboard/assets/script.js": "not Go",
			},
		},
		{
			name:  "a file in no room",
			files: map[string]string{"internal/util/util.go": "// Package util is a drawer.\npackage util\n"},
			want:  []string{"internal/util/util.go: lives in no room"},
		},
		{
			name:  "a file between rooms",
			files: map[string]string{"internal/protocol/a.go": "// Package protocol is a hall.\npackage protocol\n"},
			want:  []string{"internal/protocol/a.go: lives in no room"},
		},
		{
			name:  "a file at the root",
			files: map[string]string{"main.go": "// Main runs.\npackage main\n"},
			want:  []string{"main.go: lives in no room"},
		},
		{
			name:  "a test in no room",
			files: map[string]string{"internal/util/util_test.go": "package util\n"},
			want:  []string{"internal/util/util_test.go: lives in no room"},
		},
		{
			name:  "an import up the stairs",
			files: map[string]string{"internal/replica/a.go": "// Package replica copies.\npackage replica\nimport " + comanda + "internal/queue\"\n"},
			want:  []string{"internal/replica/a.go: internal/replica may not import internal/queue (consensus"},
		},
		{
			name:  "an import that a build tag hides",
			files: map[string]string{"client/a.go": "//go:build plan9\n\n// Package client is the SDK.\npackage client\nimport _ " + comanda + "internal/node\"\n"},
			want:  []string{"client/a.go: client may not import internal/node"},
		},
		{
			name:  "an import of no room",
			files: map[string]string{"test/sim/a.go": "// Package sim simulates.\npackage sim\nimport " + comanda + "pkg\"\n"},
			want:  []string{"test/sim/a.go: test may not import pkg"},
		},
		{
			name:  "a name that begins like a room",
			files: map[string]string{"internal/queuetools/a.go": "// Package queuetools is none.\npackage queuetools\n"},
			want:  []string{"internal/queuetools/a.go: lives in no room"},
		},
		{
			name:  "a protocol that knows another",
			files: map[string]string{"internal/protocol/amqp/a.go": "// Package amqp translates.\npackage amqp\nimport " + comanda + "internal/protocol/sqs/wire\"\n"},
			want:  []string{"internal/protocol/amqp/a.go: internal/protocol/amqp may not import internal/protocol/sqs/wire"},
		},
		{
			name:  "a foreign protocol that speaks the native api",
			files: map[string]string{"internal/protocol/sqs/a.go": "// Package sqs translates.\npackage sqs\nimport " + comanda + "api/comanda/v1\"\n"},
			want:  []string{"internal/protocol/sqs/a.go: internal/protocol/sqs may not import api/comanda/v1"},
		},
		{
			name: "a foreign client that looks inside",
			files: map[string]string{
				"test/conform/go.mod": "module x\n",
				"test/conform/a.go":   "// Package conform brings foreign clients.\npackage conform\nimport " + comanda + "internal/queue\"\n",
			},
			want: []string{"test/conform/a.go: test/conform may not import internal/queue"},
		},
		{
			name:  "a package without a comment",
			files: map[string]string{"internal/auth/a.go": "// Copyright\n\npackage auth\n", "internal/auth/b.go": "package auth\n"},
			want:  []string{"internal/auth: has no package comment"},
		},
		{
			name:  "a package with another one's comment",
			files: map[string]string{"internal/auth/a.go": "// Package authority is old.\npackage auth\n"},
			want:  []string{"internal/auth: has no package comment"},
		},
		{
			name:  "a pure room that touches the world",
			files: map[string]string{"internal/catalog/a.go": "// Package catalog is pure.\npackage catalog\nimport (\n\"context\"\n\"math/rand/v2\"\n\"net/http\"\n\"os\"\n\"sync/atomic\"\n)\n"},
			want: []string{
				"internal/catalog/a.go: internal/catalog is pure and may not import context",
				"internal/catalog/a.go: internal/catalog is pure and may not import math/rand/v2",
				"internal/catalog/a.go: internal/catalog is pure and may not import net/http",
				"internal/catalog/a.go: internal/catalog is pure and may not import os",
				"internal/catalog/a.go: internal/catalog is pure and may not import sync/atomic",
			},
		},
		{
			name:  "a pure room that reads the clock",
			files: map[string]string{"internal/liveness/a.go": "// Package liveness is pure.\npackage liveness\nimport \"time\"\nvar now = time.Now\n"},
			want:  []string{"internal/liveness/a.go:4: internal/liveness is pure and may not use time.Now"},
		},
		{
			name:  "a pure room that reads the clock by another name",
			files: map[string]string{"internal/queue/a.go": "// Package queue is pure.\npackage queue\nimport hour \"time\"\nfunc f() { <-hour.After(0) }\n"},
			want:  []string{"internal/queue/a.go:4: internal/queue is pure and may not use time.After"},
		},
		{
			name:  "a pure room that hides where its words come from",
			files: map[string]string{"internal/queue/a.go": "// Package queue is pure.\npackage queue\nimport . \"time\"\nvar now = Now()\n"},
			want:  []string{"internal/queue/a.go: internal/queue is pure and may not dot-import time"},
		},
		{
			name:  "a pure room that starts a goroutine",
			files: map[string]string{"internal/placement/a.go": "// Package placement is pure.\npackage placement\nfunc f() { go f() }\n"},
			want:  []string{"internal/placement/a.go:3: internal/placement is pure and may not start a goroutine"},
		},
		{
			name:  "a module that nobody planned",
			files: map[string]string{"internal/queue/go.mod": "module x\n", "examples/pizzashop/deep/go.mod": "module y\n"},
			want: []string{
				"examples/pizzashop/deep: has a go.mod but is no module",
				"internal/queue: has a go.mod but is no module",
			},
		},
		{
			name:  "a room of foreign clients in the product's module",
			files: map[string]string{"test/conform/a.go": "// Package conform brings foreign clients.\npackage conform\n"},
			want:  []string{"test/conform/a.go: test/conform must have a go.mod of its own"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, content := range c.files {
				fsys[name] = &fstest.MapFile{Data: []byte(content)}
			}
			source, err := read(fsys)
			if err != nil {
				t.Fatal(err)
			}
			got := problems(source)
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("problems:\n  %s\nwant these beginnings:\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}
