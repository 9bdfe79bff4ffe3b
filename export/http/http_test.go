package http_test

import (
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
	"log/slog"
	"math/big"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tollwire/tollwire/export/http"
)

// serve starts a server on loopback and returns its address.
func serve(t *testing.T, cfg http.Config) string {
	t.Helper()
	cfg.Listen = []string{"127.0.0.1:0"}
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.Metrics = nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) { fmt.Fprintln(w, "up 1") })
	s, err := http.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), <-done); err != nil {
			t.Error(err)
		}
	})
	return s.Addrs()[0].String()
}

func get(t *testing.T, c *nethttp.Client, method, url string, header ...string) (int, string) {
	t.Helper()
	req, err := nethttp.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestPages(t *testing.T) {
	var notReady error
	base := "http://" + serve(t, http.Config{Ready: func() error { return notReady }, Lists: map[string]func() any{"unpriced": func() any { return []string{"gpt-x"} }}})
	for _, tc := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/metrics", 200, "up 1"},
		{"HEAD", "/metrics", 200, ""},
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/readyz", 200, "ready"},
		{"GET", "/api/v1/unpriced", 200, `"gpt-x"`},
		{"POST", "/metrics", 405, ""},
		{"DELETE", "/api/v1/unpriced", 405, ""},
		{"GET", "/", 404, ""},
		{"GET", "/debug/pprof/", 404, ""},
		{"GET", "/metrics/../etc/passwd", 404, ""},
	} {
		if code, body := get(t, nethttp.DefaultClient, tc.method, base+tc.path); code != tc.code || !strings.Contains(body, tc.body) {
			t.Errorf("%s %s: %d %q", tc.method, tc.path, code, body)
		}
	}
	notReady = errors.New("no tap is attached")
	if code, body := get(t, nethttp.DefaultClient, "GET", base+"/readyz"); code != 503 || !strings.Contains(body, "no tap is attached") {
		t.Errorf("%d %q", code, body)
	}
}

func TestBearerToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	base := "http://" + serve(t, http.Config{TokenFile: file})
	for _, tc := range []struct {
		path, header string
		code         int
	}{
		{"/metrics", "", 401}, {"/metrics", "Bearer second", 401}, {"/metrics", "Basic first", 401}, {"/metrics", "Bearer ", 401},
		{"/metrics", "Bearer first", 200}, {"/healthz", "", 200}, {"/readyz", "", 200},
	} {
		if code, _ := get(t, nethttp.DefaultClient, "GET", base+tc.path, "Authorization", tc.header); code != tc.code {
			t.Errorf("%s with %q: %d", tc.path, tc.header, code)
		}
	}
	write("second") // a secret that turned
	if code, _ := get(t, nethttp.DefaultClient, "GET", base+"/metrics", "Authorization", "Bearer second"); code != 200 {
		t.Errorf("after the token turned: %d", code)
	}
	write(" ")
	if _, err := http.New(http.Config{TokenFile: file, Logger: slog.Default()}); err == nil {
		t.Error("an empty token was taken")
	}
}

func TestWebConfigTLSAndPassword(t *testing.T) {
	dir := t.TempDir()
	pool := certificate(t, dir)
	conf := filepath.Join(dir, "web.yml")
	hash, err := bcrypt.GenerateFromPassword([]byte("test"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n  min_version: TLS13\n"+
		"basic_auth_users:\n  prom: "+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := serve(t, http.Config{WebConfig: conf})
	c := &nethttp.Client{Transport: &nethttp.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}}
	req, _ := nethttp.NewRequest("GET", "https://"+addr+"/metrics", nil)
	req.SetBasicAuth("prom", "test")
	if resp, err := c.Do(req); err != nil || resp.StatusCode != 200 {
		t.Errorf("with the password: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if code, body := get(t, c, "GET", "https://"+addr+"/metrics"); code != 401 {
		t.Errorf("without: %d %s", code, body)
	}
	if code, _ := get(t, nethttp.DefaultClient, "GET", "http://"+addr+"/metrics"); code != 400 {
		t.Errorf("plain HTTP: %d", code)
	}
	if err := os.WriteFile(conf, []byte("tls_server_config:\n  certfile: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := http.New(http.Config{WebConfig: conf, Logger: slog.Default()}); err == nil {
		t.Error("a wrong web configuration was taken")
	}
}

// certificate writes cert.pem and key.pem for localhost.
func certificate(t *testing.T, dir string) *x509.CertPool {
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
	for name, b := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: k}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

func TestConnectionsAreBounded(t *testing.T) {
	addr := serve(t, http.Config{Connections: 2})
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	c := &nethttp.Client{Timeout: 100 * time.Millisecond, Transport: &nethttp.Transport{}}
	if code, _ := get(t, c, "GET", "http://"+addr+"/healthz"); code != 0 {
		t.Errorf("a third connection was answered: %d", code)
	}
	for _, h := range held {
		h.Close()
	}
	c.Timeout = 5 * time.Second
	if code, body := get(t, c, "GET", "http://"+addr+"/healthz"); code != 200 {
		t.Errorf("after they went: %d %s", code, body)
	}
}
