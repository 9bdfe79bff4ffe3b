package bedrock

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

const host = "https://bedrock-runtime.eu-west-3.amazonaws.com/model/"

// frame is a message of an event-stream.
func frame(name, payload string) string {
	var h bytes.Buffer
	for _, kv := range [][2]string{{":event-type", name}, {":message-type", "event"}} {
		h.WriteByte(byte(len(kv[0])))
		h.WriteString(kv[0])
		h.WriteByte(7)
		binary.Write(&h, binary.BigEndian, uint16(len(kv[1])))
		h.WriteString(kv[1])
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(12+h.Len()+len(payload)+4))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Len()))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(append(b, h.Bytes()...), payload...)
	return string(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

func chunks(json ...string) string {
	var out strings.Builder
	for _, j := range json {
		out.WriteString(frame("chunk", `{"bytes":"`+base64.StdEncoding.EncodeToString([]byte(j))+`","p":"abcdefghij"}`))
	}
	return out.String()
}

func decode(t *testing.T, url, ask, kind, body string, headers ...string) (*llm.Call, answertest.Contents) {
	t.Helper()
	return answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(url, ask, kind, body, headers...), answertest.Whole, nil)
}

const (
	jsonType  = "application/json"
	eventType = "application/vnd.amazon.eventstream"
	hello     = `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`
)

func TestConverse(t *testing.T) {
	c, _ := decode(t, host+"arn%3Aaws%3Abedrock%3Aeu-west-3%3A1%3Aprompt-router%2Fx/converse", hello, jsonType,
		`{"output":{"message":{"content":[{"reasoningContent":{"reasoningText":{"text":"hm"}}},{"toolUse":{"name":"ls","input":{"name":"x"}}}]}},"stopReason":"tool_use",
		"usage":{"inputTokens":10,"outputTokens":5,"totalTokens":122,"cacheReadInputTokens":7,"cacheReadInputTokenCount":7,"cacheWriteInputTokens":100,"cacheDetails":[{"ttl":"1h","inputTokens":60},{"ttl":"5m","inputTokens":30}]},
		"metrics":{"latencyMs":3},"serviceTier":{"type":"flex"},"trace":{"promptRouter":{"invokedModelId":"arn:x:anthropic.claude"}}}`)
	want := map[string]float64{"input": 10, "output": 5, "cache_read": 7, "cache_write": 10, "cache_write_1h": 60, "cache_write_5m": 30}
	if got := answertest.Classes(&c.Usage); !maps.Equal(got, want) {
		t.Errorf("usage %v, want %v", got, want)
	}
	if c.RequestModel != "arn:aws:bedrock:eu-west-3:1:prompt-router/x" || c.ResponseModel != "arn:x:anthropic.claude" || c.ServiceTier != "flex" ||
		c.Region != "eu-west-3" || !slices.Equal(c.ToolCalls, []string{"ls"}) || c.Completeness != llm.Exact || c.Disagreement != "" {
		t.Errorf("%+v", c)
	}
	c, _ = decode(t, host+"m/converse", hello, jsonType, `{"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":5,"totalTokens":16}}`)
	if c.Disagreement != "total 16 is not input 10 + output 5 + cache read 0 + cache write 0" {
		t.Error(c.Disagreement)
	}
}

func TestGuardrail(t *testing.T) {
	c, _ := decode(t, "https://bedrock-runtime.eu-west-3.amazonaws.com/guardrail/gr1/version/1/apply", `{"source":"INPUT","content":[{"text":{"text":"hi"}}]}`, jsonType,
		`{"usage":{"topicPolicyUnits":1,"contentPolicyUnits":1},"action":"GUARDRAIL_INTERVENED","outputs":[{"text":"no"}],"assessments":[]}`)
	if c.Provider != "aws.bedrock" || c.Operation != "apply_guardrail" || c.Region != "eu-west-3" || c.RequestModel != "" || !c.Usage.Empty() || c.Completeness != llm.Missing ||
		!slices.Equal(c.FinishReasons, []string{"GUARDRAIL_INTERVENED"}) || !slices.Equal(c.Quality, []string{content.Filtered}) {
		t.Errorf("%+v", c)
	}
}

func TestConverseStream(t *testing.T) {
	events := []string{
		frame("messageStart", `{"role":"assistant"}`),
		frame("contentBlockDelta", `{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"hm"}}}`),
		frame("contentBlockStop", `{"contentBlockIndex":0}`),
		frame("contentBlockStart", `{"contentBlockIndex":1,"start":{"toolUse":{"name":"ls","toolUseId":"t"}}}`),
		frame("contentBlockDelta", `{"contentBlockIndex":1,"delta":{"toolUse":{"input":"{\"a\":"}}}`),
		frame("contentBlockStop", `{"contentBlockIndex":1}`),
		frame("messageStop", `{"stopReason":"tool_use"}`),
	}
	meta := frame("metadata", `{"usage":{"inputTokens":10,"outputTokens":5,"totalTokens":15},"metrics":{"latencyMs":1},"p":"abc"}`)
	c, n := decode(t, host+"m/converse-stream", hello, eventType, strings.Join(events, "")+meta)
	if c.Completeness != llm.Exact || c.UsageSource != llm.SourceStream || n.Hidden != 1 || n.Visible != 2 || !n.Done || !c.Stream ||
		!slices.Equal(c.Quality, []string{"arguments_invalid"}) || c.FinishReasons[0] != "tool_use" {
		t.Errorf("%+v %+v", c, n)
	}
	c, _ = decode(t, host+"m/converse-stream", hello, eventType, strings.Join(events, ""))
	if c.Completeness != llm.Missing || c.FinishReasons[0] != "tool_use" {
		t.Errorf("without metadata: %+v", c)
	}
}

func TestExceptions(t *testing.T) {
	for _, verb := range []string{"converse-stream", "invoke-with-response-stream"} {
		for _, model := range []string{"m", "anthropic.claude-3"} {
			c := &llm.Call{Status: 200}
			d := New(content.Config{NoEstimate: true}).Open(&exchange.Request{Method: "POST", Path: "/model/" + model + "/" + verb}, &exchange.Facts{}, c)
			d.Response(&exchange.Response{Status: 200, Header: http.Header{}})
			begin := strings.NewReader(`{"bytes":"` + base64.StdEncoding.EncodeToString([]byte(`{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}},"prompt_token_count":3}`)) + `"}`)
			if err := d.Event(&exchange.Event{Name: "chunk", Data: begin}); err != nil {
				t.Fatal(err)
			}
			e := &exchange.Event{Exception: "throttlingException", Data: strings.NewReader(`{"message":"slow down"}`)}
			if err := d.Event(e); err != nil || !e.Done {
				t.Fatal(err, e.Done)
			}
			d.End(nil)
			if !c.InBandError || c.ErrorType != "throttlingException" || c.Completeness == llm.Exact {
				t.Errorf("%s %s: %+v", model, verb, c)
			}
		}
	}
}

func TestInvoke(t *testing.T) {
	heads := []string{"X-Amzn-Bedrock-Input-Token-Count", "9", "X-Amzn-Bedrock-Output-Token-Count", "4"}
	for _, x := range []struct {
		name, model, ask, body string
		headers                []string
		want                   map[string]float64
		source                 llm.UsageSource
		reason, disagreement   string
	}{
		{"Titan", "amazon.titan-text-express-v1", `{"inputText":"hi"}`, `{"inputTextTokenCount":9.0,"results":[{"tokenCount":2,"outputText":"a","completionReason":"FINISH"},{"tokenCount":2,"completionReason":"LENGTH"}]}`, heads,
			map[string]float64{"input": 9, "output": 4}, llm.SourceBody, "FINISH", ""},
		{"Llama, differing", "meta.llama3", `{"prompt":"hi"}`, `{"generation":"a","prompt_token_count":8,"generation_token_count":4,"stop_reason":"stop"}`, heads,
			map[string]float64{"input": 8, "output": 4}, llm.SourceBody, "stop", "input: 8 in the body, 9 in the headers"},
		{"Mistral", "mistral.mistral-7b", `{"prompt":"hi"}`, `{"outputs":[{"text":"a","stop_reason":"length"}]}`, heads,
			map[string]float64{"input": 9, "output": 4}, llm.SourceHeader, "length", ""},
		{"Jurassic", "ai21.j2-mid", `{"prompt":"hi"}`, `{"id":1234,"completions":[{"data":{"text":"a"},"finishReason":{"reason":"endoftext"}}]}`, heads,
			map[string]float64{"input": 9, "output": 4}, llm.SourceHeader, "endoftext", ""},
		{"Jamba", "ai21.jamba", `{"messages":[]}`, `{"id":"x","choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}`, nil,
			map[string]float64{"input": 9, "output": 4}, llm.SourceBody, "stop", ""},
		{"Nova behind a guardrail", "amazon.nova-lite", hello, `{"output":{"message":{"content":[{"text":"a"}]}},"stopReason":"end_turn","usage":{"inputTokens":9}}`, heads,
			map[string]float64{"input": 9, "output": 4}, llm.SourceHeader, "end_turn", ""},
		{"Claude", "anthropic.claude-3", `{"anthropic_version":"bedrock-2023-05-31","messages":[]}`, `{"type":"message","stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":4,"cache_creation_input_tokens":5}}`,
			append(slices.Clone(heads), "X-Amzn-Bedrock-Cache-Write-Input-Token-Count", "5"),
			map[string]float64{"input": 9, "output": 4, "cache_write": 5}, llm.SourceBody, "end_turn", ""},
		{"Claude's legacy text", "anthropic.claude-v2", `{"prompt":"hi","max_tokens_to_sample":9}`, `{"type":"completion","completion":"a","stop_reason":"stop_sequence"}`, heads,
			map[string]float64{"input": 9, "output": 4}, llm.SourceHeader, "stop_sequence", ""},
		{"images", "amazon.nova-canvas-v1:0", `{"taskType":"TEXT_IMAGE"}`, `{"images":["AA==","AA=="]}`, nil,
			map[string]float64{"images": 2}, llm.SourceBody, "", ""},
	} {
		c, _ := decode(t, host+x.model+"/invoke", x.ask, jsonType, x.body, x.headers...)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || c.UsageSource != x.source || c.Completeness != llm.Exact || c.Disagreement != x.disagreement {
			t.Errorf("%s: %v %v %v %q", x.name, got, c.UsageSource, c.Completeness, c.Disagreement)
		}
		if x.reason != "" && c.FinishReasons[0] != x.reason {
			t.Errorf("%s: finish %v", x.name, c.FinishReasons)
		}
	}
}

func TestInvokeStream(t *testing.T) {
	const metrics = `"amazon-bedrock-invocationMetrics":{"inputTokenCount":9,"outputTokenCount":4,"invocationLatency":5,"firstByteLatency":2}`
	for _, x := range []struct {
		name, model, ask string
		json             []string
		source           llm.UsageSource
		disagreement     string
	}{
		{"Llama", "meta.llama3", `{"prompt":"hi"}`, []string{`{"generation":"a","prompt_token_count":9,"generation_token_count":1}`, `{"generation":"","prompt_token_count":null,"generation_token_count":4,"stop_reason":"stop",` + metrics + `}`}, llm.SourceStream, ""},
		{"Cohere", "cohere.command", `{"prompt":"hi"}`, []string{`{"is_finished":false,"text":"a"}`, `{"is_finished":true,"finish_reason":"COMPLETE",` + metrics + `}`}, llm.SourceTrailerEvent, ""},
		{"Nova", "amazon.nova-lite", hello, []string{`{"contentBlockDelta":{"delta":{"text":"a"},"contentBlockIndex":0}}`, `{"messageStop":{"stopReason":"end_turn"}}`, `{"metadata":{"usage":{"inputTokens":9,"outputTokens":4}},` + metrics + `}`}, llm.SourceStream, ""},
		{"Claude by an ARN", "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aapplication-inference-profile%2Fx", `{"anthropic_version":"bedrock-2023-05-31"}`,
			[]string{`{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}`, `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}`, `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}`, `{"type":"message_stop",` + metrics + `}`}, llm.SourceStream, ""},
		{"Claude, differing", "anthropic.claude-3", `{}`,
			[]string{`{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}`, `{"type":"content_block_delta","index":0,"delta":{"text":"a"}}`, `{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":5}}`, `{"type":"message_stop",` + metrics + `}`}, llm.SourceStream, "output: 5 in the body, 4 in the invocationMetrics"},
	} {
		c, n := decode(t, host+x.model+"/invoke-with-response-stream", x.ask, eventType, chunks(x.json...))
		if c.Usage.Get(llm.Input) != 9 || c.Usage.Get(llm.Output) < 4 || c.UsageSource != x.source || c.Completeness != llm.Exact || c.Disagreement != x.disagreement || n.Visible != 1 || !n.Done {
			t.Errorf("%s: %v %v %v %q %+v", x.name, answertest.Classes(&c.Usage), c.UsageSource, c.Completeness, c.Disagreement, n)
		}
		c, _ = decode(t, host+x.model+"/invoke-with-response-stream", x.ask, eventType, chunks(x.json[:1]...))
		if c.Completeness == llm.Exact {
			t.Errorf("%s: exact after its first event", x.name)
		}
	}
}

// TestInvokeChoices: a stream that ends without metrics is over once every choice is.
func TestInvokeChoices(t *testing.T) {
	event := func(choice int, reason string) string {
		return fmt.Sprintf(`{"id":"c","choices":[{"index":%d,"delta":{"content":"a"},"finish_reason":%s}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}`, choice, reason)
	}
	for want, json := range map[llm.Completeness][]string{
		llm.Exact:     {event(0, "null"), event(1, "null"), event(0, `"stop"`), event(1, `"stop"`)},
		llm.Estimated: {event(0, "null"), event(1, "null"), event(0, `"stop"`)},
	} {
		if c, _ := decode(t, host+"ai21.jamba-1-5/invoke-with-response-stream", hello, eventType, chunks(json...)); c.Completeness != want || c.Usage.Get(llm.Output) != 4 {
			t.Errorf("%d events: %v, %v", len(json), c.Completeness, answertest.Classes(&c.Usage))
		}
	}
}

func TestAgent(t *testing.T) {
	const url = "https://bedrock-agent-runtime.us-east-1.amazonaws.com/agents/A/agentAliases/B/sessions/S/text"
	trace := frame("trace", `{"agentId":"A","trace":{"orchestrationTrace":{"modelInvocationOutput":{"metadata":{"usage":{"inputTokens":100,"outputTokens":7}},"traceId":"x"}}}}`)
	c, n := decode(t, url, `{"inputText":"hi","enableTrace":true}`, eventType, trace+trace+frame("chunk", `{"bytes":"aGk="}`))
	if c.Operation != "invoke_agent" || c.Usage.Get(llm.Input) != 200 || c.Usage.Get(llm.Output) != 14 || c.Completeness != llm.Estimated || c.UsageSource != llm.SourceStream || n.Visible != 1 || c.Region != "us-east-1" {
		t.Errorf("%+v %+v", c, n)
	}
}

func TestRegion(t *testing.T) {
	for _, x := range [][3]string{
		{"bedrock-runtime.us-east-1.amazonaws.com", "", "us-east-1"},
		{"bedrock-runtime-fips.us-gov-west-1.amazonaws.com:443", "", "us-gov-west-1"},
		{"vpce-0a1b-xyz.bedrock-runtime.eu-central-1.vpce.amazonaws.com", "", "eu-central-1"},
		{"bedrock-runtime.cn-north-1.amazonaws.com.cn", "", "cn-north-1"},
		{"gateway.local", "AWS4-HMAC-SHA256 Credential=AKIA/20260101/ap-south-1/bedrock/aws4_request, SignedHeaders=host", "ap-south-1"},
		{"gateway.local", "Bearer x", ""},
	} {
		req := &exchange.Request{Host: x[0], Header: http.Header{"Authorization": {x[1]}}}
		if got := region(req); got != x[2] {
			t.Errorf("%s %s: %q, want %q", x[0], x[1], got, x[2])
		}
	}
}

func TestChunk(t *testing.T) {
	long := strings.Repeat(`{"a":"bcd"} `, 1000)
	b64 := base64.StdEncoding.EncodeToString([]byte(long))
	for _, x := range []struct{ in, want string }{
		{`{"bytes":"` + b64 + `"}`, long},
		{` {"p":"ab\"c}","n":1,"bytes" : "` + b64 + `","q":"x"}`, long},
		{`{"bytes":"` + strings.ReplaceAll(b64, "/", `\/`) + `"}`, long},
		{`{"bytes":""}`, ""},
		{`{"p":"x"}`, ""},
	} {
		for _, r := range []io.Reader{strings.NewReader(x.in), iotest.OneByteReader(strings.NewReader(x.in)), iotest.DataErrReader(strings.NewReader(x.in))} {
			var k chunk
			if _, err := k.open(r); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(&k); err != nil || string(got) != x.want {
				t.Errorf("%.40s: %d bytes, %v", x.in, len(got), err)
			}
		}
	}
	for _, in := range []string{``, `[]`, `{`, `{"bytes":{}}`, `{"bytes":"AA`, `{"bytes":"AAA"}`, `{"bytes":"!!!!"}`, `{"bytes":"AA\n="}`, `{"a":[1],"bytes":""}`} {
		var k chunk
		_, err := k.open(strings.NewReader(in))
		if err == nil {
			_, err = io.ReadAll(&k)
		}
		if err == nil {
			t.Errorf("%s: no error", in)
		}
	}
	for cut := range 60 {
		var k chunk
		_, err := k.open(io.MultiReader(strings.NewReader((`{"p":"x","bytes":"` + b64)[:cut]), iotest.ErrReader(exchange.ErrLost)))
		if err == nil {
			_, err = io.ReadAll(&k)
		}
		if err != exchange.ErrLost {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func FuzzChunk(f *testing.F) {
	f.Add([]byte(`{"bytes":"eyJhIjoxfQ==","p":"abc"}`))
	f.Add([]byte(`{"p":"\"","bytes":"eyJ\/"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		read := func(r io.Reader) ([]byte, error) {
			var k chunk
			if _, err := k.open(r); err != nil {
				return nil, err
			}
			return io.ReadAll(&k)
		}
		a, err := read(bytes.NewReader(in))
		b, err2 := read(iotest.OneByteReader(bytes.NewReader(in)))
		if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(a, b) {
			t.Fatalf("%q %v, in pieces %q %v", a, err, b, err2)
		}
	})
}
