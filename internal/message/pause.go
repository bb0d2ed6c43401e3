package message

import (
	"cmp"
	"slices"
	"time"
)

// What a queue's pauses may take, in number and in the bytes of their names.
const (
	MaxPauses     = 1_000
	MaxPauseBytes = 128 << 10
)

// Pause is a key or a tenant of a queue, or the queue as a whole, whose messages are not
// handed out.
type Pause struct {
	Key    string `json:"key,omitempty"` // or
	Tenant string `json:"tenant,omitempty"`
	By     string `json:"by"` // who paused it; of a queue empty if that was not noted
	At     int64  `json:"at"` // and when: wall time, ms
}

// Names says that a key or a tenant is named, and not the queue as a whole.
func (p *Pause) Names() bool { return p.Key != "" || p.Tenant != "" }

// Check refuses what can't be meant.
func (p *Pause) Check() error {
	if p.Key != "" && p.Tenant != "" {
		return Errorf(InvalidArgument, "key and tenant together: a pause is of one of them, so make two")
	}
	if err := CheckKey(p.Key); err != nil {
		return err
	}
	if err := checkText("tenant", p.Tenant, MaxTenant); err != nil {
		return err
	}
	return CheckBy(p.By)
}

// CheckBy says whether that can be the name of who asked for something.
func CheckBy(by string) error { return checkText("by", by, MaxWorker) }

// String is who paused what and when, for people.
func (p *Pause) String() string {
	what := "the queue"
	switch {
	case p.Key != "":
		what = "key " + quote(p.Key)
	case p.Tenant != "":
		what = "tenant " + quote(p.Tenant)
	case p.By == "":
		return "the queue is paused"
	}
	return "paused by " + p.By + " since " + time.UnixMilli(p.At).UTC().Format("2006-01-02T15:04:05.000Z") + " (" + what + ")"
}

func quote(s string) string { return `"` + clip(s) + `"` }

// FindPause finds the pause of a key or a tenant among those in order, or where it
// would be.
func FindPause(all []Pause, p Pause) (i int, found bool) {
	return slices.BinarySearchFunc(all, p, func(a, b Pause) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Tenant, b.Tenant)) })
}

// PauseOf is the pause that keeps a message of a key and a tenant; nil: none.
func PauseOf(all []Pause, key, tenant string) *Pause {
	for _, p := range [...]Pause{{Key: key}, {Tenant: tenant}} {
		if i, found := FindPause(all, p); found && p.Names() {
			return &all[i]
		}
	}
	return nil
}
