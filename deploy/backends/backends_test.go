// Package backends_test sends one ledger of calls through settling and every exporter
// and reads it back from each: Prometheus, JSON Lines, OTLP spans and OTLP metrics, with
// the collector killed in between; and follows an alert to a webhook.
package backends_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	nethttp "net/http"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/deploy/servers"
	"github.com/tollwire/tollwire/export/http"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/otlp"
	"github.com/tollwire/tollwire/export/prom"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

const canary = "CANARY-7f3a"

// totals are what every backend must agree on.
type totals struct {
	calls       int
	input, out  float64
	usd         float64
	serverCalls int
}

func (a totals) equal(b totals) bool {
	return a.calls == b.calls && a.input == b.input && a.out == b.out && a.serverCalls == b.serverCalls && math.Abs(a.usd-b.usd) < 1e-9
}

// collector takes OTLP and can be killed and started again at its address.
type collector struct {
	coltrace.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string]map[string]float64 // by span id
	names map[string]string
	sums  map[string]float64
}

type collectorMetrics struct {
	colmetrics.UnimplementedMetricsServiceServer
	*collector
}

func (c *collector) Export(_ context.Context, r *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				a := map[string]float64{"server": float64(s.Kind)}
				for _, kv := range s.Attributes {
					a[kv.Key] = float64(kv.Value.GetIntValue()) + kv.Value.GetDoubleValue()
					if kv.Key == "tollwire.relay" && kv.Value.GetStringValue() == "hop" {
						a["hop"] = 1
					}
				}
				c.spans[string(s.SpanId)] = a
			}
		}
	}
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c collectorMetrics) Export(_ context.Context, r *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rm := range r.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				if m.GetSum() == nil {
					continue
				}
				c.sums[m.Name] = 0
				for _, p := range m.GetSum().DataPoints {
					c.sums[m.Name] += p.GetAsDouble()
				}
			}
		}
	}
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

func (c *collector) serve(t *testing.T, addr string) (string, func()) {
	t.Helper()
	var l net.Listener
	var err error
	for range 50 {
		if l, err = net.Listen("tcp", addr); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	coltrace.RegisterTraceServiceServer(s, c)
	colmetrics.RegisterMetricsServiceServer(s, collectorMetrics{collector: c})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String(), s.Stop
}

func (c *collector) totals() (t totals) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.spans {
		if a["hop"] == 1 {
			t.serverCalls++
			continue
		}
		t.calls++
		t.input += a["gen_ai.usage.input_tokens"]
		t.out += a["gen_ai.usage.output_tokens"]
		t.usd += a["tollwire.cost.usd"]
	}
	return t
}

func TestEveryBackendReadsTheLedger(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	dir := t.TempDir()
	set, err := metric.New(metric.Config{})
	if err != nil {
		t.Fatal(err)
	}
	scrape, err := prom.New(prom.Config{}, set, log)
	if err != nil {
		t.Fatal(err)
	}
	web, err := http.New(http.Config{Listen: []string{"127.0.0.1:0"}, Metrics: scrape.Handler(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve()
	t.Cleanup(func() { web.Close(context.Background()) })
	file, err := jsonl.Open(jsonl.Config{Path: filepath.Join(dir, "calls.jsonl"), MaxBytes: 100_000}, log)
	if err != nil {
		t.Fatal(err)
	}
	col := &collector{spans: map[string]map[string]float64{}, sums: map[string]float64{}}
	addr, kill := col.serve(t, "127.0.0.1:0")
	out, err := otlp.New(otlp.Config{
		Endpoint: "grpc://" + addr, Dir: filepath.Join(dir, "queue"), Traces: true, Sampling: otlp.Sampling{Ratio: 1}, Metrics: set,
		Interval: 100 * time.Millisecond, BatchWait: 20 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}

	hook := &webhook{}
	hookAt := httptest.NewServer(hook)
	defer hookAt.Close()
	am := servers.StartAlertmanager(t, alertmanagerConfig(t, hookAt.URL))
	rules, err := filepath.Abs("../prometheus")
	if err != nil {
		t.Fatal(err)
	}
	p := servers.StartPrometheus(t, fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s/recording.yml, %s/alerts.yml]\n"+
		"alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\n"+
		"scrape_configs:\n  - {job_name: tollwire, static_configs: [{targets: [%q]}]}\n", rules, rules, am, web.Addrs()[0]))

	// The calls: each at both ends, settled into one that counts.
	var want totals
	settler := account.New(account.Config{Wait: time.Second}, func(r *account.Record) {
		set.Export(r)
		file.Export(r)
		out.Export(r)
	})
	const n = 600
	for i := range n {
		switch i {
		case n / 3:
			kill()
		case 2 * n / 3:
			_, _ = col.serve(t, addr)
		}
		usd := "0.000123"
		if i == 77 {
			usd = "0.75"
		}
		c, s := ends(i, usd)
		settler.Add(s)
		settler.Add(c)
		settler.Tick(c.Call.Times.End)
		in, _ := c.Call.Usage.InputTotal()
		o, _ := c.Call.Usage.OutputTotal()
		want.calls, want.serverCalls = want.calls+1, want.serverCalls+1
		want.input, want.out, want.usd = want.input+in, want.out+o, want.usd+c.Price.USD.Float64()
		time.Sleep(2 * time.Millisecond)
	}
	settler.Flush()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := file.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := out.Close(ctx); err != nil {
		t.Error(err)
	}
	if got := readBack(t, filepath.Join(dir, "calls.jsonl")); !got.equal(want) {
		t.Errorf("JSON Lines: %+v, want %+v", got, want)
	}
	if got := col.totals(); !got.equal(want) {
		t.Errorf("spans: %+v, want %+v, %+v", got, want, out.Stats())
	}
	if got := col.sums["tollwire.cost.usd"]; math.Abs(got-want.usd) > 1e-9 || col.sums["tollwire.tokens"] != want.input+want.out {
		t.Errorf("OTLP metrics: %v USD, %v tokens, want %+v", got, col.sums["tollwire.tokens"], want)
	}
	one := func(expr string) float64 {
		if v := p.Query(expr); len(v) == 1 {
			return v[0]
		}
		return math.NaN()
	}
	var got totals
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		got = totals{
			calls: int(one(`sum(tollwire_calls_total{relay!~"hop|origin"})`)), serverCalls: int(one(`sum(tollwire_calls_total{role="server"})`)),
			input: one(`sum(gen_ai_client_token_usage_sum{gen_ai_token_type="input"})`), out: one(`sum(gen_ai_client_token_usage_sum{gen_ai_token_type="output"})`),
			usd: one(`sum(tollwire_cost_usd_total)`),
		}
		if got.equal(want) {
			break
		}
	}
	if !got.equal(want) {
		t.Errorf("Prometheus: %+v, want %+v", got, want)
	}

	// The call of 0.75 USD is told once.
	told := func() (n int) { return strings.Count(hook.said(), "firing TollwireCallOver50Cents") }
	for range 100 {
		if told() > 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	if told() != 1 {
		t.Errorf("the alert was told %d times: %s", told(), hook.said())
	}

	t.Logf("%+v everywhere, %d requests sent again", want, out.Stats()["traces"].Failures)

	// What nobody may see is nowhere.
	resp, err := nethttp.Get("http://" + web.Addrs()[0].String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	scraped, err := io.ReadAll(resp.Body)
	if resp.Body.Close(); err != nil || len(scraped) == 0 {
		t.Fatal(err)
	}
	if bytes.Contains(scraped, []byte(canary)) || strings.Contains(hook.said(), canary) {
		t.Error("the canary is on /metrics or in an alert")
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("the canary is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// ends returns both ends of call i.
func ends(i int, usd string) (client, server *account.Record) {
	m, err := pricing.ParseMoney(usd)
	if err != nil {
		panic(err)
	}
	each := func(r *account.Record) {
		c := r.Call
		c.ResponseID = fmt.Sprint("call-", i)
		c.Conn.Key += uint64(i)
		c.Usage = llm.Usage{}
		c.Usage.Set(llm.Input, float64(100+i))
		c.Usage.Set(llm.CacheRead, float64(i%7))
		c.Usage.Set(llm.Output, float64(10+i%50))
		c.Headers, c.Metadata = map[string]string{"authorization": canary}, map[string]string{"user": canary}
		c.Baggage, c.APIKey = canary, []byte(canary)
		r.Owner.CommandLine = canary
		r.Price = pricing.Price{USD: m, Source: "list", Version: "v"}
	}
	at := recordtest.Move(time.Duration(i) * 5 * time.Millisecond)
	client = recordtest.New(recordtest.Process(7), at, each)
	server = recordtest.New(recordtest.Server(9), at, recordtest.Move(time.Microsecond), recordtest.Last(350*time.Millisecond), each)
	return client, server
}

func readBack(t *testing.T, path string) (got totals) {
	t.Helper()
	files, err := jsonl.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for l, err := range jsonl.Lines(bytes.NewReader(b)) {
			if err != nil {
				t.Fatal(err)
			}
			if !l.Counted() {
				got.serverCalls++
				continue
			}
			m, err := pricing.ParseMoney(l.CostUSD)
			if err != nil {
				t.Fatal(err)
			}
			got.calls++
			got.input, got.out, got.usd = got.input+*l.InputTokens, got.out+*l.OutputTokens, got.usd+m.Float64()
		}
	}
	return got
}

// webhook keeps what Alertmanager sent.
type webhook struct {
	mu  sync.Mutex
	got strings.Builder
}

func (h *webhook) ServeHTTP(_ nethttp.ResponseWriter, r *nethttp.Request) {
	b, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	var n struct {
		Status      string            `json:"status"`
		GroupLabels map[string]string `json:"groupLabels"`
		Alerts      []struct {
			Labels map[string]string `json:"labels"`
		} `json:"alerts"`
	}
	if err := json.Unmarshal(b, &n); err != nil {
		fmt.Fprintln(&h.got, err)
		return
	}
	fmt.Fprintf(&h.got, "%s %s %v\n", n.Status, n.GroupLabels["alertname"], n.Alerts)
}

func (h *webhook) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got.String()
}

func alertmanagerConfig(t *testing.T, hook string) string {
	t.Helper()
	b, err := os.ReadFile("../alertmanager/alertmanager.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "http://127.0.0.1:9465", hook)
	return regexp.MustCompile(`group_(wait|interval): \w+`).ReplaceAllString(text, "group_$1: 1s")
}
