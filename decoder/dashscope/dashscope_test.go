package dashscope

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

const (
	url = "https://dashscope-intl.aliyuncs.com/api/v1/services/aigc/text-generation/generation"
	ask = `{"model":"qwen-plus","input":{"messages":[{"role":"user","content":"hi"}]},"parameters":{"result_format":"message"}}`
)

var vectors = []struct {
	name, kind, body string
	want             map[string]float64
	sure             llm.Completeness
	check            func(c *llm.Call, n answertest.Contents) bool
}{
	{"whole", "application/json", `{"output":{"choices":[{"finish_reason":"stop","message":{"content":"a","reasoning_content":"hm"}}]},"usage":{"input_tokens":10,"output_tokens":8,"total_tokens":18,"output_tokens_details":{"reasoning_tokens":5},"prompt_tokens_details":{"cached_tokens":4}},"request_id":"r"}`,
		map[string]float64{"input": 6, "cache_read": 4, "output": 3, "reasoning": 5}, llm.Exact,
		func(c *llm.Call, _ answertest.Contents) bool {
			return c.ResponseID == "r" && c.RequestModel == "qwen-plus" && c.FinishReasons[0] == "stop" && !c.Stream
		}},
	{"events", "text/event-stream", "id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"text\":\"a\",\"finish_reason\":\"null\"},\"usage\":{\"input_tokens\":10,\"output_tokens\":1,\"total_tokens\":11},\"request_id\":\"r\"}\n\n" +
		"id:2\nevent:result\ndata:{\"output\":{\"text\":\"ab\",\"finish_reason\":\"stop\"},\"usage\":{\"input_tokens\":10,\"output_tokens\":2,\"total_tokens\":12},\"request_id\":\"r\"}\n\n",
		map[string]float64{"input": 10, "output": 2}, llm.Exact, func(c *llm.Call, n answertest.Contents) bool { return c.Stream && n.Visible == 2 }},
	{"events that end early", "text/event-stream", "data:{\"output\":{\"text\":\"a\",\"finish_reason\":\"null\"},\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}\n\n",
		map[string]float64{"input": 10, "output": 1}, llm.Estimated, func(c *llm.Call, _ answertest.Contents) bool { return c.FinishReasons == nil }},
	{"an error", "application/json", `{"code":"Throttling.RateQuota","message":"slow down","request_id":"r"}`,
		nil, llm.Missing, func(c *llm.Call, _ answertest.Contents) bool {
			return c.InBandError && c.ErrorType == "Throttling.RateQuota"
		}},
	{"a wrong total", "application/json", `{"usage":{"input_tokens":10,"output_tokens":8,"total_tokens":20}}`,
		map[string]float64{"input": 10, "output": 8}, llm.Exact, func(c *llm.Call, _ answertest.Contents) bool {
			return c.Disagreement == "total 20 is not input 10 + output 8"
		}},
}

func TestAnswers(t *testing.T) {
	for _, x := range vectors {
		c, n := answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(url, ask, x.kind, x.body), answertest.Whole, nil)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || c.Completeness != x.sure || !x.check(c, n) {
			t.Errorf("%s: %v %+v %+v", x.name, got, c, n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, x := range vectors {
		f.Add([]byte(x.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		run := func(r io.Reader) *llm.Call {
			c := &llm.Call{Status: 200}
			d := New(content.Config{}).Open(&exchange.Request{Method: "POST", Path: "/api/v1/services/aigc/text-generation/generation"}, &exchange.Facts{}, c)
			d.Response(&exchange.Response{Status: 200})
			d.End(d.Body(r))
			return c
		}
		a, b := run(bytes.NewReader(body)), run(iotest.OneByteReader(bytes.NewReader(body)))
		if a.Usage != b.Usage || a.Completeness != b.Completeness || a.ErrorType != b.ErrorType {
			t.Fatalf("%+v, in pieces %+v", a, b)
		}
	})
}
