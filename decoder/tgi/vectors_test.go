package tgi

import (
	"maps"
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/llm"
)

func TestAnswers(t *testing.T) {
	const ask = `{"inputs":"hi","parameters":{"details":true}}`
	for _, x := range []struct {
		name, url, kind, body string
		headers               []string
		want                  map[string]float64
		source                llm.UsageSource
		sure                  llm.Completeness
		visible               int
		disagreement          string
	}{
		{"stream", "http://tgi:8080/generate_stream", "text/event-stream", "data:{\"index\":1,\"token\":{\"id\":1,\"text\":\" a\",\"special\":false},\"generated_text\":null,\"details\":null}\n\n" +
			"data:{\"index\":2,\"token\":{\"id\":2,\"text\":\"</s>\",\"special\":true},\"generated_text\":\" a\",\"details\":{\"finish_reason\":\"eos_token\",\"generated_tokens\":2,\"input_length\":3}}\n\n",
			nil, map[string]float64{"input": 3, "output": 2}, llm.SourceStream, llm.Exact, 1, ""},
		{"error in a stream", "http://tgi:8080/generate_stream", "text/event-stream", "data:{\"error\":\"busy\",\"error_type\":\"overloaded\"}\n\n", nil, nil, "", llm.Missing, 0, ""},
		{"head only", "http://tgi:8080/generate", "application/json", `{"generated_text":"a"}`, []string{"X-Prompt-Tokens", "3", "X-Generated-Tokens", "2"}, map[string]float64{"input": 3, "output": 2}, llm.SourceHeader, llm.Exact, 0, ""},
		{"prefill and head differ", "http://tgi:8080/", "application/json", `[{"generated_text":"a","details":{"finish_reason":"length","generated_tokens":2,"prefill":[{"id":1},{"id":2}]}}]`, []string{"X-Prompt-Tokens", "3"}, map[string]float64{"input": 2, "output": 2}, llm.SourceBody, llm.Exact, 0, "input 2 in the body, 3 in the headers"},
		{"two inputs", "http://tgi:8080/", "application/json", `[{"details":{"generated_tokens":2}},{"details":{"generated_tokens":3}}]`, nil, map[string]float64{"output": 5}, llm.SourceBody, llm.Exact, 0, ""},
		{"embeddings", "http://tei:8080/embed", "application/json", `[[0.1,0.2]]`, []string{"X-Compute-Tokens", "4"}, map[string]float64{"input": 4}, llm.SourceHeader, llm.Exact, 0, ""},
	} {
		c, n := answertest.Decode(t, New(content.Config{NoEstimate: true}), answertest.Exchange(x.url, ask, x.kind, x.body, x.headers...), answertest.Whole, nil)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || c.UsageSource != x.source || c.Completeness != x.sure || n.Visible != x.visible || c.Disagreement != x.disagreement {
			t.Errorf("%s: %v %v %v %+v %q", x.name, got, c.UsageSource, c.Completeness, n, c.Disagreement)
		}
	}
	c, _ := answertest.Decode(t, New(content.Config{}), answertest.Exchange("https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/my%20llama/invocations", ask, "application/json", `[{"generated_text":"a"}]`), answertest.Whole, nil)
	if c.RequestModel != "my llama" || c.Region != "eu-west-1" || c.Provider != "aws.sagemaker" || c.Completeness == llm.Exact {
		t.Errorf("%+v", c)
	}
}
