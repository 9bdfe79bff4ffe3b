package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/pricing/cli"
)

func priceCommand() *cobra.Command {
	var books []string
	cmd := &cobra.Command{
		Use:   "price",
		Short: "Price usage: one JSON object a line in, one out",
		Long: `Price reads lines such as

  {"id":"1","provider":"anthropic","model":"claude-sonnet-4-5","at":"2026-01-02T15:04:05Z",
   "usage":{"input":1200,"cache_read":30000,"output":450},"service_tier":"batch","region":"us-east-1"}

(on one line each) and answers {"id","usd"} or {"id","unpriced":"why"}, in order. at is the
moment of the call; the price that held then is used. The classes of usage are disjoint.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			prices, err := (&PricingConfig{Books: books}).open(log)
			if err != nil {
				return err
			}
			return cli.Price(prices.Book(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringArrayVar(&books, "prices", nil, "price book laid over the one inside (repeatable)")
	return cmd
}
