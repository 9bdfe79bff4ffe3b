package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/export/http"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/prom"
)

// ExportConfig is where records go.
type ExportConfig struct {
	Listen    string        `yaml:"listen"`     // address of /metrics; empty: none
	WebConfig string        `yaml:"web_config"` // TLS and passwords, in the format of Prometheus' exporter-toolkit
	TokenFile string        `yaml:"token_file"` // bearer token that scrapes must bring
	Records   RecordsConfig `yaml:"records"`
	Metrics   MetricsConfig `yaml:"metrics"`
	OTLP      OTLPConfig    `yaml:"otlp"`
}

// RecordsConfig is the file of JSON Lines.
type RecordsConfig struct {
	Path     string        `yaml:"path"`      // - is stdout; empty: none
	MaxBytes Size          `yaml:"max_bytes"` // a file is rotated before it grows past this; 0: never
	MaxAge   time.Duration `yaml:"max_age"`   // …and when it is older; 0: never
	Keep     int           `yaml:"keep"`      // rotated files kept; 0: all
	Sync     string        `yaml:"sync"`      // never, interval, always
}

// MetricsConfig is what the measures carry and how much they may grow.
type MetricsConfig struct {
	Pod       bool          `yaml:"pod"`        // label k8s_pod_name
	Tenant    bool          `yaml:"tenant"`     // label tollwire_tenant
	Native    bool          `yaml:"native"`     // native histograms beside the classic ones
	MaxSeries int           `yaml:"max_series"` // of each measure
	Idle      time.Duration `yaml:"idle"`       // after which a series without a call is dropped
}

func defaultExport() ExportConfig {
	return ExportConfig{
		Listen:  "127.0.0.1:9464",
		Records: RecordsConfig{MaxBytes: 256 << 20, Keep: 8, Sync: string(jsonl.SyncInterval)},
		Metrics: MetricsConfig{Pod: true, MaxSeries: 2000, Idle: time.Hour},
		OTLP:    defaultOTLP(),
	}
}

func (c *ExportConfig) validate() []invalid {
	var all []invalid
	bad := func(key, format string, a ...any) {
		all = append(all, invalid{"export." + key, fmt.Sprintf(format, a...)})
	}
	switch jsonl.Sync(c.Records.Sync) {
	case jsonl.SyncNever, jsonl.SyncInterval, jsonl.SyncAlways:
	default:
		bad("records.sync", "is %q: want never, interval or always", c.Records.Sync)
	}
	if age := c.Records.MaxAge; age != 0 && age < time.Second {
		bad("records.max_age", "is %v: want 0s or at least 1s", age)
	}
	if c.Records.Keep < 0 {
		bad("records.keep", "is %d: want 0 or more", c.Records.Keep)
	}
	if n := c.Metrics.MaxSeries; n < 10 || n > 1_000_000 {
		bad("metrics.max_series", "is %d: want 10 to 1000000", n)
	}
	if c.Metrics.Idle < time.Second {
		bad("metrics.idle", "is %v: want at least 1s", c.Metrics.Idle)
	}
	return append(all, c.OTLP.validate()...)
}

// outlets are the exporters of a running agent.
type outlets struct {
	exporters []exporter
	closers   []func(context.Context) error
	server    *http.Server // nil: none
	serving   errgroup.Group
}

// open makes every exporter that the configuration asks for. What listens, listens
// when it returns, and answers once serve was called.
func (c *Config) open(agent *self, log *slog.Logger) (_ *outlets, err error) {
	o := &outlets{}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	e := &c.Export
	set, err := metric.New(metric.Config{
		NoPod: !e.Metrics.Pod, Tenant: e.Metrics.Tenant, PodLabels: c.Attribution.PodLabels,
		MaxSeries: e.Metrics.MaxSeries, Idle: e.Metrics.Idle, Native: e.Metrics.Native,
		Self: []func(func(metric.Sample)){agent.samples},
	})
	if err != nil {
		return nil, fmt.Errorf("make measures: %w", err)
	}
	o.closers = append(o.closers, func(context.Context) error { return agent.budgets.Save() })
	o.exporters = append(o.exporters, set, ledger{agent.budgets}, ledger{agent.machines}, ledger{&agent.unpriced})
	if e.Records.Path != "" {
		f, err := jsonl.Open(jsonl.Config{
			Path: e.Records.Path, MaxBytes: int64(e.Records.MaxBytes), MaxAge: e.Records.MaxAge,
			Keep: e.Records.Keep, Sync: jsonl.Sync(e.Records.Sync),
		}, log)
		if err != nil {
			return nil, fmt.Errorf("open records: %w", err)
		}
		agent.records = f
		o.exporters, o.closers = append(o.exporters, f), append(o.closers, f.Close)
	}
	if e.OTLP.Endpoint != "" {
		x, err := e.OTLP.open(set, log)
		if err != nil {
			return nil, fmt.Errorf("open export.otlp: %w", err)
		}
		agent.otlp.Store(x)
		o.exporters, o.closers = append(o.exporters, x), append(o.closers, x.Close)
	}
	if e.Listen == "" {
		return o, nil
	}
	scrape, err := prom.New(prom.Config{
		Target: target(),
		Native: e.Metrics.Native,
	}, set, log)
	if err != nil {
		return nil, err
	}
	o.server, err = http.New(http.Config{
		Listen: []string{e.Listen}, WebConfig: e.WebConfig, TokenFile: e.TokenFile, Metrics: scrape.Handler(), Logger: log,
		Ready: func() error {
			if !agent.attached.Load() {
				return errors.New("not attached yet")
			}
			return nil
		},
		Lists: map[string]func() any{
			"unpriced":  func() any { return agent.unpriced.Top() },
			"prices":    func() any { return agent.prices.Status() },
			"budgets":   func() any { return agent.budgets.States() },
			"machines":  func() any { return agent.machines.States() },
			"resources": func() any { return agent.resources.States() },
			"attached":  func() any { return agent.targets() },
			"unseen":    func() any { return agent.unobservable() },
		},
	})
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, o.server.Close)
	return o, nil
}

// serve answers until close. It calls stop when it cannot go on; close says why.
func (o *outlets) serve(stop func()) {
	if o.server == nil {
		return
	}
	o.serving.Go(func() error {
		defer stop()
		return o.server.Serve()
	})
}

// ledger is what remembers records and exports nothing itself.
type ledger struct {
	add interface{ Add(*account.Record) }
}

func (l ledger) Export(r *account.Record) { l.add.Add(r) }

// address is where /metrics is, or "".
func (o *outlets) address() string {
	if o.server == nil {
		return ""
	}
	return o.server.Addrs()[0].String()
}

// close flushes and closes, the server last so that the last scrape is whole. Each has
// its own time: a collector that is away takes none from what comes after it.
func (o *outlets) close() error {
	var errs []error
	for _, c := range o.closers {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		if err := c(ctx); err != nil {
			errs = append(errs, fmt.Errorf("close exporters: %w", err))
		}
		cancel()
	}
	return errors.Join(append(errs, o.serving.Wait())...)
}

// target describes this agent and its machine, by OpenTelemetry's resource conventions.
func target() map[string]string {
	host, _ := os.Hostname()
	return map[string]string{"service.name": "tollwire", "service.version": version, "host.name": host, "host.arch": runtime.GOARCH}
}
