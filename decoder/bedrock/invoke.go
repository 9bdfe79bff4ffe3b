package bedrock

import (
	"io"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/anthropic"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// invoke decodes InvokeModel and InvokeModelWithResponseStream. Usage is the body's
// where the model's vendor states any, else Bedrock's own: the answer's headers, or
// the metrics in the last chunk.
type invoke struct {
	base
	shape                      // Nova's, and the meter for all but Anthropic's
	claude  *anthropic.Message // nil unless the body is Anthropic's
	opened  bool
	reasons answer.Reasons
	metrics counts
	images  int64
	ended   bool // the stop reason or the metrics were read
	read    bool // the body was read to its end
}

// open decides whose body it is; the request is known by now.
func (d *invoke) open() {
	if d.opened {
		return
	}
	d.opened = true
	if d.anthropics() {
		d.claude = new(anthropic.Message)
		d.claude.Open(d.v.cfg, d.facts, d.c)
		return
	}
	d.meter.Open(d.v.cfg, d.facts, d.c)
}

// Body implements exchange.Decoder.
func (d *invoke) Body(r io.Reader) error {
	d.open()
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	if d.claude != nil {
		err := d.claude.Body(s)
		d.read = err == nil
		return err
	}
	if s.Kind() == jsonscan.Object {
		d.object(s)
		d.read = s.End() == nil
	}
	return s.Err()
}

// Event implements exchange.Decoder.
func (d *invoke) Event(e *exchange.Event) error {
	d.open()
	d.stream = true
	if e.Exception != "" {
		d.exception(e)
		return nil
	}
	k, _ := d.v.chunks.Get().(*chunk)
	if k == nil {
		k = new(chunk)
	}
	defer func() {
		k.r = nil
		d.v.chunks.Put(k)
	}()
	if some, err := k.open(e.Data); !some {
		return err
	}
	s := d.v.scan.Get(k)
	defer d.v.scan.Put(s)
	if d.claude != nil {
		var err error
		e.Content, err = d.claude.Event(s, "")
		e.Done = d.claude.Done()
		return err
	}
	d.meter.Event()
	d.object(s)
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	e.Done = d.metrics.output.OK || d.metrics.input.OK
	d.ended = d.ended || e.Done || d.stop != ""
	return nil
}

func (d *invoke) text(p []byte) { d.meter.Text(0, p) }

// object reads an answer or a chunk of Amazon's, Meta's, Cohere's, Mistral's, AI21's
// or an imported model. No field of one means something else at another.
func (d *invoke) object(s *jsonscan.Scanner) {
	c, u := d.c, &d.usage
	for key := range s.Object {
		switch string(key) {
		case "usage":
			d.readUsage(s)
		case "amazon-bedrock-invocationMetrics":
			d.metrics.scan(s)
		case "id", "response_id":
			s.Into(&c.ResponseID)
		case "model":
			s.Into(&c.ResponseModel)
		case "text", "outputText", "generation": // Cohere, Titan, Llama
			s.Stream(d.text)
		case "inputTextTokenCount": // Titan
			u.input.Read(s)
		case "totalOutputTextTokenCount": // in the last chunk, whatever ended it
			u.output.Read(s)
			d.ended = d.ended || u.output.OK
		case "prompt_token_count": // Llama
			u.input.Read(s)
		case "generation_token_count":
			u.output.Read(s)
		case "completionReason", "stop_reason", "finish_reason":
			d.reason(s, 0)
		case "results", "outputs", "generations", "completions", "choices":
			name := string(key)
			sum := stated.Count{}
			for i := range s.Array {
				d.choice(s, i, &sum)
			}
			if name == "results" && sum.OK {
				u.output.Count = sum
			}
			if name == "results" && d.c.Operation == "rerank" {
				d.meter.Seen(exchange.Visible)
			}
		case "embedding", "embeddings", "embeddingsByType":
			c.Operation = "embeddings"
		case "images", "artifacts": // Titan, Nova Canvas, Stability
			for range s.Array {
				d.images++
				d.meter.Seen(exchange.Visible)
			}
		case "__type":
			s.Into(&c.ErrorType)
		default:
			d.member(s, key, c)
		}
	}
}

// choice reads one of several answers. Titan's state their tokens.
func (d *invoke) choice(s *jsonscan.Scanner, i int, sum *stated.Count) {
	for key := range s.Object {
		switch string(key) {
		case "index":
			i = answer.Index(s, i)
		case "tokenCount":
			n := stated.Count{}
			n.Read(s)
			sum.N, sum.OK = sum.N+n.N, sum.OK || n.OK
		case "text", "outputText":
			s.Stream(func(p []byte) { d.meter.Text(i, p) })
		case "completionReason", "stop_reason", "finish_reason":
			d.reason(s, i)
		case "finishReason": // AI21 Jurassic: {"reason":"endoftext"}
			for key := range s.Object {
				if string(key) == "reason" {
					d.reason(s, i)
				}
			}
		case "data", "message", "delta":
			d.said(s, i)
		}
	}
	d.reasons.Seen(i)
}

// said reads AI21's data, or a message in OpenAI's shape.
func (d *invoke) said(s *jsonscan.Scanner, i int) {
	for key := range s.Object {
		switch string(key) {
		case "text", "content":
			if s.Kind() == jsonscan.String {
				s.Stream(func(p []byte) { d.meter.Text(i, p) })
			}
		case "reasoning_content", "reasoning":
			if s.Kind() == jsonscan.String {
				s.Stream(d.meter.Reasoning)
			}
		case "tool_calls":
			for t := range s.Array {
				for key := range s.Object {
					if string(key) != "function" {
						continue
					}
					for key := range s.Object {
						switch string(key) {
						case "name":
							name := ""
							s.Into(&name)
							d.meter.Tool(name)
						case "arguments":
							s.Stream(func(p []byte) { d.meter.Arguments(t, p) })
						}
					}
				}
			}
		}
	}
}

func (d *invoke) reason(s *jsonscan.Scanner, choice int) {
	reason := ""
	s.Into(&reason)
	d.reasons.Set(choice, reason)
}

// readUsage reads Converse's shape and OpenAI's, in which the prompt includes what
// was cached and the completion its reasoning.
func (d *invoke) readUsage(s *jsonscan.Scanner) {
	u := &d.usage
	for key := range s.Object {
		switch string(key) {
		case "prompt_tokens":
			u.input.Read(s)
		case "completion_tokens":
			u.output.Read(s)
		case "total_tokens":
			u.total.Read(s)
		default:
			u.member(s, key)
		}
	}
}

// End implements exchange.Decoder.
func (d *invoke) End(err error) {
	c := d.c
	d.open()
	if d.claude != nil {
		d.endClaude(err)
		return
	}
	d.shape.end(c)
	if l := d.reasons.List(); l != nil {
		c.FinishReasons = l
	}
	d.usage.settle(c)
	if d.images > 0 {
		c.Usage.Set(llm.Images, float64(d.images))
	}
	source := llm.SourceBody
	whole := err == nil && d.read
	if d.stream {
		source = llm.SourceStream
		whole = err == nil && (d.ended || d.reasons.Ended()) && !d.broken
	}
	if d.metrics.fill(c, "invocationMetrics") {
		source = llm.SourceTrailerEvent
	}
	if c.Status < 400 && d.headers.fill(c, "headers") {
		source = llm.SourceHeader
	}
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}

// endClaude settles a call whose body is Anthropic's. Input and output that only
// Bedrock states are set before the message's end, which states its own over them,
// and which would else have them estimated.
func (d *invoke) endClaude(err error) {
	c := d.c
	own, name, source := d.headers, "headers", llm.SourceHeader
	if m := d.claude.Metrics; m != nil {
		own = counts{input: field{m.Input}, output: field{m.Output}, read: field{m.CacheRead}, write: field{m.CacheWrite}}
		name, source = "invocationMetrics", llm.SourceTrailerEvent
	}
	known := c.Status < 400 && own.input.OK && own.output.OK
	if known {
		own.input.Into(&c.Usage, llm.Input)
		own.output.Into(&c.Usage, llm.Output)
	}
	d.claude.End(err)
	if d.broken {
		c.Completeness = min(c.Completeness, llm.Estimated)
		return
	}
	if known {
		own.fill(c, name)
		if c.Completeness != llm.Exact && err == nil && (d.read || d.stream) {
			c.Completeness, c.UsageSource = llm.Exact, source
		}
	}
}
