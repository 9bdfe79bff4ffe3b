package otlp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/otlp"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

// receiver is a collector that keeps what it gets, over gRPC and HTTP on one port each.
type receiver struct {
	coltrace.UnimplementedTraceServiceServer
	mu       sync.Mutex
	spans    map[string]*tracepb.Span // by span id
	repeats  int
	resource map[string]map[string]any // by span id
	metrics  map[string]*metricspb.Metric
	measured map[string]any // resource of the metrics
	headers  []string
	answers  []error // given to the next requests, before any is taken
}

type metricsService struct {
	colmetrics.UnimplementedMetricsServiceServer
	*receiver
}

func newReceiver() *receiver {
	return &receiver{spans: map[string]*tracepb.Span{}, resource: map[string]map[string]any{}, metrics: map[string]*metricspb.Metric{}}
}

func (r *receiver) answer() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.answers) == 0 {
		return nil
	}
	err := r.answers[0]
	r.answers = r.answers[1:]
	return err
}

func (r *receiver) Export(ctx context.Context, req *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	if err := r.answer(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		r.headers = append(r.headers, md.Get("x-tenant")...)
	}
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				k := hex.EncodeToString(s.SpanId)
				if r.spans[k] != nil {
					r.repeats++
				}
				r.spans[k], r.resource[k] = s, plain(rs.Resource.Attributes)
			}
		}
	}
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (m metricsService) Export(_ context.Context, req *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	if err := m.answer(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rm := range req.ResourceMetrics {
		m.measured = plain(rm.Resource.Attributes)
		for _, sm := range rm.ScopeMetrics {
			for _, x := range sm.Metrics {
				m.metrics[x.Name] = x
			}
		}
	}
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.spans)
}

// grpc serves on addr until the returned function is called.
func (r *receiver) grpc(t *testing.T, addr string, o ...grpc.ServerOption) (string, func()) {
	t.Helper()
	var l net.Listener
	var err error
	for range 50 { // the port of a server that was just stopped
		if l, err = net.Listen("tcp", addr); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(o...)
	coltrace.RegisterTraceServiceServer(s, r)
	colmetrics.RegisterMetricsServiceServer(s, metricsService{receiver: r})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String(), s.Stop
}

// ServeHTTP takes OTLP over HTTP.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		body = z
	}
	b, err := io.ReadAll(body)
	if err != nil || req.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "bad request", 400)
		return
	}
	ctx := metadata.NewIncomingContext(req.Context(), metadata.Pairs("x-tenant", req.Header.Get("X-Tenant")))
	var reply proto.Message
	switch req.URL.Path {
	case "/base/v1/traces":
		var m coltrace.ExportTraceServiceRequest
		if err = proto.Unmarshal(b, &m); err == nil {
			reply, err = r.Export(ctx, &m)
		}
	case "/base/v1/metrics":
		var m colmetrics.ExportMetricsServiceRequest
		if err = proto.Unmarshal(b, &m); err == nil {
			reply, err = metricsService{receiver: r}.Export(ctx, &m)
		}
	default:
		http.NotFound(w, req)
		return
	}
	switch status.Code(err) {
	case codes.OK:
		out, _ := proto.Marshal(reply)
		w.Write(out)
	case codes.Unavailable:
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), 503)
	default:
		http.Error(w, err.Error(), 400)
	}
}

func plain(kv []*commonpb.KeyValue) map[string]any {
	m := map[string]any{}
	for _, x := range kv {
		switch v := x.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			m[x.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[x.Key] = v.IntValue
		case *commonpb.AnyValue_DoubleValue:
			m[x.Key] = v.DoubleValue
		case *commonpb.AnyValue_BoolValue:
			m[x.Key] = v.BoolValue
		case *commonpb.AnyValue_ArrayValue:
			var l []string
			for _, e := range v.ArrayValue.Values {
				l = append(l, e.GetStringValue())
			}
			m[x.Key] = strings.Join(l, ",")
		}
	}
	return m
}

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

// compression keeps how the last request was compressed.
type compression struct{ seen string }

func (c *compression) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *compression) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *compression) HandleConn(context.Context, stats.ConnStats)                       {}
func (c *compression) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InHeader); ok {
		c.seen = in.Compression
	}
}

func TestHTTPWithRetriesAndRefusals(t *testing.T) {
	for _, compression := range []string{"gzip", "none"} {
		r := newReceiver()
		r.answers = []error{status.Error(codes.Unavailable, "busy"), nil, status.Error(codes.InvalidArgument, "no")}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: r}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
		cfg := config(t, "http://"+l.Addr().String()+"/base")
		cfg.Compression, cfg.BatchSize = compression, 1
		e := start(t, cfg)
		began := time.Now()
		for i := range 3 {
			e.Export(recordtest.New(spanID(i)))
		}
		closed(t, e)
		st := e.Stats()["traces"]
		if r.count() != 2 || st.Sent != 2 || st.Rejected != 1 || st.Failures != 1 {
			t.Errorf("%s: %d spans, %+v", compression, r.count(), st)
		}
		if time.Since(began) < time.Second {
			t.Error("Retry-After was not heeded")
		}
	}
}

func TestRetryInfoIsHeeded(t *testing.T) {
	r := newReceiver()
	st, err := status.New(codes.ResourceExhausted, "slow down").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(300 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	r.answers = []error{st.Err()}
	addr, _ := r.grpc(t, "127.0.0.1:0")
	e := start(t, config(t, "grpc://"+addr))
	began := time.Now()
	e.Export(recordtest.New(spanID(0)))
	closed(t, e)
	if took := time.Since(began); r.count() != 1 || took < 300*time.Millisecond {
		t.Errorf("%d spans after %v", r.count(), took)
	}
}

// What the specification calls final is not sent again, and holds up nothing behind it.
func TestRefusedForGood(t *testing.T) {
	r := newReceiver()
	for _, c := range []codes.Code{codes.ResourceExhausted, codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.Internal, codes.Unimplemented} {
		r.answers = append(r.answers, status.Error(c, "no"))
	}
	n := len(r.answers)
	addr, _ := r.grpc(t, "127.0.0.1:0")
	cfg := config(t, "grpc://"+addr)
	cfg.BatchSize = 1
	e := start(t, cfg)
	for i := range n + 1 {
		e.Export(recordtest.New(spanID(i)))
	}
	closed(t, e)
	if st := e.Stats()["traces"]; r.count() != 1 || st.Sent != 1 || int(st.Rejected) != n || st.Failures != 0 {
		t.Errorf("%d spans, %+v", r.count(), st)
	}
}

// What a receiver never takes, however long it is tried, holds up the queue no longer
// than the queue has room for what comes after it.
func TestNeverTaken(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err != nil || bytes.Contains(b, []byte("poison")) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	cfg := config(t, srv.URL)
	cfg.Compression, cfg.BatchSize, cfg.QueueBytes = "none", 1, 8<<20
	e := start(t, cfg)
	e.Export(recordtest.New(spanID(0), func(r *account.Record) { r.Call.ResponseID = "poison" }))
	const n = 40
	for i := range n { // 40 MiB
		e.Export(recordtest.New(spanID(i+1), func(r *account.Record) { r.Call.ResponseID = strings.Repeat("v", 1<<20) }))
	}
	closed(t, e)
	if st := e.Stats()["traces"]; st.Queued != 0 || st.Sent == 0 || st.Dropped == 0 || st.Sent+st.Dropped != n+1 {
		t.Errorf("%+v", st)
	}
}

func TestHTTPStatuses(t *testing.T) {
	for code, again := range map[int]bool{400: false, 401: false, 403: false, 404: false, 408: false, 413: false, 500: false, 501: false, 429: true, 502: true, 503: true, 504: true} {
		var asked atomic.Int32
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) == 1 {
				w.WriteHeader(code)
			}
		}))
		e := start(t, config(t, srv.URL))
		e.Export(recordtest.New(spanID(0)))
		closed(t, e)
		srv.Close()
		st := e.Stats()["traces"]
		if want := (otlp.Stats{Sent: 1, Failures: 1}); again && st != want {
			t.Errorf("%d: %+v", code, st)
		}
		if want := (otlp.Stats{Rejected: 1}); !again && st != want {
			t.Errorf("%d: %+v", code, st)
		}
	}
}

// A request has room in the 4 MiB that gRPC servers take, however large its spans and
// however many its points; a span that has none alone holds up no other.
func TestRequestsStaySmall(t *testing.T) {
	set, err := metric.New(metric.Config{PodLabels: []string{"long"}})
	if err != nil {
		t.Fatal(err)
	}
	r := newReceiver()
	addr, _ := r.grpc(t, "127.0.0.1:0")
	cfg := config(t, "grpc://"+addr)
	cfg.Metrics, cfg.Compression = set, "none"
	e := start(t, cfg)
	limits := func(n, size int) func(*account.Record) {
		return func(r *account.Record) {
			r.Call.RateLimit = map[string]string{}
			for i := range n {
				r.Call.RateLimit[fmt.Sprintf("x-ratelimit-%d", i)] = strings.Repeat("v", size)
			}
		}
	}
	const n = 200
	for i := range n { // 6 MiB
		e.Export(recordtest.New(spanID(i), limits(32, 1024)))
	}
	e.Export(recordtest.New(spanID(n), limits(1, 5<<20)))
	e.Export(recordtest.New(spanID(n + 1)))
	for i := range 2 * n { // some 20 series each
		set.Export(recordtest.New(priced("0.5"), func(r *account.Record) {
			r.Owner.PodName, r.Owner.PodLabels = fmt.Sprint("pod-", i), map[string]string{"long": strings.Repeat("l", 1024)}
		}))
	}
	closed(t, e)
	if st := e.Stats()["traces"]; r.count() != n+1 || st.Rejected != 1 || st.Failures != 0 {
		t.Errorf("%d spans, %+v", r.count(), st)
	}
	if st := e.Stats()["metrics"]; st.Sent < 2 || st.Rejected != 0 || st.Failures != 0 {
		t.Errorf("%+v", st)
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

func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	pool, pair := certificates(t, dir)
	r := newReceiver()
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	addr, _ := r.grpc(t, "127.0.0.1:0", grpc.Creds(credentials.NewTLS(conf)))
	srv := httptest.NewUnstartedServer(r)
	srv.TLS, srv.Config.ErrorLog = conf, log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	for i, endpoint := range []string{"grpcs://" + addr, srv.URL + "/base"} {
		cfg := config(t, endpoint)
		cfg.TLS = otlp.TLS{CA: filepath.Join(dir, "cert.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), ServerName: "localhost"}
		e := start(t, cfg)
		e.Export(recordtest.New(spanID(i)))
		closed(t, e)
		if r.count() != i+1 {
			t.Errorf("%s: %d spans, %+v", endpoint, r.count(), e.Stats())
		}
		for why, wrong := range map[string]func(*otlp.TLS){
			"without a client certificate": func(c *otlp.TLS) { c.Cert, c.Key = "", "" },
			"not trusted":                  func(c *otlp.TLS) { c.CA = "" },
			"under another name":           func(c *otlp.TLS) { c.ServerName = "other" },
		} {
			cfg := cfg
			cfg.Dir = t.TempDir()
			wrong(&cfg.TLS)
			e = start(t, cfg)
			e.Export(recordtest.New(spanID(99)))
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			_ = e.Close(ctx)
			cancel()
			if r.count() != i+1 || e.Stats()["traces"].Queued != 1 {
				t.Errorf("%s, %s: %d spans, %+v", endpoint, why, r.count(), e.Stats())
			}
		}
	}
}

func certificates(t *testing.T, dir string) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600), os.WriteFile(filepath.Join(dir, "key.pem"), keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool, pair
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
