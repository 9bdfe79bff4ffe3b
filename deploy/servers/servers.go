// Package servers runs Debian's Prometheus and Alertmanager for tests, on loopback and
// in the test's own folder, and ends them with it.
package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Prometheus is a running server.
type Prometheus struct {
	Addr string
	t    testing.TB
}

// StartPrometheus runs a Prometheus with the configuration. The test is skipped when
// there is none on the machine.
func StartPrometheus(t testing.TB, config string, flags ...string) *Prometheus {
	t.Helper()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "prometheus.yml"), config)
	addr := freePort(t)
	run(t, "prometheus", "http://"+addr+"/-/ready", append([]string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + addr, "--log.level=warn",
	}, flags...)...)
	return &Prometheus{Addr: addr, t: t}
}

// Query returns the values of an instant query; NaN is left out.
func (p *Prometheus) Query(expr string) []float64 {
	p.t.Helper()
	resp, err := http.Get("http://" + p.Addr + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var r struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || r.Status != "success" {
		p.t.Fatalf("%s: %v %s", expr, err, r.Error)
	}
	var values []float64
	for _, s := range r.Data.Result {
		if v, err := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64); err == nil && !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	return values
}

// StartAlertmanager runs an Alertmanager with the configuration and returns its address.
func StartAlertmanager(t testing.TB, config string) string {
	t.Helper()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "alertmanager.yml"), config)
	addr := freePort(t)
	run(t, "prometheus-alertmanager", "http://"+addr+"/-/ready",
		"--config.file="+file, "--storage.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--cluster.listen-address=", "--log.level=warn")
	return addr
}

// Look returns the path of a program, or skips the test.
func Look(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian: prometheus, prometheus-alertmanager)", name)
	}
	return p
}

func run(t testing.TB, name, ready string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, Look(t, name), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // ended by the signal
		if t.Failed() {
			t.Logf("%s said:\n%s", name, log.Bytes())
		}
	})
	for range 300 {
		if resp, err := http.Get(ready); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s did not start", name)
}

// freePort returns an address that nobody listened on a moment ago.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
