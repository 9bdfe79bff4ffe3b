package otlp_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/otlp"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

func config(t *testing.T, endpoint string) otlp.Config {
	return otlp.Config{
		Endpoint: endpoint, Dir: t.TempDir(), Traces: true, Sampling: otlp.Sampling{Ratio: 1}, BatchWait: 5 * time.Millisecond,
		MaxBackoff: 50 * time.Millisecond, Headers: map[string]string{"X-Tenant": "acme"}, Version: "v1",
		Resource: map[string]string{"host.name": "n1"}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func start(t *testing.T, cfg otlp.Config) *otlp.Exporter {
	t.Helper()
	e, err := otlp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func closed(t *testing.T, e *otlp.Exporter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func priced(usd string) func(*account.Record) {
	return func(r *account.Record) {
		m, err := pricing.ParseMoney(usd)
		if err != nil {
			panic(err)
		}
		r.Price = pricing.Price{USD: m, Source: "list", Version: "v"}
	}
}

func spanID(i int) func(*account.Record) {
	return func(r *account.Record) { r.Trace.SpanID = fmt.Sprintf("%016x", i+1) }
}

func TestSpan(t *testing.T) {
	r := newReceiver()
	wire := &compression{}
	addr, _ := r.grpc(t, "127.0.0.1:0", grpc.StatsHandler(wire))
	e := start(t, config(t, "grpc://"+addr))
	e.Export(recordtest.New(priced("0.0625"), spanID(0), func(r *account.Record) {
		r.Trace.Parent, r.Owner.PodName, r.Owner.Workload = "00f067aa0ba902b7", "web-1", map[string]string{"k8s.deployment.name": "web"}
		r.Owner.ServiceVersion, r.Owner.ServiceInstanceID, r.Owner.ContainerRuntime, r.Owner.RuntimeName = "3", "i-1", "docker", "web-1"
		r.Owner.Attributes = map[string]string{"deployment.environment.name": "prod", "service.name": "lie", "host.name": "own"}
		r.Owner.Baggage = map[string]string{"tollwire.node": "n"}
		r.Call.ServiceTier, r.Call.ToolCalls, r.Call.Quality = "priority", []string{"weather", "clock"}, []string{"arguments_invalid"}
		r.Call.RetryCount, r.Call.RetryGroup = 2, "0f0f"
		r.Call.RateLimit = map[string]string{"retry-after": "2"}
	}))
	e.Export(recordtest.New(recordtest.Server(9), priced("0.0625"), spanID(1), func(r *account.Record) {
		r.Counted, r.Relay, r.Call.Status, r.Call.ErrorType = false, account.RelayHop, 500, "server_error"
	}))
	e.Export(recordtest.New(spanID(2), func(r *account.Record) {
		r.Call.MCP, r.Call.Operation = llm.MCP{Method: "tools/call", Tool: "search", Session: "s"}, "execute_tool"
	}))
	closed(t, e)
	if len(r.spans) != 3 {
		t.Fatalf("%d spans, %+v", len(r.spans), e.Stats())
	}

	s := r.spans["0000000000000001"]
	a := plain(s.Attributes)
	for k, want := range map[string]any{
		"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
		"gen_ai.response.finish_reasons": "stop", "gen_ai.usage.input_tokens": int64(1200), "gen_ai.usage.output_tokens": int64(42),
		"gen_ai.usage.cache_read.input_tokens": int64(1000), "gen_ai.response.time_to_first_chunk": 0.21, "server.port": int64(443),
		"tollwire.cost.usd": 0.0625, "tollwire.graph": "checkout", "tollwire.usage.completeness": "exact",
		"tollwire.service_tier": "priority", "openai.response.service_tier": "priority", "tollwire.tool_calls": "weather,clock",
		"tollwire.quality": "arguments_invalid", "http.request.resend_count": int64(2), "tollwire.retry.group": "0f0f",
		"http.response.header.retry-after": "2", "tollwire.baggage.tollwire.node": "n",
	} {
		if a[k] != want {
			t.Errorf("%s = %v, want %v", k, a[k], want)
		}
	}
	if s.Name != "chat gpt-4o" || s.Kind != tracepb.Span_SPAN_KIND_CLIENT || hex.EncodeToString(s.ParentSpanId) != "00f067aa0ba902b7" || s.Status != nil {
		t.Errorf("%v", s)
	}
	if took := time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano); took != 355*time.Millisecond {
		t.Errorf("took %v", took)
	}
	res := r.resource["0000000000000001"]
	for k, want := range map[string]any{
		"service.name": "shop", "service.version": "3", "service.instance.id": "i-1", "k8s.pod.name": "web-1", "k8s.deployment.name": "web",
		"container.name": "web-1", "container.runtime.name": "docker", "deployment.environment.name": "prod", "host.name": "own",
	} {
		if res[k] != want {
			t.Errorf("resource: %s = %v, want %v", k, res[k], want)
		}
	}
	s = r.spans["0000000000000002"]
	if a = plain(s.Attributes); s.Kind != tracepb.Span_SPAN_KIND_SERVER || s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || a["tollwire.cost.usd"] != nil || a["tollwire.relay"] != "hop" {
		t.Errorf("%v", s)
	}
	if res := r.resource["0000000000000002"]; res["service.name"] != "unknown_service:server" || res["host.name"] != "n1" {
		t.Errorf("%v", r.resource["0000000000000002"])
	}
	s = r.spans["0000000000000003"]
	if a = plain(s.Attributes); s.Name != "tools/call search" || a["gen_ai.tool.name"] != "search" || a["mcp.method.name"] != "tools/call" {
		t.Errorf("%v", s)
	}
	if len(r.headers) == 0 || r.headers[0] != "acme" {
		t.Errorf("headers %v", r.headers)
	}
	if wire.seen != "gzip" {
		t.Errorf("compression %q", wire.seen)
	}
}

// A span and its resource say what the line of its record does.
func TestSpansSayWhatRecordsDo(t *testing.T) {
	var records []*account.Record
	for i, more := range []func(*account.Record){
		func(r *account.Record) {
			o := &r.Owner
			r.Trace.Parent, o.PodName, o.Workload = "00f067aa0ba902b7", "web-1", map[string]string{"k8s.deployment.name": "web"}
			o.PodUID, o.NodeName, o.Namespace, o.ContainerName, o.ContainerID, o.PodLabels = "u", "n1", "shop", "web", "abab", map[string]string{"lora": "x"}
			o.ServiceVersion, o.ServiceInstanceID, o.ServiceNamespace, o.ContainerRuntime, o.RuntimeName = "3", "i-1", "shop", "docker", "web-1"
			o.Attributes, o.Baggage = map[string]string{"team": "search"}, map[string]string{"tollwire.node": "n"}
			o.Tenant, o.Session, r.Relay = "t", "s", account.RelayPayer
			r.Call.ServiceTier, r.Call.ToolCalls, r.Call.Quality = "priority", []string{"weather"}, []string{"length"}
			r.Call.RetryCount, r.Call.RetryGroup, r.Call.RateLimit = 2, "0f0f", map[string]string{"retry-after": "2"}
			r.Call.Times.Shared, r.Call.Partial, r.Call.LostBytes, r.Call.Disagreement = 2, llm.PartialLost, 7, "x"
			for c := range llm.NumClasses {
				r.Call.Usage.Set(c, 1+float64(c))
			}
			r.Call.Usage.Set(llm.Seconds, 1.25)
		},
		func(r *account.Record) { r.Call.Stream = false },
		func(r *account.Record) {
			r.Call.MCP, r.Call.Status, r.Call.ErrorType, r.Price = llm.MCP{Method: "tools/call", Tool: "search"}, 500, "e", pricing.Price{Unpriced: "no_model_call"}
		},
		recordtest.API("geocoder"),
	} {
		records = append(records, recordtest.New(priced("0.5"), spanID(i), func(r *account.Record) { r.Price.HasSavings = true }, more))
	}
	r := newReceiver()
	addr, _ := r.grpc(t, "127.0.0.1:0")
	e := start(t, config(t, "grpc://"+addr))
	for _, x := range records {
		e.Export(x)
	}
	closed(t, e)
	// What a span has places of its own for.
	own := []string{"time", "trace_id", "span_id", "tollwire.role", "gen_ai.client.operation.duration"}
	for i, x := range records {
		id := fmt.Sprintf("%016x", i+1)
		a, res := plain(r.spans[id].GetAttributes()), r.resource[id]
		var line map[string]any
		if err := json.Unmarshal(jsonl.Append(nil, x), &line); err != nil {
			t.Fatal(err)
		}
		for class, n := range line["tollwire.usage"].(map[string]any) {
			line["tollwire.usage."+class] = n
		}
		delete(line, "tollwire.usage")
		for k := range line {
			if a[k] == nil && res[k] == nil && !slices.Contains(own, k) {
				t.Errorf("span %d has no %s", i, k)
			}
		}
		for k, v := range line { // what is a number in both is the same one
			if n, ok := v.(float64); ok && a[k] != nil && fmt.Sprint(a[k]) != fmt.Sprint(n) {
				t.Errorf("span %d: %s is %v, in the record %v", i, k, a[k], n)
			}
		}
	}
}

// A collector that is stopped and started again in between gets every span; nothing
// is lost either when the agent is restarted while the collector is down.
func TestCollectorAndAgentRestart(t *testing.T) {
	r := newReceiver()
	addr, stop := r.grpc(t, "127.0.0.1:0")
	cfg := config(t, "grpc://"+addr)
	cfg.Timeout = 2 * time.Second
	e := start(t, cfg)
	n := 0
	export := func(e *otlp.Exporter, k int) {
		for range k {
			e.Export(recordtest.New(spanID(n)))
			n++
			time.Sleep(200 * time.Microsecond)
		}
	}
	export(e, 200)
	stop()
	export(e, 200)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Fatal(err)
	}
	e = start(t, cfg)
	export(e, 100)
	_, _ = r.grpc(t, addr)
	export(e, 100)
	closed(t, e)
	if r.count() != n {
		t.Errorf("%d of %d spans, %d repeats, %+v", r.count(), n, r.repeats, e.Stats())
	}
	if st := e.Stats()["traces"]; st.Queued != 0 || st.Dropped != 0 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}

func TestMetricsAgree(t *testing.T) {
	set, err := metric.New(metric.Config{Self: []func(func(metric.Sample)){func(emit func(metric.Sample)) {
		emit(metric.Sample{Name: "tollwire.tap.attached", Kind: metric.Gauge, Help: "Taps.", Attrs: []metric.Attr{{Key: "source", Value: "openssl"}}, Value: 2})
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		set.Export(recordtest.New(priced("0.5"), spanID(i)))
	}
	r := newReceiver()
	addr, _ := r.grpc(t, "127.0.0.1:0")
	cfg := config(t, "grpc://"+addr)
	cfg.Traces, cfg.Metrics = false, set
	closed(t, start(t, cfg))

	cost := r.metrics["tollwire.cost.usd"].GetSum()
	if !cost.GetIsMonotonic() || cost.GetAggregationTemporality() != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE || cost.DataPoints[0].GetAsDouble() != 5 {
		t.Errorf("cost %v", cost)
	}
	d := r.metrics["gen_ai.client.operation.duration"].GetHistogram().DataPoints[0]
	if d.Count != 10 || math.Abs(d.GetSum()-3.55) > 1e-9 || len(d.BucketCounts) != len(d.ExplicitBounds)+1 || len(d.Exemplars) != 1 || plain(d.Attributes)["gen_ai.request.model"] != "gpt-4o" {
		t.Errorf("duration %v", d)
	}
	if g := r.metrics["tollwire.tap.attached"].GetGauge(); g.DataPoints[0].GetAsDouble() != 2 {
		t.Errorf("gauge %v", g)
	}
	if u := r.metrics["gen_ai.client.token.usage"].Unit; u != "{token}" {
		t.Errorf("unit %q", u)
	}
	for k, want := range map[string]any{"service.name": "tollwire", "service.version": "v1", "service.instance.id": "n1", "host.name": "n1"} {
		if got := r.measured[k]; got != want {
			t.Errorf("resource: %s = %v, want %v", k, got, want)
		}
	}
}

// Bytes that are no text take nothing away from what else is in a request.
func TestAnyBytes(t *testing.T) {
	set, err := metric.New(metric.Config{Self: []func(func(metric.Sample)){func(emit func(metric.Sample)) {
		emit(metric.Sample{Name: "tollwire.budget.spent.usd", Kind: metric.Gauge, Attrs: []metric.Attr{{Key: "budget", Value: "models/gpt\xff"}}, Value: 1})
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r := newReceiver()
	addr, _ := r.grpc(t, "127.0.0.1:0")
	cfg := config(t, "grpc://"+addr)
	cfg.Metrics, cfg.Langfuse = set, true
	e := start(t, cfg)
	const bad = "a\xffb"
	broken := func(r *account.Record) {
		c, o := r.Call, &r.Owner
		c.Operation, c.RequestModel, c.ErrorType, c.Status, c.FinishReasons = bad, bad, bad, 500, []string{bad}
		c.RateLimit = map[string]string{bad: bad}
		o.Baggage, o.Workload, o.Attributes, o.Executable, o.ServiceName = map[string]string{bad: bad}, map[string]string{bad: bad}, map[string]string{bad: bad}, bad, bad
	}
	e.Export(recordtest.New(spanID(0), broken))
	e.Export(recordtest.New(spanID(1)))
	set.Export(recordtest.New(broken))
	closed(t, e)
	if s := r.spans["0000000000000001"]; r.count() != 2 || plain(s.GetAttributes())["gen_ai.request.model"] != "a\uFFFDb" {
		t.Errorf("%d spans, %v", r.count(), s)
	}
	if g := r.metrics["tollwire.budget.spent.usd"].GetGauge(); len(g.GetDataPoints()) != 1 || r.metrics["tollwire.calls"] == nil {
		t.Errorf("%v, %+v", g, e.Stats())
	}
}

func TestSampling(t *testing.T) {
	r := newReceiver()
	addr, _ := r.grpc(t, "127.0.0.1:0")
	cfg := config(t, "grpc://"+addr)
	cfg.Sampling = otlp.Sampling{Ratio: 0.2, Slow: 10 * time.Second, Cost: 0.5, Keep: map[string][]string{"tollwire.tenant": {"acme"}}}
	e := start(t, cfg)
	keep := []func(*account.Record){
		func(r *account.Record) { r.Call.Status, r.Call.ErrorType = 500, "500" },
		recordtest.Last(11 * time.Second),
		priced("0.75"),
		func(r *account.Record) { r.Owner.Tenant = "acme" },
	}
	const n = 2000
	for i := range n {
		var b [16]byte
		rand.Read(b[:])
		trace := func(r *account.Record) { r.Trace.TraceID = hex.EncodeToString(b[:]) }
		o := []func(*account.Record){spanID(i), trace, priced("0.001")}
		if i < len(keep) {
			b = [16]byte{15: 1} // below any ratio
			o = append(o, keep[i])
		}
		e.Export(recordtest.New(o...))
	}
	closed(t, e)
	for i := range keep {
		if r.spans[fmt.Sprintf("%016x", i+1)] == nil {
			t.Errorf("rule %d kept nothing", i)
		}
	}
	if got := float64(r.count()) / n; math.Abs(got-0.2) > 0.05 {
		t.Errorf("kept %.3f", got)
	}
	if st := e.Stats()["traces"]; int(st.Sampled)+r.count() != n {
		t.Errorf("%+v and %d spans", st, r.count())
	}
}

// Langfuse's documented mapping (langfuse.com/integrations/native/opentelemetry,
// "property mapping"): where each field of an observation is read from.
func TestLangfuse(t *testing.T) {
	r := newReceiver()
	addr, _ := r.grpc(t, "127.0.0.1:0")
	cfg := config(t, "grpc://"+addr)
	cfg.Langfuse = true
	e := start(t, cfg)
	e.Export(recordtest.New(priced("0.0123"), spanID(0), func(r *account.Record) {
		r.Owner.Session, r.Owner.Tenant = "sess", "user-hash"
		r.Call.Usage.Set(llm.Reasoning, 7)
	}))
	e.Export(recordtest.New(recordtest.Server(9), priced("0.0123"), spanID(1), func(r *account.Record) { r.Counted, r.Relay = false, account.RelayHop }))
	e.Export(recordtest.New(spanID(2), func(r *account.Record) { r.Call.Status, r.Call.ErrorType = 429, "rate_limit" }))
	closed(t, e)
	a := plain(r.spans["0000000000000001"].Attributes)
	for k, want := range map[string]any{
		"langfuse.observation.type": "generation", "langfuse.observation.model.name": "gpt-4o-2024-08-06",
		"langfuse.session.id": "sess", "langfuse.user.id": "user-hash",
		"langfuse.observation.completion_start_time": `"2026-08-01T12:00:01.250000Z"`,
	} {
		if a[k] != want {
			t.Errorf("%s = %v, want %v", k, a[k], want)
		}
	}
	var usage, cost map[string]float64
	if err := errors.Join(json.Unmarshal([]byte(a["langfuse.observation.usage_details"].(string)), &usage),
		json.Unmarshal([]byte(a["langfuse.observation.cost_details"].(string)), &cost)); err != nil {
		t.Fatal(err)
	}
	if usage["input"] != 200 || usage["input_cache_read_tokens"] != 1000 || usage["output"] != 42 || usage["output_reasoning_tokens"] != 7 || cost["total"] != 0.0123 {
		t.Errorf("usage %v, cost %v", usage, cost)
	}
	hop := plain(r.spans["0000000000000002"].Attributes)
	if hop["langfuse.observation.type"] != "span" {
		t.Errorf("hop %v", hop)
	}
	for k := range hop {
		if strings.HasPrefix(k, "gen_ai.usage.") || strings.HasSuffix(k, "_details") || strings.HasSuffix(k, ".model") {
			t.Errorf("%s of a hop would be summed again", k)
		}
	}
	if e := plain(r.spans["0000000000000003"].Attributes); e["langfuse.observation.level"] != "ERROR" || e["langfuse.observation.status_message"] != "rate_limit" {
		t.Errorf("error %v", e)
	}
}

func TestRefusals(t *testing.T) {
	for _, bad := range []func(*otlp.Config){
		func(c *otlp.Config) { c.Endpoint = "localhost:4317" },
		func(c *otlp.Config) { c.Endpoint = "ftp://x" },
		func(c *otlp.Config) { c.Endpoint = "grpc://x:1/path" },
		func(c *otlp.Config) { c.Endpoint = "https://user:s3cret@x:1" },
		func(c *otlp.Config) { c.Endpoint = "https://user:s3 cret@x:1" },
		func(c *otlp.Config) { c.Endpoint = "https://x:1?key=s3cret" },
		func(c *otlp.Config) { c.Compression = "zip" },
		func(c *otlp.Config) { c.Dir = "" },
		func(c *otlp.Config) { c.Endpoint = "grpcs://x:1"; c.TLS.CA = "/nowhere" },
		func(c *otlp.Config) { c.Endpoint = "https://x:1"; c.TLS.Cert = "cert" },
	} {
		cfg := config(t, "grpc://127.0.0.1:1")
		bad(&cfg)
		if e, err := otlp.New(cfg); err == nil {
			e.Close(t.Context())
			t.Errorf("%+v was taken", cfg)
		} else if strings.Contains(err.Error(), "cret") {
			t.Errorf("the password is told: %v", err)
		}
	}
}

// What nobody may see appears nowhere: neither on the wire nor in the queue.
func TestNoCanary(t *testing.T) {
	const canary = "CANARY-7f3a"
	r := newReceiver()
	addr, stop := r.grpc(t, "127.0.0.1:0")
	stop()
	cfg := config(t, "grpc://"+addr)
	cfg.Compression, cfg.Langfuse = "none", true
	e := start(t, cfg)
	e.Export(recordtest.New(func(r *account.Record) {
		c := r.Call
		c.Headers, c.Metadata = map[string]string{"authorization": canary}, map[string]string{"user": canary}
		c.Baggage, c.TraceParent, c.APIKey = "k="+canary, canary, []byte(canary)
		r.Owner.PodLabels = nil
		r.Origin = &attribution.Owner{Cgroup: canary}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Fatal(err)
	}
	found := 0
	err := filepath.WalkDir(cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found += len(b)
		if strings.Contains(string(b), canary) {
			t.Errorf("the canary stands in %s", path)
		}
		return err
	})
	if err != nil || found < 500 {
		t.Errorf("%d bytes queued, %v", found, err)
	}
}
