//go:build faults

package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A second server on a directory is refused and told who holds it.
func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	refusal(t, dir, fmt.Sprint("process ", p.cmd.Process.Pid), "--data-dir")
	p.stop(t)
	start(t, dir).stop(t)
}

// A directory that is not whole, or not of this server, is refused with words
// that say what to do. Once the spoilt part is put back it serves what was
// confirmed: the refused start harmed nothing.
func TestDirectoryNotWhole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		part  string
		spoil func(t *testing.T, part, others string)
		words []string
	}{
		{"a newer format", "IDENTITY", newerFormat, []string{"format 99", "newer"}},
		{"no identity", "IDENTITY", remove, []string{"IDENTITY", "damaged"}},
		{"another server's identity", "IDENTITY", swap, []string{"data inspect"}},
		{"another server's log", "log", swap, []string{"data inspect"}},
		{"another server's rows", "state", swap, []string{"data inspect"}},
		{"no log", "log", remove, []string{"log", "data inspect"}},
		{"no rows", "state", remove, []string{"state", "data inspect"}},
		{"an empty log", "log", empty, []string{"log", "data inspect"}},
		{"empty rows", "state", empty, []string{"state", "data inspect"}},
		{"a flipped bit in the log", "log", flipBit, []string{"data inspect"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir, other, kept, r := t.TempDir(), t.TempDir(), t.TempDir(), &record{}
			fillDirectory(t, dir, r)
			fillDirectory(t, other, &record{})
			if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			part := filepath.Join(dir, c.part)
			c.spoil(t, part, filepath.Join(other, c.part))
			refusal(t, dir, c.words...)
			swap(t, part, filepath.Join(kept, c.part))
			p := start(t, dir)
			drain(t, p, r)
			p.stop(t)
		})
	}
}

// fillDirectory leaves messages in a directory whose server was killed.
func fillDirectory(t *testing.T, dir string, r *record) {
	t.Helper()
	p := start(t, dir)
	c := p.dial(t)
	createQueue(t, c)
	for i := range 200 {
		if err := sendOne(t.Context(), c, r, i%keys); err != nil {
			t.Fatal(err)
		}
	}
	p.kill()
}

// refusal starts a server on a directory and wants it to end with the words.
func refusal(t *testing.T, dir string, words ...string) {
	t.Helper()
	p := launch(t, serverBinary, dir)
	code, err := p.exit(readyWithin)
	if err != nil {
		t.Fatal(err)
	}
	said := p.said.String()
	t.Log(strings.TrimSpace(said))
	if code == 0 {
		t.Error("want an exit code that is not 0")
	}
	if strings.Contains(said, "panic") {
		t.Error("want words, not a panic")
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("want %q in it", w)
		}
	}
}

func newerFormat(t *testing.T, identity, _ string) {
	b, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	fields["format"] = json.RawMessage("99")
	if b, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(identity, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, part, _ string) {
	t.Helper()
	if err := os.RemoveAll(part); err != nil {
		t.Fatal(err)
	}
}

func empty(t *testing.T, part, others string) {
	t.Helper()
	remove(t, part, others)
	if err := os.Mkdir(part, 0o700); err != nil {
		t.Fatal(err)
	}
}

// swap puts another directory's part in the place of one.
func swap(t *testing.T, part, others string) {
	t.Helper()
	remove(t, part, others)
	if err := os.Rename(others, part); err != nil {
		t.Fatal(err)
	}
}

// flipBit damages a record in the middle of the log: one that holds a message
// and is followed by others.
func flipBit(t *testing.T, log, _ string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(log, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, body(3, 2))
		if at < 0 {
			continue
		}
		b[at] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("the message is in none of %v", segments)
}
