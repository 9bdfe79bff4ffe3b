package openai

import (
	"cmp"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// response reads a Responses object, or an event of a stream of the API. name is the
// event's; some streams have none, and the JSON's own type goes before it.
func (d *call) response(s *jsonscan.Scanner, name string) {
	kind := name
	index := 0
	code := ""
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "output_index":
			if n, ok := s.Int(); ok && n >= 0 {
				index = int(min(n, 1<<20))
			}
		case "delta":
			d.responseDelta(s, kind, index)
		case "item":
			if kind == "response.output_item.added" || kind == "response.output_item.done" {
				d.item(s, index, kind == "response.output_item.done")
			}
		case "response":
			d.result(s)
		case "partial_image_b64":
			d.meter.Seen(exchange.Visible)
		case "copilot_usage":
			d.copilot(s)
		case "code":
			s.Into(&code)
		case "error":
			d.failed(s)
		default:
			d.resultField(s, key)
		}
	}
	switch kind {
	case "response.completed", "response.incomplete", "response.failed", "response.cancelled":
		d.done = d.done || s.Err() == nil
	case "response.function_call_arguments.done", "response.mcp_call_arguments.done":
		d.meter.ToolEnd(index)
	case "error":
		d.fail(code, "")
	}
	if d.status == "failed" && !d.c.InBandError {
		d.fail("", "failed")
	}
}

// result reads the response itself.
func (d *call) result(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) == "error" {
			d.failed(s)
		} else {
			d.resultField(s, key)
		}
	}
}

func (d *call) resultField(s *jsonscan.Scanner, key []byte) {
	c := d.c
	switch string(key) {
	case "id":
		first(s, &c.ResponseID)
	case "model":
		last(s, &c.ResponseModel)
	case "status":
		s.Into(&d.status)
		d.finished = d.status == "completed" || d.status == "incomplete" || d.status == "failed" || d.status == "cancelled"
		d.reasons = answer.Reasons{}
		switch d.status {
		case "completed":
			d.reasons.Set(0, "completed")
		case "incomplete":
			d.reasons.Set(0, cmp.Or(d.reason, "incomplete"))
		}
	case "incomplete_details":
		for key := range s.Object {
			if string(key) == "reason" {
				s.Into(&d.reason)
			}
		}
		if d.status == "incomplete" && d.reason != "" {
			d.reasons.Set(0, d.reason)
		}
	case "service_tier":
		last(s, &c.ServiceTier)
	case "background":
		d.background, _ = s.Bool()
	case "usage":
		d.usage.read(s)
	case "output":
		if d.items {
			return // the stream had them one by one
		}
		for i := range s.Array {
			d.item(s, i, true)
		}
	}
}

// item reads an output item. Billed tools are counted when it is done; text comes in
// deltas where there is a stream.
func (d *call) item(s *jsonscan.Scanner, index int, done bool) {
	kind, name, action := "", "", ""
	live := d.stream
	if live {
		d.items = true
	}
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "name":
			s.Into(&name)
		case "arguments":
			if !live {
				s.Stream(func(p []byte) { d.meter.Arguments(index, p) })
			}
		case "input", "code":
			if !live && s.Kind() == jsonscan.String {
				s.Stream(func(p []byte) { d.meter.Text(-1, p) })
			}
		case "content":
			if !live {
				d.parts(s, kind == "reasoning")
			}
		case "summary":
			if !live {
				d.parts(s, true)
			}
		case "result":
			if n, _ := s.TextLen(); n > 0 {
				d.meter.Seen(exchange.Visible)
			}
		case "action":
			for key := range s.Object {
				if string(key) == "type" {
					s.Into(&action)
				}
			}
		}
	}
	if s.Err() != nil {
		return
	}
	switch kind {
	case "function_call", "custom_tool_call", "mcp_call":
		if index < maxTools && !d.tool[index].named {
			d.tool[index].named = true
			d.meter.Tool(name)
		}
		if done {
			d.meter.ToolEnd(index)
		}
	}
	if billed, ok := strings.CutSuffix(kind, "_call"); ok && done {
		d.meter.Seen(exchange.Visible)
		switch billed {
		case "web_search":
			if action != "" && action != "search" {
				return // pages opened and searched within are not billed
			}
			fallthrough
		case "file_search", "code_interpreter", "image_generation", "computer":
			tools(d.c)[billed]++
		}
	}
}

// parts reads the parts of a message or of a reasoning item.
func (d *call) parts(s *jsonscan.Scanner, hidden bool) {
	for range s.Array {
		for key := range s.Object {
			switch string(key) {
			case "text":
				if hidden {
					s.Stream(d.meter.Reasoning)
				} else {
					s.Stream(func(p []byte) { d.meter.Text(0, p) })
				}
			case "refusal":
				if n, _ := s.Stream(func(p []byte) { d.meter.Text(0, p) }); n > 0 {
					d.meter.Signal(content.Refusal)
				}
			}
		}
	}
}

func (d *call) responseDelta(s *jsonscan.Scanner, kind string, index int) {
	switch kind {
	case "response.output_text.delta", "response.text.delta", "":
		s.Stream(func(p []byte) { d.meter.Text(0, p) })
	case "response.refusal.delta":
		s.Stream(func(p []byte) { d.meter.Text(0, p) })
		d.meter.Signal(content.Refusal)
	case "response.function_call_arguments.delta", "response.mcp_call_arguments.delta", "response.mcp_call.arguments.delta":
		s.Stream(func(p []byte) { d.meter.Arguments(index, p) })
	case "response.reasoning_summary_text.delta", "response.reasoning_text.delta", "response.reasoning_summary.delta",
		"response.reasoning.delta":
		s.Stream(d.meter.Reasoning)
	case "response.custom_tool_call_input.delta", "response.code_interpreter_call_code.delta":
		s.Stream(func(p []byte) { d.meter.Text(-1, p) })
	case "response.audio.delta", "response.output_audio.delta", "response.audio.transcript.delta", "response.audio_transcript.delta",
		"response.output_audio_transcript.delta":
		if n, _ := s.TextLen(); n > 0 {
			d.meter.Seen(exchange.Visible)
		}
	}
}

// deferred says what part the exchange has in an answer that its client fetches by GET
// until it is there: a response made in the background, a run, a batch. A response that
// is fetched without having been made so was counted when it was made; one whose fetch
// was cut may be fetched again.
func (d *call) deferred(err error) llm.Deferred {
	later := d.background || d.api == batches || d.api == runs
	switch {
	case d.c.Status >= 400 && !d.fetches:
		return llm.NotDeferred
	case later && d.finished && (err == nil || !d.fetches):
		return llm.DeferredDone
	case d.fetches:
		return llm.DeferredWaiting
	case later && d.c.ResponseID != "":
		return llm.DeferredAsked
	}
	return llm.NotDeferred
}
