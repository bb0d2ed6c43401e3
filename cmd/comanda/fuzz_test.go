package main

import (
	"testing"

	"google.golang.org/protobuf/proto"
)

// FuzzFileOfQueues: whatever a file of queues has in it, it is refused in words, or read
// as queues that can be sent to a server.
func FuzzFileOfQueues(f *testing.F) {
	for _, file := range []string{
		"queues:\n- name: orders\n  shards: 4\n  settings:\n    max_attempts: 5\n    backoff: {kind: list, list: [1s, 10s, 1m]}\n    rate: {count: 5, per: 1m}\n",
		"queues: [{name: mail, settings: {dedup_window: 0s, on_expired: dead, max_message_bytes: 1MiB, dead_letter_to: graveyard}}]",
		"queues:\n- &a {name: a, settings: {keep_finished_for: 1h30m}}\n- *a\n",
		"queues: [{name: ~, shards: 0x10}]",
		"queues: [{<<: {name: a}}]",
		"- a\n--- b",
		"queues: [{name: \"\\0\", settings: {rate: {per: -9223372036854775808ns}}}]",
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		specs, err := parseSpecs(file)
		if (err == nil) != (len(specs) > 0) {
			t.Errorf("%q: %v, %v", file, specs, err)
		}
		for _, q := range specs {
			if _, err := proto.Marshal(q); err != nil || q.GetName() == "" {
				t.Errorf("%q: %v, %v", file, q, err)
			}
		}
	})
}
