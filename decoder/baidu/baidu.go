// Package baidu decodes the first version of Baidu's Qianfan API, whose paths name the
// model (https://cloud.baidu.com/doc/WENXINWORKSHOP/). Its second version is OpenAI's. It
// was built from the documentation, not from recordings.
package baidu

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
func (*Vendor) Name() string { return "baidu" }

// operations by the part of the path before the model's name.
var operations = map[string]string{"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}

// parse reads …/wenxinworkshop/KIND/MODEL.
func parse(path string) (operation, model string) {
	_, rest, _ := strings.Cut(path, "/wenxinworkshop/")
	kind, model, _ := strings.Cut(rest, "/")
	return operations[kind], names.InPath(model)
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, _ *exchange.Facts) exchange.Confidence {
	operation, model := parse(req.Path)
	switch {
	case req.Method != "POST" || operation == "" || model == "":
		return exchange.No
	case strings.HasSuffix(req.Host, ".baidubce.com"):
		return exchange.Sure
	}
	return exchange.Path
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	d := &decoder{v: v, c: c, facts: facts}
	c.Provider = "baidu"
	c.Operation, d.model = parse(req.Path)
	d.asked()
	d.meter.Open(v.cfg, facts, c)
	return d
}

type decoder struct {
	v       *Vendor
	c       *llm.Call
	facts   *exchange.Facts
	model   string
	meter   content.Meter
	stream  bool
	ended   bool // the event that calls itself the last was read
	reasons answer.Reasons

	input, output, total stated.Count
}

func (d *decoder) asked() {
	content.Asked(d.facts, d.c)
	d.c.RequestModel = d.model
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { d.asked() }

// Body implements exchange.Decoder.
func (d *decoder) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	d.object(s)
	return s.End()
}

// Event implements exchange.Decoder. Each states the usage so far.
func (d *decoder) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.stream, d.c.Stream = true, true
	d.meter.Event()
	last := d.object(s)
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	d.ended = d.ended || last
	return nil
}

// object reads an answer or an event, and reports whether it says that it is the last.
func (d *decoder) object(s *jsonscan.Scanner) (last bool) {
	c := d.c
	for key := range s.Object {
		switch string(key) {
		case "id":
			s.Into(&c.ResponseID)
		case "result":
			s.Stream(func(p []byte) { d.meter.Text(0, p) })
		case "is_end":
			last, _ = s.Bool()
		case "finish_reason":
			reason := ""
			s.Into(&reason)
			d.reasons.Set(0, reason)
		case "function_call":
			d.function(s)
		case "usage":
			d.usage(s)
		case "error_code": // in a 200 too
			if code, ok := s.Decimal(); ok && code != "0" {
				answer.Fail(c, code)
			}
		}
	}
	return last
}

func (d *decoder) function(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "name":
			name := ""
			s.Into(&name)
			d.meter.Tool(name)
		case "arguments":
			s.Stream(func(p []byte) { d.meter.Arguments(0, p) })
		}
	}
}

func (d *decoder) usage(s *jsonscan.Scanner) {
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
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	d.input.Into(&c.Usage, llm.Input)
	d.output.Into(&c.Usage, llm.Output)
	if d.total.OK && d.input.OK && d.total.N != d.input.N+d.output.N {
		stated.Disagree(c, "total %d is not prompt %d + completion %d", d.total.N, d.input.N, d.output.N)
	}
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	whole := err == nil && !c.InBandError && (!d.stream || d.ended)
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
