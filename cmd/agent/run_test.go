package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account/budget"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/har"
	"github.com/tollwire/tollwire/pricing"
	"github.com/tollwire/tollwire/probes"
)

// taped are taps that stay silent until they are closed, and give a recording then:
// calls that end with the agent.
type taped struct {
	recording
	closed chan struct{}
	once   sync.Once
}

func (t *taped) Read(shard int, d *flow.Data) error {
	<-t.closed
	err := t.recording.Read(shard, d)
	d.Time = probes.Now()
	return err
}

func (t *taped) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

func (*taped) CrossEveryHead(bool) error           { return nil }
func (*taped) Stats() (s probes.Stats)             { return s }
func (*taped) Attached() []probes.Attachment       { return nil }
func (*taped) Unobservable() []probes.Unobservable { return nil }

// running is a configuration that leaves the machine alone, and the address of its pages.
func running(t *testing.T) (*Config, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := defaults()
	c.Kubernetes.Enabled = "no"
	c.Export.Listen = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return c, "http://" + c.Export.Listen
}

func page(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestRun: the agent is alive before it is attached, ready after it, and what ends
// last is in the budgets' file.
func TestRun(t *testing.T) {
	cfg, base := running(t)
	limit, err := pricing.ParseMoney("10")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Pricing.Budgets = []budget.Budget{{Name: "all", Per: "month", Limit: limit}}
	cfg.Pricing.State = filepath.Join(t.TempDir(), "budgets.json")
	log := slog.New(slog.DiscardHandler)
	calls, err := har.Open(archive(t, [4]string{"/v1/chat/completions", `{"model":"gpt-4o-mini","messages":[]}`,
		`{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}`, ""}))
	if err != nil {
		t.Fatal(err)
	}
	defer calls.Close()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	scanned := make(chan struct{})
	scanning := make(chan struct{})
	attach := func(context.Context) (taps, error) {
		close(scanning)
		<-scanned
		return &taped{recording: recording{archive: calls, log: log}, closed: make(chan struct{})}, nil
	}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, "", nil, attach, log) }()
	<-scanning
	for _, want := range []struct {
		page, body string
		code       int
	}{
		{"/healthz", "ok", 200}, {"/readyz", "not attached yet", 503},
		{"/metrics", "tollwire_build_info{", 200},
		{"/metrics", `tollwire_settle_records_total{end="late"} 0`, 200}, {"/metrics", "tollwire_settle_early_total 0", 200},
		{"/metrics", `tollwire_queue_depth{queue="settle"} 0`, 200}, {"/metrics", `tollwire_decode_lost_bytes_total{reason="reorder"} 0`, 200},
		{"/api/v1/attached", "null", 200}, {"/api/v1/unseen", "null", 200},
	} {
		if code, body := page(t, base+want.page); code != want.code || !strings.Contains(body, want.body) {
			t.Errorf("%s while the node is scanned: %d %s", want.page, code, body)
		}
	}
	close(scanned)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if code, _ := page(t, base+"/readyz"); code == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never ready")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(cfg.Pricing.State)
	if err != nil || !strings.Contains(string(saved), `"calls":1`) {
		t.Errorf("the call that ended with the agent is not in %s, %v", saved, err)
	}
}

// TestRunWithoutTaps: why it cannot attach is said, and nothing listens on.
func TestRunWithoutTaps(t *testing.T) {
	cfg, base := running(t)
	none := errors.New("no privileges")
	err := run(t.Context(), cfg, "", nil, func(context.Context) (taps, error) { return nil, none }, slog.New(slog.DiscardHandler))
	if !errors.Is(err, none) || !strings.Contains(err.Error(), "tollwire check") {
		t.Error(err)
	}
	if _, err := http.Get(base + "/healthz"); err == nil {
		t.Error("still there")
	}
}

// TestServeFails: an agent whose pages nobody can read ends, and says why.
func TestServeFails(t *testing.T) {
	cfg, _ := running(t)
	cfg.Export.WebConfig = filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(cfg.Export.WebConfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	b, err := budget.Open(budget.Config{}, log)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cfg.open(&self{budgets: b}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Export.WebConfig, []byte("tls_server_config: {cert_file: none, key_file: none}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	out.serve(stop)
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error(ctx.Err())
	}
	if err := out.close(); err == nil || !strings.Contains(err.Error(), "serve") {
		t.Error(err)
	}
}
