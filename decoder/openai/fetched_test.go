package openai

import (
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

// fetch decodes the answer to a GET.
func fetch(t testing.TB, url, answer string, status int) *llm.Call {
	t.Helper()
	req := post(url)
	req.Method = "GET"
	v := New(content.Config{NoEstimate: true})
	if got := v.Recognize(req, new(exchange.Facts)); got != exchange.Sure {
		t.Fatalf("%s: recognised as %v", url, got)
	}
	c := &llm.Call{Status: status}
	d := v.Open(req, new(exchange.Facts), c)
	d.Response(&exchange.Response{Status: status})
	d.End(d.Body(strings.NewReader(answer)))
	return c
}

func TestFetchedAnswers(t *testing.T) {
	const usage = `"usage":{"input_tokens":30,"input_tokens_details":{"cached_tokens":10},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":37}`
	for _, x := range []struct {
		name, url, answer string
		status            int
		deferred          llm.Deferred
		output            float64
		check             func(*llm.Call) bool
	}{
		{"a response that is not ready", "https://api.openai.com/v1/responses/resp_1", `{"id":"resp_1","background":true,"status":"in_progress","usage":null}`, 200, llm.DeferredWaiting, 0, nil},
		{"a response that is", "https://gateway.local/v1/responses/resp_1", `{"id":"resp_1","background":true,"status":"completed","model":"gpt-5",` + usage + `}`, 200, llm.DeferredDone, 5, nil},
		{"one that was counted when it was made", "https://api.openai.com/v1/responses/resp_1", `{"id":"resp_1","background":false,"status":"completed",` + usage + `}`, 200, llm.DeferredWaiting, 5, nil},
		{"one that failed", "https://api.openai.com/v1/responses/resp_1", `{"id":"resp_1","background":true,"status":"failed","error":{"code":"server_error"},"usage":null}`, 200, llm.DeferredDone, 0,
			func(c *llm.Call) bool { return c.ErrorType == "server_error" }},
		{"one that is not there", "https://api.openai.com/v1/responses/resp_1", `{"error":{"code":"not_found"}}`, 404, llm.DeferredWaiting, 0, nil},
		{"a run", "https://api.openai.com/v1/threads/thread_1/runs/run_1", `{"id":"run_1","object":"thread.run","status":"completed","model":"gpt-4o","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`, 200, llm.DeferredDone, 4,
			func(c *llm.Call) bool { return c.Operation == "invoke_agent" && c.ResponseID == "run_1" }},
		{"a run that is queued", "https://api.openai.com/v1/threads/thread_1/runs/run_1", `{"id":"run_1","object":"thread.run","status":"queued","usage":null}`, 200, llm.DeferredWaiting, 0, nil},
		{"a batch", "https://api.openai.com/v1/batches/batch_1", `{"id":"batch_1","object":"batch","endpoint":"/v1/embeddings","status":"completed","model":"gpt-5",` + usage + `}`, 200, llm.DeferredDone, 5,
			func(c *llm.Call) bool {
				return c.ServiceTier == "batch" && c.Operation == "embeddings" && c.ResponseModel == "gpt-5"
			}},
		{"a batch in progress", "https://api.openai.com/v1/batches/batch_1", `{"id":"batch_1","status":"in_progress"}`, 200, llm.DeferredWaiting, 0, nil},
	} {
		c := fetch(t, x.url, x.answer, x.status)
		if c.Deferred != x.deferred || c.Usage.Get(llm.Output) != x.output || x.output > 0 && c.Completeness != llm.Exact || x.check != nil && !x.check(c) {
			t.Errorf("%s: %+v", x.name, c)
		}
	}
	for _, url := range []string{"https://api.openai.com/v1/responses/resp_1/input_items", "https://shop.local/v1/responses/17", "https://shop.local/runs/run_1", "https://shop.local/v1/responses/"} {
		req := post(url)
		req.Method = "GET"
		if got := New(content.Config{}).Recognize(req, new(exchange.Facts)); got != exchange.No {
			t.Errorf("%s: recognised as %v", url, got)
		}
	}
}

// What POST is told of an answer that is yet to come.
func TestDeferredAnswers(t *testing.T) {
	c, _ := decode(t, "https://api.openai.com/v1/responses", `{"model":"gpt-5","background":true,"input":"x"}`, `{"id":"resp_1","background":true,"status":"queued","usage":null}`, 200, nil)
	if c.Deferred != llm.DeferredAsked || c.Completeness != llm.Missing {
		t.Errorf("%+v", c)
	}
	c, _ = decode(t, "https://api.openai.com/v1/threads/t/runs", `{"assistant_id":"a"}`, `{"id":"run_1","object":"thread.run","status":"queued","usage":null}`, 200, nil)
	if c.Deferred != llm.DeferredAsked || c.ResponseID != "run_1" {
		t.Errorf("%+v", c)
	}
	c, _ = decode(t, "https://api.openai.com/v1/responses", `{"model":"gpt-5","background":true,"input":"x"}`, `{"error":{"code":"invalid_model"}}`, 400, nil)
	if c.Deferred != llm.NotDeferred || c.ErrorType != "invalid_model" {
		t.Errorf("%+v", c)
	}
}

// The shapes follow Mistral's own client, @mistralai/mistralai 2.7.0.
func TestMistral(t *testing.T) {
	c, _ := decode(t, "https://api.mistral.ai/v1/ocr", `{"model":"mistral-ocr-latest","document":{"type":"document_url"}}`,
		`{"pages":[{"index":0,"markdown":"x"},{"index":1,"markdown":"y"}],"model":"mistral-ocr-2505","usage_info":{"pages_processed":2,"doc_size_bytes":null}}`, 200, nil)
	if c.Usage.Get(llm.Pages) != 2 || c.Usage.HasTokens() || c.Completeness != llm.Exact || c.Operation != "ocr" || c.ResponseModel != "mistral-ocr-2505" {
		t.Errorf("%+v", c)
	}
	const usage = `"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16,"connector_tokens":0,"connectors":{}}`
	c, _ = decode(t, "https://api.mistral.ai/v1/conversations", `{"model":"mistral-medium","inputs":"hi"}`,
		`{"object":"conversation.response","conversation_id":"conv_1","outputs":[{"type":"function.call","name":"add","arguments":"{\"a\":1}"},{"type":"message.output","model":"mistral-medium-2505","content":"x"}],`+usage+`}`, 200, nil)
	if c.Usage.Get(llm.Input) != 11 || c.Usage.Get(llm.Output) != 5 || c.ResponseID != "conv_1" || !slices.Equal(c.ToolCalls, []string{"add"}) || c.ResponseModel != "mistral-medium-2505" || c.Completeness != llm.Exact {
		t.Errorf("%+v", c)
	}
	req := post("https://api.mistral.ai/v1/conversations/conv_1")
	v := New(content.Config{NoEstimate: true})
	c = new(llm.Call)
	d := v.Open(req, &exchange.Facts{Known: true, Whole: true, Stream: true, StreamSet: true}, c)
	c.Status = 200
	d.Response(&exchange.Response{Status: 200})
	var kinds []exchange.Content
	for _, data := range []string{
		`{"type":"conversation.response.started","conversation_id":"conv_1"}`,
		`{"type":"message.output.delta","output_index":0,"id":"msg_1","model":"m","role":"assistant","content":"he"}`,
		`{"type":"conversation.response.done",` + usage + `}`,
	} {
		e := &exchange.Event{Data: strings.NewReader(data)}
		if err := d.Event(e); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Content)
	}
	d.End(nil)
	if c.Completeness != llm.Exact || c.Usage.Get(llm.Output) != 5 || !slices.Equal(kinds, []exchange.Content{0, exchange.Visible, 0}) {
		t.Errorf("%v %+v", kinds, c)
	}
}

func TestVLLM(t *testing.T) {
	c, _ := decode(t, "https://vllm.local/score", `{"model":"bge","text_1":"a","text_2":["b"]}`, `{"id":"score-1","object":"list","data":[{"index":0,"score":1}],"model":"bge","usage":{"prompt_tokens":17,"total_tokens":17}}`, 200, nil)
	if c.Operation != "rerank" || c.Usage.Get(llm.Input) != 17 || c.Completeness != llm.Exact {
		t.Errorf("%+v", c)
	}
	c, _ = decode(t, "https://vllm.local/pooling", `{"model":"bge","input":"a"}`, `{"id":"pool-1","object":"list","data":[],"model":"bge","usage":{"prompt_tokens":17,"total_tokens":17}}`, 200, nil)
	if c.Operation != "embeddings" || c.Usage.Get(llm.Input) != 17 {
		t.Errorf("%+v", c)
	}
}

// FuzzOther runs what no recording holds: answers that are fetched, Mistral's own.
func FuzzOther(f *testing.F) {
	requests := []*exchange.Request{
		{Method: "GET", Host: "api.openai.com", Path: "/v1/responses/resp_1"}, {Method: "GET", Host: "api.openai.com", Path: "/v1/threads/t/runs/run_1"},
		{Method: "GET", Host: "api.openai.com", Path: "/v1/batches/batch_1"}, post("https://api.mistral.ai/v1/ocr"), post("https://api.mistral.ai/v1/conversations"),
	}
	f.Add(uint8(0), `{"id":"resp_1","background":true,"status":"completed","usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}`, uint16(9))
	f.Add(uint8(1), `{"id":"run_1","object":"thread.run","status":"completed","usage":{"prompt_tokens":3,"completion_tokens":4}}`, uint16(9))
	f.Add(uint8(2), `{"id":"batch_1","endpoint":"/v1/embeddings","status":"expired","usage":{"input_tokens":3}}`, uint16(9))
	f.Add(uint8(3), `{"pages":[{"index":0}],"usage_info":{"pages_processed":2}}`, uint16(9))
	f.Add(uint8(4), `{"conversation_id":"c","outputs":[{"type":"function.call","name":"a","arguments":"{"}],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}}`, uint16(9))
	f.Fuzz(func(t *testing.T, which uint8, answer string, cut uint16) {
		req := requests[int(which)%len(requests)]
		run := func(answer string, end error) *llm.Call {
			v, c := New(content.Config{NoEstimate: true}), &llm.Call{Status: 200}
			d := v.Open(req, new(exchange.Facts), c)
			d.Response(&exchange.Response{Status: 200})
			if err := d.Body(strings.NewReader(answer)); end == nil {
				end = err
			}
			d.End(end)
			if c.Usage.Empty() != (c.Completeness == llm.Missing) || end != nil && c.Completeness == llm.Exact {
				t.Errorf("%v of %+v after %v", c.Completeness, c.Usage, end)
			}
			return c
		}
		run(answer, nil)
		run(answer[:min(int(cut), len(answer))], exchange.ErrCut)
	})
}
