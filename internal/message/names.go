package message

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// CheckQueueName refuses what can't name a queue: names are 1–80 of
// [A-Za-z0-9._-], so that they need no escape in any path, label or shell.
func CheckQueueName(s string) error {
	if s == "" || len(s) > MaxQueueName {
		return Errorf(InvalidArgument, "queue name %q: want 1 to %d characters", clip(s), MaxQueueName)
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return Errorf(InvalidArgument, "queue name %q: only letters, digits, '.', '_' and '-'", clip(s))
		}
	}
	if s == "." || s == ".." {
		return Errorf(InvalidArgument, "queue name %q is not allowed", s)
	}
	return nil
}

// checkText refuses text that is too long or not UTF-8.
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return Errorf(TooLarge, "%s has %d bytes, at most %d are allowed", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return Errorf(InvalidArgument, "%s is not valid UTF-8", what)
	}
	return nil
}

// CheckWorkerName refuses what can't name a worker.
func CheckWorkerName(s string) error { return checkText("worker name", s, MaxWorker) }

// CheckKey refuses what can't be a key. Without a key is the empty string.
func CheckKey(s string) error { return checkText("key", s, MaxKey) }

// ClipError cuts an attempt's error to what a history keeps, at a character.
func ClipError(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxErrorText {
		return s
	}
	s = s[:MaxErrorText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// AttributeKind says how an attribute's value is meant.
type AttributeKind byte

// The kinds of attribute values.
const (
	AttributeString AttributeKind = 1
	AttributeNumber AttributeKind = 2 // decimal text, kept digit by digit
	AttributeBytes  AttributeKind = 3
)

// Attribute is one named value of a message.
type Attribute struct {
	Name  string
	Kind  AttributeKind
	Value []byte
}

// OnConflict says what a send does whose unique key another message has.
type OnConflict byte

// What it does.
const (
	ConflictReject   OnConflict = 1 // it is refused with CONFLICT; also if nothing is said
	ConflictExisting OnConflict = 2 // it is answered with the id of the other
)

// New is a message that somebody wants to send.
type New struct {
	Body       []byte
	Key        string
	Type       string
	Tenant     string        // whose share of the deliveries it uses
	Attributes []Attribute   // sorted by name, names unique
	Delay      time.Duration // by the servers' running time
	DeliverAt  time.Time     // or: not before it; zero: at once
	Expires    time.Time     // when it is no use any more, unless it is leased then; zero: never
	DedupID    string        // a repeat within the queue's window adds nothing
	UniqueKey  string        // of unfinished messages, one at the most has it
	OnConflict OnConflict
	Priority   int    // 0 to MaxPriority: higher ones first
	Retry      *Retry // nil: as its queue says
}

// Size is about how many bytes the message takes on its way.
func (m *New) Size() int {
	n := MessageOverhead + len(m.Body) + len(m.Key) + len(m.Type) + len(m.Tenant) + len(m.DedupID) + len(m.UniqueKey)
	for i := range m.Attributes {
		n += len(m.Attributes[i].Name) + len(m.Attributes[i].Value) + 4
	}
	return n
}

// Check refuses a message that can't be stored, whatever its queue says.
func (m *New) Check() error {
	if len(m.Body) > MaxBody {
		return Errorf(TooLarge, "body has %d bytes, at most %d are allowed", len(m.Body), MaxBody)
	}
	if err := CheckKey(m.Key); err != nil {
		return err
	}
	if err := checkText("type", m.Type, MaxType); err != nil {
		return err
	}
	if err := checkText("tenant", m.Tenant, MaxTenant); err != nil {
		return err
	}
	if m.Delay < 0 {
		return Errorf(InvalidArgument, "delay %s is negative", m.Delay)
	}
	if m.Delay > MaxDelay {
		return Errorf(InvalidArgument, "delay %s is longer than %s: give deliver_at, which may be later", m.Delay, MaxDelay)
	}
	if err := m.checkTimes(); err != nil {
		return err
	}
	if err := m.checkMarks(); err != nil {
		return err
	}
	if err := between("priority", int64(m.Priority), 0, MaxPriority); err != nil {
		return err
	}
	if m.Retry != nil {
		if err := m.Retry.check(); err != nil {
			return err
		}
	}
	return checkAttributes(m.Attributes)
}

func (m *New) checkMarks() error {
	if err := checkText("dedup id", m.DedupID, MaxDedupID); err != nil {
		return err
	}
	if err := checkText("unique key", m.UniqueKey, MaxDedupID); err != nil {
		return err
	}
	switch {
	case m.OnConflict > ConflictExisting:
		return Errorf(InvalidArgument, "on_conflict is %d: want reject or existing", m.OnConflict)
	case m.OnConflict != 0 && m.UniqueKey == "":
		return Errorf(InvalidArgument, "on_conflict says what a unique key does, and the message has none")
	case m.Key == "" && m.DedupID != "" && m.UniqueKey != "":
		return Errorf(InvalidArgument, "a dedup id and a unique key together would place the message twice: give it a key, in which both count")
	}
	return nil
}

func (m *New) checkTimes() error {
	if err := checkTime("deliver_at", m.DeliverAt); err != nil {
		return err
	}
	if err := checkTime("expires", m.Expires); err != nil {
		return err
	}
	switch {
	case !m.DeliverAt.IsZero() && m.Delay > 0:
		return Errorf(InvalidArgument, "delay and deliver_at say both when the message is ready: give one")
	case !m.Expires.IsZero() && !m.DeliverAt.Before(m.Expires):
		return Errorf(InvalidArgument, "the message would expire before its deliver_at")
	}
	return nil
}

// checkTime takes a time that is not given, too.
func checkTime(what string, t time.Time) error {
	if !t.IsZero() && (t.Before(time.Unix(0, 0)) || t.Year() > 9999) {
		return Errorf(InvalidArgument, "%s is %s: want a time from 1970 to 9999", what, t.UTC().Format(time.RFC3339))
	}
	return nil
}

func checkAttributes(as []Attribute) error {
	if len(as) > MaxAttributes {
		return Errorf(TooLarge, "%d attributes, at most %d are allowed", len(as), MaxAttributes)
	}
	size := 0
	for i, a := range as {
		if a.Name == "" {
			return Errorf(InvalidArgument, "an attribute has no name")
		}
		if err := checkText("attribute name", a.Name, MaxAttributeName); err != nil {
			return err
		}
		if i > 0 && as[i-1].Name >= a.Name {
			return Errorf(InvalidArgument, "attribute %q stands twice", a.Name)
		}
		switch a.Kind {
		case AttributeString:
			if !utf8.Valid(a.Value) {
				return Errorf(InvalidArgument, "attribute %q is not valid UTF-8", a.Name)
			}
		case AttributeNumber:
			if !decimal(string(a.Value)) {
				return Errorf(InvalidArgument, "attribute %q: %q is not a decimal number", a.Name, clip(string(a.Value)))
			}
		case AttributeBytes:
		default:
			return Errorf(InvalidArgument, "attribute %q has no value", a.Name)
		}
		size += len(a.Name) + len(a.Value)
	}
	if size > MaxAttributeBytes {
		return Errorf(TooLarge, "attributes have %d bytes, at most %d are allowed", size, MaxAttributeBytes)
	}
	return nil
}

func decimal(s string) bool {
	if s == "" || len(s) > 64 || strings.ContainsAny(s, "xXpPnNiI_") {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// SortAttributes brings attributes into the order that Check wants.
func SortAttributes(as []Attribute) {
	slices.SortFunc(as, func(a, b Attribute) int { return cmp.Compare(a.Name, b.Name) })
}
