// Package alephalpha decodes Aleph Alpha's completions and embeddings
// (https://docs.aleph-alpha.com/api/).
package alephalpha

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
func (*Vendor) Name() string { return "alephalpha" }

// operation of a path; needs is a key that no other service's body has beside it.
func operation(path string) (name, needs string) {
	switch path[strings.LastIndexByte(path, '/')+1:] {
	case "complete":
		return "text_completion", "maximum_tokens"
	case "semantic_embed":
		return "embeddings", "representation"
	}
	return "", ""
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	name, needs := operation(req.Path)
	switch {
	case req.Method != "POST" || name == "":
		return exchange.No
	case req.Host == "api.aleph-alpha.com":
		return exchange.Sure
	case !facts.Known:
		return exchange.Maybe
	case facts.Keys[needs] && facts.Keys["prompt"]:
		return exchange.Path
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	c.Provider = "aleph_alpha"
	c.Operation, _ = operation(req.Path)
	content.Asked(facts, c)
	d := &decoder{v: v, c: c, facts: facts}
	d.meter.Open(v.cfg, facts, c)
	return d
}

type decoder struct {
	v             *Vendor
	c             *llm.Call
	facts         *exchange.Facts
	meter         content.Meter
	stream        bool
	ended         bool // the last event of a stream was read
	reasons       answer.Reasons
	input, output stated.Count
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { content.Asked(d.facts, d.c) }

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
	if string(s.Peek(6)) == "[DONE]" {
		e.Done = true
		return nil
	}
	d.meter.Event()
	ended := d.object(s)
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	d.ended = d.ended || ended
	return nil
}

// object reads an answer or an event, and reports whether it is the last one.
func (d *decoder) object(s *jsonscan.Scanner) (last bool) {
	for key := range s.Object {
		switch string(key) {
		case "type":
			kind := ""
			s.Into(&kind)
			last = kind == "completion_summary"
		case "completions":
			for i := range s.Array {
				for key := range s.Object {
					switch string(key) {
					case "completion":
						s.Stream(func(p []byte) { d.meter.Text(i, p) })
					case "finish_reason":
						d.reason(s, i)
					}
				}
			}
		case "completion": // of a chunk
			s.Stream(func(p []byte) { d.meter.Text(0, p) })
		case "finish_reason":
			d.reason(s, 0)
		case "num_tokens_prompt_total":
			d.input.Read(s)
		case "num_tokens_generated":
			d.output.Read(s)
		case "error":
			answer.Fail(d.c, word(s))
		case "code":
			if d.c.Status >= 400 {
				answer.Fail(d.c, word(s))
			}
		}
	}
	return last
}

func word(s *jsonscan.Scanner) (text string) {
	s.Into(&text)
	return text
}

func (d *decoder) reason(s *jsonscan.Scanner, choice int) {
	d.reasons.Set(choice, word(s))
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	d.input.Into(&c.Usage, llm.Input)
	d.output.Into(&c.Usage, llm.Output)
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	whole := err == nil && (!d.stream || d.ended)
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
