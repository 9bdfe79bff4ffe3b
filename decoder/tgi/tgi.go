// Package tgi decodes text generation as Hugging Face's servers speak it, {inputs,
// parameters} for {generated_text}: Text Generation Inference, inference endpoints,
// SageMaker endpoints that run it; and Text Embeddings Inference. The numbers of
// tokens may stand in the answer's head only
// (https://huggingface.github.io/text-generation-inference/).
package tgi

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/hosts"
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
func (*Vendor) Name() string { return "tgi" }

type target struct {
	model  string // a SageMaker endpoint, or a model of Hugging Face's API
	embed  bool
	stream bool
	root   bool // a path that says nothing
	sage   bool
}

func parse(path string) (t target, ok bool) {
	path = strings.TrimSuffix(path, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	name := func(after string) string {
		_, rest, _ := strings.Cut(path, after)
		rest, _, _ = strings.Cut(rest, "/invocations")
		return names.InPath(rest)
	}
	switch last {
	case "":
		t.root = true
		return t, true
	case "generate":
		return t, true
	case "generate_stream":
		t.stream = true
		return t, true
	case "embed":
		t.embed = true
		return t, true
	case "invocations", "invocations-response-stream":
		t.stream = last != "invocations"
		t.root = true
		if t.sage = strings.Contains(path, "/endpoints/"); t.sage {
			t.model = name("/endpoints/")
		}
		return t, true
	}
	if strings.HasPrefix(path, "/models/") {
		t.root, t.model = true, name("/models/")
		return t, true
	}
	return t, false
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	t, ok := parse(req.Path)
	switch {
	case req.Method != "POST" || !ok:
		return exchange.No
	case !facts.Known:
		return exchange.Maybe
	case !facts.Keys["inputs"]:
		return exchange.No
	case t.sage || !t.root:
		return exchange.Path
	case facts.Keys["parameters"]:
		return exchange.Weak
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	t, _ := parse(req.Path)
	if host, _, _ := strings.Cut(req.Host, ":"); t.sage && strings.HasSuffix(host, ".amazonaws.com") {
		c.Provider = "aws.sagemaker"
		if part := strings.Split(host, "."); len(part) > 3 {
			c.Region = part[2] // runtime.sagemaker.REGION.amazonaws.com
		}
	} else if h := hosts.Lookup(req.Host, req.Path); h != nil {
		c.Provider = h.Provider
	}
	c.Operation = "text_completion"
	if t.embed {
		c.Operation = "embeddings"
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
	ended   bool // the event with the details was read
	reasons answer.Reasons

	input, output       stated.Count // of the body
	headInput, headText stated.Count // of the head
}

func (d *decoder) asked() {
	content.Asked(d.facts, d.c)
	d.c.Stream = d.c.Stream || d.target.stream
	if d.target.model != "" {
		d.c.RequestModel = d.target.model
	}
}

// Response implements exchange.Decoder.
func (d *decoder) Response(r *exchange.Response) {
	d.asked()
	d.headInput = header(r.Header, "X-Prompt-Tokens")
	if d.target.embed {
		d.headInput = header(r.Header, "X-Compute-Tokens")
	}
	d.headText = header(r.Header, "X-Generated-Tokens")
}

func header(h http.Header, name string) stated.Count {
	if n, err := strconv.ParseInt(h.Get(name), 10, 64); err == nil && n >= 0 && n <= llm.MaxAmount {
		return stated.Of(n)
	}
	return stated.Count{}
}

// Body implements exchange.Decoder. Endpoints answer with an array of one answer for
// each input.
func (d *decoder) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	if s.Kind() == jsonscan.Array && d.c.Operation != "embeddings" {
		for i := range s.Array {
			d.object(s, i)
		}
	} else {
		d.object(s, 0)
	}
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
	d.object(s, 0)
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	d.ended = d.ended || d.output.OK
	return nil
}

func (d *decoder) object(s *jsonscan.Scanner, i int) {
	for key := range s.Object {
		switch string(key) {
		case "generated_text": // at a stream's end once more
			if d.stream {
				s.Skip()
			} else {
				s.Stream(func(p []byte) { d.meter.Text(i, p) })
			}
		case "token":
			d.token(s)
		case "details":
			d.details(s, i)
		case "error_type":
			kind := ""
			s.Into(&kind)
			answer.Fail(d.c, kind)
		case "error":
			if s.Kind() != jsonscan.Null {
				answer.Fail(d.c)
			}
		}
	}
}

// token reads a piece of a stream; special ones are no text.
func (d *decoder) token(s *jsonscan.Scanner) {
	var text []byte
	special := false
	for key := range s.Object {
		switch string(key) {
		case "text":
			text, _, _ = s.AppendText(nil, 256)
		case "special":
			special, _ = s.Bool()
		}
	}
	if !special {
		d.meter.Text(0, text)
	}
}

func (d *decoder) details(s *jsonscan.Scanner, i int) {
	for key := range s.Object {
		switch string(key) {
		case "finish_reason":
			reason := ""
			s.Into(&reason)
			d.reasons.Set(i, reason)
		case "generated_tokens":
			n := d.output
			if d.output.Read(s); i > 0 { // one more input's
				d.output.N += n.N
			}
		case "input_length":
			d.input.Read(s)
		case "prefill": // the prompt's tokens, where they were asked for
			n := int64(0)
			for range s.Array {
				n++
			}
			if n > 0 && s.Err() == nil {
				d.input = d.input.Or(stated.Of(n))
			}
		}
	}
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	if d.input.OK && d.headInput.OK && d.input.N != d.headInput.N {
		stated.Disagree(c, "input %d in the body, %d in the headers", d.input.N, d.headInput.N)
	}
	if !d.input.OK && d.headInput.OK || !d.output.OK && d.headText.OK {
		source = llm.SourceHeader
	}
	d.input.Or(d.headInput).Into(&c.Usage, llm.Input)
	d.output.Or(d.headText).Into(&c.Usage, llm.Output)
	whole := err == nil && (!d.stream || d.ended)
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
