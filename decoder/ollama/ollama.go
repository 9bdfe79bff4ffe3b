// Package ollama decodes Ollama's own API (https://docs.ollama.com/api): chat,
// generate and embed, streamed as one JSON object a line unless asked otherwise. Its
// OpenAI-shaped API is package openai's.
package ollama

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
func (*Vendor) Name() string { return "ollama" }

type api struct {
	operation string
	needs     []string // one of these keys stands in the body beside model
}

var apis = map[string]api{
	"/api/chat":       {"chat", []string{"messages"}},
	"/api/generate":   {"text_completion", []string{"prompt"}},
	"/api/embed":      {"embeddings", []string{"input"}},
	"/api/embeddings": {"embeddings", []string{"prompt", "input"}},
}

// find returns the API at the end of a path, which a proxy may have put a prefix to.
func find(path string) (api, bool) {
	i := strings.LastIndex(path, "/api/")
	if i < 0 {
		return api{}, false
	}
	a, ok := apis[strings.TrimSuffix(path[i:], "/")]
	return a, ok
}

// Recognize implements exchange.Vendor. The paths are such as any web application may
// have: the body has to look like Ollama's too, or the host like its server.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	a, ok := find(req.Path)
	if req.Method != "POST" || !ok {
		return exchange.No
	}
	host, port, _ := strings.Cut(req.Host, ":")
	home := port == "11434" || host == "ollama.com" || strings.HasSuffix(host, ".ollama.com")
	if !facts.Known {
		if home {
			return exchange.Path
		}
		return exchange.Maybe
	}
	if facts.Model == "" {
		return exchange.No
	}
	for _, key := range a.needs {
		switch {
		case facts.Keys[key] && home:
			return exchange.Sure
		case facts.Keys[key]:
			return exchange.Path
		}
	}
	if home { // generate without a prompt loads the model
		return exchange.Path
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	a, _ := find(req.Path)
	c.Provider = "ollama"
	c.Operation = a.operation
	d := &decoder{v: v, c: c, facts: facts}
	d.asked()
	d.meter.Open(v.cfg, facts, c)
	return d
}

type decoder struct {
	v      *Vendor
	c      *llm.Call
	facts  *exchange.Facts
	s      *jsonscan.Scanner
	meter  content.Meter
	stream bool
	done   bool
	reason string
	input  stated.Count
	output stated.Count
}

// asked takes over what the body says; a stream is what there is by default.
func (d *decoder) asked() {
	content.Asked(d.facts, d.c)
	if d.facts.Known && !d.facts.StreamSet && d.c.Operation != "embeddings" {
		d.c.Stream = true
	}
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { d.asked() }

// Body implements exchange.Decoder. It reads lines too, where they are not told
// from one object.
func (d *decoder) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	d.s = s
	for n := 0; s.Kind() != jsonscan.None; n++ {
		d.stream = d.stream || n > 0
		d.object()
	}
	return s.Err()
}

// Event implements exchange.Decoder.
func (d *decoder) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.s, d.stream, d.c.Stream = s, true, true
	d.meter.Event()
	d.object()
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	e.Done = d.done
	return nil
}

func (d *decoder) object() {
	s, c := d.s, d.c
	for key := range s.Object {
		switch string(key) {
		case "model":
			s.Into(&c.ResponseModel)
		case "message":
			d.message()
		case "response":
			s.Stream(d.text)
		case "thinking":
			s.Stream(d.meter.Reasoning)
		case "done":
			d.done, _ = s.Bool()
		case "done_reason":
			s.Into(&d.reason)
		case "prompt_eval_count":
			d.input.Read(s)
		case "eval_count":
			d.output.Read(s)
		case "error":
			if s.Kind() == jsonscan.String || s.Kind() == jsonscan.Object {
				answer.Fail(c)
			}
		}
	}
}

func (d *decoder) text(piece []byte) { d.meter.Text(0, piece) }

func (d *decoder) message() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "content":
			s.Stream(d.text)
		case "thinking":
			s.Stream(d.meter.Reasoning)
		case "images":
			for range s.Array {
				d.meter.Seen(exchange.Visible)
			}
		case "tool_calls":
			for range s.Array {
				for key := range s.Object {
					if string(key) == "function" {
						for key := range s.Object {
							if string(key) == "name" {
								name := ""
								s.Into(&name)
								d.meter.Tool(name)
							}
						}
					}
				}
			}
		}
	}
}

// End implements exchange.Decoder. The server leaves prompt_eval_count out when the
// whole prompt was cached: how long it was is then not known. Thinking is counted as
// output and nowhere stated apart.
func (d *decoder) End(err error) {
	c := d.c
	if d.reason != "" {
		c.FinishReasons = []string{d.reason}
	}
	d.input.Into(&c.Usage, llm.Input)
	d.output.Into(&c.Usage, llm.Output)
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	whole := err == nil && (d.done || c.Operation == "embeddings")
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
