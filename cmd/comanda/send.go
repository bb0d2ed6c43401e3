package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
)

// maxBody is the largest body that a server may take.
const maxBody = 16 << 20

func newSend(a *app) *cobra.Command {
	var m client.Message
	var file string
	var lines, atomic bool
	var attrs map[string]string
	var maxAttempts int32
	var backoff backoffFlags
	cmd := &cobra.Command{
		Use:     "send QUEUE [BODY | - | --file F]",
		Short:   "Send a message and print its id; - reads the body from standard input",
		Example: "  comanda send orders 'one margherita' --key table-7",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) (err error) {
			if m.Body, err = readBody(cmd.InOrStdin(), given[1:], file); err != nil {
				return err
			}
			m.Attributes = map[string]*client.Attribute{}
			for k, v := range attrs {
				m.Attributes[k] = client.String(v)
			}
			if err := aboveZero(cmd, "max-attempts"); err != nil {
				return err
			}
			b, err := backoff.backoff()
			if err != nil {
				return err
			}
			if b != nil || maxAttempts != 0 {
				m.Retry = &client.Retry{MaxAttempts: maxAttempts, Backoff: b}
			}
			if atomic && !lines {
				return usageError(errors.New("--atomic is for several messages: give it with --lines"))
			}
			if lines && (m.DedupID != "" || m.Existing) {
				return usageError(errors.New("--lines gives each line the same dedup id or unique key, so that only the first would be stored: leave --dedup-id and --existing out"))
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				if lines {
					return sendLines(cmd.Context(), c, p, given[0], m, atomic)
				}
				results, err := c.SendBatch(cmd.Context(), given[0], []client.Message{m})
				if err != nil {
					return err
				}
				if p.format == "table" {
					p.format = "name"
				}
				return p.one(sentObject(results[0]), "id")
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "read the body from this file")
	f.BoolVar(&lines, "lines", false, "each line of the body is a message, empty ones left out; print the id of each")
	f.BoolVar(&atomic, "atomic", false, "with --lines: all messages are stored or none; they need one key, or a queue of one shard")
	f.StringVar(&m.Key, "key", "", "messages of one key run in order, one at a time")
	f.StringVar(&m.Type, "type", "", "names the handler")
	f.StringVar(&m.Tenant, "tenant", "", "whose share of the deliveries it uses: tenants take turns")
	f.DurationVar(&m.Delay, "delay", 0, "hand the message out no sooner than after this time")
	f.Var((*timeFlag)(&m.DeliverAt), "deliver-at", "hand the message out no sooner than at this time, as 2026-01-31T18:00:00Z")
	f.Var((*timeFlag)(&m.Expires), "expires", "when it is of no use any more: a time, or how long from now")
	f.StringVar(&m.DedupID, "dedup-id", "", "an earlier message with it, in the queue's dedup window, is the answer: nothing is added")
	f.StringVar(&m.UniqueKey, "unique-key", "", "of unfinished messages one at the most has it: another is refused")
	f.BoolVar(&m.Existing, "existing", false, "with --unique-key: print the id of the message that has it instead")
	f.IntVar(&m.Priority, "priority", 0, "0 to 9: higher ones go first")
	f.Int32Var(&maxAttempts, "max-attempts", 0, "failed attempts before the message is dead (default: as its queue says)")
	backoff.add(cmd, "default: as its queue says")
	f.StringToStringVar(&attrs, "attr", nil, "an attribute `NAME=TEXT`; may be given again")
	f.Lookup("attr").DefValue = "" // else the help shows []
	return cmd
}

// sendLines sends a message like m for each line of its body. Ids are printed in the order
// of the lines; the first failure is the command's, and names its line.
func sendLines(ctx context.Context, c *client.Client, p printer, queue string, m client.Message, atomic bool) error {
	var ms []client.Message
	var numbers []int // of their lines
	number := 0
	for line := range bytes.Lines(m.Body) {
		number++
		one := m
		if one.Body = bytes.TrimRight(line, "\r\n"); len(one.Body) > 0 {
			ms, numbers = append(ms, one), append(numbers, number)
		}
	}
	if len(ms) == 0 {
		return usageError(errors.New("there is no line to send"))
	}
	send := c.SendBatch
	if atomic {
		send = c.SendAtomic
	}
	results, err := send(ctx, queue, ms)
	if p.format == "table" {
		p.format = "name"
	}
	var os []object
	first := -1 // that failed, and not for another one
	for i, r := range results {
		switch {
		case r.Err == nil:
			os = append(os, sentObject(r))
		case first < 0 && client.CodeOf(r.Err) != client.CodeBatchRefused:
			first = i
		}
	}
	if first >= 0 {
		err = fmt.Errorf("%d of %d messages failed; line %d: %w", len(ms)-len(os), len(ms), numbers[first], results[first].Err)
	}
	return errors.Join(err, p.many(os, "id"))
}

func sentObject(r client.SendResult) object {
	return object{{"id", r.ID}, {"existing", r.Existing}}
}

// timeFlag is a time in a flag: RFC 3339, or a duration from now.
type timeFlag time.Time

func (t *timeFlag) Set(text string) error {
	if d, err := time.ParseDuration(text); err == nil {
		*t = timeFlag(time.Now().Add(d))
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("want a time as 2026-01-31T18:00:00Z, or a duration from now as 90s")
	}
	*t = timeFlag(at)
	return nil
}

func (t *timeFlag) String() string {
	if time.Time(*t).IsZero() {
		return ""
	}
	return time.Time(*t).Format(time.RFC3339)
}

func (*timeFlag) Type() string { return "time" }

// spanFlag is a span of time in a flag: a duration that is not negative. Its value
// before may be, and says then that the flag was not given.
type spanFlag time.Duration

func (d *spanFlag) Set(text string) error {
	span, err := time.ParseDuration(text)
	if err != nil || span < 0 {
		return errors.New("want a duration of 0s or more, as 90s")
	}
	*d = spanFlag(span)
	return nil
}

func (d *spanFlag) String() string {
	if *d <= 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (*spanFlag) Type() string { return "duration" }

// aboveZero refuses flags that were given as 0, which would mean their default.
func aboveZero(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "0" {
			return usageError(fmt.Errorf("--%s is 0: want 1 or more, or leave it out for its default", name))
		}
	}
	return nil
}

// readBody finds the body where the command line says that it is.
func readBody(stdin io.Reader, body []string, file string) ([]byte, error) {
	switch {
	case file != "" && len(body) > 0:
		return nil, usageError(errors.New("give the body or --file, not both"))
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		return readLimited(f, file)
	case len(body) == 0:
		return nil, usageError(errors.New("no body: give it behind the queue, - for standard input, or --file"))
	case body[0] == "-":
		return readLimited(stdin, "standard input")
	}
	return []byte(body[0]), nil
}

func readLimited(r io.Reader, what string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the body from %s: %w", what, err)
	}
	if len(b) > maxBody {
		return nil, &client.Error{Code: client.CodeTooLarge, Message: fmt.Sprintf("%s has more than the %d bytes that a body may have: send a reference to it", what, maxBody)}
	}
	return b, nil
}
