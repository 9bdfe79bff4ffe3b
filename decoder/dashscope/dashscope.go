// Package dashscope decodes Alibaba Cloud's own API for Qwen and others, which stands
// beside its OpenAI-shaped one (https://help.aliyun.com/zh/model-studio/). It was built
// from the documentation and the SDK, not from recordings.
package dashscope

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
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
func (*Vendor) Name() string { return "dashscope" }

// operation of a path, "" where it is no call to a model.
func operation(path string) string {
	_, rest, ok := strings.Cut(path, "/api/v1/")
	switch {
	case !ok:
	case strings.HasPrefix(rest, "services/aigc/text-generation/"), strings.HasPrefix(rest, "services/aigc/multimodal-generation/"):
		return "chat"
	case strings.HasPrefix(rest, "services/embeddings/"):
		return "embeddings"
	case strings.HasPrefix(rest, "services/rerank/"):
		return "rerank"
	case strings.HasPrefix(rest, "apps/") && strings.HasSuffix(rest, "/completion"):
		return "invoke_agent"
	}
	return ""
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	op := operation(req.Path)
	home := strings.Contains(req.Host, "dashscope")
	switch {
	case isSocket(req) && home:
		return exchange.Sure
	case isSocket(req):
		return exchange.Path
	case req.Method != "POST" || op == "":
		return exchange.No
	case home || req.Header.Get("X-Dashscope-Sse") != "":
		return exchange.Sure
	case op != "invoke_agent":
		return exchange.Path
	case !facts.Known:
		return exchange.Maybe
	case facts.Keys["input"] && facts.Keys["parameters"]:
		return exchange.Weak
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	if isSocket(req) {
		return newTask(v, c)
	}
	c.Provider = "qwen"
	c.Operation = operation(req.Path)
	d := &decoder{v: v, c: c, facts: facts, sse: strings.EqualFold(req.Header.Get("X-Dashscope-Sse"), "enable")}
	d.asked()
	d.meter.Open(v.cfg, facts, c)
	return d
}

type decoder struct {
	v       *Vendor
	c       *llm.Call
	facts   *exchange.Facts
	sse     bool // asked for by a header
	meter   content.Meter
	stream  bool
	reasons answer.Reasons

	input, cached, output, reasoning, total stated.Count
}

func (d *decoder) asked() {
	content.Asked(d.facts, d.c)
	d.c.Stream = d.sse
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

// Event implements exchange.Decoder. Each event has all the usage so far, and all the
// text so far unless the request asked for increments.
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
	for key := range s.Object {
		switch string(key) {
		case "request_id":
			s.Into(&d.c.ResponseID)
		case "output":
			d.result(s)
		case "usage":
			d.usage(s)
		case "code": // an error, in a 200 too
			code := ""
			if s.Into(&code); code != "" {
				answer.Fail(d.c, code)
			}
		}
	}
}

func (d *decoder) result(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "text":
			d.text(s, 0, false)
		case "finish_reason":
			d.reasons.Set(0, word(s))
		case "choices":
			for i := range s.Array {
				d.choice(s, i)
			}
		}
	}
}

func (d *decoder) choice(s *jsonscan.Scanner, i int) {
	reason := ""
	for key := range s.Object {
		switch string(key) {
		case "index":
			i = answer.Index(s, i)
		case "finish_reason":
			reason = word(s)
		case "message":
			d.message(s, i)
		}
	}
	d.reasons.Set(i, reason)
}

func (d *decoder) message(s *jsonscan.Scanner, i int) {
	for key := range s.Object {
		switch string(key) {
		case "content":
			if s.Kind() != jsonscan.Array {
				d.text(s, i, false)
				continue
			}
			for range s.Array {
				for key := range s.Object {
					switch string(key) {
					case "text":
						d.text(s, i, false)
					case "image", "audio":
						d.meter.Seen(exchange.Visible)
					}
				}
			}
		case "reasoning_content":
			d.text(s, i, true)
		case "tool_calls":
			for range s.Array {
				for key := range s.Object {
					if string(key) != "function" {
						continue
					}
					for key := range s.Object {
						if string(key) == "name" {
							d.tool(s)
						}
					}
				}
			}
		}
	}
}

// text reads generated text. In a stream it may be all of it again and again, so it
// is not followed, only noted.
func (d *decoder) text(s *jsonscan.Scanner, i int, thought bool) {
	kind := exchange.Visible
	if thought {
		kind = exchange.Hidden
	}
	switch {
	case d.stream:
		if n, _ := s.TextLen(); n > 0 {
			d.meter.Seen(kind)
		}
	case thought:
		s.Stream(d.meter.Reasoning)
	default:
		s.Stream(func(p []byte) { d.meter.Text(i, p) })
	}
}

// tool notes a tool's name; a stream repeats it.
func (d *decoder) tool(s *jsonscan.Scanner) {
	name := ""
	s.Into(&name)
	if l := d.c.ToolCalls; d.stream && len(l) > 0 && l[len(l)-1] == name {
		d.meter.Seen(exchange.Visible)
		return
	}
	d.meter.Tool(name)
}

// word reads a finish reason: there is none yet where the word is null.
func word(s *jsonscan.Scanner) (reason string) {
	if s.Into(&reason); reason == "null" {
		return ""
	}
	return reason
}

func (d *decoder) usage(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "input_tokens":
			d.input.Read(s)
		case "output_tokens":
			d.output.Read(s)
		case "total_tokens":
			d.total.Read(s)
		case "prompt_tokens_details", "input_tokens_details":
			for key := range s.Object {
				if string(key) == "cached_tokens" {
					d.cached.Read(s)
				}
			}
		case "output_tokens_details":
			for key := range s.Object {
				if string(key) == "reasoning_tokens" {
					d.reasoning.Read(s)
				}
			}
		}
	}
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	input := d.input
	if !d.input.OK && !d.output.OK {
		input = d.total // embeddings, reranking
	}
	in, out := stated.Whole{Left: input.N}, stated.Whole{Left: d.output.N}
	in.Take(d.cached, "cached").Into(&c.Usage, llm.CacheRead)
	out.Take(d.reasoning, "reasoning").Into(&c.Usage, llm.Reasoning)
	if input.OK {
		stated.Of(in.Left).Into(&c.Usage, llm.Input)
	}
	if d.output.OK {
		stated.Of(out.Left).Into(&c.Usage, llm.Output)
	}
	if d.total.OK && d.input.OK && d.output.OK && d.total.N != d.input.N+d.output.N {
		stated.Disagree(c, "total %d is not input %d + output %d", d.total.N, d.input.N, d.output.N)
	}
	for _, w := range []stated.Whole{in, out} {
		if w.Over != "" {
			stated.Disagree(c, "%s", w.Over)
		}
	}
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	whole := err == nil && !c.InBandError && (!d.stream || d.reasons.Ended())
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
