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

// media reads images, transcriptions and speech.
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
