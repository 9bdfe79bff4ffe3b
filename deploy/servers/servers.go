// Package servers runs the servers that tests read the agent's output back from:
// Debian's Prometheus and Alertmanager, and any other program that says when it is
// ready. They listen on loopback, keep their files in the test's own folder, and end
// with the test.
package servers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Process is a running server.
type Process struct {
	t           testing.TB
	path, ready string
	args        []string
	log         log
	cmd         *exec.Cmd // nil: it does not run
}

// Start runs a program until the end of the test, and returns when the URL ready
// answers 200. Should the test fail, it shows what the program said.
func Start(t testing.TB, path, ready string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, path: path, ready: ready, args: args}
	t.Cleanup(func() {
		p.end(os.Interrupt)
		if t.Failed() {
			t.Logf("%s said:\n%s", path, p.log.String())
		}
	})
	p.Restart()
	return p
}

// Restart starts the program again that was killed, with the same arguments.
func (p *Process) Restart() {
	p.t.Helper()
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		p.t.Fatal(err)
	}
	for range 600 {
		if resp, err := http.Get(p.ready); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.t.Fatalf("%s did not get ready", p.path)
}

// Kill ends the program with SIGKILL.
func (p *Process) Kill() { p.end(os.Kill) }

// Signal sends the running program a signal.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// Log is what the program has said so far.
func (p *Process) Log() string { return p.log.String() }

func (p *Process) end(sig os.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	late := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait() // ended by the signal
	late.Stop()
	p.cmd = nil
}

// log is a buffer that may be read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Prometheus is a running server.
type Prometheus struct {
	Addr string
	Dir  string // of its database
	t    testing.TB
}

// StartPrometheus runs a Prometheus, version 2 or 3, with the configuration. The test
// is skipped when there is none of that name.
func StartPrometheus(t testing.TB, program, config string, flags ...string) *Prometheus {
	t.Helper()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "prometheus.yml"), config)
	p := &Prometheus{Addr: FreePort(t), Dir: filepath.Join(dir, "data"), t: t}
	Start(t, Look(t, program), "http://"+p.Addr+"/-/ready", append([]string{
		"--config.file=" + file, "--storage.tsdb.path=" + p.Dir, "--web.listen-address=" + p.Addr, "--log.level=warn",
	}, flags...)...)
	return p
}

// Query returns the values of an instant query; NaN is left out.
func (p *Prometheus) Query(expr string) []float64 {
	p.t.Helper()
	var result struct {
		Result []struct{ Value [2]any }
	}
	p.api("query", expr, &result)
	var values []float64
	for _, s := range result.Result {
		if v, err := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64); err == nil && !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	return values
}

// Exemplars returns the trace ids that the last hour's exemplars of the selected
// series name. The server must keep exemplars.
func (p *Prometheus) Exemplars(selector string) (traces []string) {
	p.t.Helper()
	var result []struct {
		Exemplars []struct {
			Labels struct {
				Trace string `json:"trace_id"`
			}
		}
	}
	p.api("query_exemplars", selector, &result)
	for _, s := range result {
		for _, e := range s.Exemplars {
			traces = append(traces, e.Labels.Trace)
		}
	}
	return traces
}

func (p *Prometheus) api(path, query string, data any) {
	p.t.Helper()
	now := time.Now()
	args := url.Values{"query": {query}}
	if path == "query_exemplars" {
		args.Set("start", strconv.FormatInt(now.Add(-time.Hour).Unix(), 10))
		args.Set("end", strconv.FormatInt(now.Add(time.Minute).Unix(), 10))
	}
	resp, err := http.Get("http://" + p.Addr + "/api/v1/" + path + "?" + args.Encode())
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	r := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || r.Status != "success" {
		p.t.Fatalf("%s: %v %s", query, err, r.Error)
	}
}

// StartAlertmanager runs an Alertmanager with the configuration and returns its address.
func StartAlertmanager(t testing.TB, config string) string {
	t.Helper()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "alertmanager.yml"), config)
	addr := FreePort(t)
	Start(t, Look(t, "prometheus-alertmanager"), "http://"+addr+"/-/ready",
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

// FreePort returns an address on loopback that nobody listened on a moment ago. It is
// below the ports that Linux gives to connections, so none takes it while a server is
// away.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15_000+rand.N(17_000)))
		if err == nil {
			addr := l.Addr().String()
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port below 32000")
	return ""
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
