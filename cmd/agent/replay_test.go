package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/export/jsonl"
)

// archive writes entries as a HAR: path, request body, response body, and the sizes
// of the pieces that the response came in.
func archive(t *testing.T, entries ...[4]string) string {
	t.Helper()
	var all []any
	for i, e := range entries {
		content := map[string]any{"mimeType": "application/json", "text": e[2]}
		if strings.HasPrefix(e[2], "data:") || strings.HasPrefix(e[2], "event:") {
			content["mimeType"] = "text/event-stream"
		}
		if e[3] != "" {
			content["_chunks"] = json.RawMessage(e[3])
		}
		all = append(all, map[string]any{
			"_id": fmt.Sprintf("test#%d", i), "startedDateTime": "2026-01-02T03:04:05.678Z",
			"request": map[string]any{"method": "POST", "url": "https://" + map[bool]string{true: "api.anthropic.com", false: "api.openai.com"}[e[0] == "/v1/messages"] + e[0],
				"headers": []any{map[string]string{"name": "Authorization", "value": "Bearer sk-canary-key"}, map[string]string{"name": "Idempotency-Key", "value": "canary-order"}, map[string]string{"name": "Content-Type", "value": "application/json"}}, "postData": map[string]any{"text": e[1]}},
			"response": map[string]any{"status": 200, "headers": []any{map[string]any{"name": "content-type", "value": content["mimeType"]}, map[string]string{"name": "x-ratelimit-remaining-tokens", "value": "77"}}, "content": content},
		})
	}
	b, err := json.Marshal(map[string]any{"log": map[string]any{"entries": all}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "calls.har")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const stream = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-sonnet-4-5-20250929\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n" +
	"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"canary answer\"}}\n\n" +
	"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"look_up\",\"input\":{}}}\n\n" +
	"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"canary\\\":1}\"}}\n\n" +
	"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\n" +
	"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

// TestReplay: records come out in order, one for each entry that is a model call,
// with the recording's ids; pieces make no difference but to the clock, and nothing
// of what was said or of the key comes out.
func TestReplay(t *testing.T) {
	unary := [4]string{"/v1/chat/completions", `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"canary question"}]}`,
		`{"id":"chatcmpl-1","object":"chat.completion","service_tier":"default","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"canary answer"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}`, ""}
	streamed := [4]string{"/v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":9,"stream":true,"messages":[]}`, stream, ""}
	pieces := streamed
	pieces[3] = fmt.Sprintf("[1,2,3,%d]", len(stream)-6)
	path := archive(t, unary, [4]string{"/api/orders", `{"item":3}`, `{"ok":true}`, ""}, streamed, pieces)

	cfg := defaults()
	log := slog.New(slog.DiscardHandler)
	prices, err := cfg.Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := replay(cfg, []byte("key"), log, prices, path, &out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "canary") {
		t.Errorf("content or a credential came out:\n%s", out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []struct {
		id, cost, model string
		stream          bool
		has             string
	}{
		{"test#0", "0.00000315", "gpt-4o-mini-2024-07-18", false, `"tollwire.service_tier":"default"`},
		{"test#2", "0.000135", "claude-sonnet-4-5-20250929", true, `"tollwire.tool_calls":["look_up"]`},
		{"test#3", "0.000135", "claude-sonnet-4-5-20250929", true, `"tollwire.tool_calls":["look_up"]`},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d records, want %d:\n%s", len(lines), len(want), out.String())
	}
	for i, w := range want {
		l, err := jsonl.Parse([]byte(lines[i]))
		if err != nil {
			t.Fatal(err)
		}
		if l.SourceID != w.id || l.CostUSD != w.cost || l.ResponseModel != w.model || l.Stream != w.stream ||
			l.Completeness != "exact" || l.CaptureSource != "replay" || l.Partial != "" {
			t.Errorf("record %d: %s", i, lines[i])
		}
		for _, has := range []string{w.has, `"tollwire.retry.group":"`, `"http.response.header.x-ratelimit-remaining-tokens":["77"]`} {
			if !strings.Contains(lines[i], has) {
				t.Errorf("record %d has no %s: %s", i, has, lines[i])
			}
		}
		if strings.Contains(lines[i], "time_to_first") || strings.Contains(lines[i], "duration") {
			t.Errorf("record %d has durations that nobody measured: %s", i, lines[i])
		}
		if got := l.Time.Format("2006-01-02T15:04:05.000Z"); got != "2026-01-02T03:04:05.678Z" {
			t.Errorf("record %d: time %s", i, got)
		}
	}
}

// The tries of one call are one group wherever in a run they stand, and another run's is
// another.
func TestReplayGroups(t *testing.T) {
	entry := [4]string{"/v1/chat/completions", `{"model":"gpt-4o-mini","messages":[]}`, `{"id":"chatcmpl-1","model":"gpt-4o-mini"}`, ""}
	files := []string{archive(t, entry), archive(t, entry)}
	groups := func() (all []string) {
		var out bytes.Buffer
		cmd := replayCommand()
		cmd.SetOut(&out)
		cmd.SetArgs(files)
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
		for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
			var m map[string]any
			if err := json.Unmarshal([]byte(l), &m); err != nil {
				t.Fatal(err)
			}
			group, _ := m["tollwire.retry.group"].(string)
			all = append(all, group)
		}
		return all
	}
	first, second := groups(), groups()
	if len(first) != 2 || first[0] == "" || first[0] != first[1] || first[0] == second[0] {
		t.Errorf("groups %q, then %q", first, second)
	}
}
