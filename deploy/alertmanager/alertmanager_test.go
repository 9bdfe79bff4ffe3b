// Package alertmanager_test runs the routes in Debian's Alertmanager.
package alertmanager_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func look(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian: prometheus-alertmanager)", name)
	}
	return p
}

func TestConfigIsValid(t *testing.T) {
	if out, err := exec.Command(look(t, "amtool"), "check-config", "alertmanager.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Every alert of the rules has a severity that a route takes.
func TestSeveritiesAreRouted(t *testing.T) {
	rules, err := os.ReadFile("../prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile("alertmanager.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`severity: (\w+)`).FindAllSubmatch(rules, -1) {
		if !bytes.Contains(conf, []byte(`severity="`+string(m[1])+`"`)) {
			t.Errorf("no route for severity %s", m[1])
		}
	}
}

// webhook counts what Alertmanager sends.
type webhook struct {
	mu  sync.Mutex
	got []string // receiver: alert names
}

func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var n struct {
		Receiver string
		Status   string
		Alerts   []struct{ Labels map[string]string }
	}
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	var names []string
	for _, a := range n.Alerts {
		names = append(names, a.Labels["alertname"]+"/"+a.Labels["gen_ai_request_model"])
	}
	slices.Sort(names)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, n.Receiver+" "+n.Status+": "+strings.Join(names, " "))
}

// One fault that makes many alerts is one message to those it pages, and one that is
// sent again by Prometheus every few seconds is not told again.
func TestOneFaultIsOnePage(t *testing.T) {
	bin := look(t, "prometheus-alertmanager")
	hook := &webhook{}
	srv := httptest.NewServer(hook)
	defer srv.Close()
	conf, err := os.ReadFile("alertmanager.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(conf), "http://127.0.0.1:9465", srv.URL)
	text = regexp.MustCompile(`group_wait: \w+`).ReplaceAllString(text, "group_wait: 1s")
	text = regexp.MustCompile(`group_interval: \w+`).ReplaceAllString(text, "group_interval: 1s")
	dir := t.TempDir()
	file := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := start(t, bin, file, filepath.Join(dir, "data"))

	for range 8 {
		send(t, addr,
			alert("TollwireErrors", "page", "m1"), alert("TollwireErrors", "page", "m2"),
			alert("TollwireFirstTokenSlow", "page", "m1"), alert("TollwireLatency", "ticket", "m2"),
			alert("TollwireUnpriced", "ticket", "m3"))
		time.Sleep(500 * time.Millisecond)
	}
	hook.mu.Lock()
	defer hook.mu.Unlock()
	slices.Sort(hook.got)
	want := []string{
		"page firing: TollwireErrors/m1 TollwireErrors/m2",
		"ticket firing: TollwireUnpriced/m3",
	}
	if !slices.Equal(hook.got, want) {
		t.Errorf("got  %q\nwant %q", hook.got, want)
	}
}

func alert(name, severity, model string) map[string]any {
	return map[string]any{
		"labels":      map[string]string{"alertname": name, "severity": severity, "gen_ai_provider_name": "openai", "gen_ai_request_model": model},
		"annotations": map[string]string{"summary": name},
	}
}

func send(t *testing.T, addr string, alerts ...map[string]any) {
	t.Helper()
	b, err := json.Marshal(alerts)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post("http://"+addr+"/api/v2/alerts", "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("send alerts: %s", resp.Status)
	}
}

func start(t *testing.T, bin, conf, data string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "--config.file="+conf, "--storage.path="+data, "--web.listen-address="+addr, "--cluster.listen-address=", "--log.level=warn")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("alertmanager said:\n%s", log.Bytes())
		}
	})
	for range 100 {
		if resp, err := http.Get("http://" + addr + "/-/ready"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return addr
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal(fmt.Sprintf("alertmanager did not start\n%s", log.Bytes()))
	return ""
}
