// Command tollwire reads LLM calls off the wire of unmodified programs and says
// who made them, what they used, how they felt and what they cost.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/pricing/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errReported) {
			fmt.Fprintln(os.Stderr, "tollwire:", err)
		}
		os.Exit(1)
	}
}

// errReported is returned by a command that has printed what was wrong itself.
var errReported = errors.New("already reported")

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "tollwire",
		Short: "LLM calls of a whole node: who made them, what they used, what they cost",
		Long: `tollwire reads LLM calls off the wire of unmodified programs with eBPF and says, for
every call, who made it, what it used, how it felt and what it cost. No proxy, no SDK,
no restart of anything.

Start with "tollwire check" to see what this machine allows, then "tollwire run".`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), replayCommand(), priceCommand(), cli.Prices(), checkCommand(), showCommand(), versionCommand())
	return root
}

// logger writes to stderr: stdout belongs to records.
func (c LogConfig) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("log.level %q: want debug, info, warn or error", c.Level)
	}
	o := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return nil, fmt.Errorf("log.format %q: want text or json", c.Format)
}
