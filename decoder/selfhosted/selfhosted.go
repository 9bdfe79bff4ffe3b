// Package selfhosted decodes what the servers that people run themselves speak beside
// OpenAI's formats: llama.cpp's completion, infill and embedding, SGLang's generate, Triton's
// generate extension, LM Studio's chat. They were built from the servers' sources and
// documentation, not from recordings.
package selfhosted

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
func (*Vendor) Name() string { return "selfhosted" }

// api is one server's path. needs is a key that its body has and others' on such a
// path have not.
type api struct {
	provider  string
	operation string
	needs     []string // any of them
}

var (
	llamacpp = api{"llama_cpp", "text_completion", []string{"n_predict", "cache_prompt", "id_slot", "n_probs", "samplers", "n_keep"}}
	embed    = api{"llama_cpp", "embeddings", nil}
	infill   = api{"llama_cpp", "text_completion", []string{"input_prefix", "input_suffix"}}
	sglang   = api{"sglang", "text_completion", []string{"sampling_params", "input_ids"}}
	triton   = api{"triton", "text_completion", []string{"text_input"}}
	lmstudio = api{"lmstudio", "chat", []string{"input"}}
)

func find(path string) (a *api, model string) {
	path = strings.TrimSuffix(path, "/")
	if _, rest, ok := strings.Cut(path, "/v2/models/"); ok {
		name, verb, _ := strings.Cut(rest, "/")
		if strings.HasSuffix(verb, "generate") || strings.HasSuffix(verb, "generate_stream") {
			return &triton, names.InPath(name)
		}
		return nil, ""
	}
	switch {
	case strings.HasSuffix(path, "/completion"):
		return &llamacpp, ""
	case strings.HasSuffix(path, "/embedding"):
		return &embed, ""
	case strings.HasSuffix(path, "/infill"):
		return &infill, ""
	case strings.HasSuffix(path, "/api/v1/chat"):
		return &lmstudio, ""
	case strings.HasSuffix(path, "/generate") && !strings.HasSuffix(path, "/api/generate"):
		return &sglang, ""
	}
	return nil, ""
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	a, _ := find(req.Path)
	switch {
	case a == nil || req.Method != "POST":
		return exchange.No
	case !facts.Known:
		return exchange.Maybe
	case req.Path == "/completion" && facts.Keys["prompt"] && facts.Model == "":
		return exchange.Weak // behind a prefix it may be any web application's
	case a == &lmstudio && facts.Model == "":
		return exchange.No
	case a == &embed && req.Path == "/embedding" && facts.Keys["content"]:
		return exchange.Weak // any service may have such a path, and the key says little
	case a == &embed:
		return exchange.No
	}
	for _, key := range a.needs {
		if facts.Keys[key] {
			return exchange.Path
		}
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	a, model := find(req.Path)
	c.Provider, c.Operation = a.provider, a.operation
	d := &decoder{v: v, c: c, facts: facts, model: model, cumulative: a == &sglang}
	d.asked()
	d.meter.Open(v.cfg, facts, c)
	return d
}

type decoder struct {
	v          *Vendor
	c          *llm.Call
	facts      *exchange.Facts
	model      string // Triton's path says it
	cumulative bool   // each event repeats the text before it
	meter      content.Meter
	stream     bool
	ended      bool
	reason     string

	input, cached, output, reasoning stated.Count
}

func (d *decoder) asked() {
	content.Asked(d.facts, d.c)
	if d.model != "" {
		d.c.RequestModel = d.model
	}
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { d.asked() }

// Body implements exchange.Decoder. SGLang answers a batch with an array.
func (d *decoder) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	if s.Kind() == jsonscan.Array {
		for range s.Array {
			d.object(s)
		}
	} else {
		d.object(s)
	}
	return s.Err()
}

// Event implements exchange.Decoder.
func (d *decoder) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.stream, d.c.Stream = true, true
	if string(s.Peek(6)) == "[DONE]" {
		d.ended, e.Done = true, true
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

// object reads an answer or an event, and reports whether it says that it is the last.
func (d *decoder) object(s *jsonscan.Scanner) (last bool) {
	c := d.c
	for key := range s.Object {
		switch string(key) {
		case "content", "text_output": // llama.cpp, Triton; LM Studio's message.delta
			s.Stream(d.text)
		case "text":
			if d.cumulative && d.stream {
				if n, _ := s.TextLen(); n > 0 {
					d.meter.Seen(exchange.Visible)
				}
			} else {
				s.Stream(d.text)
			}
		case "type":
			kind := ""
			s.Into(&kind)
			last = last || kind == "chat.end"
		case "result": // of chat.end
			d.object(s)
		case "output": // LM Studio's
			for range s.Array {
				d.item(s)
			}
		case "model", "model_name", "model_instance_id":
			s.Into(&c.ResponseModel)
		case "stop": // llama.cpp
			if v, _ := s.Bool(); v {
				last = true
			}
		case "stop_type":
			s.Into(&d.reason)
		case "tokens_evaluated": // the whole prompt
			d.input.Read(s)
		case "tokens_predicted":
			d.output.Read(s)
		case "timings":
			for key := range s.Object {
				if string(key) == "cache_n" {
					d.cached.Read(s)
				}
			}
		case "stats":
			d.stats(s)
		case "meta_info":
			d.meta(s)
		case "error":
			if s.Kind() != jsonscan.Null {
				d.fail(s)
			}
		}
	}
	return last
}

func (d *decoder) text(p []byte) { d.meter.Text(0, p) }

// item reads a piece of LM Studio's output.
func (d *decoder) item(s *jsonscan.Scanner) {
	kind := ""
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "tool":
			name := ""
			s.Into(&name)
			d.meter.Tool(name)
		case "content":
			if kind == "reasoning" {
				s.Stream(d.meter.Reasoning)
			} else {
				s.Stream(d.text)
			}
		}
	}
}

func (d *decoder) stats(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "input_tokens":
			d.input.Read(s)
		case "total_output_tokens":
			d.output.Read(s)
		case "reasoning_output_tokens":
			d.reasoning.Read(s)
		case "stop_reason":
			s.Into(&d.reason)
		}
	}
}

func (d *decoder) meta(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "id":
			s.Into(&d.c.ResponseID)
		case "prompt_tokens":
			d.input.Read(s)
		case "completion_tokens":
			d.output.Read(s)
		case "cached_tokens":
			d.cached.Read(s)
		case "finish_reason": // {"type":"length","length":16}, or text
			if s.Kind() == jsonscan.String {
				s.Into(&d.reason)
				continue
			}
			for key := range s.Object {
				if string(key) == "type" {
					s.Into(&d.reason)
				}
			}
		}
	}
}

func (d *decoder) fail(s *jsonscan.Scanner) {
	kind := ""
	if s.Kind() == jsonscan.Object {
		for key := range s.Object {
			if string(key) == "type" {
				s.Into(&kind)
			}
		}
	}
	answer.Fail(d.c, kind)
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	if d.reason != "" {
		c.FinishReasons = []string{d.reason}
	}
	in, out := stated.Whole{Left: d.input.N}, stated.Whole{Left: d.output.N}
	in.Take(d.cached, "cached").Into(&c.Usage, llm.CacheRead)
	out.Take(d.reasoning, "reasoning").Into(&c.Usage, llm.Reasoning)
	if d.input.OK {
		stated.Of(in.Left).Into(&c.Usage, llm.Input)
	}
	if d.output.OK {
		stated.Of(out.Left).Into(&c.Usage, llm.Output)
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
	whole := err == nil && (!d.stream || d.ended)
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
