package otlp_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/otlp"
)

// compression keeps how the last request was compressed.
type compression struct{ seen string }

func (c *compression) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (c *compression) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (c *compression) HandleConn(context.Context, stats.ConnStats) {}

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
