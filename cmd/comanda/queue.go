package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newQueue(a *app) *cobra.Command {
	return noun("queue", "Create, look at and administer queues",
		newQueueCreate(a), newQueueUpdate(a), newQueueList(a), newQueueShow(a), newQueueExport(a), newQueueDelete(a), newQueuePurge(a), newQueueRedrive(a), newQueuePause(a), newQueueResume(a), newQueueLocate(a), newQueueOwners(a), newQueueWatch(a))
}

// settingsFlags are the settings of a queue as flags.
type settingsFlags struct {
	maxAttempts, maxWorkerDeaths, keepFinished int32
	backoff                                    backoffFlags
	keepFinishedFor, dedupWindow               time.Duration
	maxMessageBytes, onExpired, onFailure      string
	deadLetterTo                               string
	assign, rate, ratePerKey                   string
	maxInFlight                                int32
}

func (s *settingsFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Int32Var(&s.maxAttempts, "max-attempts", 0, "failed attempts before a message is dead (default 20, with a key 5)")
	f.Int32Var(&s.maxWorkerDeaths, "max-worker-deaths", 0, "workers that may die with a message before it is dead as well (default 3)")
	s.backoff.add(cmd, "default exponential")
	f.Int32Var(&s.keepFinished, "keep-finished", 0, "finished messages that stay visible in a shard (default 10000)")
	f.DurationVar(&s.keepFinishedFor, "keep-finished-for", 0, "and for how long (default 1h)")
	f.StringVar(&s.maxMessageBytes, "max-message-bytes", "", "largest body (default 1MiB, at most 16MiB)")
	f.Int32Var(&s.maxInFlight, "max-in-flight", 0, "messages that are leased at a time (default: any number)")
	f.StringVar(&s.rate, "rate", "", "messages that go out in a span of time, as 100/1s or 30/1m (default: any number)")
	f.StringVar(&s.ratePerKey, "rate-per-key", "", "messages of each key that go out in a span of time, likewise (default: any number)")
	f.StringVar(&s.assign, "assign", "", "all workers get messages, or a single one and the others stand by (default all)")
	f.StringVar(&s.onFailure, "on-failure", "", "what later messages of a key do while one that failed waits: block or skip (default block)")
	s.dedupWindow = -1
	f.Var((*spanFlag)(&s.dedupWindow), "dedup-window", "how long a dedup id counts, 0s to 168h; 0s: not at all (default 5m)")
	f.StringVar(&s.deadLetterTo, "dead-letter-to", "", "the queue that dead messages go to, under their ids (default: they stay)")
	f.StringVar(&s.onExpired, "on-expired", "", "what becomes of a message that expires: drop or dead (default drop)")
}

func (s *settingsFlags) settings() (*client.QueueSettings, error) {
	q := &client.QueueSettings{MaxAttempts: s.maxAttempts, MaxWorkerDeaths: s.maxWorkerDeaths, KeepFinished: s.keepFinished}
	if s.keepFinishedFor != 0 {
		q.KeepFinishedFor = durationpb.New(s.keepFinishedFor)
	}
	if s.maxMessageBytes != "" {
		n, err := parseBytes(s.maxMessageBytes)
		if err != nil || n > maxBody {
			return nil, usageError(fmt.Errorf("--max-message-bytes %q: want a size up to 16MiB", s.maxMessageBytes))
		}
		q.MaxMessageBytes = int32(n)
	}
	q.MaxInFlight = s.maxInFlight
	for _, r := range []struct {
		flag, given string
		to          **comandav1.Rate
	}{{"rate", s.rate, &q.Rate}, {"rate-per-key", s.ratePerKey, &q.RatePerKey}} {
		rate, err := parseRate(r.given)
		if err != nil {
			return nil, usageError(fmt.Errorf("--%s %q: %w", r.flag, r.given, err))
		}
		*r.to = rate
	}
	if s.assign != "" {
		v := comandav1.Assign_value["ASSIGN_"+strings.ToUpper(s.assign)]
		if v == 0 {
			return nil, usageError(fmt.Errorf("--assign %q: want all or single", s.assign))
		}
		q.Assign = comandav1.Assign(v)
	}
	if s.onFailure != "" {
		v := comandav1.OnFailure_value["ON_FAILURE_"+strings.ToUpper(s.onFailure)]
		if v == 0 {
			return nil, usageError(fmt.Errorf("--on-failure %q: want block or skip", s.onFailure))
		}
		q.OnFailure = comandav1.OnFailure(v)
	}
	q.DeadLetterTo = s.deadLetterTo
	if s.dedupWindow >= 0 {
		q.DedupWindow = durationpb.New(s.dedupWindow)
	}
	if s.onExpired != "" {
		policy := comandav1.OnExpired_value["ON_EXPIRED_"+strings.ToUpper(s.onExpired)]
		if policy == 0 {
			return nil, usageError(fmt.Errorf("--on-expired %q: want drop or dead", s.onExpired))
		}
		q.OnExpired = comandav1.OnExpired(policy)
	}
	var err error
	q.Backoff, err = s.backoff.backoff()
	return q, err
}

// parseRate reads NUMBER/DURATION; nothing is nil.
func parseRate(s string) (*comandav1.Rate, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // nothing was said
	}
	count, per, _ := strings.Cut(s, "/")
	n, err := strconv.ParseInt(count, 10, 32)
	d, err2 := time.ParseDuration(per)
	if err != nil || err2 != nil || n < 1 || d <= 0 {
		return nil, errors.New("want a number and a duration, as 100/1s")
	}
	return &comandav1.Rate{Count: int32(n), Per: durationpb.New(d)}, nil
}

// backoffFlags say how long a message waits after a failed attempt.
type backoffFlags struct {
	kind         string
	initial, max time.Duration
	list         []time.Duration
}

func (b *backoffFlags) add(cmd *cobra.Command, unset string) {
	f := cmd.Flags()
	f.StringVar(&b.kind, "backoff", "", "exponential, fixed or list ("+unset+")")
	f.DurationVar(&b.initial, "backoff-initial", 0, "first delay, or the fixed one (default 1s)")
	f.DurationVar(&b.max, "backoff-max", 0, "largest delay of an exponential backoff (default 1h)")
	f.DurationSliceVar(&b.list, "backoff-list", nil, "the delays of a list, as `1s,5s`")
	f.Lookup("backoff-list").DefValue = "" // else the help shows []
}

// backoff is nil if no flag is given.
func (b *backoffFlags) backoff() (*comandav1.Backoff, error) {
	if b.kind == "" && b.initial == 0 && b.max == 0 && len(b.list) == 0 {
		return nil, nil //nolint:nilnil // nothing was said
	}
	out := &comandav1.Backoff{}
	if b.kind != "" {
		kind := comandav1.BackoffKind_value["BACKOFF_KIND_"+strings.ToUpper(b.kind)]
		if kind == 0 {
			return nil, usageError(fmt.Errorf("--backoff %q: want exponential, fixed or list", b.kind))
		}
		out.Kind = comandav1.BackoffKind(kind)
	}
	if b.initial != 0 {
		out.Initial = durationpb.New(b.initial)
	}
	if b.max != 0 {
		out.Max = durationpb.New(b.max)
	}
	for _, d := range b.list {
		out.List = append(out.List, durationpb.New(d))
	}
	if len(b.list) > 0 && b.kind == "" {
		out.Kind = comandav1.BackoffKind_BACKOFF_KIND_LIST
	}
	return out, nil
}

func newQueueCreate(a *app) *cobra.Command {
	var s settingsFlags
	var shards int
	cmd := &cobra.Command{
		Use:     "create QUEUE",
		Short:   "Create a queue; once more with the same settings changes nothing",
		Example: "  comanda queue create orders --max-attempts 5 --backoff-list 1s,10s,1m",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := aboveZero(cmd, "shards"); err != nil {
				return err
			}
			settings, err := s.settings()
			if err != nil {
				return err
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.CreateQueue(cmd.Context(), given[0], client.QueueOptions{Settings: settings, Shards: shards})
				if err != nil {
					return err
				}
				if p.format == "table" {
					what := "exists already with these settings"
					if r.GetCreated() {
						what = "created"
					}
					_, err := fmt.Fprintf(p.out, "queue %s %s\n", given[0], what)
					return err
				}
				return p.one(append(objectOf(r.GetQueue()), field{"created", r.GetCreated()}), "name")
			})
		},
	}
	s.add(cmd)
	cmd.Flags().IntVar(&shards, "shards", 0, "1 to 16 (default 1)")
	return cmd
}

func newQueueUpdate(a *app) *cobra.Command {
	var s settingsFlags
	cmd := a.queueVerb("update QUEUE", "Change settings of a queue; those without a flag stay as they are", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		given, err := s.settings()
		if err != nil {
			return err
		}
		now, err := c.Queue(cmd.Context(), queue)
		if err != nil {
			return err
		}
		settings := proto.CloneOf(now.GetQueue().GetSettings())
		if !overlay(settings, given, cmd.Flags()) {
			return usageError(errors.New("name a setting to change, as --max-attempts 5"))
		}
		q, err := c.UpdateQueue(cmd.Context(), queue, client.QueueUpdate{Settings: settings, Version: now.GetQueue().GetVersion()})
		if err != nil {
			return err
		}
		if p.format == "table" {
			return sayPlan(p.out, []change{{now: now.GetQueue(), then: q}}, false)
		}
		return p.one(objectOf(q), "name")
	})
	cmd.Example = "  comanda queue update orders --max-attempts 5\n  comanda queue update orders --max-attempts 0      # the default again"
	s.add(cmd)
	return cmd
}

// overlay puts the settings that flags were given for over those that a queue
// has; a flag's zero is the default. False: there were none.
func overlay(settings, given *client.QueueSettings, flags *pflag.FlagSet) (some bool) {
	to, from := settings.ProtoReflect(), given.ProtoReflect()
	flags.Visit(func(f *pflag.Flag) {
		name, _, _ := strings.Cut(strings.ReplaceAll(f.Name, "-", "_"), "backoff_")
		if name == "" {
			name = "backoff" // one of its parts
		}
		field := to.Descriptor().Fields().ByName(protoreflect.Name(name))
		switch {
		case field == nil:
			return // not a setting
		case from.Has(field):
			to.Set(field, from.Get(field))
		default:
			to.Clear(field)
		}
		some = true
	})
	return some
}

func newQueueList(a *app) *cobra.Command {
	var limit int
	var page string
	var stale time.Duration
	cmd := &cobra.Command{
		Use: "list", Short: "List queues", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.Queues(cmd.Context(), limit, page, client.Stale(stale))
				if err != nil {
					return err
				}
				fresh := r.GetFreshness()
				var shards *comandav1.ListShardsResponse
				if p.format != "name" {
					// They come from all groups, one of which may have no leader: the list is right without.
					if shards, err = c.Shards(cmd.Context(), "", limit, page, client.Stale(stale)); err != nil {
						_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "counts are not known now: %v\n", err)
					} else if f := shards.GetFreshness(); f.GetAgeMs() > fresh.GetAgeMs() {
						fresh = f
					}
				}
				os := listedQueues(r.GetQueues(), shards.GetShards(), fresh)
				if err := p.many(os, "name", "shards", "paused", "counts.ready", "counts.leased", "counts.dead"); err != nil {
					return err
				}
				sayAge(cmd, p, stale, fresh)
				return sayMore(cmd, r.GetNextPage())
			})
		},
	}
	cmd.Flags().IntVar(&limit, "max", 0, "at most so many: 1 to 1000 (default 100)")
	cmd.Flags().StringVar(&page, "page", "", "go on from where a list before ended")
	addStale(cmd, &stale)
	return cmd
}

// listedQueues are a page of queues with what is known of each, and how many messages it
// has in its shards.
func listedQueues(queues []*comandav1.Queue, shards []*comandav1.Shard, fresh *comandav1.Freshness) []object {
	counts := map[any]*comandav1.Counts{}
	for _, s := range shards {
		n := counts[s.GetQueue()]
		if n == nil {
			n = &comandav1.Counts{}
			counts[s.GetQueue()] = n
		}
		of := s.GetCounts()
		n.Ready += of.GetReady()
		n.Scheduled += of.GetScheduled()
		n.Leased += of.GetLeased()
		n.Dead += of.GetDead()
		n.Finished += of.GetFinished()
	}
	os := objectsOf(queues, fresh)
	for i := range os {
		// Of these a list tells nothing, and of what was deleted since there are no counts.
		os[i] = slices.DeleteFunc(os[i], func(f field) bool { return f.name == "leaving" || f.name == "pauses" })
		if n := counts[os[i].at("name")]; n != nil {
			os[i] = append(os[i], field{"counts", objectOf(n)})
		}
	}
	return os
}

func newQueueShow(a *app) *cobra.Command {
	var stale time.Duration
	cmd := a.queueVerb("show QUEUE", "Show a queue's settings and counts, and whether somebody receives from it", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		r, err := c.Queue(cmd.Context(), queue, client.Stale(stale))
		if err != nil {
			return err
		}
		o := objectOf(r.GetQueue(), r.GetFreshness())
		if p.format == "table" {
			o.set("settings", inWords(r.GetQueue().GetSettings()))
		}
		return p.one(o, "name")
	})
	addStale(cmd, &stale)
	return cmd
}

// inWords are a queue's settings for a person: all of them, and what it means where
// one is not set.
func inWords(settings *client.QueueSettings) object {
	o := slices.DeleteFunc(objectOf(settings), func(f field) bool { return f.name == "rate" || f.name == "rate_per_key" })
	o = append(o, field{"rate", rateText(settings.GetRate())}, field{"rate_per_key", rateText(settings.GetRatePerKey())})
	if settings.GetMaxAttempts() == 0 {
		o.set("max_attempts", "20, with a key 5")
	}
	if settings.GetMaxInFlight() == 0 {
		o.set("max_in_flight", anyNumber)
	}
	return o
}

const anyNumber = "any number"

// rateText is a rate as its flag has it.
func rateText(r *comandav1.Rate) string {
	if r == nil {
		return anyNumber
	}
	return fmt.Sprintf("%d/%s", r.GetCount(), r.GetPer().AsDuration())
}

func newQueuePause(a *app) *cobra.Command {
	part := client.Part{By: hostPID()}
	cmd := a.queueVerb("pause QUEUE", "Stop handing out messages of a queue, a key or a tenant; sends and settles go on", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		if err := c.PausePart(cmd.Context(), queue, part); err != nil {
			return err
		}
		return p.one(pausedObject(queue, part, true), "name")
	})
	addPart(cmd, &part)
	cmd.Flags().StringVar(&part.By, "by", part.By, "who pauses: 'queue show' and 'message show' tell")
	return cmd
}

func newQueueResume(a *app) *cobra.Command {
	var part client.Part
	cmd := a.queueVerb("resume QUEUE", "End the pause of a queue, a key or a tenant", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		if err := c.ResumePart(cmd.Context(), queue, part); err != nil {
			return err
		}
		return p.one(pausedObject(queue, part, false), "name")
	})
	addPart(cmd, &part)
	return cmd
}

func addPart(cmd *cobra.Command, part *client.Part) {
	cmd.Flags().StringVar(&part.Key, "key", "", "only the messages of this key")
	cmd.Flags().StringVar(&part.Tenant, "tenant", "", "only the messages of this tenant")
}

func pausedObject(queue string, part client.Part, paused bool) object {
	o := object{{"name", queue}}
	if part.Key != "" {
		o = append(o, field{"key", part.Key})
	}
	if part.Tenant != "" {
		o = append(o, field{"tenant", part.Tenant})
	}
	return append(o, field{"paused", paused})
}

func newQueueDelete(a *app) *cobra.Command {
	return a.deletion("delete QUEUE", "Delete a queue and every message in it", "deletes %s and every message in it", "deleted", (*client.Client).DeleteQueue)
}

func newQueuePurge(a *app) *cobra.Command {
	return a.deletion("purge QUEUE", "Delete every message of a queue; the queue stays", "keeps %s and deletes every message in it", "purged", (*client.Client).Purge)
}

// deletion is a verb that deletes the messages of a queue, once the user has typed
// its name.
func (a *app) deletion(use, short, warning, done string, do func(*client.Client, context.Context, string) error) *cobra.Command {
	var yes, dryRun bool
	cmd := a.queueVerb(use, short, func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		if dryRun || !yes {
			r, err := c.Queue(cmd.Context(), queue)
			if err != nil {
				return err
			}
			counts := r.GetQueue().GetCounts()
			if dryRun {
				return p.one(object{{"name", queue}, {"counts", objectOf(counts)}}, "name")
			}
			if err := confirm(cmd, queue, fmt.Sprintf(warning, queue)+": "+cmp.Or(countWords(counts), "it has none")); err != nil {
				return err
			}
		}
		if err := do(c, cmd.Context(), queue); err != nil {
			return err
		}
		return p.one(object{{"name", queue}, {done, true}}, "name")
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "count only")
	return cmd
}

// confirm has the user type the queue's name.
func confirm(cmd *cobra.Command, queue, what string) error {
	cmd.PrintErrf("This %s. Type the queue's name to go on: ", what)
	typed, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if strings.TrimSpace(typed) == queue {
		return nil
	}
	if err != nil {
		return usageError(errors.New("nothing was deleted: nobody typed the name; scripts say --yes"))
	}
	return errors.New("nothing was deleted: that is not the queue's name")
}

// countWords are the states in which a queue has messages, as "3 ready, 1 dead".
func countWords(n *comandav1.Counts) string {
	var words []string
	for _, f := range objectOf(n) {
		if f.value != int64(0) {
			words = append(words, fmt.Sprintf("%d %s", f.value, f.name))
		}
	}
	return strings.Join(words, ", ")
}

func newQueueLocate(a *app) *cobra.Command {
	var key string
	cmd := a.queueVerb("locate QUEUE --key K", "Tell which shard and nodes a key belongs to", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		r, err := c.Locate(cmd.Context(), queue, key)
		if err != nil {
			return err
		}
		return p.one(objectOf(r), "shard")
	})
	cmd.Flags().StringVar(&key, "key", "", "the key")
	return cmd
}

func newQueueOwners(a *app) *cobra.Command {
	return a.queueVerb("owners QUEUE", "Tell which nodes have each shard, and which workers its keys prefer", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		shards, err := c.Owners(cmd.Context(), queue)
		if err != nil {
			return err
		}
		os := objectsOf(shards)
		if p.format == "table" {
			for i, s := range shards {
				var workers []string
				for _, w := range s.GetWorkers() {
					workers = append(workers, fmt.Sprintf("%s %.0f%%", w.GetWorker(), 100*w.GetShare()))
				}
				os[i] = append(os[i], field{"copies", strings.Join(s.GetFollowers(), ", ")}, field{"preferred", strings.Join(workers, ", ")})
			}
		}
		return p.many(os, "shard", "from", "to", "group", "leader", "copies", "preferred")
	})
}

// queueVerb is a command with one argument, a queue.
func (a *app) queueVerb(use, short string, verb func(*cobra.Command, *client.Client, printer, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error { return verb(cmd, c, p, given[0]) })
		},
	}
}
