package anthropic

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

func open(path string, status int) (*llm.Call, exchange.Decoder) {
	req := &exchange.Request{Method: "POST", Host: "api.anthropic.com", Path: path, Header: http.Header{}}
	c := &llm.Call{Status: status}
	d := New(content.Config{}).Open(req, &exchange.Facts{Known: true, Whole: true, Model: "claude"}, c)
	c.Status = status
	d.Response(&exchange.Response{Status: status})
	return c, d
}

func stream(t *testing.T, end error, events ...string) (*llm.Call, []exchange.Content) {
	t.Helper()
	c, d := open("/v1/messages", 200)
	var kinds []exchange.Content
	for _, data := range events {
		e := &exchange.Event{Data: iotest.OneByteReader(strings.NewReader(data))}
		if err := d.Event(e); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		kinds = append(kinds, e.Content)
		if e.Done != (data == stop) {
			t.Errorf("%s: done is %v", data, e.Done)
		}
	}
	d.End(end)
	return c, kinds
}

const (
	start = `{"type":"message_start","message":{"id":"msg_1","model":"claude-x","content":[],"stop_reason":null,"usage":{"input_tokens":2068,"cache_creation_input_tokens":300,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":100},"output_tokens":3,"service_tier":"standard","inference_geo":"us"}}}`
	delta = `{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":22397,"cache_creation_input_tokens":310,"output_tokens":50,"output_tokens_details":{"thinking_tokens":20},"server_tool_use":{"web_search_requests":2}}}`
	stop  = `{"type":"message_stop"}`
)

func TestStream(t *testing.T) {
	c, kinds := stream(t, nil, start, `{"type":"ping"}`,
		`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"AAAA"}}`,
		`{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"add","input":{}}}`,
		`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}`,
		`{"type":"content_block_stop","index":1}`, delta, stop)
	if want := []exchange.Content{0, 0, 0, exchange.Hidden, 0, exchange.Visible, exchange.Visible, 0, 0, 0}; !slices.Equal(kinds, want) {
		t.Errorf("content %v, want %v", kinds, want)
	}
	for k, n := range map[llm.Class]float64{llm.Input: 22397, llm.CacheRead: 0, llm.CacheWrite5m: 200, llm.CacheWrite1h: 100,
		llm.CacheWrite: 10, llm.Output: 30, llm.Reasoning: 20, llm.Searches: 2} {
		if !c.Usage.Has(k) || c.Usage.Get(k) != n {
			t.Errorf("%v is %v, want %v", k, c.Usage.Get(k), n)
		}
	}
	if c.Completeness != llm.Exact || c.UsageSource != llm.SourceStream || c.ResponseID != "msg_1" || c.ResponseModel != "claude-x" ||
		!slices.Equal(c.FinishReasons, []string{"tool_use"}) || !slices.Equal(c.ToolCalls, []string{"add"}) || c.Region != "us" ||
		!slices.Equal(c.Quality, []string{content.ArgumentsInvalid}) || c.Cost.ToolRequests["web_search"] != 2 {
		t.Errorf("%+v", c)
	}
}

func TestPartsOfAStream(t *testing.T) {
	text := `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}`
	outputOnly := `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}`
	for _, v := range []struct {
		what   string
		end    error
		events []string
		want   llm.Completeness
		input  float64
	}{
		{"cut before the final usage", exchange.ErrCut, []string{start, text}, llm.Estimated, 2068},
		{"ended without it, as if in order", nil, []string{start, text}, llm.Estimated, 2068},
		{"output alone in the end", nil, []string{start, text, outputOnly, stop}, llm.Exact, 2068},
		{"input never seen", nil, []string{text, outputOnly, stop}, llm.Estimated, 0},
		{"an error in the middle", nil, []string{start, `{"type":"error","error":{"type":"overloaded_error","message":"m"}}`}, llm.Estimated, 2068},
	} {
		c, _ := stream(t, v.end, v.events...)
		if c.Completeness != v.want || c.Usage.Get(llm.Input) != v.input {
			t.Errorf("%s: %v, %v in", v.what, c.Completeness, c.Usage.Get(llm.Input))
		}
		if wrong := strings.Contains(v.what, "error"); c.InBandError != wrong || wrong && c.ErrorType != "overloaded_error" {
			t.Errorf("%s: error %q", v.what, c.ErrorType)
		}
	}
}

func TestIterations(t *testing.T) {
	c, d := open("/v1/messages", 200)
	if err := d.Body(strings.NewReader(`{"id":"m","model":"claude-x","stop_reason":"end_turn","content":[{"type":"text","text":"x"}],"usage":{"input_tokens":181,"cache_read_input_tokens":0,"cache_creation_input_tokens":0,"output_tokens":8,"iterations":[
		{"type":"compaction","input_tokens":100,"cache_read_input_tokens":55096,"cache_creation_input_tokens":0,"output_tokens":83},
		{"type":"message","input_tokens":181,"output_tokens":8},
		{"type":"advisor_message","model":"claude-opus","input_tokens":2518,"output_tokens":22}]}}`)); err != nil {
		t.Fatal(err)
	}
	d.End(nil)
	if c.Usage.Get(llm.Input) != 281 || c.Usage.Get(llm.CacheRead) != 55096 || c.Usage.Get(llm.Output) != 91 || c.Disagreement == "" {
		t.Errorf("%+v", c)
	}
}

func TestRecognize(t *testing.T) {
	for _, v := range []struct {
		host, path, version string
		f                   exchange.Facts
		want                exchange.Confidence
	}{
		{"api.anthropic.com", "/v1/messages", "", exchange.Facts{}, exchange.Sure},
		{"gateway", "/anthropic/v1/messages", "2023-06-01", exchange.Facts{}, exchange.Sure},
		{"gateway", "/v1/messages", "", exchange.Facts{}, exchange.Maybe},
		{"gateway", "/v1/messages", "", exchange.Facts{Known: true, Whole: true, Keys: map[string]bool{"messages": true}}, exchange.Path},
		{"gateway", "/messages", "", exchange.Facts{Known: true, Whole: true, Keys: map[string]bool{"jsonrpc": true}}, exchange.No},
		{"api.anthropic.com", "/v1/messages/count_tokens", "", exchange.Facts{}, exchange.No},
		{"x-aiplatform.googleapis.com", "/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:streamRawPredict", "", exchange.Facts{}, exchange.Sure},
		{"x-aiplatform.googleapis.com", "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredictX", "", exchange.Facts{}, exchange.No},
	} {
		req := &exchange.Request{Method: "POST", Host: v.host, Path: v.path, Header: http.Header{}}
		if v.version != "" {
			req.Header.Set("Anthropic-Version", v.version)
		}
		if got := new(Vendor).Recognize(req, &v.f); got != v.want {
			t.Errorf("%s%s: %d, want %d", v.host, v.path, got, v.want)
		}
	}
}

func TestVertexPath(t *testing.T) {
	c, _ := open("/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-3-7-sonnet%4020250219:streamRawPredict", 200)
	if c.Provider != "gcp.vertex_ai" || c.Region != "us-east5" || !c.Stream {
		t.Errorf("%+v", c)
	}
}

// FuzzMessage: no bytes make it panic, and none that are cut make a usage exact.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{start, delta, stop, `{"type":"error","error":{"type":"x"}}`, `{"content":[{"type":"tool_use","input":{"a":1}}],"usage":{"input_tokens":1,"output_tokens":1}}`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, events bool) {
		c := &llm.Call{Status: 200}
		var m Message
		m.Open(content.Config{NoEstimate: true}, &exchange.Facts{}, c)
		s := new(jsonscan.Scanner)
		s.Reset(io.MultiReader(strings.NewReader(string(b)), iotest.ErrReader(exchange.ErrCut)))
		if events {
			m.Event(s, "")
		} else {
			m.Body(s)
		}
		m.End(exchange.ErrCut)
		if c.Completeness == llm.Exact {
			t.Fatal("exact, although cut")
		}
	})
}

func TestBatchResults(t *testing.T) {
	const line = `{"custom_id":"a","result":{"type":"succeeded","message":{"id":"msg_1","type":"message","model":"claude-x","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":10,"cache_read_input_tokens":4,"output_tokens":5,"service_tier":"batch"}}}}`
	lines := line + "\n" + `{"custom_id":"b","result":{"type":"errored","error":{"type":"error"}}}` + "\n" + line + "\n"
	req := &exchange.Request{Method: "GET", Host: "api.anthropic.com", Path: "/v1/messages/batches/msgbatch_1/results"}
	v := New(content.Config{})
	if got := v.Recognize(req, new(exchange.Facts)); got != exchange.Sure {
		t.Fatal(got)
	}
	for cut, want := range map[int]llm.Completeness{len(lines): llm.Exact, len(lines) / 2: llm.Estimated} {
		c := &llm.Call{Status: 200}
		d := v.Open(req, new(exchange.Facts), c)
		d.Response(&exchange.Response{Status: 200})
		err := d.Body(iotest.OneByteReader(strings.NewReader(lines[:cut])))
		d.End(err)
		if c.Completeness != want || want == llm.Exact && (c.Deferred != llm.DeferredDone || c.Usage.Get(llm.Input) != 20 || c.Usage.Get(llm.CacheRead) != 8 || c.Usage.Get(llm.Output) != 10) ||
			c.ResponseID != "msgbatch_1" || c.ServiceTier != "batch" || c.ResponseModel != "claude-x" {
			t.Errorf("%d of %d bytes: %+v", cut, len(lines), c)
		}
	}
}

func FuzzBatchResults(f *testing.F) {
	f.Add(`{"custom_id":"a","result":{"type":"succeeded","message":{"id":"m","model":"claude-x","usage":{"input_tokens":10,"output_tokens":5}}}}`+"\n", uint16(9))
	f.Add(`{"custom_id":"a","result":{"type":"errored","error":{"type":"error"}}}`, uint16(1))
	f.Fuzz(func(t *testing.T, lines string, cut uint16) {
		for _, x := range []struct {
			text string
			end  error
		}{{lines, nil}, {lines[:min(int(cut), len(lines))], exchange.ErrCut}} {
			req := &exchange.Request{Method: "GET", Host: "api.anthropic.com", Path: "/v1/messages/batches/b/results"}
			c := &llm.Call{Status: 200}
			d := New(content.Config{}).Open(req, new(exchange.Facts), c)
			d.Response(&exchange.Response{Status: 200})
			err := d.Body(strings.NewReader(x.text))
			if x.end != nil {
				err = x.end
			}
			d.End(err)
			if c.Usage.Empty() != (c.Completeness == llm.Missing) || err != nil && c.Completeness == llm.Exact {
				t.Errorf("%v of %+v after %v", c.Completeness, c.Usage, err)
			}
		}
	})
}
