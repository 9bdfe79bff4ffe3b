package sim

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// ollama is POST /api/chat and /api/generate, which stream unless told not to:
// a JSON object a line, no ids.
var ollama = &vendor{
	provider: "ollama", operation: "chat",
	prepare: func(c *call) {
		var ask struct {
			Stream *bool `json:"stream"`
		}
		json.Unmarshal(c.body, &ask) // it was read before
		c.ask.Stream = ask.Stream == nil || *ask.Stream
		if strings.HasSuffix(c.r.URL.Path, "/generate") {
			c.entry.Operation = "text_completion"
		}
	},
	respond: func(c *call) (*answer, error) {
		e := c.entry
		e.Served = cmp.Or(c.plan.Model, c.ask.Model)
		p := &c.plan
		var u llm.Usage
		u.Set(llm.Input, float64(p.Input))
		u.Set(llm.Output, float64(p.Tokens+p.Think)) // eval_count does not tell them apart
		e.Generated = classes(&u)
		finish := "stop"
		if p.Finish == "length" {
			finish = "length"
		}
		line := func(key, text string) object {
			o := object{"model": e.Served, "created_at": time.Now().UTC().Format(time.RFC3339Nano), "done": false}
			if e.Operation == "chat" {
				m := object{"role": "assistant", "content": ""}
				m[key] = text
				o["message"] = m
			} else {
				if key == "content" {
					key = "response"
				}
				o["response"] = ""
				o[key] = text
			}
			return o
		}
		last := func(text string) object {
			o := line("content", text)
			if p.Finish == "tool" && e.Operation == "chat" {
				name := cmp.Or(p.Tool, "get_weather")
				e.Tools = []string{name}
				o["message"].(object)["tool_calls"] = []any{object{"function": object{"name": name, "arguments": object{"city": "Paris", "days": 3}}}}
			}
			for k, v := range (object{"done": true, "done_reason": finish, "total_duration": 372251833, "load_duration": 15340531,
				"prompt_eval_count": p.Input, "prompt_eval_duration": 17967600, "eval_count": p.Tokens + p.Think, "eval_duration": 200608600}) {
				o[k] = v
			}
			return o
		}
		a := &answer{header: http.Header{}, kind: ndjson}
		if !c.ask.Stream {
			a.header.Set("Content-Type", "application/json; charset=utf-8")
			text := ""
			if p.Finish != "tool" {
				text = gather(speak(p, c.seed))
			}
			a.unary, a.visible, a.usage, a.finish = compact(last(text)), true, u, []string{finish}
			return a, nil
		}
		a.events = func(yield func(event) bool) {
			for w := range ponder(p, c.seed) {
				if !yield(event{data: compact(line("thinking", w.text)), content: true, tokens: w.tokens}) {
					return
				}
			}
			if p.Finish != "tool" {
				for w := range speak(p, c.seed) {
					if !yield(event{data: compact(line("content", w.text)), content: true, tokens: max(1, w.tokens)}) {
						return
					}
				}
			}
			yield(event{data: compact(last("")), content: p.Finish == "tool", usage: &u, final: true, finish: finish})
		}
		return a, nil
	},
	refusal: func(_ *call, _ int, message string) ([]byte, string, string) {
		return compact(object{"error": message}), "", ""
	},
	broken: func(*call) (event, string, string) {
		return event{data: compact(object{"error": "an error was encountered while running the model"})}, "", ""
	},
}
