package openai

import (
	"strings"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
)

// run reads an Assistants run, or an event of its stream. A run's steps state usage
// too, which the run's includes: only the run's counts. The object's own name goes
// before the event's.
func (d *call) run(s *jsonscan.Scanner, name string) {
	object := name
	if strings.HasPrefix(name, "thread.run.step") {
		object = "thread.run.step"
	} else if strings.HasPrefix(name, "thread.run.") {
		object = "thread.run"
	}
	id := ""
	isRun := func() bool { return object == "thread.run" || object == "" }
	for key := range s.Object {
		switch string(key) {
		case "id":
			s.Into(&id)
		case "object":
			s.Into(&object)
		case "delta":
			d.runDelta(s)
		case "error":
			d.failed(s)
		case "last_error":
			if isRun() {
				d.failed(s)
			}
		case "model", "status", "usage", "incomplete_details", "service_tier":
			if isRun() {
				d.resultField(s, key)
			}
		}
	}
	if isRun() && id != "" {
		d.c.ResponseID = id
	}
}

// runDelta reads the delta to a message or to a step.
func (d *call) runDelta(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "content":
			for range s.Array {
				for key := range s.Object {
					if string(key) != "text" {
						continue
					}
					for key := range s.Object {
						if string(key) == "value" {
							s.Stream(func(p []byte) { d.meter.Text(0, p) })
						}
					}
				}
			}
		case "step_details":
			for key := range s.Object {
				if string(key) == "tool_calls" {
					for i := range s.Array {
						d.toolCall(s, i)
					}
				}
			}
		}
	}
}

// batch reads a batch, which states the usage of all its answers once it is complete.
// It is billed at a tier of its own.
func (d *call) batch(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "endpoint":
			path := ""
			s.Into(&path)
			if e := find(path, nil); e != nil {
				d.c.Operation = operations[e.api]
			}
		case "id", "model", "status", "usage":
			d.resultField(s, key)
		}
	}
	d.finished = d.finished || d.status == "expired"
	if d.status == "failed" {
		d.fail("", d.status)
	}
	d.c.ServiceTier = "batch"
}

// conversation reads a turn of Mistral's conversations
// (https://docs.mistral.ai/api/#tag/beta.conversations), or an event of its stream.
func (d *call) conversation(s *jsonscan.Scanner, name string) {
	kind := name
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "conversation_id":
			first(s, &d.c.ResponseID)
		case "usage":
			d.usage.read(s)
		case "outputs":
			for i := range s.Array {
				d.entry(s, i)
			}
		case "model":
			last(s, &d.c.ResponseModel)
		case "content":
			d.content(s, 0)
		case "name":
			tool := ""
			if s.Into(&tool); kind == "function.call.delta" && !d.tool[0].named {
				d.tool[0].named = true
				d.meter.Tool(tool)
			}
		case "arguments":
			s.Stream(func(p []byte) { d.meter.Arguments(0, p) })
		case "code":
			if n, ok := s.Decimal(); ok && kind == "conversation.response.error" {
				d.fail(n, "")
			}
		}
	}
	if kind == "conversation.response.done" || kind == "conversation.response.error" {
		d.done = d.done || s.Err() == nil
	}
}

// entry reads an entry of a conversation: a message, a call of a function.
func (d *call) entry(s *jsonscan.Scanner, index int) {
	for key := range s.Object {
		switch string(key) {
		case "model":
			last(s, &d.c.ResponseModel)
		case "content":
			d.content(s, 0)
		case "name":
			tool := ""
			s.Into(&tool)
			d.meter.Tool(tool)
		case "arguments":
			s.Stream(func(p []byte) { d.meter.Arguments(index, p) })
		}
	}
}

// media reads images, transcriptions, speech and pages that were read.
func (d *call) media(s *jsonscan.Scanner, name string) {
	kind := name
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "model":
			last(s, &d.c.ResponseModel)
		case "id":
			first(s, &d.c.ResponseID)
		case "usage":
			d.usage.read(s)
		case "data": // images
			for range s.Array {
				d.pictures++
				d.meter.Seen(exchange.Visible)
				s.Skip()
			}
		case "b64_json", "audio":
			d.meter.Seen(exchange.Visible)
		case "text", "delta":
			if kind == "transcript.text.done" {
				break // says the deltas again
			}
			s.Stream(func(p []byte) { d.meter.Text(-1, p) })
		case "usage_info": // OCR's
			for key := range s.Object {
				if string(key) == "pages_processed" {
					d.pages.Read(s)
					d.usage.seen = true
				}
			}
		case "pages":
			for range s.Array {
				d.meter.Seen(exchange.Visible)
				s.Skip()
			}
		case "duration": // of verbose_json
			if n, ok := s.Float(); ok && !d.usage.hasSeconds {
				d.usage.seconds, d.usage.hasSeconds = n, true
			}
		case "error":
			d.failed(s)
		}
	}
	switch kind {
	case "image_generation.completed", "image_edit.completed":
		d.pictures++
		d.done = d.done || s.Err() == nil
	case "transcript.text.done", "speech.audio.done":
		d.done = d.done || s.Err() == nil
	}
}
