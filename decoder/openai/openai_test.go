package openai

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/request"
	"github.com/tollwire/tollwire/llm"
)

func post(url string) *exchange.Request {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
	return &exchange.Request{Method: "POST", Host: host, Path: "/" + path, Header: http.Header{}}
}

// decode runs a call; answer is one JSON body, or the data of events, a line each.
func decode(t testing.TB, url, asked, answer string, status int, end error) (*llm.Call, []exchange.Content) {
	t.Helper()
	req := post(url)
	var f exchange.Facts
	if err := new(request.Reader).Read(strings.NewReader(asked), "application/json", &f); err != nil {
		t.Fatal(err)
	}
	v := New(content.Config{})
	if c := v.Recognize(req, &f); c < exchange.Weak {
		t.Fatalf("%s is not recognised: %d", url, c)
	}
	c := new(llm.Call)
	d := v.Open(req, &f, c)
	c.Status = status
	d.Response(&exchange.Response{Status: status, Header: http.Header{"X-Litellm-Response-Cost": {""}}})
	var kinds []exchange.Content
	if rest, ok := strings.CutPrefix(answer, "data: "); ok {
		for _, line := range strings.Split(rest, "\ndata: ") {
			e := &exchange.Event{Data: iotest.OneByteReader(strings.NewReader(line))}
			if err := d.Event(e); err != nil && end == nil {
				t.Fatalf("%s: %v", line, err)
			}
			kinds = append(kinds, e.Content)
			if e.Done != (line == "[DONE]" || strings.Contains(line, `"response.completed"`)) {
				t.Errorf("%s: done is %v", line, e.Done)
			}
		}
	} else if err := d.Body(iotest.OneByteReader(strings.NewReader(answer))); err != nil && end == nil {
		t.Fatalf("%s: %v", answer, err)
	}
	d.End(end)
	return c, kinds
}

func TestUsageClasses(t *testing.T) {
	for _, v := range []struct {
		what, host, usage string
		want              map[llm.Class]float64
		disagrees         bool
	}{
		{"cache and reasoning inside", "api.openai.com", `{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":10},"completion_tokens_details":{"reasoning_tokens":20}}`,
			map[llm.Class]float64{llm.Input: 30, llm.CacheRead: 60, llm.CacheWrite: 10, llm.Output: 30, llm.Reasoning: 20}, false},
		{"reasoning outside", "api.x.ai", `{"prompt_tokens":100,"completion_tokens":5,"total_tokens":130,"completion_tokens_details":{"reasoning_tokens":25}}`,
			map[llm.Class]float64{llm.Input: 100, llm.Output: 5, llm.Reasoning: 25}, false},
		{"audio outside", "api.mistral.ai", `{"prompt_tokens":9,"completion_tokens":248,"total_tokens":632,"prompt_tokens_details":{"audio_tokens":375}}`,
			map[llm.Class]float64{llm.Input: 9, llm.InputAudio: 375, llm.Output: 248}, false},
		{"audio inside", "api.openai.com", `{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"audio_tokens":40},"completion_tokens_details":{"audio_tokens":30}}`,
			map[llm.Class]float64{llm.Input: 60, llm.InputAudio: 40, llm.Output: 20, llm.OutputAudio: 30}, false},
		{"hits and misses", "api.deepseek.com", `{"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36,"completion_tokens":1}`,
			map[llm.Class]float64{llm.Input: 36, llm.CacheRead: 64, llm.Output: 1}, false},
		{"cached on top level", "api.together.xyz", `{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"cached_tokens":8}`,
			map[llm.Class]float64{llm.Input: 2, llm.CacheRead: 8, llm.Output: 1}, false},
		{"more cached than read", "x.openai.azure.com", `{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":12}}`,
			map[llm.Class]float64{llm.Input: 0, llm.CacheRead: 10, llm.Output: 1}, true},
		{"deep research", "api.perplexity.ai", `{"prompt_tokens":33,"completion_tokens":7163,"total_tokens":7196,"citation_tokens":20016,"num_search_queries":18,"reasoning_tokens":95305}`,
			map[llm.Class]float64{llm.Input: 33, llm.Output: 7163, llm.Reasoning: 95305, llm.Citation: 20016, llm.Searches: 18}, false},
		{"a total that is none", "api.openai.com", `{"prompt_tokens":10,"completion_tokens":1,"total_tokens":99}`,
			map[llm.Class]float64{llm.Input: 10, llm.Output: 1}, true},
		{"a negative count", "api.openai.com", `{"prompt_tokens":10,"completion_tokens":-1}`, map[llm.Class]float64{llm.Input: 10}, true},
		{"zero is stated", "api.openai.com", `{"prompt_tokens":10,"completion_tokens":0,"total_tokens":10}`,
			map[llm.Class]float64{llm.Input: 10, llm.Output: 0}, false},
		{"null is not", "api.openai.com", `{"prompt_tokens":10,"completion_tokens":null}`, map[llm.Class]float64{llm.Input: 10}, false},
	} {
		c, _ := decode(t, "https://"+v.host+"/v1/chat/completions", `{"messages":[]}`,
			`{"id":"i","choices":[{"finish_reason":"stop","message":{"content":"x"}}],"usage":`+v.usage+`}`, 200, nil)
		for k := range llm.NumClasses {
			n, ok := v.want[k]
			if c.Usage.Has(k) != ok || c.Usage.Get(k) != n {
				t.Errorf("%s: %v is %v (%v), want %v (%v)", v.what, k, c.Usage.Get(k), c.Usage.Has(k), n, ok)
			}
		}
		if c.Completeness != llm.Exact || (c.Disagreement != "") != v.disagrees {
			t.Errorf("%s: %v, %q", v.what, c.Completeness, c.Disagreement)
		}
	}
}

func TestStreamContent(t *testing.T) {
	c, kinds := decode(t, "https://gateway.internal/v1/chat/completions", `{"model":"m","stream":true,"messages":[]}`, `data: {"id":"c1","model":"","choices":[],"prompt_filter_results":[]}
data: {"id":"c1","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}
data: {"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}
data: {"id":"c1","choices":[{"index":0,"delta":{"content":"he\"y"}}],"obfuscation":"xxxx"}
data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","function":{"name":"add","arguments":""}}]}}]}
data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}}]}}]}
data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}
data: {"id":"c1","choices":[],"x_groq":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}
data: {"id":"c1","choices":[],"service_tier":"flex","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}
data: [DONE]`, 200, nil)
	want := []exchange.Content{0, 0, exchange.Hidden, exchange.Visible, exchange.Visible, exchange.Visible, 0, 0, 0, 0}
	if !slices.Equal(kinds, want) {
		t.Errorf("content %v, want %v", kinds, want)
	}
	if c.ResponseModel != "m-1" || c.RequestModel != "m" || c.ResponseID != "c1" || c.ServiceTier != "flex" || !c.Stream || c.Provider != "" ||
		!slices.Equal(c.FinishReasons, []string{"tool_calls"}) || !slices.Equal(c.ToolCalls, []string{"add"}) || c.Quality != nil ||
		c.Usage.Get(llm.Input) != 7 || c.Completeness != llm.Exact || c.UsageSource != llm.SourceStream {
		t.Errorf("%+v", c)
	}
}

func TestResponsesStream(t *testing.T) {
	c, kinds := decode(t, "https://api.openai.com/v1/responses", `{"model":"m","input":"x","stream":true,"text":{"format":{"type":"json_schema"}}}`, `data: {"type":"response.created","response":{"id":"r1","status":"in_progress","usage":null}}
data: {"type":"response.reasoning_summary_text.delta","delta":"hm"}
data: {"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","name":"add"}}
data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":"{"}
data: {"type":"response.function_call_arguments.done","output_index":1,"arguments":"{"}
data: {"type":"response.output_item.done","output_index":2,"item":{"type":"web_search_call","action":{"type":"search"}}}
data: {"type":"response.output_item.done","output_index":3,"item":{"type":"web_search_call","action":{"type":"open_page"}}}
data: {"type":"response.output_text.delta","delta":"hi"}
data: {"type":"response.completed","response":{"id":"r1","model":"m-1","status":"completed","service_tier":"default","output":[{"type":"function_call","name":"add"}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":14}}}`, 200, nil)
	if want := []exchange.Content{0, exchange.Hidden, exchange.Visible, exchange.Visible, 0, exchange.Visible, exchange.Visible, exchange.Visible, 0}; !slices.Equal(kinds, want) {
		t.Errorf("content %v, want %v", kinds, want)
	}
	if !slices.Equal(c.FinishReasons, []string{"completed"}) || !slices.Equal(c.ToolCalls, []string{"add"}) ||
		!slices.Equal(c.Quality, []string{content.ArgumentsInvalid}) || c.Cost.ToolRequests["web_search"] != 1 ||
		c.Usage.Get(llm.Input) != 5 || c.Usage.Get(llm.Reasoning) != 2 || c.Completeness != llm.Exact {
		t.Errorf("%+v", c)
	}
}

func TestCutStreamKeepsWhatWasStated(t *testing.T) {
	const stream = `data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}
data: {"id":"c","choices":[{"index":0,"delta":{"content":"b"}}],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}`
	for _, end := range []error{exchange.ErrCut, nil} { // ended in order, and yet nobody said so
		c, _ := decode(t, "https://api.perplexity.ai/chat/completions", `{"messages":[]}`, stream, 200, end)
		if c.Completeness != llm.Estimated || c.UsageSource != llm.SourceStreamPartial || c.Usage.Get(llm.Output) != 2 {
			t.Errorf("%v: %+v", end, c)
		}
	}
}

func TestNoUsageIsEstimated(t *testing.T) {
	c, _ := decode(t, "https://api.openai.com/v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"Hello, world!"}]}`,
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello, world!\"}}]}\ndata: [DONE]", 200, nil)
	if c.Completeness != llm.Estimated || c.UsageSource != llm.SourceTokenizer || c.Usage.Get(llm.Output) != 4 || c.Usage.Get(llm.Input) != 12 {
		t.Errorf("%+v", c)
	}
	c, _ = decode(t, "https://api.openai.com/v1/responses", `{"input":"hi","background":true}`, `{"id":"r","status":"queued","usage":null,"output":[]}`, 200, nil)
	if c.Completeness != llm.Missing || c.FinishReasons != nil {
		t.Errorf("queued: %+v", c)
	}
}

func TestErrors(t *testing.T) {
	for _, v := range []struct {
		answer, want string
		status       int
		inBand       bool
	}{
		{`{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}`, "insufficient_quota", 429, false},
		{`{"error":{"message":"m","type":"invalid_request_error","code":null}}`, "invalid_request_error", 400, false},
		{`{"error":{"code":429,"message":"m"}}`, "429", 429, false},
		{`{"error":null,"choices":[{"finish_reason":"stop","message":{"content":"x"}}]}`, "", 200, false},
		{"data: {\"choices\":[]}\ndata: {\"error\":{\"code\":\"tool_use_failed\"}}", "tool_use_failed", 200, true},
		{`{"base_resp":{"status_code":1008,"status_msg":"m"}}`, "1008", 200, true},
		{`{"code":"invalid_argument","error":"no"}`, "invalid_argument", 400, false},
	} {
		c, _ := decode(t, "https://api.openai.com/v1/chat/completions", `{"messages":[]}`, v.answer, v.status, nil)
		if c.ErrorType != v.want || c.InBandError != v.inBand || v.want != "" && c.Usage.HasTokens() {
			t.Errorf("%s: %q, in band %v", v.answer, c.ErrorType, c.InBandError)
		}
	}
}

func TestCosts(t *testing.T) {
	for usage, want := range map[string][2]string{
		`{"prompt_tokens":1,"cost":0.000123}`:                       {"0.000123", CostUsage},
		`{"prompt_tokens":1,"cost":1.13e-05,"is_byok":false}`:       {"1.13e-05", CostUsage},
		`{"prompt_tokens":1,"cost":0.1,"is_byok":true}`:             {"", ""},
		`{"prompt_tokens":1,"cost":{"total_cost":0.02}}`:            {"0.02", CostTotal},
		`{"prompt_tokens":1,"cost_in_usd_ticks":2488500}`:           {"2488500", CostTicks},
		`{"prompt_tokens":1,"pydantic_ai_gateway":{"cost_est":.1}}`: {"", ""},
	} {
		c, _ := decode(t, "https://openrouter.ai/api/v1/chat/completions", `{"messages":[]}`, `{"choices":[],"usage":`+usage+`}`, 200, nil)
		if c.StatedCost != want[0] || c.StatedCostSource != want[1] {
			t.Errorf("%s: %q from %q", usage, c.StatedCost, c.StatedCostSource)
		}
	}
}

func TestRecognize(t *testing.T) {
	v := New(content.Config{})
	known := func(keys ...string) *exchange.Facts {
		f := &exchange.Facts{Known: true, Whole: true, Model: "m", Keys: map[string]bool{}}
		for _, k := range keys {
			f.Keys[k] = true
		}
		return f
	}
	for _, c := range []struct {
		url  string
		f    *exchange.Facts
		want exchange.Confidence
	}{
		{"https://api.openai.com/v1/chat/completions", &exchange.Facts{}, exchange.Sure},
		{"https://api.openai.com/v1/moderations", &exchange.Facts{}, exchange.No},
		{"https://api.openai.com/v1/responses/input_tokens", known("input"), exchange.No},
		{"https://localhost:8000/v1/chat/completions", &exchange.Facts{}, exchange.Path},
		{"https://forms.example/forms/1/responses", &exchange.Facts{}, exchange.Maybe},
		{"https://forms.example/forms/1/responses", known("answers"), exchange.No},
		{"https://gw.example/v1/responses", known("input"), exchange.Path},
		{"https://gw.example/llm", known("messages"), exchange.Weak},
		{"https://gw.example/llm", known("text"), exchange.No},
		{"https://api.openai.com/v1/threads/t/runs", &exchange.Facts{}, exchange.Sure},
		{"https://ci.example/jobs/1/runs", known("assistant_id"), exchange.Weak - 2},
	} {
		if got := v.Recognize(post(c.url), c.f); got != c.want && !(c.want < exchange.Maybe && got <= exchange.Maybe) {
			t.Errorf("%s %v: %d, want %d", c.url, c.f.Keys, got, c.want)
		}
	}
	get := post("https://api.openai.com/v1/chat/completions")
	if get.Method = "GET"; v.Recognize(get, &exchange.Facts{}) != exchange.No {
		t.Error("a GET is no call")
	}
}

func TestMedia(t *testing.T) {
	c, _ := decode(t, "https://api.openai.com/v1/images/generations", `{"model":"gpt-image-1","prompt":"p"}`,
		`{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":50,"input_tokens_details":{"image_tokens":40,"text_tokens":10},"output_tokens":50,"total_tokens":100}}`, 200, nil)
	if c.Operation != "generate_content" || c.Usage.Get(llm.InputImage) != 40 || c.Usage.Get(llm.Images) != 1 || c.Completeness != llm.Exact {
		t.Errorf("%+v", c)
	}
	c, _ = decode(t, "https://api.openai.com/v1/audio/transcriptions", `{"model":"whisper-1","file":""}`, `{"text":"hello","usage":{"type":"duration","seconds":9.5}}`, 200, nil)
	if c.Operation != "transcription" || c.Usage.Get(llm.Seconds) != 9.5 {
		t.Errorf("%+v", c)
	}
	c, _ = decode(t, "https://api.openai.com/v1/audio/speech", `{"model":"tts-1","input":"héllo"}`, "\x49\x44\x33 sound", 200, nil)
	if c.Operation != "speech" || c.Usage.Get(llm.Characters) != 5 {
		t.Errorf("%+v", c)
	}
}

// FuzzDecode: no bytes make it panic, and none that are cut make a usage exact.
func FuzzDecode(f *testing.F) {
	for i, path := range []string{"/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/images/generations", "/v1/threads/t/runs"} {
		f.Add(i, path, []byte(`{"id":"i","choices":[{"index":0,"delta":{"content":[{"text":"a"}],"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`), true)
		f.Add(i, path, []byte(`{"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":1,"output_tokens":2},"output":[{"type":"message","content":[{"text":"x"}]}]}}`), false)
	}
	f.Fuzz(func(t *testing.T, n int, path string, body []byte, stream bool) {
		req := &exchange.Request{Method: "POST", Host: "api.openai.com", Path: path, Header: http.Header{}}
		var facts exchange.Facts
		v := New(content.Config{NoEstimate: true})
		v.Recognize(req, &facts)
		c := new(llm.Call)
		d := v.Open(req, &facts, c)
		c.Status = 200
		d.Response(&exchange.Response{Status: 200})
		cut := io.MultiReader(strings.NewReader(string(body)), iotest.ErrReader(exchange.ErrCut))
		if stream {
			d.Event(&exchange.Event{Data: cut})
		} else {
			d.Body(cut)
		}
		d.End(exchange.ErrCut)
		if c.Completeness == llm.Exact {
			t.Fatal(fmt.Sprint("exact, although cut: ", c))
		}
	})
}
