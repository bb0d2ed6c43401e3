package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newApply(a *app) *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create and change queues until they are as a file says; queues that it does not name stay as they are",
		Long: `Create and change queues until they are as a file says. Queues that it does not
name stay as they are. A setting that it does not name gets its default; shards
count where a queue is created, later they are split.

  queues:
    - name: orders
      shards: 4
      settings:
        max_attempts: 5
        backoff: {kind: list, list: [1s, 10s, 1m]}

'comanda queue export' writes such a file. Everything is checked before anything
is changed.`,
		Example: "  comanda apply -f queues.yaml --dry-run",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usageError(errors.New("-f FILE is missing: name a file of queues, or - for standard input"))
			}
			specs, err := readSpecs(cmd.InOrStdin(), file)
			if err != nil {
				return usageError(err)
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				plan, err := planQueues(cmd, c, specs)
				if err != nil {
					return err
				}
				if !dryRun {
					if err := carryOut(cmd, c, plan); err != nil {
						return err
					}
				}
				if p.format == "table" {
					return sayPlan(p.out, plan, dryRun)
				}
				return p.many(planObjects(plan), "name", "action")
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the file; - is standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check everything and say what would change, but change nothing")
	return cmd
}

// change is what becomes of a queue.
type change struct {
	now    *comandav1.Queue // nil: it does not exist
	then   *comandav1.Queue
	shards int32 // that the file names; 0: none
}

func (c *change) action() string {
	switch {
	case c.now == nil:
		return "create"
	case len(c.differences()) > 0:
		return "update"
	default:
		return "keep"
	}
}

// differences are the settings that change, as "name: now → then": the servers
// tell all of them, before and after.
func (c *change) differences() (lines []string) {
	now := map[string]string{}
	for _, f := range flat("", inWords(c.now.GetSettings())) {
		now[f.name] = fmt.Sprint(f.value)
	}
	for _, f := range flat("", inWords(c.then.GetSettings())) {
		if was, then := now[f.name], fmt.Sprint(f.value); was != then {
			lines = append(lines, fmt.Sprintf("%s: %s → %s", f.name, was, then))
		}
	}
	return lines
}

// note says what the file wants of a queue that there is and does not get; empty:
// nothing.
func (c *change) note() string {
	if c.now == nil || c.shards == 0 || c.shards == c.now.GetShards() {
		return ""
	}
	return fmt.Sprintf("it has %d %s, not %d: apply does not change them, 'comanda shard split' makes more",
		c.now.GetShards(), plural("shard", int(c.now.GetShards())), c.shards)
}

// flat names inner values by their path, as backoff.kind.
func flat(prefix string, o object) (out object) {
	for _, f := range o {
		if inner, ok := f.value.(object); ok {
			out = append(out, flat(prefix+f.name+".", inner)...)
		} else {
			out = append(out, field{prefix + f.name, f.value})
		}
	}
	return out
}

// planQueues compares each queue with what the servers have, and has them check
// what is wanted.
func planQueues(cmd *cobra.Command, c *client.Client, specs []*comandav1.Queue) (plan []change, err error) {
	for _, want := range specs {
		then, err := c.UpdateQueue(cmd.Context(), want.GetName(), client.QueueUpdate{Settings: want.GetSettings(), DryRun: true})
		switch {
		case errors.Is(err, client.ErrQueueNotFound):
			plan = append(plan, change{then: want})
			continue
		case err != nil:
			return nil, fmt.Errorf("queue %s: %w", want.GetName(), err)
		}
		now, err := c.Queue(cmd.Context(), want.GetName())
		if err != nil {
			return nil, fmt.Errorf("queue %s: %w", want.GetName(), err)
		}
		plan = append(plan, change{now: now.GetQueue(), then: then, shards: want.GetShards()})
	}
	return plan, nil
}

func carryOut(cmd *cobra.Command, c *client.Client, plan []change) error {
	for i := range plan {
		x := &plan[i]
		var err error
		switch x.action() {
		case "create":
			_, err = c.CreateQueue(cmd.Context(), x.then.GetName(), client.QueueOptions{Settings: x.then.GetSettings(), Shards: int(x.then.GetShards())})
		case "update":
			_, err = c.UpdateQueue(cmd.Context(), x.then.GetName(), client.QueueUpdate{Settings: x.then.GetSettings(), Version: x.now.GetVersion()})
		}
		if err != nil {
			return fmt.Errorf("queue %s (%d of %d are done; apply again to go on): %w", x.then.GetName(), i, len(plan), err)
		}
	}
	return nil
}

// sayPlan prints for a person what was done, or in a dry run what would be.
func sayPlan(w io.Writer, plan []change, dryRun bool) (err error) {
	counts := map[string]int{}
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	for i := range plan {
		x := &plan[i]
		action := x.action()
		counts[action]++
		switch action {
		case "create":
			line("+ queue %s, %d %s", x.then.GetName(), max(x.then.GetShards(), 1), plural("shard", int(max(x.then.GetShards(), 1))))
		case "update":
			line("~ queue %s", x.then.GetName())
			for _, d := range x.differences() {
				line("    %s", d)
			}
		}
		if note := x.note(); note != "" {
			line("! queue %s: %s", x.then.GetName(), note)
		}
	}
	summary := "%d created, %d changed, %d as they were"
	if dryRun {
		summary = "%d to create, %d to change, %d as they are"
	}
	line(summary, counts["create"], counts["update"], counts["keep"])
	return err
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func planObjects(plan []change) (out []object) {
	for i := range plan {
		x := &plan[i]
		o := object{{"name", x.then.GetName()}, {"action", x.action()}}
		if x.action() == "update" {
			o = append(o, field{"changes", x.differences()}, field{"was", objectOf(x.now.GetSettings())}, field{"then", objectOf(x.then.GetSettings())})
		}
		if note := x.note(); note != "" {
			o = append(o, field{"note", note})
		}
		out = append(out, o)
	}
	return out
}

// readSpecs reads a file of queues.
func readSpecs(stdin io.Reader, file string) ([]*comandav1.Queue, error) {
	var specs []*comandav1.Queue
	text, err := readText(stdin, file)
	if err == nil {
		specs, err = parseSpecs(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return specs, nil
}

// specFields are the fields of a queue that a file has.
var specFields = []string{"name", "shards", "settings"}

func parseSpecs(text []byte) ([]*comandav1.Queue, error) {
	var file struct {
		Queues []yaml.Node `yaml:"queues"`
	}
	if err := parseYAML(text, &file); err != nil {
		return nil, err
	}
	if len(file.Queues) == 0 {
		return nil, errors.New("it names no queues: want 'queues:' and a list of them")
	}
	var specs []*comandav1.Queue
	lines := map[string]int{}
	for i := range file.Queues {
		node := &file.Queues[i]
		q := &comandav1.Queue{}
		if err := readMessage(node, q.ProtoReflect(), specFields); err != nil {
			return nil, err
		}
		if q.GetName() == "" {
			return nil, fmt.Errorf("line %d: a queue without a name", node.Line)
		}
		if first := lines[q.GetName()]; first != 0 {
			return nil, fmt.Errorf("line %d: queue %s stands in line %d already", node.Line, q.GetName(), first)
		}
		lines[q.GetName()] = node.Line
		specs = append(specs, q)
	}
	return specs, nil
}

func newQueueExport(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Write all queues with their settings as a file for 'comanda apply'", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				var queues []any
				for page := ""; ; {
					r, err := c.Queues(cmd.Context(), 1_000, page)
					if err != nil {
						return err
					}
					for _, q := range r.GetQueues() {
						queues = append(queues, specOf(q))
					}
					if page = r.GetNextPage(); page == "" {
						break
					}
				}
				e := yaml.NewEncoder(p.out)
				e.SetIndent(2)
				if err := e.Encode(yamlNode(object{{"queues", queues}})); err != nil {
					return err
				}
				return e.Close()
			})
		},
	}
}

// specOf is what a file says of a queue; what is not set is left out.
func specOf(q *comandav1.Queue) (out object) {
	for _, f := range objectOf(q) {
		if slices.Contains(specFields, f.name) {
			out = append(out, f)
		}
	}
	return out
}
