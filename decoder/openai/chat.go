package openai

import (
	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
)

// chunk reads a chat or text completion, an embeddings response, or one chunk of a
// stream of them: they differ by message, delta and text only.
func (d *call) chunk(s *jsonscan.Scanner) {
	c := d.c
	for key := range s.Object {
		switch string(key) {
		case "id":
			first(s, &c.ResponseID)
		case "model":
			last(s, &c.ResponseModel)
		case "service_tier":
			last(s, &c.ServiceTier)
		case "choices":
			for i := range s.Array {
				d.choice(s, i)
			}
		case "usage":
			d.usage.read(s)
		case "x_groq": // states the usage as well, in streams
			for key := range s.Object {
				switch string(key) {
				case "usage":
					d.usage.read(s)
				case "error":
					d.failed(s)
				}
			}
		case "copilot_usage":
			d.copilot(s)
		case "error":
			d.failed(s)
		case "base_resp": // MiniMax: errors inside a 200
			d.baseResp(s)
		case "object": // older vLLM says {"object":"error"}
			if string(s.Peek(len(objectError))) == objectError {
				d.fail("", "error")
			}
		case "code":
			d.bareCode(s)
		case "value": // Writer's text completions
			if d.api == completions {
				s.Stream(func(p []byte) { d.meter.Text(0, p) })
			}
		}
	}
}

func (d *call) choice(s *jsonscan.Scanner, at int) {
	index := at
	reason := ""
	read := false
	for key := range s.Object {
		switch string(key) {
		case "index":
			index = answer.Index(s, index)
		case "delta", "message": // Writer's streams say the same in both
			if !read && s.Kind() == jsonscan.Object {
				read = true
				d.message(s, index)
			}
		case "text":
			s.Stream(func(p []byte) { d.meter.Text(index, p) })
		case "finish_reason":
			s.Into(&reason)
		case "usage": // Moonshot's older streams
			d.usage.read(s)
		case "error":
			d.failed(s)
		}
	}
	if reason == "null" {
		reason = ""
	}
	d.reasons.Set(index, reason)
}

// message reads a message or the delta to one.
func (d *call) message(s *jsonscan.Scanner, choice int) {
	for key := range s.Object {
		switch string(key) {
		case "content":
			d.content(s, choice)
		case "reasoning_content", "reasoning", "reasoning_text":
			s.Stream(d.meter.Reasoning)
		case "reasoning_details": // says the same again, or in cipher
			for range s.Array {
				d.meter.Seen(exchange.Hidden)
				s.Skip()
			}
		case "refusal":
			refused := false
			s.Stream(func(p []byte) { refused = true; d.meter.Text(choice, p) })
			if refused {
				d.meter.Signal(content.Refusal)
			}
		case "tool_calls":
			for i := range s.Array {
				d.toolCall(s, i)
			}
		case "function_call":
			d.function(s, 0, "")
		case "audio":
			for key := range s.Object {
				if string(key) == "data" || string(key) == "transcript" {
					if n, _ := s.TextLen(); n > 0 {
						d.meter.Seen(exchange.Visible)
					}
				}
			}
		case "images":
			for range s.Array {
				d.meter.Seen(exchange.Visible)
				s.Skip()
			}
		}
	}
}

// content reads a message's content: text, or Mistral's list of typed parts.
func (d *call) content(s *jsonscan.Scanner, choice int) {
	switch s.Kind() {
	case jsonscan.String:
		s.Stream(func(p []byte) { d.meter.Text(choice, p) })
	case jsonscan.Array:
		for range s.Array {
			for key := range s.Object {
				switch string(key) {
				case "text":
					s.Stream(func(p []byte) { d.meter.Text(choice, p) })
				case "thinking":
					d.thinking(s)
				}
			}
		}
	}
}

func (d *call) thinking(s *jsonscan.Scanner) {
	if s.Kind() == jsonscan.String {
		s.Stream(d.meter.Reasoning)
		return
	}
	for range s.Array {
		for key := range s.Object {
			if string(key) == "text" {
				s.Stream(d.meter.Reasoning)
			}
		}
	}
}

// toolCall reads a tool call or the delta to one.
func (d *call) toolCall(s *jsonscan.Scanner, at int) {
	index, id := at, ""
	for key := range s.Object {
		switch string(key) {
		case "index":
			if n, ok := s.Int(); ok && n >= 0 && n < maxTools {
				index = int(n)
			}
		case "id":
			s.Into(&id)
		case "function", "custom":
			d.function(s, index, id)
		}
	}
}

// function reads a name, once for each call, and arguments. A stream states the id
// with the name; a new id at an old index is another call (Gemini).
func (d *call) function(s *jsonscan.Scanner, index int, id string) {
	if index >= maxTools {
		return
	}
	t := &d.tool[index]
	if id != "" && t.id != id {
		if t.named {
			d.meter.ToolEnd(index)
		}
		t.id, t.named = id, false
	}
	for key := range s.Object {
		switch string(key) {
		case "name":
			if t.named {
				continue
			}
			name := ""
			s.Into(&name)
			t.named = name != ""
			d.meter.Tool(name)
		case "arguments":
			s.Stream(func(p []byte) { d.meter.Arguments(index, p) })
		}
	}
}

// copilot reads what GitHub Copilot adds beside the response.
func (d *call) copilot(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) == "total_nano_aiu" {
			if n, ok := s.Decimal(); ok {
				d.c.StatedCost, d.c.StatedCostSource = n, CostNanoAIU
			}
		}
	}
}

// failed reads an error that stands in the body: an object, or a text. A null is none.
func (d *call) failed(s *jsonscan.Scanner) {
	switch s.Kind() {
	case jsonscan.Object:
		code, kind, some := fault(s)
		if some {
			d.fail(code, kind)
		}
	case jsonscan.String:
		if n, _ := s.TextLen(); n > 0 {
			d.fail("", "")
		}
	default:
		s.Skip()
	}
}

// fault reads an error object, and reports whether it holds anything.
func fault(s *jsonscan.Scanner) (code, kind string, some bool) {
	for key := range s.Object {
		some = true
		switch string(key) {
		case "code":
			if s.Kind() == jsonscan.Number {
				code, _ = s.Decimal()
			} else {
				s.Into(&code)
			}
		case "type":
			s.Into(&kind)
		}
	}
	return code, kind, some
}

// fail notes an error: the code says more than the type, unless it is a number.
func (d *call) fail(code, kind string) {
	c := d.c
	c.InBandError = c.Status < 400
	switch {
	case code != "" && !stated.Digits(code):
		c.ErrorType = code
	case kind != "":
		c.ErrorType = kind
	case code != "":
		c.ErrorType = code
	}
	if code == "content_filter" {
		d.meter.Signal(content.Filtered)
	}
}

const objectError = `"error"`

// bareCode reads an error that stands at the top level of an answer of status 400 and
// above: xAI and DashScope say {"code","error"|"message"}.
func (d *call) bareCode(s *jsonscan.Scanner) {
	code := ""
	if d.c.Status < 400 {
		return
	}
	if s.Into(&code); code != "" && d.c.ErrorType == "" {
		d.c.ErrorType = code
	}
}

func (d *call) baseResp(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) == "status_code" {
			if n, ok := s.Decimal(); ok && n != "0" {
				d.fail(n, "")
			}
		}
	}
}
