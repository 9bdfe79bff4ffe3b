package decoder_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// TestModelInPath: a model's name that a path holds becomes a label as it is, if it is
// UTF-8, and is bounded whatever is sent.
func TestModelInPath(t *testing.T) {
	for vendor, x := range map[string]struct{ host, path, body string }{
		"openai":     {"x.openai.azure.com", "/openai/deployments/%s/chat/completions", `{"messages":[]}`},
		"anthropic":  {"us-east5-aiplatform.googleapis.com", "/v1/projects/p/locations/us-east5/publishers/anthropic/models/%s:rawPredict", `{"anthropic_version":"vertex-2023-10-16","messages":[]}`},
		"gemini":     {"generativelanguage.googleapis.com", "/v1beta/models/%s:generateContent", `{"contents":[]}`},
		"bedrock":    {"bedrock-runtime.us-east-1.amazonaws.com", "/model/%s/converse", `{"messages":[]}`},
		"baidu":      {"aip.baidubce.com", "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/%s", `{"messages":[]}`},
		"tgi":        {"runtime.sagemaker.us-east-1.amazonaws.com", "/endpoints/%s/invocations", `{"inputs":"a"}`},
		"selfhosted": {"triton:8000", "/v2/models/%s/generate", `{"text_input":"a"}`},
		"watsonx":    {"us-south.ml.cloud.ibm.com", "/ml/v1/deployments/%s/text/generation", `{"input":"a"}`},
		"replicate":  {"api.replicate.com", "/v1/models/owner/%s/predictions", `{"input":{"prompt":"a"}}`},
	} {
		for name, want := range map[string]string{
			"m%C3%A9": "mé", "%FF": "\uFFFD", "m%FFm": "m\uFFFDm", strings.Repeat("m", 2000): strings.Repeat("m", 400),
		} {
			var calls []*llm.Call
			d := decoder.New(decoder.Config{Vendors: vendors.All(content.Config{}), Call: func(c *llm.Call) { calls = append(calls, c) }})
			path := fmt.Sprintf(x.path, name)
			for i, wire := range []string{
				fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, x.host, len(x.body), x.body),
				"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
			} {
				d.Push(&flow.Data{Kind: flow.KindData, Conn: flow.Conn{Key: 1, Gen: 1}, Dir: [...]flow.Dir{flow.Write, flow.Read}[i], Payload: []byte(wire)})
			}
			d.Close()
			if len(calls) != 1 || calls[0].Vendor != vendor {
				t.Errorf("%s: %d calls", vendor, len(calls))
				continue
			}
			if m := calls[0].RequestModel; !utf8.ValidString(m) || len(m) > names.Max || !strings.Contains(m, want) {
				t.Errorf("%s, %.20q: %d bytes, %.20q", vendor, name, len(m), m)
			}
		}
	}
}
