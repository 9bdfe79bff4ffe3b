package baidu

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

const path = "/rpc/2.0/ai_custom/v1/wenxinworkshop/"

// The bodies follow https://cloud.baidu.com/doc/WENXINWORKSHOP/s/clntwmv7t.
var vectors = []struct {
	name, kind, body string
	want             map[string]float64
	sure             llm.Completeness
	check            func(c *llm.Call, n answertest.Contents) bool
}{
	{"whole", "application/json", `{"id":"as-1","object":"chat.completion","created":1,"result":"hi","is_truncated":false,"finish_reason":"normal","usage":{"prompt_tokens":10,"completion_tokens":8,"total_tokens":18}}`,
		map[string]float64{"input": 10, "output": 8}, llm.Exact, func(c *llm.Call, _ answertest.Contents) bool {
			return c.ResponseID == "as-1" && c.RequestModel == "ernie-4.0-8k" && c.Operation == "chat" && slices.Equal(c.FinishReasons, []string{"normal"}) && !c.Stream
		}},
	{"events", "text/event-stream", "data: {\"id\":\"as-1\",\"sentence_id\":0,\"is_end\":false,\"result\":\"a\",\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1,\"total_tokens\":11}}\n\n" +
		"data: {\"id\":\"as-1\",\"sentence_id\":1,\"is_end\":true,\"result\":\"b\",\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":2,\"total_tokens\":12}}\n\n",
		map[string]float64{"input": 10, "output": 2}, llm.Exact, func(c *llm.Call, n answertest.Contents) bool { return c.Stream && n.Visible == 2 }},
	{"events that end early", "text/event-stream", "data: {\"is_end\":false,\"result\":\"a\",\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1}}\n\n",
		map[string]float64{"input": 10, "output": 1}, llm.Estimated, func(c *llm.Call, _ answertest.Contents) bool { return c.Disagreement == "" }},
	{"a tool", "application/json", `{"result":"","function_call":{"name":"weather","arguments":"{\"at\":1}"},"usage":{"prompt_tokens":10,"completion_tokens":8,"total_tokens":20}}`,
		map[string]float64{"input": 10, "output": 8}, llm.Exact, func(c *llm.Call, _ answertest.Contents) bool {
			return slices.Equal(c.ToolCalls, []string{"weather"}) && c.Disagreement == "total 20 is not prompt 10 + completion 8"
		}},
	{"an error", "application/json", `{"error_code":336003,"error_msg":"the length of messages must be an odd number"}`,
		map[string]float64{}, llm.Missing, func(c *llm.Call, _ answertest.Contents) bool { return c.InBandError && c.ErrorType == "336003" }},
}

func TestAnswers(t *testing.T) {
	for _, x := range vectors {
		e := answertest.Exchange("https://aip.baidubce.com"+path+"chat/ernie-4.0-8k?access_token=x", `{"messages":[]}`, x.kind, x.body)
		c, n := answertest.Decode(t, New(content.Config{NoEstimate: true}), e, answertest.Whole, nil)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || c.Completeness != x.sure || c.Provider != "baidu" || !x.check(c, n) {
			t.Errorf("%s: %v %+v %+v", x.name, got, c, n)
		}
	}
}

func TestRecognize(t *testing.T) {
	for p, want := range map[string]exchange.Confidence{
		path + "chat/eb-instant": exchange.Path, path + "embeddings/bge_large_zh": exchange.Path, path + "chat/": exchange.No,
		path + "text2image/sd_xl": exchange.No, "/chat/x": exchange.No,
	} {
		if got := New(content.Config{}).Recognize(&exchange.Request{Method: "POST", Path: p}, new(exchange.Facts)); got != want {
			t.Errorf("%s: %v, want %v", p, got, want)
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
			d := New(content.Config{}).Open(&exchange.Request{Method: "POST", Path: path + "chat/m"}, &exchange.Facts{}, c)
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
