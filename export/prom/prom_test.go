package prom_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/prom"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

// bench is a set, its exporter, and a clock that the test moves.
type bench struct {
	t   *testing.T
	now time.Time
	set *metric.Set
	exp *prom.Exporter
}

func newBench(t *testing.T, cfg metric.Config) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)}
	cfg.Now = func() time.Time { return b.now }
	var err error
	if b.set, err = metric.New(cfg); err != nil {
		t.Fatal(err)
	}
	b.exp, err = prom.New(prom.Config{Native: cfg.Native, Target: map[string]string{"service.name": "tollwire", "service.version": "v1", "host.name": ""}},
		b.set, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	text        = "text/plain;version=0.0.4"
	openMetrics = "application/openmetrics-text;version=1.0.0"
	protobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

func (b *bench) scrape(accept string) (body []byte, contentType string) {
	b.t.Helper()
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	b.exp.Handler().ServeHTTP(w, req)
	if w.Code != 200 {
		b.t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	return w.Body.Bytes(), w.Header().Get("Content-Type")
}

// families scrapes and parses the text format.
func (b *bench) families() map[string]*dto.MetricFamily {
	b.t.Helper()
	body, _ := b.scrape(text)
	p := expfmt.NewTextParser(model.LegacyValidation)
	f, err := p.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		b.t.Fatalf("parse: %v\n%s", err, body)
	}
	return f
}

// sum adds up the values (counts of a histogram) of the series with these labels.
func sum(f *dto.MetricFamily, labels ...string) (total float64) {
	for _, m := range f.GetMetric() {
		have := make(map[string]string)
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		ok := true
		for i := 0; i < len(labels); i += 2 {
			ok = ok && have[labels[i]] == labels[i+1]
		}
		if ok {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return total
}

func priced(usd, saved string) func(*account.Record) {
	return func(r *account.Record) {
		r.Price = pricing.Price{USD: money(usd), Source: "list", Version: "v", Savings: money(saved), HasSavings: true}
	}
}

func money(s string) pricing.Money {
	m, err := pricing.ParseMoney(s)
	if err != nil {
		panic(err)
	}
	return m
}

func notCounted(r *account.Record) { r.Counted, r.Relay = false, account.RelayHop }

func TestWhatACallAdds(t *testing.T) {
	b := newBench(t, metric.Config{})
	b.set.Export(recordtest.New(priced("0.06", "0.01")))
	b.set.Export(recordtest.New(priced("0.6", "-0.02"), func(r *account.Record) {
		r.Relay, r.Call.Quality, r.Call.Disagreement = account.RelayPayer, []string{"length", "refusal"}, "x"
		r.Price.Disagrees = true
	}))
	b.set.Export(recordtest.New(recordtest.Server(9), notCounted, priced("0.6", "0")))
	b.set.Export(recordtest.New(func(r *account.Record) {
		r.Price.Unpriced, r.Call.Status, r.Call.ErrorType = "usage_missing", 429, "rate_limit_error"
		r.Call.Usage, r.Call.Completeness, r.Call.Times = llm.Usage{}, llm.Missing, llm.Times{Start: 1, End: 5}
	}))
	f := b.families()
	for _, want := range []struct {
		metric string
		labels []string
		value  float64
	}{
		{"gen_ai_client_token_usage", []string{"gen_ai_token_type", "input"}, 2},
		{"gen_ai_client_token_usage", nil, 4},
		{"gen_ai_client_operation_duration_seconds", nil, 3},
		{"gen_ai_client_operation_duration_seconds", []string{"error_type", "rate_limit_error"}, 1},
		{"gen_ai_client_operation_time_to_first_chunk_seconds", nil, 2},
		{"gen_ai_client_operation_time_per_output_chunk_seconds", nil, 10},
		{"gen_ai_server_request_duration_seconds", nil, 1},
		{"gen_ai_server_time_to_first_token_seconds", nil, 1},
		{"gen_ai_server_time_per_output_token_seconds", nil, 1},
		{"tollwire_time_to_first_content_seconds", []string{"tollwire_graph", "checkout", "tollwire_node", "summarise"}, 2},
		{"tollwire_time_to_first_visible_seconds", nil, 2},
		{"tollwire_time_per_output_token_seconds", nil, 2},
		{"tollwire_content_gap_seconds", nil, 10},
		{"tollwire_tokens_total", []string{"class", "cache_read", "completeness", "exact"}, 2000},
		{"tollwire_tokens_total", nil, 2 * 1242},
		{"tollwire_calls_total", nil, 4},
		{"tollwire_calls_total", []string{"status", "error", "role", "client"}, 1},
		{"tollwire_calls_total", []string{"relay", "hop", "role", "server"}, 1},
		{"tollwire_cost_usd_total", []string{"source", "list"}, 0.66},
		{"tollwire_cost_savings_usd_total", []string{"cause", "prompt_cache"}, 0.01},
		{"tollwire_cost_overhead_usd_total", nil, 0.02},
		{"tollwire_call_cost_usd", nil, 2},
		{"tollwire_expensive_calls_total", []string{"over_usd", "0.05"}, 1},
		{"tollwire_expensive_calls_total", []string{"over_usd", "0.5"}, 1},
		{"tollwire_unpriced_calls_total", []string{"reason", "usage_missing"}, 1},
		{"tollwire_unpriced_tokens_total", nil, 0},
		{"tollwire_quality_total", []string{"signal", "length"}, 1},
		{"tollwire_usage_disagreement_total", nil, 1},
		{"tollwire_cost_disagreement_total", []string{"gen_ai_provider_name", "openai", "gen_ai_request_model", "gpt-4o"}, 1},
		{"tollwire_series_capped_total", nil, 0},
		{"target_info", []string{"service_name", "tollwire", "service_version", "v1"}, 1},
	} {
		if f[want.metric] == nil {
			t.Errorf("no %s", want.metric)
		} else if got := sum(f[want.metric], want.labels...); got != want.value {
			t.Errorf("%s%v = %v, want %v", want.metric, want.labels, got, want.value)
		}
	}
	for _, m := range f["gen_ai_client_token_usage"].Metric {
		for _, l := range m.Label {
			if l.GetName() == "gen_ai_token_type" && l.GetValue() != "input" && l.GetValue() != "output" {
				t.Errorf("token type %s: a plain sum would count twice", l.GetValue())
			}
		}
	}
	edges := f["tollwire_call_cost_usd"].Metric[0].Histogram.Bucket
	for _, e := range []float64{0.05, 0.5} {
		if !slices.ContainsFunc(edges, func(b *dto.Bucket) bool { return b.GetUpperBound() == e }) {
			t.Errorf("no edge at %v", e)
		}
	}
}

// TestOtherAPIs: what is no call to a model has measures of its own and is in no other.
func TestOtherAPIs(t *testing.T) {
	b := newBench(t, metric.Config{})
	b.set.Export(recordtest.New(recordtest.API("geocoder"), func(r *account.Record) {
		r.Price = pricing.Price{USD: money("0.005"), Source: "override"}
	}))
	b.set.Export(recordtest.New(recordtest.API("geocoder"), recordtest.Server(9), notCounted, priced("0.005", "0")))
	b.set.Export(recordtest.New(recordtest.API("geocoder"), func(r *account.Record) {
		r.Call.Status, r.Call.ErrorType, r.Call.Partial, r.Price.Unpriced = 0, "cut", llm.PartialCut, "no_answer"
	}))
	f := b.families()
	for _, want := range []struct {
		metric string
		labels []string
		value  float64
	}{
		{"tollwire_api_calls_total", []string{"api", "geocoder", "status", "ok", "tollwire_graph", "checkout", "server_address", "api.geocoder.example"}, 1},
		{"tollwire_api_calls_total", []string{"status", "cut"}, 1},
		{"tollwire_api_calls_total", nil, 2},
		{"tollwire_api_cost_usd_total", []string{"api", "geocoder"}, 0.005},
		{"tollwire_unpriced_calls_total", []string{"reason", "no_answer"}, 1},
	} {
		if got := sum(f[want.metric], want.labels...); got != want.value {
			t.Errorf("%s%v = %v, want %v", want.metric, want.labels, got, want.value)
		}
	}
	for name := range f {
		if !regexp.MustCompile("^(tollwire_api|tollwire_unpriced_calls|tollwire_series_capped|target_info)").MatchString(name) {
			t.Errorf("%s of what is no call to a model", name)
		}
	}
}

// TestCostApart: what failed and was cut, and what further tries cost.
func TestCostApart(t *testing.T) {
	b := newBench(t, metric.Config{})
	for _, how := range []func(*llm.Call){
		func(*llm.Call) {},
		func(c *llm.Call) { c.RetryCount = 2 },
		func(c *llm.Call) { c.InBandError, c.ErrorType = true, "overloaded_error" },
		func(c *llm.Call) { c.Partial, c.ErrorType, c.RetryCount = llm.PartialCut, "cut", 1 },
	} {
		b.set.Export(recordtest.New(priced("0.25", "0"), func(r *account.Record) { how(r.Call) }))
		b.set.Export(recordtest.New(priced("0.25", "0"), notCounted, func(r *account.Record) { how(r.Call) }))
	}
	f := b.families()
	if all, failed, cut, retried := sum(f["tollwire_cost_usd_total"]), sum(f["tollwire_cost_wasted_usd_total"], "cause", "error"),
		sum(f["tollwire_cost_wasted_usd_total"], "cause", "cut"), sum(f["tollwire_cost_retried_usd_total"]); all != 1 || failed != 0.25 || cut != 0.25 || retried != 0.5 {
		t.Errorf("cost %v, failed %v, cut %v, retried %v", all, failed, cut, retried)
	}
	if sum(f["tollwire_cost_wasted_usd_total"]) != 0.5 {
		t.Error("what went well is not wasted")
	}
}

func TestUnaryCallHasNoStreamMeasures(t *testing.T) {
	b := newBench(t, metric.Config{})
	b.set.Export(recordtest.New(func(r *account.Record) { r.Call.Stream = false }))
	for name := range b.families() {
		if regexp.MustCompile("chunk|first|gap|per_output").MatchString(name) {
			t.Errorf("%s from a call that was no stream", name)
		}
	}
}

func TestOnlyTheServerSeenCountsAsClientToo(t *testing.T) {
	b := newBench(t, metric.Config{})
	b.set.Export(recordtest.New(recordtest.Server(9), priced("1", "0")))
	f := b.families()
	if sum(f["gen_ai_client_operation_duration_seconds"]) != 1 || sum(f["gen_ai_server_request_duration_seconds"]) != 1 || sum(f["tollwire_cost_usd_total"]) != 1 {
		t.Error("a call seen only at its server is a call")
	}
}

func TestBookedToTheOrigin(t *testing.T) {
	b := newBench(t, metric.Config{})
	b.set.Export(recordtest.New(priced("1", "0"), func(r *account.Record) {
		r.Relay, r.Origin = account.RelayPayer, &attribution.Owner{Graph: "caller", Node: "n", ServiceName: "app"}
	}))
	if got := sum(b.families()["tollwire_cost_usd_total"], "tollwire_graph", "caller", "service_name", "app"); got != 1 {
		t.Errorf("booked %v to the origin", got)
	}
}

func TestLabelsByOption(t *testing.T) {
	pod := func(r *account.Record) {
		r.Owner.PodName, r.Owner.Namespace, r.Owner.Tenant = "web-1", "shop", "acme"
		r.Owner.PodLabels = map[string]string{"gpu.type": "h100", "other": "x"}
	}
	for _, tc := range []struct {
		cfg  metric.Config
		want string
	}{
		{metric.Config{}, "k8s_namespace_name k8s_pod_name"},
		{metric.Config{NoPod: true, Tenant: true}, "k8s_namespace_name tollwire_tenant"},
		{metric.Config{PodLabels: []string{"gpu.type"}}, "k8s_namespace_name k8s_pod_label_gpu_type k8s_pod_name"},
	} {
		b := newBench(t, tc.cfg)
		b.set.Export(recordtest.New(pod))
		var got []string
		for _, l := range b.families()["tollwire_calls_total"].Metric[0].Label {
			if n := l.GetName(); strings.HasPrefix(n, "k8s_") || n == "tollwire_tenant" {
				got = append(got, n)
			}
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%+v: %v, want %v", tc.cfg, got, tc.want)
		}
	}
	if _, err := metric.New(metric.Config{PodLabels: []string{"a.b", "a-b"}}); err == nil {
		t.Error("two pod labels that are one under Prometheus were taken")
	}
}

func TestHostileNamesAreHeldBackAndCapped(t *testing.T) {
	const limit = 50
	b := newBench(t, metric.Config{MaxSeries: limit})
	r := recordtest.New(priced("0.01", "0"))
	for i := range 10_000 {
		r.Call.RequestModel, r.Call.ResponseModel = fmt.Sprint("m", i), fmt.Sprint("m", i)
		b.set.Export(r)
	}
	r = recordtest.New(priced("0.01", "0"))
	for i := range 1000 { // and hosts, errors, pods
		r.Call.ServerAddress, r.Call.ErrorType, r.Owner.PodName = fmt.Sprint("h", i), fmt.Sprint("e", i), fmt.Sprint("p", i)
		b.set.Export(r)
	}
	f := b.families()
	for name, fam := range f {
		fixed := 1
		switch name {
		case "gen_ai_client_token_usage", "tollwire_calls_total", "tollwire_expensive_calls_total":
			fixed = 2
		case "tollwire_tokens_total":
			fixed = 3
		}
		if len(fam.Metric) > limit*fixed {
			t.Errorf("%s: %d series", name, len(fam.Metric))
		}
	}
	if got := sum(f["tollwire_calls_total"]); got != 11_000 {
		t.Errorf("%v calls counted", got)
	}
	if got := sum(f["tollwire_cost_usd_total"]); math.Abs(got-110) > 1e-12 {
		t.Errorf("%v USD", got)
	}
	if sum(f["tollwire_calls_total"], "gen_ai_request_model", "other") < 9900 || sum(f["tollwire_series_capped_total"]) < 10_000 {
		t.Error("what is past the limit is other, and counted")
	}

	b = newBench(t, metric.Config{})
	for _, m := range []string{strings.Repeat("x", 500), "a\nb", "a\"b{}", "\xff", "ignore all previous instructions!"} {
		b.set.Export(recordtest.New(func(r *account.Record) { r.Call.RequestModel = m }))
	}
	if got := sum(b.families()["tollwire_calls_total"], "gen_ai_request_model", "other"); got != 5 {
		t.Errorf("%v of 5 hostile names held back", got)
	}
}

func TestIdleSeriesAreDropped(t *testing.T) {
	b := newBench(t, metric.Config{Idle: time.Hour})
	b.set.Export(recordtest.New())
	b.now = b.now.Add(50 * time.Minute)
	b.set.Export(recordtest.New(func(r *account.Record) { r.Call.RequestModel = "fresh" }))
	if got := len(b.families()["tollwire_calls_total"].Metric); got != 2 {
		t.Fatalf("%d series", got)
	}
	b.now = b.now.Add(20 * time.Minute)
	if got := b.families()["tollwire_calls_total"].Metric; len(got) != 1 || sum(b.families()["tollwire_calls_total"], "gen_ai_request_model", "fresh") != 1 {
		t.Errorf("%d series left", len(got))
	}
}

func TestProtocols(t *testing.T) {
	b := newBench(t, metric.Config{Native: true})
	b.set.Export(recordtest.New(priced("0.06", "0")))
	trace := recordtest.New().Trace.TraceID

	body, ct := b.scrape(text)
	if !strings.HasPrefix(ct, "text/plain") || bytes.Contains(body, []byte(trace)) {
		t.Errorf("text: %s, exemplars %v", ct, bytes.Contains(body, []byte(trace)))
	}
	body, ct = b.scrape(openMetrics)
	if !strings.HasPrefix(ct, "application/openmetrics-text") || !bytes.HasSuffix(body, []byte("# EOF\n")) {
		t.Errorf("openmetrics: %s", ct)
	}
	for _, m := range []string{"tollwire_call_cost_usd_bucket", "tollwire_cost_usd_total", "gen_ai_client_operation_duration_seconds_bucket", "tollwire_content_gap_seconds_bucket"} {
		if !regexp.MustCompile(m + `.* # \{trace_id="` + trace + `"\} `).Match(body) {
			t.Errorf("no exemplar on %s", m)
		}
	}
	body, ct = b.scrape(protobuf)
	if !strings.HasPrefix(ct, "application/vnd.google.protobuf") {
		t.Fatalf("protobuf: %s", ct)
	}
	native := 0
	dec := expfmt.NewDecoder(bytes.NewReader(body), expfmt.ResponseFormat(map[string][]string{"Content-Type": {ct}}))
	for {
		var f dto.MetricFamily
		if err := dec.Decode(&f); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.Metric {
			h := m.GetHistogram()
			if h == nil {
				continue
			}
			native++
			count, at := h.GetZeroCount(), int64(0)
			for _, d := range h.PositiveDelta {
				at += d
				count += uint64(at)
			}
			if h.GetSchema() != 3 || count != h.GetSampleCount() || len(h.Bucket) == 0 || h.CreatedTimestamp == nil {
				t.Errorf("%s: schema %d, %d in buckets of %d", f.GetName(), h.GetSchema(), count, h.GetSampleCount())
			}
		}
	}
	if native < 8 {
		t.Errorf("%d native histograms", native)
	}
}

func TestAgentsOwnMeasures(t *testing.T) {
	b := newBench(t, metric.Config{Self: []func(func(metric.Sample)){func(emit func(metric.Sample)) {
		emit(metric.Sample{Name: "tollwire.capture", Unit: "By", Kind: metric.Counter, Help: "Bytes by what became of them.",
			Attrs: []metric.Attr{{Key: "fate", Value: "dropped"}, {Key: "reason", Value: "ring_full"}, {Key: "source", Value: "openssl"}}, Value: 7})
		emit(metric.Sample{Name: "tollwire.tap.attached", Kind: metric.Gauge, Help: "Taps in place.", Attrs: []metric.Attr{{Key: "source", Value: "openssl"}}, Value: 3})
		emit(metric.Sample{Name: "tollwire.build_info", Kind: metric.Gauge, Help: "The build.", Value: 1})
	}}})
	f := b.families()
	if sum(f["tollwire_capture_bytes_total"], "fate", "dropped", "reason", "ring_full") != 7 || sum(f["tollwire_tap_attached"], "source", "openssl") != 3 || sum(f["tollwire_build_info"]) != 1 {
		t.Errorf("%v", f)
	}
}

// What the agent says of itself is there whatever bytes a program's name is made of.
func TestAgentsOwnMeasuresOfAnyBytes(t *testing.T) {
	attrs := []metric.Attr{{Key: "service.name", Value: "a\xffb"}, {Key: "resource", Value: "cpu"}}
	b := newBench(t, metric.Config{Self: []func(func(metric.Sample)){func(emit func(metric.Sample)) {
		emit(metric.Sample{Name: "tollwire.resource.cost.usd", Unit: "{USD}", Kind: metric.Counter, Help: "h", Attrs: attrs, Value: 2})
	}}})
	if got := sum(b.families()["tollwire_resource_cost_usd_total"], "service_name", "a\uFFFDb", "resource", "cpu"); got != 2 {
		t.Errorf("%v", got)
	}
	if attrs[0].Value != "a\xffb" {
		t.Error("changed what was handed in")
	}
}

func TestMoneyAddsUpExactly(t *testing.T) {
	b := newBench(t, metric.Config{})
	r := recordtest.New(priced("0.0000001", "0"))
	for range 100_000 {
		b.set.Export(r)
	}
	b.set.Export(recordtest.New(priced("1000000", "0")))
	if got := sum(b.families()["tollwire_cost_usd_total"]); got != 1000000.01 {
		t.Errorf("%.12f", got)
	}
}

// promtool's own lint, where it is installed: make setup does.
func TestPromtoolLint(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus)")
	}
	b := newBench(t, metric.Config{Tenant: true, PodLabels: []string{"lora"}})
	b.set.Export(recordtest.New(priced("0.06", "0.01")))
	b.set.Export(recordtest.New(priced("0.06", "-0.01"), func(r *account.Record) {
		r.Call.Quality, r.Call.Disagreement = []string{"length"}, "x"
	}))
	b.set.Export(recordtest.New(recordtest.Server(9), notCounted))
	b.set.Export(recordtest.New(func(r *account.Record) { r.Price.Unpriced = "unknown_model" }))
	body, _ := b.scrape(text)
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(body)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

func BenchmarkExport(b *testing.B) {
	s, err := metric.New(metric.Config{})
	if err != nil {
		b.Fatal(err)
	}
	r := recordtest.New(priced("0.06", "0.01"))
	for i := range 2000 {
		r.Call.Times.Gaps.Add(time.Duration(i%50) * time.Millisecond)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Export(r)
	}
}
