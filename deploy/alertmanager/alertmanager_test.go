// Package alertmanager_test runs the routes in Debian's Alertmanager.
package alertmanager_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollwire/tollwire/deploy/servers"
)

func TestConfigIsValid(t *testing.T) {
	if out, err := exec.Command(servers.Look(t, "amtool"), "check-config", "alertmanager.yml").CombinedOutput(); err != nil {
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
	addr := servers.StartAlertmanager(t, text)

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
