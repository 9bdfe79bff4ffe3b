package decoder_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// TestEveryChoiceEnds: a stream of several choices with usage in each event that ends in
// order, but without its terminator, is exact once every choice that has begun has its
// finish reason; before that more would have followed.
func TestEveryChoiceEnds(t *testing.T) {
	openai := func(choice int, reason string) string {
		return fmt.Sprintf(`{"model":"m","choices":[{"index":%d,"delta":{"content":"a"},"finish_reason":%s}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}`, choice, reason)
	}
	for _, v := range []struct {
		name, host, path, header string
		event                    func(choice int, reason string) string // reason is JSON: a word or null
	}{
		{"openai", "api.openai.com", "/v1/chat/completions", "", openai},
		{"azure", "x.openai.azure.com", "/openai/deployments/m/chat/completions?api-version=1", "", openai},
		{"gemini", "generativelanguage.googleapis.com", "/v1beta/models/m:streamGenerateContent?alt=sse", "", func(choice int, reason string) string {
			if reason == "null" {
				reason = `""`
			}
			return fmt.Sprintf(`{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":%s,"index":%d}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7,"totalTokenCount":12}}`, reason, choice)
		}},
		{"watsonx", "us-south.ml.cloud.ibm.com", "/ml/v1/text/chat_stream?version=1", "", openai},
		{"dashscope", "dashscope-intl.aliyuncs.com", "/api/v1/services/aigc/text-generation/generation", "X-DashScope-SSE: enable\r\n", func(choice int, reason string) string {
			if reason == "null" {
				reason = `"null"`
			}
			return fmt.Sprintf(`{"output":{"choices":[{"index":%d,"message":{"content":"a"},"finish_reason":%s}]},"usage":{"input_tokens":5,"output_tokens":7,"total_tokens":12}}`, choice, reason)
		}},
	} {
		for _, x := range []struct {
			name   string
			events []string
			want   llm.Completeness
			ended  int // finish reasons
		}{
			{"one, ended", []string{v.event(0, "null"), v.event(0, `"stop"`)}, llm.Exact, 1},
			{"one, open", []string{v.event(0, "null")}, llm.Estimated, 0},
			{"the first of two ended", []string{v.event(0, "null"), v.event(1, "null"), v.event(0, `"stop"`)}, llm.Estimated, 1},
			{"the first of two ended before the second began", []string{v.event(0, `"stop"`), v.event(1, "null")}, llm.Estimated, 1},
			{"both ended", []string{v.event(0, "null"), v.event(1, "null"), v.event(0, `"stop"`), v.event(1, `"stop"`)}, llm.Exact, 2},
			{"of many one is open", []string{v.event(0, `"stop"`), v.event(1, `"stop"`), v.event(20, "null")}, llm.Estimated, 2},
			{"of many all ended", []string{v.event(0, `"stop"`), v.event(1, `"stop"`), v.event(20, "null"), v.event(20, `"stop"`)}, llm.Exact, 2},
			{"one that is not followed", []string{v.event(0, `"stop"`), v.event(100_000, `"stop"`)}, llm.Estimated, 1},
		} {
			ask := `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
			ask = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", v.path, v.host, v.header, len(ask), ask)
			body := "data: " + strings.Join(x.events, "\n\ndata: ") + "\n\n"
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			for _, size := range []int{1 << 20, 1} {
				var calls []*llm.Call
				d := decoder.New(decoder.Config{Vendors: vendors.All(content.Config{NoEstimate: true}), Call: func(c *llm.Call) { calls = append(calls, c) }})
				for i, wire := range []string{ask, answer} {
					dir := [...]flow.Dir{flow.Write, flow.Read}[i]
					pos := uint64(0)
					for p := range slices.Chunk([]byte(wire), size) {
						d.Push(&flow.Data{Kind: flow.KindData, Conn: flow.Conn{Key: 1, Gen: 1}, Dir: dir, Pos: pos, Payload: p})
						pos += uint64(len(p))
					}
				}
				d.Close()
				if len(calls) != 1 {
					t.Fatalf("%s, %s, by %d bytes: %d calls", v.name, x.name, size, len(calls))
				}
				c := calls[0]
				if n, _ := c.Usage.OutputTotal(); c.Completeness != x.want || len(c.FinishReasons) != x.ended || n != 7 {
					t.Errorf("%s, %s, by %d bytes: %v, %v tokens, %q", v.name, x.name, size, c.Completeness, n, c.FinishReasons)
				}
			}
		}
	}
}
