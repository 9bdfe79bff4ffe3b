package otlp

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // the compressor "gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// signal is what is sent: a path under HTTP, a method under gRPC.
type signal struct {
	name, path, method string
	// rejected reads how many items the receiver refused, and why.
	rejected func(reply []byte) (int64, string)
}

var (
	traces = signal{"traces", "/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export", func(b []byte) (int64, string) {
		var r coltrace.ExportTraceServiceResponse
		if proto.Unmarshal(b, &r) != nil {
			return 0, ""
		}
		return r.GetPartialSuccess().GetRejectedSpans(), r.GetPartialSuccess().GetErrorMessage()
	}}
	metrics = signal{"metrics", "/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", func(b []byte) (int64, string) {
		var r colmetrics.ExportMetricsServiceResponse
		if proto.Unmarshal(b, &r) != nil {
			return 0, ""
		}
		return r.GetPartialSuccess().GetRejectedDataPoints(), r.GetPartialSuccess().GetErrorMessage()
	}}
)

// sendError says whether a message may be sent again, and how long to wait at least.
type sendError struct {
	err   error
	retry bool
	after time.Duration
}

func (e *sendError) Error() string { return e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }

// sender sends one encoded request and returns the encoded reply. Its errors are
// *sendError.
type sender interface {
	send(ctx context.Context, s *signal, request []byte) (reply []byte, err error)
	close() error
}

// tlsConfig returns the configuration of a connection; nil for plaintext.
func (c *Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLS.ServerName}
	if c.TLS.CA != "" {
		pem, err := os.ReadFile(c.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("read the collector's CA: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the collector's CA: %s holds no certificate", c.TLS.CA)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return nil, errors.New("a client certificate needs both its certificate and its key")
	}
	if c.TLS.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key); err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		// Read anew for every connection: certificates turn.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
			return &pair, err
		}
	}
	return t, nil
}

// ParseEndpoint reads grpc:// and grpcs:// for gRPC, http:// and https:// for HTTP with
// protobuf. Its errors name no credentials that s may hold.
func ParseEndpoint(s string) (*url.URL, error) {
	const want = "want grpc://HOST:4317, grpcs://HOST:4317, http://HOST:4318 or https://HOST:4318"
	if strings.Contains(s, "@") {
		return nil, errors.New("holds a user: want it in header_files, as Authorization: Basic …")
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || !slices.Contains([]string{"grpc", "grpcs", "http", "https"}, u.Scheme) {
		return nil, fmt.Errorf("is %q: %s", s, want)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("holds a query: " + want)
	}
	if strings.HasPrefix(u.Scheme, "grpc") && strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("is %q: gRPC has no path", s)
	}
	return u, nil
}

func newSender(c *Config) (sender, error) {
	u, err := ParseEndpoint(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %w", err)
	}
	if strings.HasPrefix(u.Scheme, "grpc") {
		return newGRPC(c, u)
	}
	return newHTTP(c, u)
}

// grpcSender sends requests that are already encoded.
type grpcSender struct {
	conn    *grpc.ClientConn
	options []grpc.CallOption
	headers metadata.MD
}

func newGRPC(c *Config, u *url.URL) (*grpcSender, error) {
	creds := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		t, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(t)
	}
	// A collector that comes back is found as soon as the next try.
	again := backoff.DefaultConfig
	again.BaseDelay, again.MaxDelay = 100*time.Millisecond, c.MaxBackoff
	conn, err := grpc.NewClient(u.Host, grpc.WithTransportCredentials(creds), grpc.WithUserAgent(c.agent()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: c.Timeout}))
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", c.Endpoint, err)
	}
	g := &grpcSender{conn: conn, headers: metadata.New(c.Headers), options: []grpc.CallOption{grpc.ForceCodec(encoded{})}}
	if c.Compression == "gzip" {
		g.options = append(g.options, grpc.UseCompressor("gzip"))
	}
	return g, nil
}

// encoded is a codec for messages that are bytes already.
type encoded struct{}

func (encoded) Name() string                  { return "proto" }
func (encoded) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (encoded) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}

func (g *grpcSender) send(ctx context.Context, s *signal, request []byte) ([]byte, error) {
	var reply []byte
	err := g.conn.Invoke(metadata.NewOutgoingContext(ctx, g.headers), s.method, &request, &reply, g.options...)
	if err == nil {
		return reply, nil
	}
	e := &sendError{err: err}
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			e.retry, e.after = st.Code() == codes.ResourceExhausted, info.GetRetryDelay().AsDuration()
		}
	}
	switch st.Code() { // of OTLP's specification; exhausted without a delay is a message that is too large
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		e.retry = true
	}
	return nil, e
}

func (g *grpcSender) close() error { return g.conn.Close() }

type httpSender struct {
	base   string
	client *http.Client
	cfg    *Config
}

func newHTTP(c *Config, u *url.URL) (*httpSender, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	conf, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig = conf
	return &httpSender{base: strings.TrimSuffix(u.String(), "/"), cfg: c, client: &http.Client{
		Transport: t,
		// A redirect would carry the headers, credentials among them, elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (h *httpSender) send(ctx context.Context, s *signal, request []byte) ([]byte, error) {
	body := request
	if h.cfg.Compression == "gzip" {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(request); err != nil {
			return nil, &sendError{err: err}
		}
		if err := w.Close(); err != nil {
			return nil, &sendError{err: err}
		}
		body = z.Bytes()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.base+s.path, bytes.NewReader(body))
	if err != nil {
		return nil, &sendError{err: err}
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", h.cfg.agent())
	if h.cfg.Compression == "gzip" {
		req.Header.Set("Content-Encoding", "gzip")
	}
	for k, v := range h.cfg.Headers {
		req.Header.Set(k, v)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, &sendError{err: err, retry: true}
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	err = errors.Join(err, resp.Body.Close())
	if resp.StatusCode/100 == 2 {
		return reply, nil // a reply that broke off changes nothing: the status has come
	}
	e := &sendError{err: cmp.Or(err, fmt.Errorf("%s answered %s", h.base+s.path, resp.Status)), after: retryAfter(resp.Header.Get("Retry-After"))}
	e.retry = slices.Contains([]int{429, 502, 503, 504}, resp.StatusCode) // of OTLP's specification
	return nil, e
}

func (h *httpSender) close() error {
	h.client.CloseIdleConnections()
	return nil
}

// retryAfter reads the header: seconds or a date.
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return time.Duration(min(n, 3600)) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(time.Until(t), 0), time.Hour)
	}
	return 0
}
