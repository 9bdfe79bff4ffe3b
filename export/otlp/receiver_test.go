package otlp_test

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
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
