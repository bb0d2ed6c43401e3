package message

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// An ID gives back what it was made of, reads back what it wrote, and is a UUID
// of version 8.
func TestID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		queue := rapid.Uint32Range(0, MaxQueueNumber).Draw(t, "queue")
		point := PointOf(rapid.Uint64().Draw(t, "hash"))
		seq := rapid.Uint64Range(0, MaxSequence-1).Draw(t, "seq")
		id := NewID(queue, point, seq)
		if id.Queue() != queue || id.Point() != point || id.Seq() != seq {
			t.Fatalf("%d %x %d became %d %x %d", queue, point, seq, id.Queue(), id.Point(), id.Seq())
		}
		s := id.String()
		if len(s) != 36 || s[14] != '8' || !strings.ContainsRune("89ab", rune(s[19])) {
			t.Fatalf("%s is no UUID version 8", s)
		}
		if back, err := ParseID(s); err != nil || back != id {
			t.Fatal(back, err)
		}
	})
}

func TestParseIDRefuses(t *testing.T) {
	good := NewID(5, CellPoint(3), 7).String()
	for _, s := range []string{
		"", "x", good[1:], strings.ToUpper(NewID(5, PointOf(0xabcdef<<40), 7).String()), strings.Replace(good, "-", "_", 1),
		good[:14] + "4" + good[15:], good[:19] + "0" + good[20:], good + "0", "{" + good[1:], strings.Repeat("g", 36),
	} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// Neighbouring cells share no point, and a cell begins with its first point.
func TestCells(t *testing.T) {
	for c := range Cells {
		if CellPoint(c).Cell() != c || PointOf(uint64(CellPoint(c))) != CellPoint(c) {
			t.Errorf("cell %d begins at %x, which lies in cell %d", c, CellPoint(c), CellPoint(c).Cell())
		}
		if c > 0 && PointOf(uint64(CellPoint(c))-1).Cell() != c-1 {
			t.Errorf("the last point before cell %d lies in cell %d", c, PointOf(uint64(CellPoint(c))-1).Cell())
		}
	}
}

// A token reads back, and any other byte in it, or another secret, is refused.
func TestToken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Secret
		copy(s[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "secret"))
		tok := Token{ID: NewID(rapid.Uint32Range(1, 9).Draw(t, "queue"), CellPoint(2), rapid.Uint64Range(1, 99).Draw(t, "seq")), Fence: rapid.Uint64().Draw(t, "fence"), Session: rapid.Uint64().Draw(t, "session")}
		if rapid.Bool().Draw(t, "placed") {
			tok.Place = NewID(9, CellPoint(1), 5)
		}
		text := tok.Seal(&s)
		if back, err := OpenToken(text, &s); err != nil || back != tok {
			t.Fatal(back, err)
		}
		b := []byte(text)
		i := rapid.IntRange(0, len(b)-1).Draw(t, "byte")
		b[i] = rapid.Byte().Filter(func(c byte) bool { return c != b[i] }).Draw(t, "other")
		if back, err := OpenToken(string(b), &s); err == nil {
			t.Fatalf("a changed token was read as %+v", back)
		}
		s[rapid.IntRange(0, 15).Draw(t, "secret byte")]++
		if _, err := OpenToken(text, &s); err == nil {
			t.Fatal("a token of another secret was read")
		}
	})
}

func TestQueueNames(t *testing.T) {
	for _, good := range []string{"orders", "a", "A.b_c-9", strings.Repeat("x", MaxQueueName), "orders.fifo"} {
		if err := CheckQueueName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a b", "a/b", "ä", "a\x00", "a%20", strings.Repeat("x", MaxQueueName+1)} {
		if err := CheckQueueName(bad); CodeOf(err) != InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNewMessageRefusals(t *testing.T) {
	attr := func(n int) (as []Attribute) {
		for i := range n {
			as = append(as, Attribute{Name: fmt.Sprintf("a%02d", i), Kind: AttributeString})
		}
		return as
	}
	for name, c := range map[string]struct {
		m    New
		want Code
	}{
		"good":              {New{Key: "k", Type: "t", Attributes: attr(MaxAttributes), Delay: time.Hour}, ""},
		"long key":          {New{Key: strings.Repeat("k", MaxKey+1)}, TooLarge},
		"key not UTF-8":     {New{Key: "\xff"}, InvalidArgument},
		"long type":         {New{Type: strings.Repeat("k", MaxType+1)}, TooLarge},
		"negative delay":    {New{Delay: -1}, InvalidArgument},
		"endless delay":     {New{Delay: MaxDelay + 1}, InvalidArgument},
		"large body":        {New{Body: make([]byte, MaxBody+1)}, TooLarge},
		"many attributes":   {New{Attributes: attr(MaxAttributes + 1)}, TooLarge},
		"attribute twice":   {New{Attributes: append(attr(1), attr(1)...)}, InvalidArgument},
		"nameless":          {New{Attributes: []Attribute{{Kind: AttributeString}}}, InvalidArgument},
		"no value":          {New{Attributes: []Attribute{{Name: "a"}}}, InvalidArgument},
		"text not UTF-8":    {New{Attributes: []Attribute{{Name: "a", Kind: AttributeString, Value: []byte{0xff}}}}, InvalidArgument},
		"bytes":             {New{Attributes: []Attribute{{Name: "a", Kind: AttributeBytes, Value: []byte{0xff}}}}, ""},
		"number":            {New{Attributes: []Attribute{{Name: "a", Kind: AttributeNumber, Value: []byte("-12.50e3")}}}, ""},
		"no number":         {New{Attributes: []Attribute{{Name: "a", Kind: AttributeNumber, Value: []byte("NaN")}}}, InvalidArgument},
		"large attributes":  {New{Attributes: []Attribute{{Name: "a", Kind: AttributeBytes, Value: make([]byte, MaxAttributeBytes)}}}, TooLarge},
		"long attr. name":   {New{Attributes: []Attribute{{Name: strings.Repeat("n", MaxAttributeName+1), Kind: AttributeBytes}}}, TooLarge},
		"hexadecimal digit": {New{Attributes: []Attribute{{Name: "a", Kind: AttributeNumber, Value: []byte("0x10")}}}, InvalidArgument},
	} {
		if got := CodeOf(c.m.Check()); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		s  Settings
		ok bool
	}{
		"none":             {Settings{}, true},
		"all":              {Settings{MaxAttempts: 3, Backoff: Backoff{Kind: BackoffList, List: []time.Duration{1, 2}}, KeepFinished: 1, KeepFinishedFor: 1, MaxMessageBytes: 1}, true},
		"negative":         {Settings{MaxAttempts: -1}, false},
		"many attempts":    {Settings{MaxAttempts: MaxAttemptsLimit + 1}, false},
		"list without":     {Settings{Backoff: Backoff{Kind: BackoffList}}, false},
		"list for another": {Settings{Backoff: Backoff{Kind: BackoffFixed, List: []time.Duration{1}}}, false},
		"kind":             {Settings{Backoff: Backoff{Kind: 9}}, false},
		"long list":        {Settings{Backoff: Backoff{Kind: BackoffList, List: make([]time.Duration, MaxBackoffList+1)}}, false},
		"huge message":     {Settings{MaxMessageBytes: MaxBody + 1}, false},
		"limits":           {Settings{MaxInFlight: MaxInFlightLimit, Rate: Rate{MaxRate, MaxRatePer}, Assign: AssignSingle, OnFailure: SkipKey}, true},
		"a second":         {Settings{Rate: Rate{Count: 1}}, true},
		"fast":             {Settings{Rate: Rate{MaxRate + 1, time.Second}}, false},
		"negative rate":    {Settings{Rate: Rate{-1, time.Second}}, false},
		"time of no rate":  {Settings{Rate: Rate{0, time.Second}}, false},
		"negative time":    {Settings{Rate: Rate{1, -time.Second}}, false},
		"long time":        {Settings{Rate: Rate{1, MaxRatePer + time.Millisecond}}, false},
		"part of a ms":     {Settings{Rate: Rate{1, time.Microsecond}}, false},
		"rate of a key":    {Settings{Rate: Rate{10, time.Second}, RatePerKey: Rate{600, time.Minute}}, true},
		"key above all":    {Settings{Rate: Rate{10, 0}, RatePerKey: Rate{11, time.Second}}, false},
		"fast key":         {Settings{RatePerKey: Rate{MaxRate + 1, time.Second}}, false},
		"negative flight":  {Settings{MaxInFlight: -1}, false},
		"many in flight":   {Settings{MaxInFlight: MaxInFlightLimit + 1}, false},
		"assign":           {Settings{Assign: AssignSingle + 1}, false},
		"on failure":       {Settings{OnFailure: SkipKey + 1}, false},
	} {
		if err := c.s.Check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.s.WithDefaults().Check(); c.ok && err != nil {
			t.Errorf("%s with defaults: %v", name, err)
		}
		if !c.s.Equal(c.s.WithDefaults()) {
			t.Errorf("%s does not equal itself with defaults", name)
		}
	}
	if (Settings{}).Attempts(true) != 5 || (Settings{}).Attempts(false) != 20 || (Settings{MaxAttempts: 7}).Attempts(true) != 7 {
		t.Error("attempts")
	}
}

func TestRedriveRefusals(t *testing.T) {
	many := map[string]string{}
	for i := range MaxAttributes + 1 {
		many[fmt.Sprint(i)] = ""
	}
	second := time.Unix(2, 0)
	for name, c := range map[string]struct {
		r    Redrive
		want Code
	}{
		"all":                  {Redrive{}, ""},
		"a filter":             {Redrive{Filter: DeadFilter{Type: "t", Key: "k", Reason: "lapsed", Since: second, Attributes: map[string]string{"a": "v"}}, Rate: MaxRedriveRate}, ""},
		"negative rate":        {Redrive{Rate: -1}, InvalidArgument},
		"fast":                 {Redrive{Rate: MaxRedriveRate + 1}, InvalidArgument},
		"no such reason":       {Redrive{Filter: DeadFilter{Reason: "bored"}}, InvalidArgument},
		"no time":              {Redrive{Filter: DeadFilter{Since: second, Until: second}}, InvalidArgument},
		"after the year 9999":  {Redrive{Filter: DeadFilter{Until: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}}, InvalidArgument},
		"before 1970":          {Redrive{Filter: DeadFilter{Since: time.Unix(-1, 0)}}, InvalidArgument},
		"long type":            {Redrive{Filter: DeadFilter{Type: strings.Repeat("t", MaxType+1)}}, TooLarge},
		"long key":             {Redrive{Filter: DeadFilter{Key: strings.Repeat("k", MaxKey+1)}}, TooLarge},
		"long tenant":          {Redrive{Filter: DeadFilter{Tenant: strings.Repeat("t", MaxTenant+1)}}, TooLarge},
		"tenant not UTF-8":     {Redrive{Filter: DeadFilter{Tenant: "\xff"}}, InvalidArgument},
		"key not UTF-8":        {Redrive{Filter: DeadFilter{Key: "\xff"}}, InvalidArgument},
		"type not UTF-8":       {Redrive{Filter: DeadFilter{Type: "\xff"}}, InvalidArgument},
		"attribute not UTF-8":  {Redrive{Filter: DeadFilter{Attributes: map[string]string{"a": "\xff"}}}, InvalidArgument},
		"attribute's name too": {Redrive{Filter: DeadFilter{Attributes: map[string]string{"\xff": "a"}}}, InvalidArgument},
		"many attributes":      {Redrive{Filter: DeadFilter{Attributes: many}}, InvalidArgument},
		"large attributes":     {Redrive{Filter: DeadFilter{Attributes: map[string]string{"a": strings.Repeat("v", MaxAttributeBytes)}}}, InvalidArgument},
	} {
		if got := CodeOf(c.r.Check()); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("send: %w", Errorf(Fenced, "too late"))
	if CodeOf(err) != Fenced || !errors.Is(err, &Error{Code: Fenced}) || errors.Is(err, &Error{Code: Gone}) {
		t.Error(CodeOf(err))
	}
	if CodeOf(nil) != "" || CodeOf(errors.New("x")) != Internal {
		t.Error("codes of other errors")
	}
	if s := ClipError(strings.Repeat("ä", MaxErrorText)); len(s) != MaxErrorText || strings.ContainsRune(s, '\uFFFD') {
		t.Errorf("clipped to %d bytes", len(s))
	}
	if s := ClipError("a\xffb"); s != "a\uFFFDb" {
		t.Errorf("%q", s)
	}
}
