package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// lateReturn is a connection whose writes return after the answer was read: sooner
// than the 50 ms after which net/http gives such a connection up.
type lateReturn struct{ net.Conn }

func (c lateReturn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	time.Sleep(10 * time.Millisecond)
	return n, err
}

// TestAnswerBeforeTheWriteReturns: where one thread writes and another reads, an
// answer may be read before the write of its request has returned. Here it always is,
// on a connection whose exchange before was held back.
func TestAnswerBeforeTheWriteReturns(t *testing.T) {
	s := start(t)
	a := s.agent()
	s.ours[os.Getpid()] = true

	pem, err := os.ReadFile(s.sim.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", s.sim.CA)
	}
	client := http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return tls.Client(lateReturn{c}, &tls.Config{RootCAs: roots, ServerName: "localhost"}), nil
		},
	}}
	defer client.CloseIdleConnections()
	do := func(req *http.Request, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "api.openai.com"
		resp, err := client.Do(req.WithContext(s.ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s, %v", req.Method, req.URL, resp.Status, err)
		}
	}
	if err := s.running.Tapped(s.ctx, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	const calls = 3
	for i := range calls {
		do(http.NewRequest(http.MethodGet, fmt.Sprintf("%s/big?bytes=%d", s.sim.URL, 50_000+i), nil))
		do(http.NewRequest(http.MethodPost, s.sim.URL+"/v1/chat/completions",
			strings.NewReader(`{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}`)))
	}
	s.matches(a, "client", calls)
}
