package cohere

import (
	"io"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// decoder reads one answer. The objects of both versions, whole or as events, have
// no field that means different things, so one reader takes them all.
type decoder struct {
	v       *Vendor
	c       *llm.Call
	facts   *exchange.Facts
	s       *jsonscan.Scanner
	meter   content.Meter
	stream  bool
	ended   bool // message-end or stream-end was read
	reasons answer.Reasons
	billed  units
	tokens  units
}

// units are billed_units or tokens.
type units struct {
	input, output, image, reasoning stated.Count
	images, searches                stated.Count
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { content.Asked(d.facts, d.c) }

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
	if string(s.Peek(6)) == "[DONE]" {
		e.Done = true
		return nil
	}
	d.meter.Event()
	ended := d.ended
	d.object()
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		d.ended = ended
		return err
	}
	e.Done = d.ended
	return nil
}

// object reads an answer, or an event of a stream.
func (d *decoder) object() {
	s, c := d.s, d.c
	kind := ""
	for key := range s.Object {
		switch string(key) {
		case "type", "event_type":
			s.Into(&kind)
			d.ended = d.ended || kind == "message-end" || kind == "stream-end"
		case "is_finished":
			if v, _ := s.Bool(); v {
				d.ended = true
			}
		case "response_id", "id":
			if c.Status < 400 {
				s.Into(&c.ResponseID)
			}
		case "finish_reason":
			d.finish(0)
		case "text":
			s.Stream(d.text)
		case "generations":
			for i := range s.Array {
				for key := range s.Object {
					switch string(key) {
					case "text":
						s.Stream(d.text)
					case "finish_reason":
						d.finish(i)
					}
				}
			}
		case "message": // text where it is an error
			if s.Kind() == jsonscan.Object {
				d.message()
			} else if c.Status < 400 && s.Kind() == jsonscan.String && !d.stream {
				answer.Fail(c)
			}
		case "delta":
			d.delta()
		case "tool_calls":
			d.toolCalls()
		case "response": // version 1's stream ends with the whole answer again
			d.again()
		case "usage", "meta":
			d.usage()
		}
	}
}

// again reads the whole answer at the end of a stream.
func (d *decoder) again() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "response_id", "id":
			s.Into(&d.c.ResponseID)
		case "finish_reason":
			d.finish(0)
		case "generations":
			for i := range s.Array {
				for key := range s.Object {
					if string(key) == "finish_reason" {
						d.finish(i)
					}
				}
			}
		case "meta":
			d.usage()
		}
	}
}

func (d *decoder) text(piece []byte) { d.meter.Text(0, piece) }

func (d *decoder) finish(choice int) {
	reason := ""
	if d.s.Into(&reason); reason == "" {
		return
	}
	d.reasons.Set(choice, reason)
	switch reason {
	case "ERROR", "ERROR_TOXIC", "ERROR_LIMIT", "TIMEOUT":
		answer.Fail(d.c, reason)
	}
}

// delta is what an event of version 2 adds.
func (d *decoder) delta() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "message":
			d.message()
		case "finish_reason":
			d.finish(0)
		case "usage":
			d.usage()
		case "error":
			if s.Kind() == jsonscan.String || s.Kind() == jsonscan.Object {
				answer.Fail(d.c)
			}
		}
	}
}

func (d *decoder) message() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "content":
			switch s.Kind() {
			case jsonscan.Array:
				for range s.Array {
					d.part()
				}
			case jsonscan.String:
				s.Stream(d.text)
			default:
				d.part()
			}
		case "tool_plan":
			s.Stream(d.meter.Reasoning)
		case "tool_calls":
			d.toolCalls()
		}
	}
}

func (d *decoder) part() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "text":
			s.Stream(d.text)
		case "thinking":
			s.Stream(d.meter.Reasoning)
		}
	}
}

// toolCalls reads an array of calls, or the one that an event is about.
func (d *decoder) toolCalls() {
	s := d.s
	if s.Kind() == jsonscan.Array {
		for i := range s.Array {
			d.toolCall(i)
			d.meter.ToolEnd(i)
		}
		return
	}
	d.toolCall(0)
}

func (d *decoder) toolCall(i int) {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "function":
			d.toolCall(i)
		case "name":
			name := ""
			if s.Into(&name); name != "" {
				d.meter.ToolEnd(i) // the call before is whole
				d.meter.Tool(name)
			}
		case "arguments":
			s.Stream(func(piece []byte) { d.meter.Arguments(i, piece) })
		}
	}
}

// usage reads version 2's usage, and the meta that holds the same in version 1.
func (d *decoder) usage() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "billed_units":
			d.billed.read(s)
		case "tokens":
			d.tokens.read(s)
		}
	}
}

func (u *units) read(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "input_tokens":
			u.input.Read(s)
		case "output_tokens":
			u.output.Read(s)
		case "image_tokens":
			u.image.Read(s)
		case "reasoning_tokens":
			u.reasoning.Read(s)
		case "images":
			u.images.Read(s)
		case "search_units":
			u.searches.Read(s)
		}
	}
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	u := d.billed
	if !u.input.OK && !u.output.OK && !u.image.OK {
		u.input, u.output, u.image = d.tokens.input, d.tokens.output, d.tokens.image
	}
	u.input.Into(&c.Usage, llm.Input)
	u.image.Into(&c.Usage, llm.InputImage)
	// Reasoning is part of the output, and stated in tokens only.
	output := stated.Whole{Left: u.output.N}
	output.Take(u.reasoning.Or(d.tokens.reasoning), "reasoning").Into(&c.Usage, llm.Reasoning)
	if u.output.OK {
		stated.Of(output.Left).Into(&c.Usage, llm.Output)
	}
	if output.Over != "" {
		stated.Disagree(c, "%s", output.Over)
	}
	u.images.Into(&c.Usage, llm.Images)
	u.searches.Into(&c.Usage, llm.SearchUnits)

	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	whole := err == nil && (!d.stream || d.ended)
	answer.Settle(c, source, whole)
	d.meter.End(whole)
}
