package message

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxRedriveRate is how many messages a second a redrive may revive at the most, if
// it has a rate at all.
const MaxRedriveRate = 1_000_000

// Redrive says which dead messages of a queue are revived, and how.
type Redrive struct {
	Filter        DeadFilter `json:"filter"`
	Rate          int        `json:"rate,omitempty"` // messages a second; 0: as fast as it goes
	ResetAttempts bool       `json:"reset_attempts,omitempty"`
	To            string     `json:"to,omitempty"` // queue that they are to live in; empty: where they are
}

// DeadFilter chooses dead messages. What is not set chooses all of them.
type DeadFilter struct {
	Type   string `json:"type,omitempty"`
	Key    string `json:"key,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	Reason string `json:"reason,omitempty"` // how the last attempt ended: one of DeadReasons
	// When the message died, wall time: from Since on, and before Until.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Attributes that it has, each with this text as its value.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// DeadReasons are the ways to die: the last attempt failed, was rejected, or its
// lease expired; its worker was lost; the message's own time passed; or it was a
// follow-up that its queue refused.
func DeadReasons() []string {
	return []string{"nacked", "rejected", "expired", "worker_lost", "lapsed", "undelivered"}
}

// String is the filter in words; empty: it chooses all.
func (f *DeadFilter) String() string {
	var parts []string
	for _, p := range []struct{ name, value string }{{"type", f.Type}, {"key", f.Key}, {"tenant", f.Tenant}, {"reason", f.Reason}} {
		if p.value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", p.name, p.value))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		parts = append(parts, fmt.Sprintf("%s %q", name, f.Attributes[name]))
	}
	if !f.Since.IsZero() {
		parts = append(parts, "dead since "+f.Since.UTC().Format(time.RFC3339))
	}
	if !f.Until.IsZero() {
		parts = append(parts, "dead before "+f.Until.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

// Check refuses what makes no sense.
func (r *Redrive) Check() error {
	f := &r.Filter
	for _, err := range []error{
		checkText("type", f.Type, MaxType),
		CheckKey(f.Key),
		checkText("tenant", f.Tenant, MaxTenant),
		checkTime("dead_since", f.Since),
		checkTime("dead_until", f.Until),
	} {
		if err != nil {
			return err
		}
	}
	switch {
	case r.Rate < 0 || r.Rate > MaxRedriveRate:
		return Errorf(InvalidArgument, "rate is %d messages a second: want 1 to %d, or 0 for as fast as it goes", r.Rate, MaxRedriveRate)
	case f.Reason != "" && !slices.Contains(DeadReasons(), f.Reason):
		return Errorf(InvalidArgument, "reason is %.40q: want one of %q", f.Reason, DeadReasons())
	case !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until):
		return Errorf(InvalidArgument, "dead_since is %s, and that is not before dead_until: nothing can match", f.Since.UTC().Format(time.RFC3339))
	case len(f.Attributes) > MaxAttributes:
		return Errorf(InvalidArgument, "%d attributes are asked for, and a message has at most %d: nothing can match", len(f.Attributes), MaxAttributes)
	}
	size := 0
	for name, value := range f.Attributes {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return Errorf(InvalidArgument, "attribute %q is not valid UTF-8", clip(name))
		}
		size += len(name) + len(value)
	}
	if size > MaxAttributeBytes {
		return Errorf(InvalidArgument, "the attributes have %d bytes, and those of a message at most %d: nothing can match", size, MaxAttributeBytes)
	}
	return nil
}

// Matches says whether a dead message is chosen: by what it was sent with, why it
// died and when, in ms of wall time.
func (f *DeadFilter) Matches(kind, key, tenant string, attributes []Attribute, reason string, at int64) bool {
	since, until := int64(math.MinInt64), int64(math.MaxInt64)
	if !f.Since.IsZero() {
		since = f.Since.UnixMilli()
	}
	if !f.Until.IsZero() {
		until = f.Until.UnixMilli()
	}
	if f.Type != "" && f.Type != kind || f.Key != "" && f.Key != key || f.Tenant != "" && f.Tenant != tenant || f.Reason != "" && f.Reason != reason || at < since || at >= until {
		return false
	}
	found := 0
	for i := range attributes {
		if want, ok := f.Attributes[attributes[i].Name]; ok && want == string(attributes[i].Value) {
			found++
		}
	}
	return found == len(f.Attributes)
}

// RedrivePlan is what a redrive chose, and the operation that does it.
type RedrivePlan struct {
	Count     int            // messages that it chose before it began
	Operation *OperationInfo // nil: nothing is begun, for it was a dry run or nothing was chosen
}
