package ollama

import (
	"maps"
	"slices"
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

const (
	chat  = `{"model":"qwen3","messages":[{"role":"user","content":"hi"}]}`
	lines = "application/x-ndjson"
)

func TestAnswers(t *testing.T) {
	const last = `{"model":"qwen3","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":11,"eval_count":18}` + "\n"
	for _, x := range []struct {
		name, url, ask, kind, body string
		want                       map[string]float64
		sure                       llm.Completeness
		check                      func(c *llm.Call, n answertest.Contents) bool
	}{
		{"thinking, tools and text", "http://localhost:11434/api/chat", chat, lines,
			`{"message":{"content":"","thinking":"hm"},"done":false}` + "\n" + `{"message":{"content":"","tool_calls":[{"function":{"name":"ls","arguments":{"name":"x"}}}]},"done":false}` + "\n" + last,
			map[string]float64{"input": 11, "output": 18}, llm.Exact, func(c *llm.Call, n answertest.Contents) bool {
				return n.Hidden == 1 && n.Visible == 1 && n.Done && c.Stream && slices.Equal(c.ToolCalls, []string{"ls"}) && c.UsageSource == llm.SourceStream
			}},
		{"lines not told from an object", "http://gw/ollama/api/chat", chat, "application/json", `{"message":{"content":"a"},"done":false}` + "\n" + last,
			map[string]float64{"input": 11, "output": 18}, llm.Exact, func(c *llm.Call, _ answertest.Contents) bool { return c.Stream && c.UsageSource == llm.SourceStream }},
		{"an error in the middle", "http://localhost:11434/api/chat", chat, lines, `{"message":{"content":"a"},"done":false}` + "\n" + `{"error":"out of memory"}` + "\n",
			nil, llm.Missing, func(c *llm.Call, _ answertest.Contents) bool { return c.InBandError && c.ErrorType == "error" }},
		{"a cached prompt", "http://localhost:11434/api/generate", `{"model":"m","prompt":"hi","stream":false}`, "application/json", `{"model":"m","response":"a","done":true,"done_reason":"length","eval_count":3}`,
			map[string]float64{"output": 3}, llm.Exact, func(c *llm.Call, _ answertest.Contents) bool {
				return !c.Stream && slices.Equal(c.Quality, []string{"length"}) && c.Operation == "text_completion"
			}},
		{"embeddings", "http://localhost:11434/api/embed", `{"model":"m","input":["a"]}`, "application/json", `{"model":"m","embeddings":[[0.1,0.2]],"prompt_eval_count":4}`,
			map[string]float64{"input": 4}, llm.Exact, func(c *llm.Call, _ answertest.Contents) bool { return c.Operation == "embeddings" && !c.Stream }},
	} {
		c, n := answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(x.url, x.ask, x.kind, x.body), answertest.Whole, nil)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || c.Completeness != x.sure || !x.check(c, n) {
			t.Errorf("%s: %v %v %+v %+v", x.name, got, c.Completeness, c, n)
		}
	}
}

func TestRecognize(t *testing.T) {
	for _, x := range []struct {
		host, path string
		facts      exchange.Facts
		want       exchange.Confidence
	}{
		{"localhost:11434", "/api/chat", exchange.Facts{}, exchange.Path},
		{"app.local", "/api/chat", exchange.Facts{}, exchange.Maybe},
		{"app.local", "/api/chat", exchange.Facts{Known: true, Keys: map[string]bool{"messages": true}}, exchange.No}, // a web application's own
		{"app.local", "/api/chat", exchange.Facts{Known: true, Model: "m", Keys: map[string]bool{"messages": true}}, exchange.Path},
		{"localhost:11434", "/api/pull", exchange.Facts{}, exchange.No},
		{"localhost:11434", "/api/chat/history", exchange.Facts{}, exchange.No},
	} {
		if got := New(content.Config{}).Recognize(&exchange.Request{Method: "POST", Host: x.host, Path: x.path}, &x.facts); got != x.want {
			t.Errorf("%s%s: %v, want %v", x.host, x.path, got, x.want)
		}
	}
}
