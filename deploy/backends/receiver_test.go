package backends_test

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tollwire/tollwire/deploy/servers"
)

// receiverFolder tells a copy of the test's program to be the receiver.
const receiverFolder = "BACKENDS_RECEIVER"

// secret is what the receiver wants in the header authorization.
const secret = "Bearer of-the-receiver"

// receiver takes OTLP with mutual TLS, over gRPC or as Langfuse does over HTTP. It is a
// process of its own, so that it can be killed; what it acknowledged it has put on disk.
type receiver struct {
	coltrace.UnimplementedTraceServiceServer
	dir string // endpoint, ca.pem, server.pem, client.pem with their .key; traces/, metrics/
	cmd *exec.Cmd
}

type metricsReceiver struct {
	colmetrics.UnimplementedMetricsServiceServer
	*receiver
}

func (r *receiver) Export(ctx context.Context, m *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	return &coltrace.ExportTraceServiceResponse{}, r.take(ctx, "traces", m)
}

func (r metricsReceiver) Export(ctx context.Context, m *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	return &colmetrics.ExportMetricsServiceResponse{}, r.take(ctx, "metrics", m)
}

func (r *receiver) take(ctx context.Context, signal string, m proto.Message) error {
	if md, _ := metadata.FromIncomingContext(ctx); !slices.Equal(md.Get("authorization"), []string{secret}) {
		return status.Error(codes.Unauthenticated, "no or another authorization")
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return r.keep(signal, b)
}

// ServeHTTP takes OTLP over HTTP: protobuf, compressed, under Langfuse's path and with
// the header by which it shows spans at once. Empty is the encoding of a reply that
// rejects nothing.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	signal, ok := strings.CutPrefix(req.URL.Path, langfusePath+"/v1/")
	h := req.Header
	switch {
	case req.Method != http.MethodPost || !ok || signal != "traces" && signal != "metrics":
		http.NotFound(w, req)
	case h.Get("Authorization") != secret:
		http.Error(w, "no or another authorization", http.StatusUnauthorized)
	case h.Get("Content-Type") != "application/x-protobuf" || h.Get("Content-Encoding") != "gzip" || h.Get("X-Langfuse-Ingestion-Version") == "":
		http.Error(w, "not as Langfuse has it", http.StatusBadRequest)
	default:
		body, err := gzip.NewReader(req.Body)
		var b []byte
		if err == nil {
			b, err = io.ReadAll(body)
		}
		if err == nil {
			err = r.keep(signal, b)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

// keep writes a message to a file; the files' order is that of arrival.
func (r *receiver) keep(signal string, b []byte) error {
	name := filepath.Join(r.dir, signal, fmt.Sprintf("%020d", time.Now().UnixNano()))
	return errors.Join(os.WriteFile(name+".part", b, 0o600), os.Rename(name+".part", name+".pb"))
}

// receive is the receiver's process.
func receive(dir string) error {
	endpoint, err := os.ReadFile(filepath.Join(dir, "endpoint"))
	if err != nil {
		return err
	}
	u, err := url.Parse(string(endpoint))
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		return err
	}
	r := &receiver{dir: dir}
	if u.Scheme == "https" {
		return (&http.Server{Handler: r, TLSConfig: conf, ReadTimeout: 10 * time.Second}).ServeTLS(l, "", "")
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)))
	coltrace.RegisterTraceServiceServer(s, r)
	colmetrics.RegisterMetricsServiceServer(s, metricsReceiver{receiver: r})
	return s.Serve(l)
}

// langfusePath is where Langfuse's OTLP endpoint is.
const langfusePath = "/api/public/otel"

// newReceiver makes the folder of a receiver that speaks grpcs or https; start runs it.
func newReceiver(t *testing.T, scheme string) *receiver {
	t.Helper()
	r := &receiver{dir: t.TempDir()}
	for _, d := range []string{"traces", "metrics"} {
		if err := os.Mkdir(filepath.Join(r.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	endpoint := scheme + "://" + servers.FreePort(t)
	if scheme == "https" {
		endpoint += langfusePath
	}
	if err := errors.Join(certificates(r.dir), os.WriteFile(filepath.Join(r.dir, "endpoint"), []byte(endpoint), 0o600),
		os.WriteFile(filepath.Join(r.dir, "authorization"), []byte(secret+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kill)
	return r
}

func (r *receiver) endpoint(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, "endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (r *receiver) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command(os.Args[0])
	r.cmd.Env = append(os.Environ(), receiverFolder+"="+r.dir)
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill ends the receiver with SIGKILL.
func (r *receiver) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait() // killed
		r.cmd = nil
	}
}

// read hands every message of a signal to each, in order.
func read[M proto.Message](t *testing.T, r *receiver, signal string, m M, each func(M)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, signal, "*.pb"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files { // Glob sorts
		b, err := os.ReadFile(f)
		if err == nil {
			err = proto.Unmarshal(b, m)
		}
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		each(m)
	}
}

// each hands over every span, each id once.
func (r *receiver) each(t *testing.T, span func(*tracepb.Span)) {
	t.Helper()
	seen := map[string]bool{}
	read(t, r, "traces", &coltrace.ExportTraceServiceRequest{}, func(m *coltrace.ExportTraceServiceRequest) {
		for _, rs := range m.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					if !seen[string(s.SpanId)] {
						seen[string(s.SpanId)] = true
						span(s)
					}
				}
			}
		}
	})
}

// spans adds up the spans.
func (r *receiver) spans(t *testing.T) (sum totals) {
	t.Helper()
	r.each(t, sum.span)
	return sum
}

// children is how many calls hang on the span that their programs named.
func (r *receiver) children(t *testing.T) (n int) {
	t.Helper()
	r.each(t, func(s *tracepb.Span) {
		if s.Kind == tracepb.Span_SPAN_KIND_CLIENT && hex.EncodeToString(s.TraceId) == trace && hex.EncodeToString(s.ParentSpanId) == parent {
			n++
		}
	})
	return n
}

func (sum *totals) span(s *tracepb.Span) {
	a := map[string]*commonpb.AnyValue{}
	for _, kv := range s.Attributes {
		a[kv.Key] = kv.Value
	}
	if a["tollwire.graph"].GetStringValue() != graph {
		return
	}
	sum.usd += a["tollwire.cost.usd"].GetDoubleValue()
	if s.Kind == tracepb.Span_SPAN_KIND_SERVER {
		sum.served++
		return
	}
	sum.calls++
	if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		sum.failed++
	}
	sum.input += float64(a["gen_ai.usage.input_tokens"].GetIntValue())
	sum.output += float64(a["gen_ai.usage.output_tokens"].GetIntValue())
}

// measures adds up the last state of every series.
func (r *receiver) measures(t *testing.T) (sum totals) {
	t.Helper()
	last := map[string]func(){}
	at := func(name string, attrs []*commonpb.KeyValue, add func(attr func(string) string)) {
		var key strings.Builder
		key.WriteString(name)
		for _, kv := range attrs {
			fmt.Fprintf(&key, "\x00%s=%s", kv.Key, kv.Value.GetStringValue())
		}
		last[key.String()] = func() {
			add(func(k string) string {
				if i := slices.IndexFunc(attrs, func(kv *commonpb.KeyValue) bool { return kv.Key == k }); i >= 0 {
					return attrs[i].Value.GetStringValue()
				}
				return ""
			})
		}
	}
	read(t, r, "metrics", &colmetrics.ExportMetricsServiceRequest{}, func(m *colmetrics.ExportMetricsServiceRequest) {
		for _, rm := range m.ResourceMetrics {
			for _, sm := range rm.ScopeMetrics {
				for _, x := range sm.Metrics {
					for _, p := range x.GetSum().GetDataPoints() {
						at(x.Name, p.Attributes, func(attr func(string) string) { sum.point(x.Name, p.GetAsDouble(), attr) })
					}
					for _, p := range x.GetHistogram().GetDataPoints() {
						at(x.Name, p.Attributes, func(attr func(string) string) { sum.point(x.Name, p.GetSum(), attr) })
					}
				}
			}
		}
	})
	for _, add := range last {
		add()
	}
	return sum
}

func (sum *totals) point(name string, v float64, attr func(string) string) {
	if attr("tollwire.graph") != graph {
		return
	}
	switch name {
	case "tollwire.cost.usd":
		sum.usd += v
	case "tollwire.calls":
		if attr("role") == "server" {
			sum.served += int(v)
			return
		}
		sum.calls += int(v)
		if attr("status") != "ok" {
			sum.failed += int(v)
		}
	case "gen_ai.client.token.usage":
		if attr("gen_ai.token.type") == "input" {
			sum.input += v
		} else {
			sum.output += v
		}
	}
}

// certificates makes ca.pem, and server.pem and client.pem signed by it.
func certificates(dir string) error {
	var ca *x509.Certificate
	var signer *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: ca == nil, BasicConstraintsValid: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if ca == nil {
			c.KeyUsage, ca, signer = x509.KeyUsageCertSign, c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, signer)
		if err != nil {
			return err
		}
		secret, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		if err := errors.Join(
			os.WriteFile(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
			os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)); err != nil {
			return err
		}
	}
	return nil
}
