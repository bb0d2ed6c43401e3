package queue_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/dchest/siphash"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// world is one group on map rows, driven by words.
type world struct {
	rows   *mapRows
	m      *queue.Machine
	index  uint64
	now    int64
	skew   int64                 // of the wall clock
	names  map[string]message.ID // by body
	tokens map[string]message.Token
	counts map[queue.EffectKind]int // what was counted since it was told
}

func newWorld() *world {
	return &world{rows: newMapRows(), m: queue.New(), names: map[string]message.ID{}, tokens: map[string]message.Token{}, counts: map[queue.EffectKind]int{}}
}

func (w *world) apply(cmds ...queue.Command) []any {
	w.index++
	results := w.m.Apply(w.rows, w.index, queue.AppendEntry(nil, w.now, 1_000_000+w.now+w.skew, cmds))
	for _, e := range w.m.Effects() {
		w.counts[e.Kind]++
	}
	return results
}

func hashOf(key string) message.KeyHash {
	lo, hi := siphash.Hash128(1, 2, []byte(key))
	return message.KeyHash{Hi: hi, Lo: lo}
}

// mark places a message's dedup id and unique key, within its key.
func mark(m *queue.Sent) {
	m.DedupHash, m.UniqueHash = hashOf(m.Key+"/"+m.DedupID), hashOf(m.Key+"/"+m.UniqueKey)
}

// TestStories runs the scripts in testdata: what a message goes through, in
// words. Run with -rewrite after a change and read the diff.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		w := newWorld()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return w.run(t, d) })
	})
}

func (w *world) run(t *testing.T, d *datadriven.TestData) string {
	seconds := func(name string) time.Duration {
		var s float64
		if !d.MaybeScanArgs(t, name, &s) {
			return 0
		}
		return time.Duration(s * float64(time.Second))
	}
	var out strings.Builder
	switch d.Cmd {
	case "queue":
		c := queue.Configure{Queue: 1, Version: w.index + 1, Shards: []queue.Bounds{{To: 15, Path: "0"}}}
		d.MaybeScanArgs(t, "max-attempts", &c.Settings.MaxAttempts)
		d.MaybeScanArgs(t, "max-worker-deaths", &c.Settings.MaxWorkerDeaths)
		d.MaybeScanArgs(t, "keep-finished", &c.Settings.KeepFinished)
		d.MaybeScanArgs(t, "max-bytes", &c.Settings.MaxMessageBytes)
		d.MaybeScanArgs(t, "rate", &c.Settings.Rate.Count)
		d.MaybeScanArgs(t, "rate-per-key", &c.Settings.RatePerKey.Count)
		c.Settings.RatePerKey.Per = seconds("per")
		c.Paused = d.HasArg("paused")
		var key, tenant string
		if d.MaybeScanArgs(t, "pause-key", &key); key != "" {
			c.Pauses, c.Hashes = []message.Pause{{Key: key, By: "ann", At: 77}}, []uint64{hashOf(key).Hi}
		}
		if d.MaybeScanArgs(t, "pause-tenant", &tenant); tenant != "" {
			c.Pauses = append([]message.Pause{{Tenant: tenant, By: "bob", At: 78}}, c.Pauses...)
			c.Hashes = append([]uint64{hashOf(tenant).Hi}, c.Hashes...)
		}
		if d.HasArg("skip") {
			c.Settings.OnFailure = message.SkipKey
		}
		if d.HasArg("window") {
			if c.Settings.DedupWindow = seconds("window"); c.Settings.DedupWindow == 0 {
				c.Settings.DedupWindow = message.NoDedup
			}
		}
		if d.HasArg("expired-dead") {
			c.Settings.OnExpired = message.ExpiredDead
		}
		if b := seconds("fixed"); b > 0 {
			c.Settings.Backoff = message.Backoff{Kind: message.BackoffFixed, Initial: b}
		}
		c.Settings = c.Settings.WithDefaults()
		w.apply(c.Command())
	case "cancel":
		c := queue.Cancel{Force: d.HasArg("force"), Grace: seconds("grace")}
		for _, a := range d.CmdArgs {
			if id, ok := w.names[a.Key]; ok {
				c.IDs = append(c.IDs, id)
			}
		}
		for _, r := range w.apply(c.Command())[0].([]message.SettleResult) {
			switch {
			case r.Err != nil:
				fmt.Fprintln(&out, w.nameAll(r.Err.Error()))
			case r.AlreadyDone:
				fmt.Fprintln(&out, r.State, "already")
			default:
				fmt.Fprintln(&out, r.State)
			}
		}
	case "purge":
		w.apply((&queue.Purge{Queue: 1}).Command())
	case "drop":
		w.apply((&queue.Drop{Queue: 1}).Command())
	case "send":
		c := queue.Send{Queue: 1, Atomic: d.HasArg("atomic")}
		for line := range strings.Lines(d.Input) {
			body, own, _ := strings.Cut(strings.TrimSpace(line), " ")
			m := queue.Sent{Cell: 3, New: message.New{Body: []byte(body), Delay: seconds("delay")}}
			d.MaybeScanArgs(t, "key", &m.Key)
			d.MaybeScanArgs(t, "type", &m.Type)
			d.MaybeScanArgs(t, "priority", &m.Priority)
			if d.HasArg("max-attempts") || d.HasArg("fixed") {
				m.Retry = &message.Retry{}
				d.MaybeScanArgs(t, "max-attempts", &m.Retry.MaxAttempts)
				if b := seconds("fixed"); b > 0 {
					m.Retry.Backoff = message.Backoff{Kind: message.BackoffFixed, Initial: b}
				}
			}
			if d.MaybeScanArgs(t, "tenant", &m.Tenant); m.Tenant != "" {
				m.TenantHash = hashOf(m.Tenant).Hi
			}
			d.MaybeScanArgs(t, "dedup", &m.DedupID)
			d.MaybeScanArgs(t, "unique", &m.UniqueKey)
			if d.HasArg("existing") {
				m.OnConflict = message.ConflictExisting
			}
			for name, to := range map[string]*string{"dedup": &m.DedupID, "unique": &m.UniqueKey, "key": &m.Key} {
				if _, value, ok := strings.Cut(own, name+"="); ok {
					*to, _, _ = strings.Cut(value, " ")
				}
			}
			mark(&m)
			at := func(name string) (at time.Time) { // seconds after the story's begin
				if d.HasArg(name) {
					at = time.UnixMilli(1_000_000).Add(seconds(name))
				}
				return at
			}
			m.DeliverAt, m.Expires = at("deliver-at"), at("expires")
			m.Hash = hashOf(m.Key)
			c.Messages = append(c.Messages, m)
		}
		for i, r := range w.apply(c.Command())[0].([]message.SendResult) {
			if r.Err != nil {
				fmt.Fprintln(&out, w.nameAll(r.Err.Error()))
			} else if r.Existing {
				fmt.Fprintln(&out, "existing", w.name(r.ID))
			} else {
				w.names[string(c.Messages[i].Body)] = r.ID
			}
		}
	case "lease":
		c := queue.Lease{Queue: 1, Worker: "w", Length: seconds("s"), MaxBytes: 1 << 20, Session: session(t, d)}
		d.MaybeScanArgs(t, "worker", &c.Worker)
		limit := 1
		d.MaybeScanArgs(t, "max", &limit)
		d.MaybeScanArgs(t, "per-key", &c.PerKey)
		d.MaybeScanArgs(t, "extra", &c.Extra)
		for n := range message.Cells {
			c.Items = append(c.Items, queue.Refs(everyOffer(w.rows, n))...)
		}
		slices.SortFunc(c.Items, func(a, b queue.Ref) int {
			return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Seq, b.Seq))
		})
		c.Items = c.Items[:min(limit, len(c.Items))]
		r := w.apply(c.Command())[0].(queue.LeaseResult)
		if r.Err != nil {
			fmt.Fprintln(&out, r.Err)
		}
		for _, x := range r.Leased {
			w.tokens[string(x.Body)] = message.Token{ID: x.ID, Fence: x.Fence, Session: c.Session.ID}
			fmt.Fprintf(&out, "%s fence=%d attempt=%d deliveries=%d\n", x.Body, x.Fence, x.Attempts+1, x.Deliveries)
		}
	case "ack", "nack", "reject", "release", "extend":
		action := map[string]message.Action{"ack": message.Ack, "nack": message.Nack, "reject": message.Reject, "release": message.Release, "extend": message.Extend}[d.Cmd]
		var c queue.Settle
		for _, a := range d.CmdArgs {
			if tok, ok := w.tokens[a.Key]; ok && len(a.Vals) == 0 {
				c.Settlements = append(c.Settlements, message.Settlement{Token: tok, Action: action, Delay: seconds("delay"), HasDelay: d.HasArg("delay"), Lease: seconds("s"), Error: "boom"})
			}
		}
		if d.Input != "" {
			c.FollowUps = [][]queue.FollowUp{followUps(t, d)}
		}
		for _, r := range w.apply(c.Command())[0].([]message.SettleResult) {
			for i := range c.FollowUps {
				for n, id := range r.FollowUps {
					body := string(c.FollowUps[i][n].Body)
					if old, ok := w.names[body]; ok && old != id {
						fmt.Fprintln(&out, body, "has two ids")
					}
					w.names[body] = id
				}
			}
			switch {
			case r.Err != nil:
				fmt.Fprintln(&out, w.nameAll(r.Err.Error()))
			case r.AlreadyDone && len(r.FollowUps) > 0:
				fmt.Fprintf(&out, "already done, with %d follow-ups\n", len(r.FollowUps))
			case r.AlreadyDone:
				fmt.Fprintln(&out, "already done")
			default:
				fmt.Fprintln(&out, r.State)
			}
		}
	case "outbox": // what is to leave now, and what comes of it: nothing, or all is there, or is refused
		for n := range message.Cells {
			for _, to := range queue.Lines(w.rows, 1, n, nil, 10) {
				c := queue.NextDelivery(w.rows, queue.Line{Queue: 1, Cell: n}, to, 10, w.now)
				done := queue.Delivered{From: c.From, To: c.To}
				for _, p := range c.Parcels {
					fmt.Fprintf(&out, "to queue %d: %s, in %d ms\n", to.Queue, p.Body, p.Head.Due)
					r := queue.DeliveredResult{Seq: p.Seq}
					if d.HasArg("refused") {
						r.Err = message.Errorf(message.TooLarge, "too large")
					}
					done.Results = append(done.Results, r)
				}
				if d.HasArg("refused") || d.HasArg("there") {
					w.apply(done.Command(), done.Command()) // the second changes nothing
				}
			}
		}
	case "expire-session":
		w.apply((&queue.ExpireSession{Session: session(t, d)}).Command())
	case "forget":
		w.apply((&queue.Forget{Sessions: session(t, d).CatalogVersion}).Command())
	case "sessions":
		for _, s := range queue.Sessions(w.rows) {
			fmt.Fprintf(&out, "%d incarnation %d as of %d ended=%v\n", s.ID, s.Incarnation, s.CatalogVersion, s.Ended)
		}
		return out.String()
	case "sweep", "release-leases":
		refs := w.leases()
		if d.Cmd == "sweep" {
			w.apply((&queue.Expire{Queue: 1, Leases: refs}).Command())
		} else {
			w.apply((&queue.ReleaseLeases{Queue: 1, Leases: refs}).Command())
		}
	case "tick": // time passes, and the leader ends leases and wakes what is due
		w.now += seconds("s").Milliseconds()
		w.apply(queue.Tick())
		w.apply((&queue.Expire{Queue: 1, Leases: w.leases()}).Command())
		for n := range message.Cells {
			w.apply((&queue.Wake{Queue: 1, Timers: everyTimer(w.rows, n)}).Command())
		}
	case "late": // time passes, and no timer is woken yet
		w.now += seconds("s").Milliseconds()
	case "clock": // the wall clock jumps
		w.skew += seconds("s").Milliseconds()
	case "redrive":
		c := queue.Redrive{ResetAttempts: d.HasArg("reset")}
		for _, a := range d.CmdArgs {
			if id, ok := w.names[a.Key]; ok {
				c.IDs = append(c.IDs, id)
			}
		}
		for _, err := range w.apply(c.Command())[0].([]queue.RedriveResult) {
			if err != nil {
				fmt.Fprintln(&out, w.nameAll(err.Error()))
			}
		}
	case "redrive-some": // a step of an operation in each cell
		ask := queue.DeadQuery{Queue: 1, Limit: 2}
		d.ScanArgs(t, "operation", &ask.Operation)
		d.MaybeScanArgs(t, "limit", &ask.Limit)
		d.MaybeScanArgs(t, "reason", &ask.Filter.Reason)
		d.MaybeScanArgs(t, "key", &ask.Filter.Key)
		for ask.Cell = range message.Cells {
			dead := (&queue.Query{Dead: &ask}).Run(w.rows).Dead
			if dead.Through == 0 {
				continue
			}
			c := queue.RedriveSome{Queue: 1, Cell: ask.Cell, Operation: ask.Operation, After: dead.Progress.After, Through: dead.Through, Messages: dead.Messages}
			c.ResetAttempts = d.HasArg("reset")
			r := w.apply(c.Command(), c.Command()) // the second does nothing
			p := r[0].(queue.Progress)
			if p.Err != nil {
				fmt.Fprintln(&out, p.Err)
				continue
			}
			if r[0] != r[1] {
				d.Fatalf(t, "%+v, and once more %+v", r[0], r[1])
			}
			fmt.Fprintf(&out, "redriven=%d skipped=%d\n", p.Redriven, p.Skipped)
		}
	case "totals": // of all that has happened, and the age of the oldest that may go out
		q, _ := queue.Queue(w.rows, 1)
		q.ReadOldest(w.rows)
		age := "none is ready"
		if at := q.Shards[0].Oldest; at > 0 {
			age = fmt.Sprintf("oldest %ds", (1_000_000+w.now-at)/1000)
		}
		t := q.Totals()
		return fmt.Sprintf("sent=%d delivered=%d finished=%d failed=%d, %s\n", t.Sent, t.Delivered, t.Finished, t.Failed, age)
	case "counted": // since the last time
		c := w.counts
		w.counts = map[queue.EffectKind]int{}
		return fmt.Sprintf("retried=%d dead=%d expired=%d redriven=%d\n", c[queue.CountRetried], c[queue.CountDead], c[queue.CountExpired], c[queue.CountRedriven])
	case "restart": // what is kept in memory is loaded from the rows again
		w.m = queue.New()
	case "turns":
		for n := range message.Cells {
			for _, turn := range queue.Turns(w.rows, 1, n, nil, 1000) {
				fmt.Fprintf(&out, "priority=%d messages=%d\n", turn.Priority, len(queue.OffersOf(w.rows, 1, n, turn, nil, 1000)))
			}
		}
		return out.String()
	case "show":
		return w.show(d.CmdArgs[0].Key)
	case "list":
		ask := queue.ListQuery{Queue: 1, Limit: 2}
		if d.CmdArgs[0].Vals == nil {
			var err error
			if ask.State, err = message.ParseState(d.CmdArgs[0].Key); err != nil {
				d.Fatalf(t, "%v", err)
			}
		}
		d.MaybeScanArgs(t, "key", &ask.Key)
		d.MaybeScanArgs(t, "type", &ask.Type)
		d.MaybeScanArgs(t, "rows", &ask.Rows)
		ask.Hash = hashOf(ask.Key)
		for name, at := range map[string]*int64{"since": &ask.Since, "until": &ask.Until} {
			if d.HasArg(name) {
				*at = 1_000_000 + seconds(name).Milliseconds()
			}
		}
		q, _ := queue.Queue(w.rows, 1)
		pages, examined := 0, 0
		for more := true; more; pages++ {
			var page []*queue.Detail
			var rows int
			page, ask.From, more, rows = queue.List(w.rows, &q, &ask, 0)
			for _, x := range page {
				fmt.Fprintf(&out, "%s ", w.name(x.ID))
			}
			examined += rows
		}
		if d.HasArg("plan") {
			fmt.Fprintf(&out, "by %s, %d rows in %d pages", ask.Index(), examined, pages)
		}
		return out.String() + "\n"
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	q, _ := queue.Queue(w.rows, 1)
	c := q.Counts()
	fmt.Fprintf(&out, "ready=%d scheduled=%d leased=%d dead=%d finished=%d\n", c.Ready, c.Scheduled, c.Leased, c.Dead, c.Finished)
	return out.String()
}

// followUps are those of a story's ack: a line each, "body", and what the message has.
func followUps(t *testing.T, d *datadriven.TestData) (fs []queue.FollowUp) {
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		f := queue.FollowUp{To: queue.Target{Queue: 1}, Sent: queue.Sent{Cell: 5, New: message.New{Body: []byte(words[0])}}}
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			n, _ := strconv.ParseInt(value, 10, 32)
			switch name {
			case "queue":
				f.To.Queue = uint32(n)
			case "key":
				f.Key, f.Hash = value, hashOf(value)
			case "delay":
				f.Delay = time.Duration(n) * time.Second
			case "expires":
				f.Expires = time.UnixMilli(1_000_000 + 1000*n)
			default:
				d.Fatalf(t, "unknown word %q", w)
			}
		}
		fs = append(fs, f)
	}
	return fs
}

// everyOffer is what may be handed out of a cell, whosever it is.
func everyOffer(rows queue.Reader, n int) []queue.Offer {
	offers := queue.Offers(rows, 1, n, nil, 1000)
	for _, turn := range queue.Turns(rows, 1, n, nil, 1000) {
		offers = append(offers, queue.OffersOf(rows, 1, n, turn, nil, 1000)...)
	}
	return offers
}

// everyTimer is what any of the kinds has in a cell.
func everyTimer(rows queue.Reader, n int) (refs []queue.TimerRef) {
	for kind := range queue.TimerKind(queue.TimerKinds) {
		refs = append(refs, queue.Timers(rows, 1, n, kind, nil, 1000)...)
	}
	return refs
}

// leases are all leases of the queue.
func (w *world) leases() (refs []queue.LeaseRef) {
	for n := range message.Cells {
		for _, l := range queue.Deadlines(w.rows, 1, n) {
			refs = append(refs, l.LeaseRef)
		}
	}
	return refs
}

func session(t *testing.T, d *datadriven.TestData) (s queue.Session) {
	d.MaybeScanArgs(t, "session", &s.ID)
	d.MaybeScanArgs(t, "incarnation", &s.Incarnation)
	d.MaybeScanArgs(t, "catalog", &s.CatalogVersion)
	return s
}

func (w *world) show(name string) string {
	x, ok := queue.Show(w.rows, w.names[name])
	if !ok {
		return "unknown\n"
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s attempts=%d deliveries=%d body=%q", x.State, x.Attempts, x.Deliveries, x.Body)
	if x.Deaths > 0 {
		fmt.Fprintf(&out, " worker deaths=%d", x.Deaths)
	}
	if x.Worker != "" {
		fmt.Fprintf(&out, " held by %s since %d", x.Worker, x.LeasedAt)
	}
	if b := x.Blocker; b != nil {
		fmt.Fprintf(&out, " behind %s (%s)", w.name(b.ID), b.State)
	}
	if x.Tenant != "" {
		fmt.Fprintf(&out, " tenant=%s", x.Tenant)
	}
	if x.Pause != nil {
		out.WriteString(" " + x.Pause.String())
	}
	if x.Limit != "" {
		out.WriteString(" limited by " + x.Limit)
	}
	if x.InTurn {
		out.WriteString(" in turn with others")
	}
	for _, a := range x.History {
		fmt.Fprintf(&out, "\n  %d-%d attempt %d on %s: %s %s", a.LeasedAt, a.EndedAt, a.Number, a.Worker, a.Outcome, a.Error)
	}
	return out.String() + "\n"
}

func (w *world) name(id message.ID) string {
	for n, i := range w.names {
		if i == id {
			return n
		}
	}
	return "?"
}

func (w *world) nameAll(s string) string {
	for n, id := range w.names {
		s = strings.ReplaceAll(s, id.String(), n)
	}
	return s
}
