package node

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
)

// once starts a node in a directory, stores a message and stops it.
func once(t *testing.T, fs vfs.FS, dir string) {
	t.Helper()
	n := begin(t, Config{FS: fs, DataDir: dir})
	w := &workload{t: t, g: n.Gateway()}
	w.create("orders", 1, message.Settings{})
	w.send(t.Context(), "orders", 1, message.New{})
	end(t, n)
}

// begin starts a node with small files.
func begin(t *testing.T, c Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), small(c))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func small(c Config) Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	c.DiskReserve, c.LogSegment, c.memTable = 1, 64<<10, 64<<10
	return c
}

func end(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// refused wants a start to be refused with all of words, and nothing to be
// changed: put back what was taken, the node starts.
func refused(t *testing.T, c Config, words ...string) {
	t.Helper()
	n, err := Start(t.Context(), small(c))
	if err == nil {
		end(t, n)
		t.Fatal("it started")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}

func move(t *testing.T, fs vfs.FS, from, to string) {
	t.Helper()
	if err := fs.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// A directory that a server holds is refused to another one, with its process.
func TestHeldDirectoryIsRefused(t *testing.T) {
	for name, c := range map[string]Config{"in memory": {FS: vfs.NewMem(), DataDir: "data"}, "on disk": {DataDir: t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			n := begin(t, c)
			refused(t, c, c.DataDir, fmt.Sprint("in use by process ", os.Getpid()), "--data-dir")
			end(t, n)
			end(t, begin(t, c))
		})
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	once(t, fs, "data")
	id, err := readIdentity(fs, "data")
	if err != nil {
		t.Fatal(err)
	}
	id.Format = dirFormat + 1
	text, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSynced(fs, "data/"+identityFile, text, true); err != nil {
		t.Fatal(err)
	}
	refused(t, Config{FS: fs, DataDir: "data"}, "has format 2", "start the newer binary")
}

func TestDamagedIdentityIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	once(t, fs, "data")
	if err := writeSynced(fs, "data/"+identityFile, []byte("{"), true); err != nil {
		t.Fatal(err)
	}
	refused(t, Config{FS: fs, DataDir: "data"}, "IDENTITY in data can't be read", "restore it")
}

// A directory that has lost a part does not begin anew, and goes on when the
// part is back.
func TestLostPartIsRefused(t *testing.T) {
	for _, part := range []string{logDir, stateDir, identityFile} {
		t.Run(part, func(t *testing.T) {
			fs := vfs.NewMem()
			once(t, fs, "data")
			move(t, fs, "data/"+part, "kept")
			refused(t, Config{FS: fs, DataDir: "data"}, "data", part, "restore")
			if part != identityFile {
				if err := fs.MkdirAll("data/"+part, 0o700); err != nil {
					t.Fatal(err)
				}
				refused(t, Config{FS: fs, DataDir: "data"}, "has lost its "+part, "it is empty", "data inspect")
				if err := fs.RemoveAll("data/" + part); err != nil {
					t.Fatal(err)
				}
			}
			move(t, fs, "kept", "data/"+part)
			end(t, begin(t, Config{FS: fs, DataDir: "data"}))
		})
	}
}

// Parts of two directories do not make one.
func TestSwappedPartIsRefused(t *testing.T) {
	for _, part := range []string{logDir, stateDir} {
		t.Run(part, func(t *testing.T) {
			fs := vfs.NewMem()
			once(t, fs, "a")
			once(t, fs, "b")
			move(t, fs, "a/"+part, "kept")
			move(t, fs, "b/"+part, "a/"+part)
			refused(t, Config{FS: fs, DataDir: "a"}, "the data directory a is not whole", "another data directory", "data inspect")
			if err := fs.RemoveAll("a/" + part); err != nil {
				t.Fatal(err)
			}
			move(t, fs, "kept", "a/"+part)
			end(t, begin(t, Config{FS: fs, DataDir: "a"}))
		})
	}
}

// Whoever listens elsewhere than on loopback must say that he means it.
func TestForeignListenIsRefused(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:7400", "example.com:7400"} {
		refused(t, Config{FS: vfs.NewMem(), DataDir: "data", Listen: listen}, "is not loopback", "--insecure")
	}
	for _, listen := range []string{"127.0.0.1", "127.0.0.1:http2", "127.0.0.1:70000"} {
		refused(t, Config{FS: vfs.NewMem(), DataDir: "data", Listen: listen}, "listen")
	}
	end(t, begin(t, Config{FS: vfs.NewMem(), DataDir: "data", Listen: "0.0.0.0:0", Insecure: true}))
	for _, listen := range []string{"localhost:0", "127.0.0.1:0"} {
		end(t, begin(t, Config{FS: vfs.NewMem(), DataDir: "data", Listen: listen}))
	}
}
