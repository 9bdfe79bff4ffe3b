package cohere

import (
	"maps"
	"slices"
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

const v2 = `{"model":"command-a","messages":[{"role":"user","content":"hi"}]}`

func decode(t *testing.T, url, ask, kind, body string) (*llm.Call, answertest.Contents) {
	t.Helper()
	return answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(url, ask, kind, body), answertest.Whole, nil)
}

func TestStream(t *testing.T) {
	const sse = "event: message-start\ndata: {\"id\":\"i\",\"type\":\"message-start\"}\n\n" +
		"event: content-delta\ndata: {\"type\":\"content-delta\",\"index\":0,\"delta\":{\"message\":{\"content\":{\"thinking\":\"hm\"}}}}\n\n" +
		"event: tool-plan-delta\ndata: {\"type\":\"tool-plan-delta\",\"delta\":{\"message\":{\"tool_plan\":\"I will\"}}}\n\n" +
		"event: tool-call-start\ndata: {\"type\":\"tool-call-start\",\"index\":0,\"delta\":{\"message\":{\"tool_calls\":{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"add\",\"arguments\":\"\"}}}}}\n\n" +
		"event: tool-call-delta\ndata: {\"type\":\"tool-call-delta\",\"index\":0,\"delta\":{\"message\":{\"tool_calls\":{\"function\":{\"arguments\":\"{\\\"a\\\":1}\"}}}}}\n\n"
	const end = "event: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"TOOL_CALL\",\"usage\":{\"billed_units\":{\"input_tokens\":5,\"output_tokens\":9},\"tokens\":{\"input_tokens\":69,\"output_tokens\":12,\"reasoning_tokens\":4},\"cached_tokens\":64}}}\n\ndata: [DONE]\n\n"
	c, n := decode(t, "https://api.cohere.com/v2/chat", v2, "text/event-stream", sse+end)
	want := map[string]float64{"input": 5, "output": 5, "reasoning": 4}
	if got := answertest.Classes(&c.Usage); !maps.Equal(got, want) || c.Completeness != llm.Exact || c.UsageSource != llm.SourceStream {
		t.Errorf("%v %v %v", got, c.Completeness, c.UsageSource)
	}
	if n.Hidden != 2 || n.Visible != 2 || !n.Done || !slices.Equal(c.ToolCalls, []string{"add"}) || c.ResponseID != "i" || !c.Stream || c.Quality != nil {
		t.Errorf("%+v %+v", c, n)
	}
	if c, _ = decode(t, "https://api.cohere.com/v2/chat", v2, "text/event-stream", sse); c.Completeness != llm.Missing {
		t.Errorf("%+v", c)
	}
}

func TestAnswers(t *testing.T) {
	for _, x := range []struct {
		name, url, ask, body string
		want                 map[string]float64
		check                func(c *llm.Call) bool
	}{
		{"tokens where nothing is billed", "https://api.cohere.com/v2/chat", v2, `{"id":"i","finish_reason":"MAX_TOKENS","usage":{"tokens":{"input_tokens":7,"output_tokens":2}}}`,
			map[string]float64{"input": 7, "output": 2}, func(c *llm.Call) bool { return slices.Contains(c.Quality, "length") }},
		{"more reasoning than output", "https://api.cohere.com/v2/chat", v2, `{"usage":{"billed_units":{"input_tokens":7,"output_tokens":2},"tokens":{"reasoning_tokens":3}}}`,
			map[string]float64{"input": 7, "output": 0, "reasoning": 2}, func(c *llm.Call) bool { return c.Disagreement != "" }},
		{"lines as one body", "https://api.cohere.com/v1/chat", `{"message":"hi","model":"command","stream":true}`,
			"{\"event_type\":\"text-generation\",\"text\":\"a\",\"is_finished\":false}\n{\"event_type\":\"stream-end\",\"is_finished\":true,\"finish_reason\":\"COMPLETE\",\"response\":{\"response_id\":\"r\",\"text\":\"a\",\"meta\":{\"billed_units\":{\"input_tokens\":1,\"output_tokens\":2}}}}\n",
			map[string]float64{"input": 1, "output": 2}, func(c *llm.Call) bool { return c.ResponseID == "r" && c.Completeness == llm.Exact }},
		{"embedded images", "https://api.cohere.com/v2/embed", `{"model":"embed-v4.0","input_type":"image","images":[""]}`, `{"id":"i","embeddings":{"float":[[1]]},"meta":{"billed_units":{"images":1,"image_tokens":300}}}`,
			map[string]float64{"input_image": 300, "images": 1}, func(c *llm.Call) bool { return c.Operation == "embeddings" }},
		{"rerank", "https://api.cohere.com/v2/rerank", `{"model":"rerank-v3.5","query":"q","documents":[]}`, `{"id":"i","results":[],"meta":{"billed_units":{"search_units":2}}}`,
			map[string]float64{"search_units": 2}, func(c *llm.Call) bool { return c.Completeness == llm.Exact }},
		{"an error at the end", "http://gateway/cohere/v2/chat", v2, `{"finish_reason":"ERROR_TOXIC","usage":{"billed_units":{"input_tokens":7,"output_tokens":2}}}`,
			map[string]float64{"input": 7, "output": 2}, func(c *llm.Call) bool { return c.InBandError && c.ErrorType == "ERROR_TOXIC" }},
		{"arguments that are no JSON", "https://api.cohere.com/v2/chat", v2, `{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{"}}]},"finish_reason":"TOOL_CALL"}`,
			nil, func(c *llm.Call) bool { return slices.Equal(c.Quality, []string{"arguments_invalid"}) }},
	} {
		c, _ := decode(t, x.url, x.ask, "application/json", x.body)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || !x.check(c) {
			t.Errorf("%s: %v %+v", x.name, got, c)
		}
	}
}

func TestRecognize(t *testing.T) {
	for _, x := range []struct {
		host, path string
		keys       []string
		want       exchange.Confidence
	}{
		{"api.cohere.com", "/v1/chat", nil, exchange.Sure},
		{"api.cohere.ai:443", "/v2/rerank", nil, exchange.Sure},
		{"gw", "/cohere/v2/chat", []string{"messages", "model"}, exchange.Path},
		{"gw", "/v1/chat", []string{"messages", "model"}, exchange.No},
		{"gw", "/v1/rerank", []string{"query", "documents"}, exchange.Weak},
		{"gw", "/v1/chat/completions", []string{"messages", "model"}, exchange.No},
	} {
		f := &exchange.Facts{Known: x.keys != nil, Keys: map[string]bool{}}
		for _, k := range x.keys {
			f.Keys[k] = true
		}
		if got := New(content.Config{}).Recognize(&exchange.Request{Method: "POST", Host: x.host, Path: x.path}, f); got != x.want {
			t.Errorf("%s%s %v: %v, want %v", x.host, x.path, x.keys, got, x.want)
		}
	}
}
