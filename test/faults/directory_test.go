//go:build faults

package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
// that say what to do. Put right, it serves what was confirmed.
func TestDirectoryNotWhole(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(t *testing.T, dir, other string)
		words []string
	}{
		{"a newer format", newerFormat, []string{"format 99", "newer"}},
		{"no identity", remove("IDENTITY"), []string{"IDENTITY", "damaged"}},
		{"another server's identity", swap("IDENTITY"), []string{"data inspect"}},
		{"another server's log", swap("log"), []string{"data inspect"}},
		{"another server's rows", swap("state"), []string{"data inspect"}},
		{"no log", remove("log"), []string{"log", "data inspect"}},
		{"no rows", remove("state"), []string{"state", "data inspect"}},
		{"an empty log", empty("log"), []string{"log", "data inspect"}},
		{"empty rows", empty("state"), []string{"state", "data inspect"}},
		{"a flipped bit in the log", flipBit, []string{"data inspect"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir, other, r := t.TempDir(), t.TempDir(), &record{}
			fillDirectory(t, dir, r)
			fillDirectory(t, other, &record{})
			kept := filepath.Join(t.TempDir(), "kept")
			copyDirectory(t, dir, kept)
			c.spoil(t, dir, other)
			spoilt := filepath.Join(t.TempDir(), "spoilt")
			copyDirectory(t, dir, spoilt)
			refusal(t, dir, c.words...)
			unchanged(t, spoilt, dir)
			p := start(t, kept)
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

func newerFormat(t *testing.T, dir, _ string) {
	name := filepath.Join(dir, "IDENTITY")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var identity map[string]json.RawMessage
	if err := json.Unmarshal(b, &identity); err != nil {
		t.Fatal(err)
	}
	identity["format"] = json.RawMessage("99")
	if b, err = json.Marshal(identity); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(part string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, _ string) {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
}

func empty(part string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, other string) {
		remove(part)(t, dir, other)
		if err := os.Mkdir(filepath.Join(dir, part), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func swap(part string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, other string) {
		remove(part)(t, dir, other)
		if err := os.Rename(filepath.Join(other, part), filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
}

// flipBit damages a record in the middle of the log: one that holds a message
// and is followed by others.
func flipBit(t *testing.T, dir, _ string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "log", "*"))
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

func copyDirectory(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// unchanged checks that a refused start left log and rows alone.
func unchanged(t *testing.T, before, after string) {
	t.Helper()
	for _, part := range []string{"IDENTITY", "log", "state"} {
		if a, b := files(t, before, part), files(t, after, part); !slices.Equal(a, b) {
			t.Errorf("the refused start changed %s:\n%v\nbefore:\n%v", part, b, a)
		}
	}
}

// files lists name, size and sum of the files of a part of a directory.
func files(t *testing.T, dir, part string) (list []string) {
	t.Helper()
	err := filepath.Walk(filepath.Join(dir, part), func(name string, info os.FileInfo, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		list = append(list, fmt.Sprintf("%s %d %x", strings.TrimPrefix(name, dir), info.Size(), sha256.Sum256(b)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
