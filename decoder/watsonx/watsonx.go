// Package watsonx decodes IBM watsonx.ai's text generation, chat, embeddings and
// reranking (https://cloud.ibm.com/apidocs/watsonx-ai).
package watsonx

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// Vendor implements exchange.Vendor.
type Vendor struct {
	cfg  content.Config
	scan jsonscan.Pool
}

// New returns the vendor.
func New(cfg content.Config) *Vendor { return &Vendor{cfg: cfg} }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "watsonx" }

type target struct {
	operation  string
	stream     bool
	deployment string
}

// parse reads /ml/VERSION/[deployments/ID/]text/VERB, and the beta's generation/VERB.
func parse(path string) (t target, ok bool) {
	_, rest, ok := strings.Cut(path, "/ml/v1")
	if !ok {
		return t, false
	}
	if _, d, ok := strings.Cut(rest, "/deployments/"); ok {
		d, _, _ = strings.Cut(d, "/")
		t.deployment = names.InPath(d)
	}
	rest = strings.TrimSuffix(rest, "/")
	for _, verb := range []struct {
		suffix, operation string
		stream            bool
	}{
		{"/text/generation", "text_completion", false},
		{"/text/generation_stream", "text_completion", true},
		{"/generation/text", "text_completion", false},
		{"/generation/text_stream", "text_completion", true},
		{"/text/chat", "chat", false},
		{"/text/chat_stream", "chat", true},
		{"/text/embeddings", "embeddings", false},
		{"/text/rerank", "rerank", false},
	} {
		if strings.HasSuffix(rest, verb.suffix) {
			t.operation, t.stream = verb.operation, verb.stream
			return t, true
		}
	}
	return t, false
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, _ *exchange.Facts) exchange.Confidence {
	if _, ok := parse(req.Path); !ok || req.Method != "POST" {
		return exchange.No
	}
	if host, _, _ := strings.Cut(req.Host, ":"); strings.HasSuffix(host, ".ml.cloud.ibm.com") {
		return exchange.Sure
	}
	return exchange.Path
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	t, _ := parse(req.Path)
	c.Provider = "ibm.watsonx.ai"
	c.Operation = t.operation
	if region, _, ok := strings.Cut(req.Host, ".ml.cloud.ibm.com"); ok {
		c.Region = region
	}
	d := &decoder{v: v, c: c, facts: facts, target: t}
	d.asked()
	d.meter.Open(v.cfg, facts, c)
	return d
}

type decoder struct {
	v       *Vendor
	c       *llm.Call
	facts   *exchange.Facts
	target  target
	meter   content.Meter
	stream  bool
	reasons answer.Reasons

	input, output, total stated.Count
}

func (d *decoder) asked() {
	content.Asked(d.facts, d.c)
	d.c.Stream = d.target.stream
	if d.c.RequestModel == "" {
		d.c.RequestModel = d.target.deployment
	}
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { d.asked() }

// Body implements exchange.Decoder.
func (d *decoder) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	d.object(s)
	return s.Err()
}

// Event implements exchange.Decoder.
func (d *decoder) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.stream, d.c.Stream = true, true
	d.meter.Event()
	d.object(s)
	e.Content = d.meter.Kind()
	return s.End()
}

func (d *decoder) object(s *jsonscan.Scanner) {
	c := d.c
	for key := range s.Object {
		switch string(key) {
		case "model_id", "model":
			s.Into(&c.ResponseModel)
		case "id":
			s.Into(&c.ResponseID)
		case "results":
			for i := range s.Array {
				d.result(s, i)
			}
		case "choices":
			for i := range s.Array {
				d.choice(s, i)
			}
		case "usage":
			for key := range s.Object {
				switch string(key) {
				case "prompt_tokens":
					d.input.Read(s)
				case "completion_tokens":
					d.output.Read(s)
				case "total_tokens":
					d.total.Read(s)
				}
			}
		case "input_token_count": // embeddings, reranking
			d.input.Read(s)
		case "errors":
			for i := range s.Array {
				for key := range s.Object {
					if string(key) == "code" && i == 0 {
						code := ""
						s.Into(&code)
						answer.Fail(c, code)
					}
				}
			}
		}
	}
}

// result reads a generated text. In a stream its own count grows, and the input's
// stands in the first event only, a zero in the others.
func (d *decoder) result(s *jsonscan.Scanner, i int) {
	for key := range s.Object {
		switch string(key) {
		case "generated_text":
			s.Stream(func(p []byte) { d.meter.Text(i, p) })
		case "generated_token_count":
			d.output.Read(s)
		case "input_token_count":
			var n stated.Count
			if n.Read(s); n.N > 0 {
				d.input = n
			} else {
				d.input = d.input.Or(n)
			}
		case "stop_reason":
			reason := ""
			if s.Into(&reason); reason != "not_finished" {
				d.reasons.Set(i, reason)
			}
		}
	}
	d.reasons.Seen(i)
}

func (d *decoder) choice(s *jsonscan.Scanner, i int) {
	reason := ""
	for key := range s.Object {
		switch string(key) {
		case "index":
			i = answer.Index(s, i)
		case "finish_reason":
			s.Into(&reason)
		case "message", "delta":
			for key := range s.Object {
				switch string(key) {
				case "content":
					s.Stream(func(p []byte) { d.meter.Text(i, p) })
				case "reasoning_content":
					s.Stream(d.meter.Reasoning)
				case "tool_calls":
					for range s.Array {
						d.tool(s)
					}
				}
			}
		}
	}
	d.reasons.Set(i, reason)
}

func (d *decoder) tool(s *jsonscan.Scanner) {
	index := 0
	for key := range s.Object {
		switch string(key) {
		case "index":
			index = answer.Index(s, index)
		case "function":
			for key := range s.Object {
				switch string(key) {
				case "name":
					name := ""
					s.Into(&name)
					d.meter.Tool(name)
				case "arguments":
					s.Stream(func(p []byte) { d.meter.Arguments(index, p) })
				}
			}
		}
	}
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	if d.total.OK && d.output.OK && d.total.N != d.input.N+d.output.N {
		stated.Disagree(c, "total %d is not prompt %d + completion %d", d.total.N, d.input.N, d.output.N)
	}
	d.input.Into(&c.Usage, llm.Input)
	d.output.Into(&c.Usage, llm.Output)
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	// Chat's usage comes in an event of its own behind the finish reason.
	ended := !d.stream || d.reasons.Ended() && (d.target.operation != "chat" || d.total.OK)
	whole := err == nil && ended
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
