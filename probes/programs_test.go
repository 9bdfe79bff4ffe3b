package probes

import (
	"cmp"
	cryptotls "crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// server answers with the size of what it was sent, with bytes= bytes, or until it closes;
// with hold= it waits so long before it reads.
func server(t *testing.T, tls bool) (url, ca string) {
	t.Helper()
	return serverAway(t, tls, func() time.Duration { return 0 })
}

// serverAway is a server whose handshake takes that long at the least.
func serverAway(t *testing.T, tls bool, away func() time.Duration) (url, ca string) {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hold, _ := time.ParseDuration(r.URL.Query().Get("hold"))
		time.Sleep(hold)
		n, _ := io.Copy(io.Discard, r.Body)
		if r.URL.Query().Has("bytes") {
			size := 0
			fmt.Sscan(r.URL.Query().Get("bytes"), &size)
			io.Copy(w, io.LimitReader(zeros{}, int64(size)))
			return
		}
		if r.URL.Query().Has("until-close") {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n\r\nanswer to %s", r.URL.Query().Get("id"))
			return
		}
		fmt.Fprintf(w, "answer to %s: %d bytes", r.URL.Query().Get("id"), n)
	})
	if !tls {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL, ""
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &cryptotls.Config{GetConfigForClient: func(*cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
		time.Sleep(away())
		return nil, nil
	}}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o644); err != nil {
		t.Fatal(err)
	}
	return s.URL, ca
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func curl(t *testing.T, ca string, args ...string) string {
	t.Helper()
	return run(t, nil, "curl", append([]string{"--http1.1", "--silent", "--show-error", "--cacert", cmp.Or(ca, "/dev/null")}, args...)...)
}
