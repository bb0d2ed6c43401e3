package main

import (
	"strings"
	"testing"
	"time"
)

func TestFilesThatAreRefused(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"", "names no queues"},
		{"queues: []", "names no queues"},
		{"queues: 3", "cannot unmarshal"},
		{"queues: [orders]", "line 1: want fields and values"},
		{"topics: []", "topics not found"},
		{"queues:\n- {shards: 2}", "line 2: a queue without a name"},
		{"queues:\n- {name: a}\n- {name: a}", "line 3: queue a stands in line 2 already"},
		{"queues:\n- {name: a, name: b}", "line 2: name stands here twice"},
		{"queues:\n- {name: a, paused: true}", `there is no "paused" here: want name, shards, settings`},
		{"queues:\n- {name: [a]}", "line 2: name: want one value"},
		{"queues:\n- {name: a}\n---\nqueues:\n- {name: b}", "a second document"},
		{"queues:\n- {name: a}\n---\n}", "did not find"},
		{"queues:\n- {name: null}", "line 2: name: want one value"},
		{"queues:\n- {name: a, settings: {dead_letter_to: ~}}", "dead_letter_to: want one value"},
		{"queues:\n- {name: a, settings: }", "line 2: want fields and values"},
		{"queues:\n- {name: a, settings: {max_attempts: 3, max_attempts: 4}}", "max_attempts stands here twice"},
		{"queues:\n- {name: a, settings: {max_attempts: 0x3}}", `max_attempts "0x3"`},
		{"queues:\n- {name: a, settings: {keep_finished_for: 9999999h}}", "keep_finished_for"},
		{"queues:\n- {name: a, shards: many}", `line 2: shards "many"`},
		{"queues:\n- {name: a, shards: 3000000000}", "out of range"},
		{"queues:\n- {name: a, settings: {backoff: fixed}}", "want fields and values"},
		{"queues:\n- {name: a, settings: {backoff: {kind: often}}}", `kind "often": want exponential, fixed, list`},
		{"queues:\n- {name: a, settings: {backoff: {list: 1s}}}", "list: want a list"},
		{"queues:\n- {name: a, settings: {backoff: {list: [1]}}}", `list "1"`},
		{"queues:\n- {name: a, settings: {keep_finished_for: soon}}", `keep_finished_for "soon"`},
		{"queues:\n- {name: a, settings: {max_message_bytes: 1Mb}}", "as 512MiB"},
		{"queues:\n- &a {name: a, settings: *a}", "line 2: want fields and values"},
		{"queues:\n- {name: a, settings: {rate: 5}}", `line 2: rate "5": want a number and a duration, as 100/1s`},
		{"queues:\n- {name: a, settings: {rate_per_key: }}", "line 2: want fields and values"},
	} {
		if _, err := parseSpecs([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.file, err, c.want)
		}
	}
}

// A rate stands in a file as in a flag, and as it is exported.
func TestRatesInFiles(t *testing.T) {
	for _, rate := range []string{"5/1m", "{count: 5, per: 1m}"} {
		specs, err := parseSpecs([]byte("queues:\n- {name: a, settings: {rate: " + rate + "}}"))
		if err != nil {
			t.Fatal(err)
		}
		if r := specs[0].GetSettings().GetRate(); r.GetCount() != 5 || r.GetPer().AsDuration() != time.Minute {
			t.Errorf("%s: %v", rate, r)
		}
	}
}
