package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// What doctor finds worth a word.
const (
	slowFsync  = 50 * time.Millisecond
	clockApart = time.Second
)

// finding is one check's outcome.
type finding struct {
	check, state, detail string // state: ok, warn or fail
}

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check a server: does it answer, versions, disk, fsync, clock, voters", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				before := time.Now()
				r, err := c.Server(cmd.Context())
				if err != nil {
					return err
				}
				took := time.Since(before)
				findings := examine(r, before.Add(took/2), took)
				os := make([]object, len(findings))
				failed := false
				for i, f := range findings {
					os[i] = object{{"check", f.check}, {"state", f.state}, {"detail", f.detail}}
					failed = failed || f.state == "fail"
				}
				if err := p.many(os, "check", "state", "detail"); err != nil {
					return err
				}
				if failed {
					return errors.New("the server needs attention, see above")
				}
				return nil
			})
		},
	}
}

// examine judges what the server says of itself, which it said at about now.
func examine(r *comandav1.GetServerResponse, now time.Time, took time.Duration) []finding {
	fs := []finding{{"answer", "ok", fmt.Sprintf("%s answered in %s", r.GetNode(), took.Round(time.Microsecond))}}
	add := func(check string, ok bool, otherwise, format string, args ...any) {
		state := "ok"
		if !ok {
			state = otherwise
		}
		fs = append(fs, finding{check, state, fmt.Sprintf(format, args...)})
	}
	add("version", r.GetVersion() == version, "warn", "server %s, this command %s", r.GetVersion(), version)
	d := r.GetDisk()
	add("disk", !d.GetBelowReserve(), "fail", "%d MiB of %d MiB free; sends are refused below %d MiB",
		d.GetFreeBytes()>>20, d.GetTotalBytes()>>20, d.GetReserveBytes()>>20)
	fsync := time.Duration(d.GetFsyncP99Us()) * time.Microsecond
	add("fsync", fsync < slowFsync, "warn", "99 of 100 take at most %s, half at most %s", fsync, time.Duration(d.GetFsyncP50Us())*time.Microsecond)
	if m := r.GetMemory(); m.GetLimitBytes() > 0 {
		add("memory", m.GetUsedBytes() < m.GetLimitBytes(), "fail", "%d MiB of %d MiB in use; above that sends are refused",
			m.GetUsedBytes()>>20, m.GetLimitBytes()>>20)
	}
	apart := r.GetNow().AsTime().Sub(now).Abs()
	add("clock", apart < clockApart+took, "warn", "%s apart from this machine's", apart.Round(time.Millisecond))
	for _, g := range r.GetGroups() {
		add(fmt.Sprintf("group %d", g.GetGroup()), g.GetLeader() != "", "fail", "leader %q, %d voters", g.GetLeader(), g.GetVoters())
	}
	add("voters", r.GetVoters() != 2, "warn", "%d; %d may fail", r.GetVoters(), (r.GetVoters()-1)/2)
	return fs
}
