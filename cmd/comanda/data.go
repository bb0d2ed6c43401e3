package main

import (
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/internal/node"
)

// newData is 'comanda data …'.
func newData() *cobra.Command {
	var o node.InspectOptions
	inspect := &cobra.Command{
		Use:   "inspect DIR",
		Short: "Show what lies in the data directory of a stopped server",
		Long: "Show what lies in the data directory of a stopped server: its identity, the segments of its\n" +
			"log and where they end or are damaged, and its replicas with their rows as they were last\n" +
			"flushed. It also works on a directory that a server refuses, and changes nothing.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return node.Inspect(vfs.Default, given[0], o, cmd.OutOrStdout())
		},
	}
	inspect.Flags().BoolVar(&o.Records, "records", false, "show each record of the log")
	inspect.Flags().BoolVar(&o.Rows, "rows", false, "show each row")
	return noun("data", "Look into data directories", inspect)
}
