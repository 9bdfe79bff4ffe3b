package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/export/jsonl"
)

func showCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "show TRACE_ID",
		Short: "Print a trace's account from the records on disk",
		Long: `Show reads the file that "tollwire run --records FILE" writes, and those it was rotated
to, and prints every call of a trace: who made it, what it used, how long it took, what it
cost, and the sum.`,
		Example: "  tollwire show --records /var/log/tollwire/calls.jsonl 4bf92f3577b34da6a3ce929d0e0e4736",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := jsonl.Files(path)
			if err != nil {
				return fmt.Errorf("find records: %w", err)
			}
			return jsonl.Show(cmd.OutOrStdout(), files, args[0])
		},
	}
	cmd.Flags().StringVar(&path, "records", "", "the records' file (required)")
	cmd.MarkFlagRequired("records")
	return cmd
}
