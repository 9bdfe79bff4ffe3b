package gemini

import (
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

const (
	api      = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:"
	prompt   = `{"contents":[{"parts":[{"text":"hi"}]}]}`
	jsonType = "application/json; charset=UTF-8"
	sseType  = "text/event-stream"
)

func events(data ...string) string {
	return "data: " + strings.Join(data, "\r\n\r\ndata: ") + "\r\n\r\n"
}

// The numbers follow https://ai.google.dev/api/generate-content#UsageMetadata.
func TestClasses(t *testing.T) {
	for _, x := range []struct {
		name, usage  string
		want         map[string]float64
		disagreement string
	}{
		{"text", `{"promptTokenCount":10,"candidatesTokenCount":5,"totalTokenCount":15}`,
			map[string]float64{"input": 10, "cache_read": 0, "output": 5}, ""},
		{"thoughts and tool prompts stand apart", `{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":7,"toolUsePromptTokenCount":3,"totalTokenCount":25}`,
			map[string]float64{"input": 10, "output": 5, "reasoning": 7, "tool_input": 3}, ""},
		{"no candidates but a total", `{"promptTokenCount":10,"thoughtsTokenCount":7,"totalTokenCount":17}`,
			map[string]float64{"input": 10, "output": 0, "reasoning": 7}, ""},
		{"audio, of which some was cached", `{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":5,"totalTokenCount":105,
			"promptTokensDetails":[{"modality":"TEXT","tokenCount":30},{"modality":"AUDIO","tokenCount":70}],
			"cacheTokensDetails":[{"modality":"TEXT","tokenCount":10},{"modality":"AUDIO","tokenCount":30}]}`,
			map[string]float64{"input": 20, "input_audio": 40, "cache_read": 10, "cache_read_audio": 30, "output": 5}, ""},
		{"image and video, enums as numbers", `{"promptTokenCount":100,"candidatesTokenCount":30,"totalTokenCount":130,
			"promptTokensDetails":[{"modality":1,"tokenCount":30},{"modality":2,"tokenCount":50},{"modality":3,"tokenCount":20}],
			"candidatesTokensDetails":[{"modality":2,"tokenCount":29}]}`,
			map[string]float64{"input": 30, "input_image": 50, "input_video": 20, "output": 1, "output_image": 29}, ""},
		{"more cached than prompt", `{"promptTokenCount":10,"cachedContentTokenCount":12,"candidatesTokenCount":5,"totalTokenCount":15}`,
			map[string]float64{"input": 0, "cache_read": 10, "output": 5}, "cached 12 exceeds the 10 it is part of"},
		{"a wrong total", `{"promptTokenCount":10,"candidatesTokenCount":5,"totalTokenCount":19}`,
			map[string]float64{"input": 10, "output": 5}, "total 19 is not prompt 10 + candidates 5 + thoughts 0 + tool prompts 0"},
		{"a negative count", `{"promptTokenCount":-1,"candidatesTokenCount":5}`,
			map[string]float64{"output": 5}, ""},
		{"no prompt", `{"candidatesTokenCount":5,"totalTokenCount":5}`,
			map[string]float64{"input": 0, "output": 5}, ""},
		{"traffic only", `{"trafficType":"ON_DEMAND"}`, nil, ""},
	} {
		body := `{"candidates":[{"content":{"parts":[{"text":"hello"}]},"finishReason":"STOP"}],"usageMetadata":` + x.usage + `}`
		c, _ := answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(api+"generateContent", prompt, jsonType, body), answertest.Whole, nil)
		got := answertest.Classes(&c.Usage)
		delete(got, "cache_read")
		want := maps.Clone(x.want)
		if n, ok := want["cache_read"]; ok {
			delete(want, "cache_read")
			if c.Usage.Get(llm.CacheRead) != n {
				t.Errorf("%s: cache_read %v, want %v", x.name, c.Usage.Get(llm.CacheRead), n)
			}
		}
		if !maps.Equal(got, want) || c.Disagreement != x.disagreement {
			t.Errorf("%s: %v %q, want %v %q", x.name, got, c.Disagreement, want, x.disagreement)
		}
		if x.want == nil != (c.Completeness == llm.Missing) {
			t.Errorf("%s: %v", x.name, c.Completeness)
		}
	}
}

func TestAnswers(t *testing.T) {
	const usage = `"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2,"totalTokenCount":6}`
	for _, x := range []struct {
		name, url, ask, kind, body string
		check                      func(c *llm.Call, n answertest.Contents) bool
	}{
		{"stream, of which the last usage counts", api + "streamGenerateContent?alt=sse", prompt, sseType, events(
			`{"candidates":[{"content":{"parts":[{"text":"Let me","thought":true}]}}],"usageMetadata":{"promptTokenCount":169,"toolUsePromptTokenCount":9,"totalTokenCount":178}}`,
			`{"candidates":[{"content":{"parts":[{"text":""}]}}],"usageMetadata":{"promptTokenCount":79,"totalTokenCount":79}}`,
			`{"candidates":[{"content":{"parts":[{"text":"4"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":79,"candidatesTokenCount":1,"totalTokenCount":80},"modelVersion":"m","responseId":"r"}`),
			func(c *llm.Call, n answertest.Contents) bool {
				return n.Hidden == 1 && n.Visible == 1 && c.Completeness == llm.Exact && c.UsageSource == llm.SourceStream && c.Stream &&
					c.Usage.Get(llm.Input) == 79 && !c.Usage.Has(llm.ToolInput) && c.ResponseModel == "m" && c.ResponseID == "r" && c.Disagreement == ""
			}},
		{"stream that its server gave up", api + "streamGenerateContent?alt=sse", prompt, sseType, events(`{"candidates":[{"content":{"parts":[{"text":"4"}]}}],` + usage + `}`),
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.Completeness == llm.Estimated && c.UsageSource == llm.SourceStreamPartial
			}},
		{"stream that ends in an error", api + "streamGenerateContent?alt=sse", prompt, sseType, events(
			`{"candidates":[{"content":{"parts":[{"text":"4"}]}}],`+usage+`}`, `{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}`),
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.InBandError && c.ErrorType == "UNAVAILABLE" && c.Completeness == llm.Estimated
			}},
		{"array of answers", api + "streamGenerateContent", prompt, jsonType, `[{"candidates":[{"content":{"parts":[{"text":"4"}]}}]},` + "\r\n" + `{"candidates":[{"finishReason":"MAX_TOKENS"}],` + usage + `}]`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.Completeness == llm.Exact && c.Usage.Get(llm.Output) == 2 && slices.Equal(c.FinishReasons, []string{"MAX_TOKENS"}) && slices.Equal(c.Quality, []string{"length"})
			}},
		{"array of an error", api + "streamGenerateContent", prompt, jsonType, `[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{}]}}]`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.InBandError && c.ErrorType == "RESOURCE_EXHAUSTED" && c.Completeness == llm.Missing
			}},
		{"Cloud Code Assist", "https://cloudcode-pa.googleapis.com/v1internal:streamGenerateContent?alt=sse",
			`{"model":"gemini-2.5-pro","project":"p","request":{"contents":[{"parts":[{"text":"hi"}]}]}}`, sseType,
			events(`{"response":{"candidates":[{"content":{"parts":[{"functionCall":{"name":"ls","args":{"name":"x"}}}]},"finishReason":"STOP"}],"modelVersion":"gemini-2.5-pro",` + usage + `}}`),
			func(c *llm.Call, n answertest.Contents) bool {
				return c.RequestModel == "gemini-2.5-pro" && c.Provider == "gcp.gemini" && c.Usage.Get(llm.Input) == 4 && slices.Equal(c.ToolCalls, []string{"ls"}) && n.Visible == 1
			}},
		{"a blocked prompt", api + "generateContent", prompt, jsonType, `{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}}`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return slices.Equal(c.FinishReasons, []string{"PROHIBITED_CONTENT"}) && slices.Contains(c.Quality, "filtered") && c.Completeness == llm.Exact
			}},
		{"two candidates", api + "generateContent", prompt, jsonType, `{"candidates":[{"index":1,"finishReason":"MAX_TOKENS"},{"index":0,"finishReason":"STOP"}],` + usage + `}`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return slices.Equal(c.FinishReasons, []string{"STOP", "MAX_TOKENS"})
			}},
		{"Vertex AI", "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-pro:generateContent", prompt, jsonType,
			`{"candidates":[{"content":{"parts":[{"text":"4"}]},"finishReason":1}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2,"totalTokenCount":6,"trafficType":2}}`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.Provider == "gcp.vertex_ai" && c.Region == "europe-west4" && c.RequestModel == "gemini-2.5-pro" && c.ServiceTier == "PROVISIONED_THROUGHPUT" && c.FinishReasons[0] == "1"
			}},
		{"a gateway's own path", "http://gateway.local/llm/google", `{"contents":[],"generationConfig":{}}`, jsonType, `{"candidates":[{"finishReason":"STOP"}],` + usage + `}`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.Provider == "" && c.Usage.Get(llm.Input) == 4 && c.Operation == "generate_content"
			}},
		{"JSON asked for and not given", api + "generateContent", `{"contents":[],"generationConfig":{"responseMimeType":"application/json"}}`, jsonType,
			`{"candidates":[{"content":{"parts":[{"text":"no"},{"text":"pe","thought":true}]},"finishReason":"STOP"}],` + usage + `}`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return slices.Equal(c.Quality, []string{"schema_invalid"})
			}},
		{"Imagen", "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google/models/imagen-4:predict", `{"instances":[{"prompt":"cat"}]}`, jsonType,
			`{"predictions":[{"bytesBase64Encoded":"AA=="},{"bytesBase64Encoded":"AA=="}]}`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.Operation == "generate_content" && c.Usage.Get(llm.Images) == 2 && c.Completeness == llm.Exact
			}},
		{"an interaction", "https://generativelanguage.googleapis.com/v1beta/interactions", `{"model":"gemini-3-pro","input":"hi"}`, jsonType,
			`{"id":"i","model":"gemini-3-pro","status":"completed","outputs":[{"type":"text","text":"4"},{"type":"function_call","name":"f"}],"usage":{"total_input_tokens":10,"total_cached_tokens":4,"total_output_tokens":2,"total_thought_tokens":3,"total_tool_use_tokens":0,"total_tokens":15,"input_tokens_by_modality":[{"modality":"text","tokens":10}]}}`,
			func(c *llm.Call, _ answertest.Contents) bool {
				return c.Usage.Get(llm.Input) == 6 && c.Usage.Get(llm.CacheRead) == 4 && c.Usage.Get(llm.Reasoning) == 3 && c.Disagreement == "" && slices.Equal(c.ToolCalls, []string{"f"}) && c.Completeness == llm.Exact && c.RequestModel == "gemini-3-pro"
			}},
		{"an interaction in events", "https://generativelanguage.googleapis.com/v1beta/interactions", `{"model":"gemini-3-pro","input":"hi","stream":true}`, sseType, events(
			`{"event_type":"interaction.start","interaction":{"id":"i","status":"in_progress"}}`,
			`{"event_type":"content.delta","delta":{"type":"thought_summary","content":{"text":"hm"}}}`,
			`{"event_type":"content.delta","delta":{"text":"4","type":"text"}}`,
			`{"event_type":"interaction.complete","interaction":{"id":"i","status":"completed","usage":{"total_input_tokens":10,"total_output_tokens":2,"total_tokens":12}}}`, `[DONE]`),
			func(c *llm.Call, n answertest.Contents) bool {
				return n.Hidden == 1 && n.Visible == 1 && n.Done && c.Usage.Get(llm.Output) == 2 && c.Completeness == llm.Exact && c.Stream
			}},
	} {
		c, n := answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(x.url, x.ask, x.kind, x.body), answertest.Whole, nil)
		if !x.check(c, n) {
			t.Errorf("%s: %+v %+v", x.name, c, n)
		}
	}
}

func TestRecognize(t *testing.T) {
	for path, want := range map[string]exchange.Confidence{
		"/v1beta/models/gemini-2.5-flash:generateContent":                                exchange.Path,
		"/v1beta/models/gemini-2.5-flash%3AgenerateContent":                              exchange.Path,
		"/v1beta/models/gemini-2.5-flash:countTokens":                                    exchange.No,
		"/v1/projects/p/locations/l/publishers/anthropic/models/claude:rawPredict":       exchange.No,
		"/v1/projects/p/locations/l/endpoints/1:predict":                                 exchange.No,
		"/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict": exchange.Path,
		"/openai/v1beta1/projects/p/locations/l/endpoints/openapi/chat/completions":      exchange.Maybe,
		"/v1beta/models/gemini-embedding-001:batchEmbedContents":                         exchange.Path,
		"/v1beta1/projects/p/locations/l/publishers/google/models/gemini-3:embedContent": exchange.Path,
		"/v1beta/tunedModels/mine:streamGenerateContent":                                 exchange.Path,
	} {
		req := &exchange.Request{Method: "POST", Path: path, Host: "gw"}
		if got := New(content.Config{}).Recognize(req, &exchange.Facts{}); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

// TestMemoryIsConstant reads an answer of 32 MiB.
func TestMemoryIsConstant(t *testing.T) {
	const n = 32 << 20
	read := func() {
		c := &llm.Call{Status: 200}
		d := New(content.Config{}).Open(&exchange.Request{Method: "POST", Path: "/v1/models/m:generateContent"}, &exchange.Facts{}, c)
		body := io.MultiReader(strings.NewReader(`{"candidates":[{"content":{"parts":[{"text":"`), io.LimitReader(letters{}, n), strings.NewReader(`"},{"inlineData":{"data":"`),
			io.LimitReader(letters{}, n), strings.NewReader(`"}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2,"totalTokenCount":3}}`))
		err := d.Body(body)
		d.End(err)
		if err != nil || c.Usage.Get(llm.Output) != 2 {
			t.Fatal(err, c.Usage)
		}
	}
	read()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 128<<10 {
		t.Errorf("%d bytes allocated for a body of %d", got, 2*n)
	}
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

func TestLive(t *testing.T) {
	v, facts := New(content.Config{NoEstimate: true}), &exchange.Facts{}
	req := &exchange.Request{Method: "GET", Host: "generativelanguage.googleapis.com", Path: "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"}
	if got := v.Recognize(req, facts); got != exchange.Sure {
		t.Fatal(got)
	}
	due := false
	turn := func(messages ...string) (*llm.Call, answertest.Contents) {
		c := &llm.Call{Status: 101}
		d := v.Open(req, facts, c)
		d.Response(&exchange.Response{Status: 101})
		var n answertest.Contents
		for _, m := range messages {
			data, ours := strings.CutPrefix(m, ">")
			e := &exchange.Event{Data: strings.NewReader(data), FromClient: ours}
			if err := d.Event(e); err != nil {
				t.Fatal(m, err)
			}
			if e.Content == exchange.Visible {
				n.Visible++
			}
			due = due || e.Asked
			n.Done = n.Done || e.Done
		}
		d.End(nil)
		return c, n
	}
	c, n := turn(`>{"setup":{"model":"models/gemini-live-2.5"}}`, `{"setupComplete":{}}`, `>{"realtimeInput":{"audio":{"data":"AAAA"}}}`,
		`{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"mimeType":"audio/pcm","data":"AAAA"}}]}}}`,
		`{"toolCall":{"functionCalls":[{"name":"light","args":{},"id":"1"}]}}`,
		`{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":30,"responseTokenCount":20,"totalTokenCount":50,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":25},{"modality":"TEXT","tokenCount":5}],"responseTokensDetails":[{"modality":"AUDIO","tokenCount":20}]}}`)
	want := map[string]float64{"input": 5, "input_audio": 25, "output": 0, "output_audio": 20}
	if got := answertest.Classes(&c.Usage); !maps.Equal(got, want) || c.Completeness != llm.Exact || n.Visible != 2 || !n.Done || c.RequestModel != "gemini-live-2.5" || !slices.Equal(c.ToolCalls, []string{"light"}) || due {
		t.Errorf("%v %+v %+v", got, c, n)
	}
	// A later turn knows the session's model, and one that is broken off is no exact one.
	c, _ = turn(`>{"clientContent":{}}`, `{"serverContent":{"modelTurn":{"parts":[{"text":"a"}]}},"usageMetadata":{"promptTokenCount":30,"totalTokenCount":30}}`)
	if c.RequestModel != "gemini-live-2.5" || c.Completeness != llm.Estimated || due {
		t.Errorf("%+v", c)
	}
	if turn(`>{"clientContent":{"turns":[],"turnComplete":true}}`); !due {
		t.Error("no answer is due after a whole turn of the user")
	}
}
