package backends_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// webhook keeps what Alertmanager sent.
type webhook struct {
	mu  sync.Mutex
	got strings.Builder
}

func (h *webhook) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	var n struct {
		Status      string            `json:"status"`
		GroupLabels map[string]string `json:"groupLabels"`
		Alerts      []struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"alerts"`
	}
	if err := json.Unmarshal(b, &n); err != nil {
		fmt.Fprintln(&h.got, err)
		return
	}
	fmt.Fprintf(&h.got, "%s %s %v\n", n.Status, n.GroupLabels["alertname"], n.Alerts)
}

// told is how often an alert of this run's calls was said to fire.
func (h *webhook) told(alert string) (n int) {
	for line := range strings.Lines(h.said()) {
		if strings.HasPrefix(line, "firing "+alert+" ") && strings.Contains(line, graph) {
			n++
		}
	}
	return n
}

func (h *webhook) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got.String()
}

// alertmanagerConfig is the one that is shipped, with its webhooks at hook and without
// its waiting.
func alertmanagerConfig(t *testing.T, hook string) string {
	t.Helper()
	b, err := os.ReadFile("../alertmanager/alertmanager.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "http://127.0.0.1:9465", hook)
	return regexp.MustCompile(`group_(wait|interval): \w+`).ReplaceAllString(text, "group_$1: 1s")
}
