package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/internal/node"
)

// refusals lists for each command what it refuses: the arguments behind its name, the
// exit code, and what is said. Each runs against a server with a queue "q".
var refusals = map[string][]struct {
	args string // split at spaces
	code int
	says string
}{
	"comanda send": {
		{"", exitUsage, "want: comanda send QUEUE"},
		{"q", exitUsage, "no body"},
		{"q body more", exitUsage, "want: comanda send QUEUE"},
		{"q body --file f", exitUsage, "not both"},
		{"q --file missing", exitFailed, "missing"},
		{"or/ders body", exitUsage, "queue name"},
		{"none body", exitNotFound, "comanda queue create none"},
		{"q body --delay -1s", exitUsage, "negative"},
		{"q body --delay soon", exitUsage, "--delay"},
		{"q body --delay 1s --deliver-at 2100-01-01T00:00:00Z", exitUsage, "give one"},
		{"q body --deliver-at tomorrow", exitUsage, "want a time"},
		{"q body --expires -1s", exitUsage, "expire"},
		{"q body --priority 10", exitUsage, "priority is 10: want 0 to 9"},
		{"q body --priority 4294967297", exitUsage, "priority is"},
		{"q body --max-attempts 4294967297", exitUsage, "--max-attempts"},
		{"q body --max-attempts -1", exitUsage, "max_attempts is -1"},
		{"q body --max-attempts 0", exitUsage, "--max-attempts is 0: want 1 or more"},
		{"q body --backoff often", exitUsage, "want exponential, fixed or list"},
		{"q body --backoff-list 1s,-1s", exitUsage, "backoff list is -1s"},
		{"q body --backoff fixed --backoff-list 1s", exitUsage, "go together"},
		{"q body --existing", exitUsage, "the message has none"},
		{"q body --dedup-id d --unique-key u", exitUsage, "give it a key"},
		{"q body --atomic", exitUsage, "give it with --lines"},
		{"q body --lines --dedup-id d", exitUsage, "only the first would be stored"},
		{"q body --attr a", exitUsage, "must be formatted as key=value"},
		{"q body --key " + strings.Repeat("k", 257), exitRefused, "key has 257 bytes"},
		{"q body --key \xff", exitUsage, "UTF-8"},
		{"q body --server nowhere", exitUsage, "host:port"},
		{"q body -o xml", exitUsage, "xml"},
	},
	"comanda work": {
		{"q", exitUsage, "--exec is missing"},
		{"q --exec true --on-disconnect panic", exitUsage, "want reroute or wait"},
		{"q --exec true -c 0", exitUsage, "--concurrency is 0: want 1 or more"},
		{"q --exec true -c -1", exitUsage, "concurrency is -1: want 1 to 10000"},
		{"q --exec true -c 10001", exitUsage, "concurrency is 10001"},
		{"q --exec true --ttl 1s", exitUsage, "the TTL is 1s: want 5s to 5m0s"},
		{"q --exec true --lease 0.5s", exitUsage, "the lease is 500ms"},
		{"q --exec true --drain -1s", exitUsage, "negative"},
		{"q --exec true --idle-exit -1s", exitUsage, "negative"},
		{"q --exec true --max -1", exitUsage, "negative"},
		{"none --exec true", exitNotFound, "comanda queue create none"},
	},
	"comanda queue create": {
		{"", exitUsage, "want: comanda queue create QUEUE"},
		{"or/ders", exitUsage, "queue name"},
		{strings.Repeat("q", 81), exitUsage, "want 1 to 80 characters"},
		{"q --max-attempts 7", exitRefused, "QUEUE_EXISTS"},
		{"new --shards 17", exitUsage, "shards is 17: want 1 to 16"},
		{"new --shards 0", exitUsage, "--shards is 0: want 1 or more"},
		{"new --shards -1", exitUsage, "shards is -1"},
		{"new --shards 4294967298", exitUsage, "shards is"},
		{"new --max-attempts 1001", exitUsage, "max_attempts is 1001"},
		{"new --max-message-bytes 17MiB", exitUsage, "want a size up to 16MiB"},
		{"new --max-message-bytes lots", exitUsage, "want a size up to 16MiB"},
		{"new --rate 5", exitUsage, "want a number and a duration"},
		{"new --assign both", exitUsage, "want all or single"},
		{"new --on-failure stop", exitUsage, "want block or skip"},
		{"new --on-expired keep", exitUsage, "want drop or dead"},
		{"new --backoff never", exitUsage, "want exponential, fixed or list"},
		{"new --dedup-window -1s", exitUsage, "want a duration of 0s or more"},
		{"new --dedup-window 169h", exitUsage, "dedup_window is 169h0m0s"},
		{"new --keep-finished-for -1s", exitUsage, "keep_finished_for is -1s"},
		{"new --dead-letter-to none", exitNotFound, "comanda queue create none"},
	},
	"comanda queue update": {
		{"q", exitUsage, "name a setting to change"},
		{"none --max-attempts 2", exitNotFound, "comanda queue create none"},
		{"q --max-attempts -1", exitUsage, "max_attempts is -1"},
		{"q --dedup-window -1s", exitUsage, "want a duration of 0s or more"},
		{"q --dead-letter-to q", exitUsage, "itself"},
	},
	"comanda queue list": {
		{"q", exitUsage, "want: comanda queue list"},
		{"--max -1", exitUsage, "max is -1: want 1 to 1000"},
		{"--max 4294967297", exitUsage, "max is"},
		{"--page x/y", exitUsage, "use next_page as it came"},
		{"--stale 2m", exitUsage, "stale is 2m0s"},
	},
	"comanda queue show":   {{"none", exitNotFound, "comanda queue create none"}, {"q --stale -1s", exitUsage, "stale is -1s"}},
	"comanda queue export": {{"q", exitUsage, "want: comanda queue export"}},
	"comanda queue delete": {{"q", exitUsage, "nothing was deleted"}, {"none --dry-run", exitNotFound, "comanda queue create none"}, {"none --yes", exitNotFound, "comanda queue create none"}},
	"comanda queue purge":  {{"q", exitUsage, "nothing was deleted"}, {"none --dry-run", exitNotFound, "comanda queue create none"}, {"none --yes", exitNotFound, "comanda queue create none"}},
	"comanda queue redrive": {
		{"none", exitNotFound, "comanda queue create none"},
		{"q --reason bored", exitUsage, "worker_lost"},
		{"q --rate -1", exitUsage, "rate is -1"},
		{"q --rate -4294967296", exitUsage, "rate is"},
		{"q --dead-since yesterday", exitUsage, "how long ago"},
		{"q --dead-since 1h --dead-until 2h", exitUsage, "nothing can match"},
		{"q --dead-until 1969-01-01T00:00:00Z", exitUsage, "dead_until is 1969"},
		{"q --to none", exitNotFound, "comanda queue create none"},
		{"q --wait --timeout -1s", exitUsage, "want a duration of 0s or more"},
	},
	"comanda queue pause": {
		{"none", exitNotFound, "comanda queue create none"},
		{"q --key k --tenant t", exitUsage, "make two"},
		{"q --key k --by " + strings.Repeat("b", 257), exitRefused, "by has 257 bytes"},
	},
	"comanda queue resume": {{"none", exitNotFound, "comanda queue create none"}, {"q --key k --tenant t", exitUsage, "make two"}},
	"comanda queue locate": {{"q", exitUsage, "name a key"}, {"q --key \xff", exitUsage, "UTF-8"}, {"none --key k", exitNotFound, "comanda queue create none"}},
	"comanda queue owners": {{"none", exitNotFound, "comanda queue create none"}},
	"comanda queue watch": {
		{"none", exitNotFound, "comanda queue create none"},
		{"q --every 1ms", exitUsage, "want 100ms or more"},
		{"q --count -1", exitUsage, "--count is -1"},
	},
	"comanda message send": {{"q", exitUsage, "no body"}, {"none body", exitNotFound, "comanda queue create none"}},
	"comanda message receive": {
		{"none", exitNotFound, "comanda queue create none"},
		{"q --max 1001", exitUsage, "max is 1001"},
		{"q --max 4294967297", exitUsage, "max is"},
		{"q --max-per-key 101", exitUsage, "max_per_key is 101"},
		{"q --wait 61s", exitUsage, "wait is 1m1s"},
		{"q --lease 1ms", exitUsage, "lease is 1ms"},
	},
	"comanda message show": {{"x", exitUsage, "not a message id"}, {nobody, exitNotFound, "MESSAGE_NOT_FOUND"}, {nobody + " --wait 61s", exitUsage, "wait is 1m1s"}},
	"comanda message wait": {{"x", exitUsage, "not a message id"}, {nobody, exitNotFound, "MESSAGE_NOT_FOUND"}, {nobody + " --timeout -1s", exitUsage, "want a duration of 0s or more"}},
	"comanda message list": {
		{"", exitUsage, "want: a QUEUE, or --all-queues"},
		{"q --all-queues", exitUsage, "want: a QUEUE, or --all-queues"},
		{"none", exitNotFound, "comanda queue create none"},
		{"q --state lost", exitUsage, `state "lost"`},
		{"q --since soon", exitUsage, "how long ago"},
		{"q --since 1h --until 2h", exitUsage, "no message can be meant"},
		{"q --max 1001", exitUsage, "max is 1001"},
		{"q --page x", exitUsage, "use next_page as it came"},
		{"q --key " + strings.Repeat("k", 257), exitRefused, "key has 257 bytes"},
	},
	"comanda message redrive": {{"", exitUsage, "want: comanda message redrive ID"}, {"x", exitUsage, "not a message id"}, {nobody, exitNotFound, "MESSAGE_NOT_FOUND"}},
	"comanda message cancel": {
		{"", exitUsage, "want: comanda message cancel ID"},
		{"x", exitUsage, "not a message id"},
		{nobody + " --grace 1s", exitUsage, "grace is for force only"},
		{nobody + " --force --grace 2h", exitUsage, "grace is 2h0m0s"},
	},
	"comanda message ack":     {{"", exitUsage, "want: comanda message ack TOKEN"}, {"x", exitUsage, "not a token"}, {"\xff", exitUsage, "UTF-8"}},
	"comanda message nack":    {{"x", exitUsage, "not a token"}, {"x --delay soon", exitUsage, "--delay"}},
	"comanda message reject":  {{"x", exitUsage, "not a token"}},
	"comanda message release": {{"x", exitUsage, "not a token"}},
	"comanda message extend":  {{"x", exitUsage, "not a token"}},
	"comanda shard list":      {{"--queue none", exitNotFound, "comanda queue create none"}, {"--tree -o json", exitUsage, "--tree is drawn for people"}, {"--max -1", exitUsage, "max is -1"}},
	"comanda shard split":     {{"q", exitUsage, "names no shard"}, {"q/9", exitNotFound, "comanda shard list"}, {"none/0", exitNotFound, "comanda queue create none"}},
	"comanda shard move": {
		{"q/0", exitUsage, "--to NODE is missing"},
		{"q --to one", exitUsage, "names no shard"},
		{"q/0 --to nobody", exitNotFound, "comanda node list"},
		{"q/9 --to one", exitNotFound, "comanda shard list"},
		{"q/0 --to one --wait --timeout -1s", exitUsage, "want a duration of 0s or more"},
	},
	"comanda node list":        {{"one", exitUsage, "want: comanda node list"}},
	"comanda node drain":       {{"nobody", exitNotFound, "comanda node list"}, {"one --timeout -1s", exitUsage, "want a duration of 0s or more"}},
	"comanda node remove":      {{"nobody", exitNotFound, "comanda node list"}, {"one", exitRefused, "CONFLICT"}},
	"comanda worker drain":     {{"", exitUsage, "want: comanda worker drain WORKER"}, {"nobody", exitNotFound, "comanda worker list"}, {strings.Repeat("w", 300), exitRefused, "worker name has 300 bytes"}},
	"comanda worker list":      {{"one", exitUsage, "want: comanda worker list"}, {"--max -1", exitUsage, "max is -1"}, {"--page x", exitUsage, "use next_page as it came"}},
	"comanda operation list":   {{"--max -1", exitUsage, "max is -1"}, {"--page x", exitUsage, "use next_page as it came"}},
	"comanda operation show":   {{"x", exitUsage, "no operation's number"}, {"-- -1", exitUsage, "no operation's number"}, {"7", exitNotFound, "comanda operation list"}},
	"comanda operation cancel": {{"x", exitUsage, "no operation's number"}, {"7", exitNotFound, "comanda operation list"}},
	"comanda operation pause":  {{"x", exitUsage, "no operation's number"}, {"7", exitNotFound, "comanda operation list"}},
	"comanda operation resume": {{"x", exitUsage, "no operation's number"}, {"7", exitNotFound, "comanda operation list"}},
	"comanda apply":            {{"", exitUsage, "-f FILE is missing"}, {"-f missing", exitUsage, "missing"}, {"-f -", exitUsage, "names no queues"}}, // more in TestFilesThatAreRefused
	"comanda doctor":           {{"one", exitUsage, "want: comanda doctor"}, {"--server localhost:1", exitUnreachable, "is the address right?"}},
	"comanda top": {
		{"q", exitUsage, "want: comanda top"},
		{"--max 101", exitUsage, "--max is 101"},
		{"--max 0", exitUsage, "--max is 0"},
		{"--every 1ms", exitUsage, "want 100ms or more"},
		{"--count -1", exitUsage, "--count is -1"},
	},
	"comanda bench": {
		{"W9", exitUsage, "W9"},
		{"W1x0", exitUsage, "W1x0"},
		{"W2@-1", exitUsage, "W2@-1"},
		{"W1x1 --size -1", exitUsage, "bodies of -1 bytes"},
		{"W1x1 --duration -1s", exitUsage, "a duration above 0"},
		{"W1 --producers -1", exitUsage, "1 to 10,000 producers"},
		{"W2 --consumers 10001", exitUsage, "1 to 10,000 producers and consumers"},
		{"W3 --preload -1", exitUsage, "at least 1 message"},
	},
	"comanda serve": {
		{"more", exitUsage, "want: comanda serve"},
		{"--config missing", exitUsage, "missing"},
		{"--log-level loud", exitUsage, "want debug, info, warn or error"},
		{"--log-format xml", exitUsage, "want text or json"},
		{"--disk-reserve lots", exitUsage, "as 512MiB"},
		{"--memory-limit -1", exitUsage, "as 512MiB"},
		{"--log-budget 1Gb", exitUsage, "as 512MiB"},
		{"--listen 0.0.0.0:0 --data-dir /dev/null/data", exitUsage, "--insecure"},
		{"--listen nowhere --data-dir /dev/null/data", exitUsage, "nowhere"},
	},
	"comanda config check": {
		{"more", exitUsage, "want: comanda config check"},
		{"--config missing", exitUsage, "missing"},
		{"--log-level loud", exitUsage, "want debug"},
		{"--listen 0.0.0.0:0", exitUsage, "--insecure"},
		{"--join nowhere", exitUsage, "nowhere"},
	},
	"comanda config print": {{"more", exitUsage, "want: comanda config print"}, {"--config missing", exitUsage, "missing"}},
	"comanda config docs":  {{"more", exitUsage, "want: comanda config docs"}},
	"comanda demo":         {{"--for 1s", exitUsage, "want 10s to 1h"}},
	"comanda demo kitchen": {{"", exitUsage, "a part of 'comanda demo'"}},
	"comanda data inspect": {{"", exitUsage, "want: comanda data inspect DIR"}, {"/dev/null/data", exitFailed, "/dev/null/data"}},
	"comanda version":      {{"more", exitUsage, "want: comanda version"}},
}

// nobody is the id of a message that was never sent.
const nobody = "00000010-0000-8000-8000-000000000001"

// Each command refuses what can't be meant, with an exit code and in one line.
func TestEveryCommandRefuses(t *testing.T) {
	n, err := node.Start(t.Context(), node.Config{FS: vfs.NewMem(), DataDir: "data", Listen: "127.0.0.1:0", NodeName: "one", DiskReserve: 1, LogSegment: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("COMANDA_SERVER", n.Addr().String())
	if line, code := runCommand(t, []string{"queue", "create", "q"}); code != exitDone {
		t.Fatal(line)
	}
	for _, path := range leaves(newRoot()) {
		rows := refusals[path]
		if len(rows) == 0 {
			t.Errorf("%s: nothing is refused: add what can't be meant", path)
		}
		for _, x := range rows {
			args := append(strings.Fields(path)[1:], strings.Fields(x.args)...)
			line, code := runCommand(t, args)
			if code != x.code || !strings.Contains(line, x.says) || strings.Contains(line, "\n") {
				t.Errorf("%.200q: exit %d, %q; want %d and %q", args, code, line, x.code, x.says)
			}
		}
	}
}

// Nothing explains a command that there is not.
func TestHelpOfNoCommand(t *testing.T) {
	for args, says := range map[string]string{
		"dance --help":        `unknown command "dance" for "comanda"`,
		"queue dance --help":  `unknown command "dance" for "comanda queue"`,
		"--help queue dance":  `unknown command "dance" for "comanda queue"`,
		"data dance -h":       `unknown command "dance" for "comanda data"`,
		"help dance":          `unknown command "dance" for "comanda"`,
		"help queue dance":    `unknown command "dance" for "comanda queue"`,
		"help":                "",
		"help queue show":     "",
		"--help queue":        "",
		"queue show --help":   "",
		"queue --help":        "",
		"help queue":          "",
		"queue show q --help": "",
	} {
		want := exitUsage
		if says == "" {
			want = exitDone
		}
		if line, code := runCommand(t, strings.Fields(args)); code != want || !strings.Contains(line, says) {
			t.Errorf("%s: exit %d, %q; want %d and %q", args, code, line, want, says)
		}
	}
}

// leaves are the paths of the commands that do something.
func leaves(cmd *cobra.Command) (paths []string) {
	subs := cmd.Commands()
	if len(subs) == 0 || cmd.Name() == "demo" {
		paths = append(paths, cmd.CommandPath())
	}
	for _, sub := range subs {
		paths = append(paths, leaves(sub)...)
	}
	return paths
}

// runCommand is main for one command line without an input.
func runCommand(t *testing.T, args []string) (line string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the command was taken"))
	defer cancel()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(""))
	root.SetOut(&bytes.Buffer{})
	root.SetErr(&bytes.Buffer{})
	cmd, err := execute(ctx, root)
	if err == nil {
		return "", exitDone
	}
	return errorLine(cmd, err), exitCode(err)
}
