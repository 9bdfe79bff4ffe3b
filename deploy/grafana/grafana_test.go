package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/deploy/servers"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/prom"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

func TestDashboardsAreWhatTheSourceMakes(t *testing.T) {
	for _, d := range dashboards() {
		want, err := d.render()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("dashboards", d.uid+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs: run go generate ./deploy/grafana", d.uid)
		}
	}
}

// Every query of every dashboard returns data from a Prometheus that scraped the
// agent's own exporter: with classic buckets, and with native ones, where it drops
// the classic. TOLLWIRE_METRICS names a running agent (host:port) to scrape instead,
// TOLLWIRE_PROMETHEUS another Prometheus than the one that is installed.
func TestEveryQueryAnswers(t *testing.T) {
	for name, native := range map[string]bool{"classic": false, "native": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, native)
			deadline := time.Now().Add(40 * time.Second)
			var left []string
			for time.Now().Before(deadline) {
				if left = p.unanswered(); len(left) == 0 {
					break
				}
				time.Sleep(500 * time.Millisecond)
			}
			for _, q := range left {
				t.Errorf("no data: %s", q)
			}
			if classic := p.Query(`count({__name__=~".+_bucket"})`); native == (len(classic) > 0) {
				t.Errorf("classic buckets kept: %v", classic)
			}
		})
	}
}

// prometheus is a server that scrapes an agent once a second.
type prometheus struct {
	*servers.Prometheus
	done map[string]bool
}

func start(t *testing.T, native bool) *prometheus {
	t.Helper()
	target := os.Getenv("TOLLWIRE_METRICS")
	if target == "" {
		target = traffic(t, native)
	}
	rules, err := filepath.Abs("../prometheus")
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	if native {
		flags = append(flags, "--enable-feature=native-histograms")
	}
	return &prometheus{servers.StartPrometheus(t, cmp.Or(os.Getenv("TOLLWIRE_PROMETHEUS"), "prometheus"), fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\n"+
		"rule_files: [%s/recording.yml, %s/alerts.yml]\n"+
		"scrape_configs:\n  - {job_name: tollwire, static_configs: [{targets: [%q]}]}\n", rules, rules, target), flags...), map[string]bool{}}
}

// unanswered returns the queries that have returned nothing so far.
func (p *prometheus) unanswered() (left []string) {
	fill := strings.NewReplacer("$__rate_interval", "10s", "$graph", ".*", "$provider", ".*", "$model", ".*")
	for _, d := range dashboards() {
		for _, r := range d.rows {
			for _, panel := range r.panels {
				for _, q := range panel.queries {
					if !p.done[q.expr] {
						if p.done[q.expr] = len(p.Query(fill.Replace(q.expr))) > 0; !p.done[q.expr] {
							left = append(left, d.uid+": "+panel.title+": "+q.expr)
						}
					}
				}
			}
		}
	}
	return left
}

// traffic serves the exporter of an agent that sees calls of every kind, for as long
// as the test runs.
func traffic(t *testing.T, native bool) string {
	t.Helper()
	set, err := metric.New(metric.Config{Native: native, MaxSeries: 12, Self: []func(func(metric.Sample)){self()}})
	if err != nil {
		t.Fatal(err)
	}
	exp, err := prom.New(prom.Config{Native: native, Target: map[string]string{"service.name": "tollwire", "service.version": "v1", "host.name": "n"}},
		set, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(exp.Handler())
	stop := make(chan struct{})
	stopped := make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped; srv.Close() })
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				for _, r := range calls(i) {
					set.Export(r)
				}
			}
		}
	}()
	return strings.TrimPrefix(srv.URL, "http://")
}

func calls(i int) []*account.Record {
	usd := func(s, saved string) func(*account.Record) {
		return func(r *account.Record) {
			r.Price = pricing.Price{USD: money(s), Source: "list", Version: "v", Savings: money(saved), HasSavings: true}
		}
	}
	return []*account.Record{
		recordtest.New(usd("0.06", "0.01")),
		recordtest.New(usd("0.6", "-0.01"), func(r *account.Record) {
			r.Relay, r.Call.Quality, r.Call.Disagreement = account.RelayPayer, []string{"length"}, "x"
		}),
		recordtest.New(recordtest.Server(9), func(r *account.Record) {
			r.Counted, r.Relay, r.Owner.Graph = false, account.RelayHop, "served"
		}),
		recordtest.New(func(r *account.Record) {
			r.Price.Unpriced, r.Call.Status, r.Call.ErrorType, r.Call.Usage = "unknown_model", 429, "rate_limit", llm.Usage{}
		}),
		recordtest.New(func(r *account.Record) { r.Call.RequestModel, r.Price.Unpriced = fmt.Sprint("m", i), "unknown_model" }),
	}
}

func money(s string) pricing.Money {
	m, err := pricing.ParseMoney(s)
	if err != nil {
		panic(err)
	}
	return m
}

// self stands for the agent's measures of itself, by the names it gives them.
func self() func(func(metric.Sample)) {
	return func(emit func(metric.Sample)) {
		up := float64(time.Now().UnixMilli())
		add := func(name, unit string, kind metric.Kind, v float64, attrs ...string) {
			s := metric.Sample{Name: name, Unit: unit, Kind: kind, Help: "Help.", Value: v}
			for i := 0; i < len(attrs); i += 2 {
				s.Attrs = append(s.Attrs, metric.Attr{Key: attrs[i], Value: attrs[i+1]})
			}
			emit(s)
		}
		add("tollwire.capture.seen", "By", metric.Counter, up, "source", "openssl")
		add("tollwire.capture", "By", metric.Counter, up, "fate", "decoded")
		add("tollwire.capture", "By", metric.Counter, up/100, "fate", "dropped", "reason", "ring_full")
		add("tollwire.tap.attached", "", metric.Gauge, 3, "source", "openssl")
		add("tollwire.process.unobservable", "", metric.Gauge, 1, "reason", "java")
		add("tollwire.queue.depth", "", metric.Gauge, 0, "queue", "calls")
		add("tollwire.queue.dropped", "", metric.Counter, 0, "queue", "calls")
		add("tollwire.stream.open", "", metric.Gauge, 2)
		add("tollwire.export.failures", "", metric.Counter, 0, "exporter", "jsonl")
		add("tollwire.export.dropped", "", metric.Counter, 0, "exporter", "jsonl")
		add("tollwire.budget.spent.usd", "{USD}", metric.Gauge, 3, "budget", "team")
		add("tollwire.budget.limit.usd", "{USD}", metric.Gauge, 10, "budget", "team")
		add("tollwire.build.info", "", metric.Gauge, 1, "version", "v1", "price_book", "2026-08-01")
	}
}
