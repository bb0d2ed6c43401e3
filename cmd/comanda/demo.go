package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/internal/demo"
)

// newDemo is 'comanda demo'.
func newDemo() *cobra.Command {
	var c demo.Config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Open a pizza shop, and break it",
		Long: `Open a pizza shop, and break it.

Three servers, a counter and three kitchens start as processes of this machine, with
their data in a temporary directory. Customers order and are confirmed at once; the
pizzas of each are made in the order in which they were ordered. Some burn, are dead
in the end, and are redriven. A kitchen is killed every 20 s, and the server that
leads the orders once; at rush hour the shard of the orders is split.

At the end comes the bill: whatever was taken is delivered, once, and in order. Exit
code 1 if it is not. Ctrl-C closes early, with the bill so far.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if c.For < demo.MinFor || c.For > demo.MaxFor {
				return usageError(fmt.Errorf("--for is %s: want %s to %s", c.For, demo.MinFor, demo.MaxFor))
			}
			if c.Binary, err = os.Executable(); err != nil {
				return err
			}
			c.Out = cmd.OutOrStdout()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return demo.Run(ctx, c)
		},
	}
	cmd.Flags().DurationVar(&c.For, "for", 2*time.Minute, "how long the evening is: 10s to 1h")
	cmd.AddCommand(newDemoKitchen())
	return cmd
}

// newDemoKitchen is one of the processes of 'comanda demo'.
func newDemoKitchen() *cobra.Command {
	var k demo.Kitchen
	cmd := &cobra.Command{
		Use: "kitchen", Hidden: true, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if k.Server == "" || k.Name == "" {
				return usageError(errors.New("this is a part of 'comanda demo': start that"))
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			k.Out = cmd.OutOrStdout()
			return k.Run(ctx)
		},
	}
	cmd.Flags().StringVar(&k.Server, "server", "", "addresses of the shop's servers")
	cmd.Flags().StringVar(&k.Name, "name", "", "name in histories")
	return cmd
}
