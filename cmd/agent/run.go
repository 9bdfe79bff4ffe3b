package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/account/budget"
	"github.com/tollwire/tollwire/account/machine"
	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
	"github.com/tollwire/tollwire/probes"
)

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Attach to this node and report its LLM calls until stopped",
		Long: `Run attaches to the TLS libraries and sockets of this node, now and as programs start, and
reports every LLM call: as metrics on http://127.0.0.1:9464/metrics and, with --records, as
one JSON line a call. It needs root or the capabilities that "tollwire check" names; what it
may not do it says and goes on without. Nothing stays attached when it ends, however it ends.

Every flag can stand in the YAML file (--config) and in the environment:
--body-limit is TOLLWIRE_BODY_LIMIT.`,
		Example: "  tollwire run --records - | jq -c '{m: .[\"gen_ai.response.model\"], usd: .[\"tollwire.cost.usd\"]}'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			log, err := cfg.Log.logger()
			if err != nil {
				return err
			}
			attach := func(ctx context.Context) (taps, error) { return probes.Start(ctx, cfg.probes(log)) }
			return run(cmd.Context(), cfg, configPath(cmd), func() (*Config, error) { return loadConfig(cmd) }, attach, log)
		},
	}
	cmd.Flags().StringP("config", "c", "", "YAML configuration (env TOLLWIRE_CONFIG)")
	defaults().flags(cmd.Flags())
	return cmd
}

// taps is what the agent asks of a node's taps beside their bytes.
type taps interface {
	source
	CrossEveryHead(bool) error
	Stats() probes.Stats
	Attached() []probes.Attachment
	Unobservable() []probes.Unobservable
}

// run is the agent from attach to detach. The file at path, of which cfg was made,
// is followed; load makes it anew. What listens answers before the node is scanned, and
// what remembers is closed once no record can follow.
func run(ctx context.Context, cfg *Config, path string, load func() (*Config, error), attach func(context.Context) (taps, error), log *slog.Logger) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	prices, err := cfg.Pricing.open(log)
	if err != nil {
		return err
	}
	key, err := cfg.key()
	if err != nil {
		return err
	}
	owners, pods, err := cfg.owners(ctx, key, log)
	if err != nil {
		return err
	}
	budgets, err := budget.Open(budget.Config{Budgets: cfg.Pricing.Budgets, File: cfg.Pricing.State}, log)
	if err != nil {
		return fmt.Errorf("pricing.budgets: %w", err)
	}
	p := &pipeline{
		log:     log,
		decoder: cfg.decoder(key, prices.API, log),
		owners:  owners,
		settle:  cfg.settle(owners),
		prices:  prices,
		stamp:   func(c *llm.Call) time.Time { return probes.Wall(c.Times.Start) },
		queue:   cfg.Decode.Queue,
		tick:    20 * time.Millisecond,
	}
	p.decoder.Deferred = decoder.NewDeferred()
	agent := &self{
		pipeline: p, owners: owners, pods: pods, prices: prices, budgets: budgets,
		machines: machine.New(prices), resources: cfg.resources(owners, prices),
		config: newReloader(path, cfg, load, owners.Reload, log),
	}
	out, err := cfg.open(agent, log)
	if err != nil {
		return err
	}
	p.export = out.exporters
	out.serve(stop)
	tapped, err := attach(ctx)
	if err != nil {
		err = fmt.Errorf("attach: %w\n(\"tollwire check\" says what this machine and these privileges allow, and what to do)", err)
		return errors.Join(err, out.close())
	}
	p.source = tapped
	agent.attach(tapped)
	var background sync.WaitGroup
	priced := func(b *pricing.Book) { // the kernel holds back what can be no model's and no priced API's
		if err := tapped.CrossEveryHead(b.HasAPIs()); err != nil && !errors.Is(err, os.ErrClosed) {
			log.Error("priced APIs are seen only where a request might be a model's", "err", err)
		}
	}
	priced(prices.Book())
	background.Go(func() { prices.Watch(ctx, priced) })
	background.Go(func() { agent.resources.Run(ctx) })
	background.Go(func() { budgets.Run(ctx) })
	background.Go(func() { agent.config.run(ctx) })
	background.Go(func() {
		<-ctx.Done()
		log.Info("detaching")
		if err := tapped.Close(); err != nil {
			log.Warn("detach", "err", err)
		}
	})
	log.Info("attached", "version", version, "metrics", out.address())
	err = p.run() // until ctx is done, or the taps fail
	stop()
	background.Wait()
	return errors.Join(err, out.close())
}
