package selfhosted

import (
	"bytes"
	"io"
	"maps"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

var vectors = []struct {
	name, url, ask, kind, body string
	want                       map[string]float64
	sure                       llm.Completeness
	check                      func(c *llm.Call, n answertest.Contents) bool
}{
	{"llama.cpp", "http://localhost:8080/completion", `{"prompt":"hi","n_predict":8}`, "application/json",
		`{"content":"a","stop":true,"stop_type":"limit","tokens_evaluated":10,"tokens_predicted":8,"tokens_cached":17,"timings":{"cache_n":4,"prompt_n":6,"predicted_n":8}}`,
		map[string]float64{"input": 6, "cache_read": 4, "output": 8}, llm.Exact,
		func(c *llm.Call, _ answertest.Contents) bool {
			return c.FinishReasons[0] == "limit" && c.Provider == "llama_cpp"
		}},
	{"llama.cpp in events", "http://localhost:8080/completion", `{"prompt":"hi","stream":true}`, "text/event-stream",
		"data: {\"content\":\"a\",\"stop\":false}\n\ndata: {\"content\":\"\",\"stop\":true,\"stop_type\":\"eos\",\"tokens_evaluated\":10,\"tokens_predicted\":8}\n\n",
		map[string]float64{"input": 10, "output": 8}, llm.Exact, func(c *llm.Call, n answertest.Contents) bool { return n.Visible == 1 && c.Stream }},
	{"llama.cpp, given up", "http://localhost:8080/completion", `{"prompt":"hi","stream":true}`, "text/event-stream", "data: {\"content\":\"a\",\"stop\":false,\"tokens_predicted\":1}\n\n",
		map[string]float64{"output": 1}, llm.Estimated, func(*llm.Call, answertest.Contents) bool { return true }},
	{"llama.cpp's embedding", "http://localhost:8080/embedding", `{"content":"hi"}`, "application/json", `[{"index":0,"embedding":[[0.1,-2e-3]]}]`,
		nil, llm.Missing, func(c *llm.Call, _ answertest.Contents) bool {
			return c.Operation == "embeddings" && c.Provider == "llama_cpp"
		}},
	{"SGLang", "http://localhost:30000/generate", `{"text":"hi","sampling_params":{},"stream":true}`, "text/event-stream",
		"data: {\"text\":\"a\",\"meta_info\":{\"id\":\"i\",\"prompt_tokens\":10,\"completion_tokens\":1,\"finish_reason\":null}}\n\n" +
			"data: {\"text\":\"ab\",\"meta_info\":{\"id\":\"i\",\"prompt_tokens\":10,\"cached_tokens\":3,\"completion_tokens\":2,\"finish_reason\":{\"type\":\"stop\",\"matched\":1}}}\n\ndata: [DONE]\n\n",
		map[string]float64{"input": 7, "cache_read": 3, "output": 2}, llm.Exact,
		func(c *llm.Call, n answertest.Contents) bool {
			return n.Visible == 2 && n.Done && c.FinishReasons[0] == "stop" && c.ResponseID == "i"
		}},
	{"Triton", "http://localhost:8000/v2/models/llama/versions/1/generate_stream", `{"text_input":"hi"}`, "text/event-stream", "data: {\"model_name\":\"llama\",\"text_output\":\"a\"}\n\n",
		nil, llm.Missing, func(c *llm.Call, n answertest.Contents) bool { return c.RequestModel == "llama" && n.Visible == 1 }},
	{"Triton's error", "http://localhost:8000/v2/models/llama/generate", `{"text_input":"hi"}`, "application/json", `{"error":"out of memory"}`,
		nil, llm.Missing, func(c *llm.Call, _ answertest.Contents) bool { return c.InBandError }},
	{"LM Studio", "http://localhost:1234/api/v1/chat", `{"model":"m","input":"hi"}`, "application/json",
		`{"model_instance_id":"m","output":[{"type":"reasoning","content":"hm"},{"type":"message","content":"a"}],"stats":{"input_tokens":10,"total_output_tokens":8,"reasoning_output_tokens":3}}`,
		map[string]float64{"input": 10, "output": 5, "reasoning": 3}, llm.Exact, func(c *llm.Call, _ answertest.Contents) bool { return c.Operation == "chat" && c.ResponseModel == "m" }},
}

func TestAnswers(t *testing.T) {
	for _, x := range vectors {
		c, n := answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(x.url, x.ask, x.kind, x.body), answertest.Whole, nil)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || c.Completeness != x.sure || !x.check(c, n) {
			t.Errorf("%s: %v %+v %+v", x.name, got, c, n)
		}
	}
}

func TestRecognize(t *testing.T) {
	for _, x := range []struct {
		path string
		f    exchange.Facts
		want exchange.Confidence
	}{
		{"/api/generate", exchange.Facts{}, exchange.No},
		{"/generate", exchange.Facts{Known: true, Keys: map[string]bool{"inputs": true}}, exchange.No},
		{"/completion", exchange.Facts{Known: true, Keys: map[string]bool{"prompt": true}}, exchange.Weak},
		{"/embedding", exchange.Facts{Known: true, Keys: map[string]bool{"content": true}}, exchange.Weak},
		{"/app/embedding", exchange.Facts{Known: true, Keys: map[string]bool{"content": true}}, exchange.No},
		{"/v1/completions", exchange.Facts{}, exchange.No},
		{"/v2/models/x/infer", exchange.Facts{}, exchange.No},
		{"/api/v1/chat", exchange.Facts{Known: true, Keys: map[string]bool{"input": true}}, exchange.No},
	} {
		if got := New(content.Config{}).Recognize(&exchange.Request{Method: "POST", Path: x.path}, &x.f); got != x.want {
			t.Errorf("%s: %v, want %v", x.path, got, x.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for i, x := range vectors {
		f.Add(uint8(i), []byte(x.body))
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		run := func(r io.Reader) *llm.Call {
			c := &llm.Call{Status: 200}
			path := []string{"/completion", "/generate", "/v2/models/m/generate", "/api/v1/chat"}[which%4]
			d := New(content.Config{}).Open(&exchange.Request{Method: "POST", Path: path}, &exchange.Facts{}, c)
			d.Response(&exchange.Response{Status: 200})
			d.End(d.Body(r))
			return c
		}
		a, b := run(bytes.NewReader(body)), run(iotest.OneByteReader(bytes.NewReader(body)))
		if a.Usage != b.Usage || a.Completeness != b.Completeness {
			t.Fatalf("%+v, in pieces %+v", a, b)
		}
	})
}
