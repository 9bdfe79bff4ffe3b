package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/resources"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/api"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/request"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/pricing"
	"github.com/tollwire/tollwire/probes"
)

// What follows turns the configuration into each stage's own.

// key returns the secret of all keyed hashes.
func (c *Config) key() ([]byte, error) {
	if c.KeyFile == "" {
		key := make([]byte, 32)
		rand.Read(key)
		return key, nil
	}
	key, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read key_file: %w", err)
	}
	if len(key) < 16 {
		return nil, fmt.Errorf("key_file %s: want at least 16 bytes, found %d", c.KeyFile, len(key))
	}
	return key, nil
}

func (c *Config) probes(log *slog.Logger) probes.Config {
	return probes.Config{
		Logger:    log,
		Proc:      c.Attribution.Proc,
		Rings:     c.Capture.Rings,
		RingBytes: int(c.Capture.RingBytes),
		BodyLimit: c.Capture.messageLimit(),
		Sockets:   c.Capture.Sockets,
	}
}

// decoder's apis names the priced HTTP APIs beside the models.
func (c *Config) decoder(key []byte, apis api.Rules, log *slog.Logger) decoder.Config {
	known := vendors.All(content.Config{NoQuality: !c.Decode.QualitySignals, NoEstimate: !c.Decode.Estimate})
	return decoder.Config{
		Vendors:      append(known, api.New(apis)),
		ReadFacts:    (&request.Reader{NoSample: !c.Decode.Estimate}).Read,
		AllowHeaders: append(c.Attribution.Headers(), c.Decode.AllowHeaders...),
		AllowBaggage: c.Attribution.BaggageKeys(),
		KeySecret:    key,
		BodyLimit:    uint64(c.Capture.messageLimit()),
		MaxOpen:      int(c.Decode.OpenBytes), // the pipeline deals it out
		IdleTimeout:  c.Decode.IdleTimeout,
		Logger:       log,
	}
}

func (c *Config) owners(ctx context.Context, key []byte, log *slog.Logger) (*attribution.Resolver, podSources, error) {
	cfg := c.Attribution
	cfg.Key, cfg.Logger = key, log
	pods, err := c.Kubernetes.follow(ctx, &cfg, log)
	if err != nil {
		return nil, pods, err
	}
	r, err := attribution.New(cfg)
	return r, pods, err
}

// resources is an account that begins when the price book has rates.
func (c *Config) resources(owners *attribution.Resolver, prices *pricing.Store) *resources.Ledger {
	mounts := c.Attribution.CgroupMounts()
	i := slices.IndexFunc(mounts, func(dir string) bool { _, err := os.Stat(dir); return err == nil })
	return resources.New(resources.Config{
		Proc: c.Attribution.Proc, Cgroup: mounts[max(i, 0)], NoPod: !c.Export.Metrics.Pod,
		Owner: owners.Process,
		Rates: func() pricing.Resources { return prices.Book().Resources() },
	})
}

func (c *Config) settle(owners *attribution.Resolver) account.Config {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	cfg := account.Config{Wait: 500 * time.Millisecond, ServerWait: 3 * time.Second, Salt: strings.TrimSpace(string(boot))}
	cfg.Owner = func(r *account.Record) attribution.Owner {
		return owners.Owner(r.Call.Conn.Proc, r.Call.Cgroup, evidence(r.Call))
	}
	cfg.OwnerWait = c.Attribution.Wait
	return cfg
}

// open reads the price book and what is laid over it.
func (c *PricingConfig) open(log *slog.Logger) (*pricing.Store, error) {
	s, err := pricing.Open(pricing.Config{Files: c.Books}, log)
	if err != nil {
		return nil, fmt.Errorf("price book: %w", err)
	}
	return s, nil
}
