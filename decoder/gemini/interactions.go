package gemini

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// interaction reads the Interactions API (https://ai.google.dev/api/interactions-api):
// one object, or events whose last one holds it, then [DONE].
type interaction struct {
	v      *Vendor
	c      *llm.Call
	facts  *exchange.Facts
	s      *jsonscan.Scanner
	stream bool
	status string
	done   bool // the terminator, or a last word on the state
	usage  usage
	meter  content.Meter
}

// Response implements exchange.Decoder.
func (d *interaction) Response(*exchange.Response) {
	asked(d.facts, d.c)
}

// Body implements exchange.Decoder.
func (d *interaction) Body(r io.Reader) error {
	d.s = d.v.scan.Get(r)
	defer d.v.scan.Put(d.s)
	d.object()
	return d.s.Err()
}

// Event implements exchange.Decoder.
func (d *interaction) Event(e *exchange.Event) error {
	d.stream = true
	d.s = d.v.scan.Get(e.Data)
	defer d.v.scan.Put(d.s)
	if string(d.s.Peek(6)) == "[DONE]" {
		e.Done = true
		return nil
	}
	d.meter.Event()
	d.event()
	e.Content = d.meter.Kind()
	return d.s.Err()
}

// event reads {"event_type":…,"interaction":{…}} or {"event_type":…,"delta":{…}}.
func (d *interaction) event() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "interaction":
			d.object()
		case "delta":
			d.delta()
		case "step": // that begins
			d.step()
		case "metadata":
			for key := range s.Object {
				if string(key) == "usage" || string(key) == "total_usage" {
					d.read()
				}
			}
		case "error":
			fail(d.c, s)
		}
	}
}

// delta reads a piece of content; what type it is of may stand behind the piece.
func (d *interaction) delta() {
	s := d.s
	kind := ""
	some := false
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "text", "data", "arguments", "content":
			some = true
		case "name":
			name := ""
			s.Into(&name)
			d.meter.Tool(name)
		}
	}
	switch {
	case strings.HasPrefix(kind, "thought"):
		if some {
			d.meter.Seen(exchange.Hidden)
		}
	case some:
		d.meter.Seen(exchange.Visible)
	}
}

// object reads an Interaction.
func (d *interaction) object() {
	s, c := d.s, d.c
	for key := range s.Object {
		switch string(key) {
		case "id":
			s.Into(&c.ResponseID)
		case "model":
			s.Into(&c.ResponseModel)
		case "service_tier":
			s.Into(&c.ServiceTier)
		case "status":
			s.Into(&d.status)
		case "usage":
			d.read()
		case "outputs", "steps":
			for range s.Array {
				d.output()
			}
		case "error":
			fail(c, s)
		}
	}
}

// output reads a piece of the answer; in a stream its deltas were seen.
func (d *interaction) output() {
	if d.stream {
		d.s.Skip()
		return
	}
	d.meter.Seen(exchange.Visible)
	d.step()
}

// step takes the name of the tool, where the model calls one.
func (d *interaction) step() {
	s := d.s
	kind, name := "", ""
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "name":
			s.Into(&name)
		}
	}
	if kind == "function_call" {
		d.meter.Tool(name)
	}
}

func (d *interaction) read() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "total_input_tokens":
			d.usage.prompt.Read(s)
		case "total_output_tokens":
			d.usage.candidates.Read(s)
		case "total_thought_tokens", "total_reasoning_tokens":
			d.usage.thoughts.Read(s)
		case "total_cached_tokens":
			d.usage.cached.Read(s)
		case "total_tool_use_tokens":
			d.usage.tool.Read(s)
		case "total_tokens":
			d.usage.total.Read(s)
		case "input_tokens_by_modality":
			d.usage.promptBy = details(s)
		case "cached_tokens_by_modality":
			d.usage.cachedBy = details(s)
		case "output_tokens_by_modality":
			d.usage.candidatesBy = details(s)
		}
	}
}

// End implements exchange.Decoder.
func (d *interaction) End(err error) {
	c := d.c
	d.usage.settle(c)
	source, ended := llm.SourceBody, true
	if d.stream {
		source = llm.SourceStream
	}
	switch d.status {
	case "":
		ended = !d.stream
	case "in_progress":
		ended = false // a background job, asked for again later
	default:
		c.FinishReasons = []string{d.status}
	}
	if d.status == "failed" {
		answer.Fail(c, c.ErrorType, d.status)
	}
	whole := err == nil && ended
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
