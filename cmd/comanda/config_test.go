package main

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The documentation of the settings is what the command prints.
func TestConfigurationIsDocumented(t *testing.T) {
	want, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	root := newRoot()
	root.SetArgs([]string{"config", "docs"})
	root.SetOut(&got)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Error("docs/configuration.md is older than the settings: go run ./cmd/comanda config docs >docs/configuration.md")
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ file, env, want string }{
		{file: "lisen: a", want: `line 1: "lisen" is no setting`},
		{file: "data-dir: a", want: `"data-dir" is no setting`},
		{file: "config: a", want: `"config" is no setting`},
		{file: "\nlisten: a\nlisten: b", want: "line 3: listen stands here twice"},
		{file: "[listen]", want: "line 1: want fields and values"},
		{file: "listen: [a, b]", want: "line 1: listen: want one value"},
		{file: "listen:", want: "listen: want one value"},
		{file: "listen: {a: b}", want: "listen: want one value"},
		{file: "join: {a: b}", want: "join: want one value"},
		{file: "listen: ''", want: "listen: want one value"},
		{file: "join: [~]", want: "join: want a list of values"},
		{file: "label: {zone: ~}", want: "label: want names and values"},
		{file: "join: [[a]]", want: "join: want a list of values"},
		{file: "label: [zone=a]", want: "label: want one value"},
		{file: "label: {zone: [a]}", want: "label: want names and values"},
		{file: "label: {zone: a, zone: b}", want: "zone stands here twice"},
		{file: "\ndisk_reserve: lots", want: `line 2: disk_reserve "lots": want a number of bytes`},
		{file: "log_slow: soon", want: `log_slow "soon"`},
		{file: "insecure: perhaps", want: `insecure "perhaps"`},
		{file: "listen: a\n---\nlisten: b", want: "a second document"},
		{file: "listen: }", want: "did not find"},
		{env: "COMANDA_SERVE_LISEN=a", want: "COMANDA_SERVE_LISEN in the environment is no setting"},
		{env: "COMANDA_SERVE_listen=a", want: "COMANDA_SERVE_listen in the environment is no setting"},
		{env: "COMANDA_SERVE_DATA-DIR=a", want: "is no setting"},
		{env: "COMANDA_SERVE_DISK_RESERVE=lots", want: `COMANDA_SERVE_DISK_RESERVE: disk_reserve "lots"`},
		{env: "COMANDA_SERVE_CONFIG=/dev/null/missing", want: "/dev/null/missing"},
	} {
		s := &serveFlags{}
		s.add(&cobra.Command{})
		err := s.load([]string{"HOME=/", c.env}, nil)
		if c.file != "" {
			s.file = "file"
			err = s.parse([]byte(c.file))
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: %v, want %q", c.file, c.env, err, c.want)
		}
	}
}

// What stands in a file is taken as it stands there; an empty variable is none.
func TestValuesOfSettings(t *testing.T) {
	s := &serveFlags{}
	s.add(&cobra.Command{})
	if err := s.load([]string{"COMANDA_SERVE_LISTEN=", "COMANDA_SERVE_NODE_NAME=n1"}, nil); err != nil {
		t.Fatal(err)
	}
	text := "listen: 127.0.0.1:7999\nnode_name: n2\nlabel: {zone: 'a,b=c', says: '\"x\"'}\njoin: ['a,b', c]"
	if err := s.parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if s.Listen != "127.0.0.1:7999" || s.NodeName != "n1" {
		t.Errorf("listen %s, node name %s", s.Listen, s.NodeName)
	}
	if want := map[string]string{"zone": "a,b=c", "says": `"x"`}; !maps.Equal(s.Labels, want) {
		t.Errorf("labels %v, want %v", s.Labels, want)
	}
	if want := []string{"a,b", "c"}; !slices.Equal(s.Join, want) {
		t.Errorf("join %q, want %q", s.Join, want)
	}
}

// A size is told as it can be given.
func TestBytesFlag(t *testing.T) {
	for _, text := range []string{"", "1B", "1000B", "64KiB", "1536MiB", "3GiB", "4096TiB"} {
		var n bytesFlag
		if text != "" {
			if err := n.Set(text); err != nil {
				t.Fatal(err)
			}
		}
		if n.String() != text {
			t.Errorf("%s comes back as %s", text, n.String())
		}
	}
}
