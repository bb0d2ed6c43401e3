package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
)

// app is what the client commands share.
type app struct {
	server string // --server
	output string // -o
}

// newRoot lists the commands: those that talk to a server, which have --server
// and -o, and those that don't.
func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:           "comanda",
		Short:         "A durable task and message queue",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          args(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("comanda {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	for _, cmd := range []*cobra.Command{
		newSend(a), newWork(a), newQueue(a), newMessage(a), newShard(a), newNode(a), newWorker(a), newOperation(a), newApply(a), newDoctor(a), newTop(a), newBench(a),
	} {
		f := cmd.PersistentFlags()
		f.StringVar(&a.server, "server", cmp.Or(os.Getenv("COMANDA_SERVER"), "localhost:7400"), "server: host:port, several with commas (env COMANDA_SERVER)")
		f.StringVarP(&a.output, "output", "o", "table", "table, json, jsonl or name")
		root.AddCommand(cmd)
	}
	root.AddCommand(newServe(), newConfig(), newDemo(), newData(), newVersion())
	return root
}

// execute runs the command that the arguments name, and returns it. It explains no
// command that there is not, as cobra would.
func execute(ctx context.Context, root *cobra.Command) (cmd *cobra.Command, err error) {
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, given []string) error {
			cmd, rest, err := root.Find(given)
			if err == nil && cmd.HasSubCommands() {
				err = cmd.ValidateArgs(rest)
			}
			return err
		}
	}
	root.InitDefaultHelpFlag() // else what follows --help is taken for its value
	var unknown error
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, given []string) {
		if cmd.HasSubCommands() {
			unknown = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if unknown == nil {
			help(cmd, given)
		}
	})
	if cmd, err = root.ExecuteContextC(ctx); err == nil {
		err = unknown
	}
	return cmd, err
}

// noun is a command that only has verbs.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// args makes what check refuses a mistake in the usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		err := check(cmd, given)
		switch {
		case err == nil:
			return nil
		case cmd.HasSubCommands():
			return usageError(err)
		}
		return usageError(fmt.Errorf("want: %s", cmd.UseLine()))
	}
}

// call runs fn with a client and with the printer that -o names.
func (a *app) call(cmd *cobra.Command, fn func(*client.Client, printer) error) error {
	p := printer{out: cmd.OutOrStdout(), format: a.output}
	if err := p.check(); err != nil {
		return err
	}
	c, err := client.New(a.server)
	if err != nil {
		return usageError(err)
	}
	defer func() { _ = c.Close() }() // nothing is under way any more
	return fn(c, p)
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.Println("comanda " + version)
			return nil
		},
	}
}
