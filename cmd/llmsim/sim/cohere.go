package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/tollwire/tollwire/llm"
)

// cohereChat is POST /v2/chat. Billed units are stated beside tokens, which count
// Cohere's preamble too.
var cohereChat = &vendor{
	provider: "cohere", operation: "chat",
	respond: func(c *call) (*answer, error) {
		e := c.entry
		e.ID, e.Served = c.tag, "" // Cohere names no model in its answer
		p := &c.plan
		const preamble = 66
		wire := object{
			"billed_units": object{"input_tokens": p.Input, "output_tokens": p.Tokens},
			"tokens":       object{"input_tokens": p.Input + preamble, "output_tokens": p.Tokens + 2},
		}
		var u llm.Usage
		u.Set(llm.Input, float64(p.Input))
		u.Set(llm.Output, float64(p.Tokens))
		e.Generated = classes(&u)
		finish := map[string]string{"length": "MAX_TOKENS", "tool": "TOOL_CALL", "filter": "ERROR_TOXIC"}[p.Finish]
		finish = cmp.Or(finish, "COMPLETE")
		a := &answer{header: cohereHeader(c)}
		tool := func(arguments string) object {
			name := cmp.Or(p.Tool, "get_weather")
			e.Tools = []string{name}
			return object{"id": name + "_" + c.tag, "type": "function", "function": object{"name": name, "arguments": arguments}}
		}
		if !c.ask.Stream {
			message := object{"role": "assistant"}
			if p.Finish == "tool" {
				whole := ""
				for _, t := range toolArguments {
					whole += t
				}
				message["tool_calls"] = []any{tool(whole)}
			} else {
				message["content"] = []any{object{"type": "text", "text": gather(speak(p, c.seed))}}
			}
			a.unary = compact(object{"id": e.ID, "message": message, "finish_reason": finish, "usage": wire})
			a.visible, a.usage, a.finish = true, u, []string{finish}
			return a, nil
		}
		a.events = func(yield func(event) bool) {
			send := func(name string, o object, ev event) bool {
				o["type"] = name
				ev.name, ev.data = name, compact(o)
				return yield(ev)
			}
			message := func(o object) object { return object{"message": o} }
			start := message(object{"role": "assistant", "content": []any{}, "tool_plan": "", "tool_calls": []any{}, "citations": []any{}})
			if !send("message-start", object{"id": e.ID, "delta": start}, event{}) {
				return
			}
			if p.Finish == "tool" {
				if !send("tool-call-start", object{"index": 0, "delta": message(object{"tool_calls": tool("")})}, event{content: true, tokens: 1}) {
					return
				}
				for _, t := range toolArguments {
					d := message(object{"tool_calls": object{"function": object{"arguments": t}}})
					if !send("tool-call-delta", object{"index": 0, "delta": d}, event{content: true, tokens: 1}) {
						return
					}
				}
				if !send("tool-call-end", object{"index": 0}, event{}) {
					return
				}
			} else {
				if !send("content-start", object{"index": 0, "delta": message(object{"content": object{"type": "text", "text": ""}})}, event{}) {
					return
				}
				for w := range speak(p, c.seed) {
					d := message(object{"content": object{"text": w.text}})
					if !send("content-delta", object{"index": 0, "delta": d}, event{content: true, tokens: max(1, w.tokens)}) {
						return
					}
				}
				if !send("content-end", object{"index": 0}, event{}) {
					return
				}
			}
			end := object{"delta": object{"finish_reason": finish, "usage": wire}}
			if send("message-end", end, event{usage: &u, final: true, finish: finish}) {
				yield(event{data: []byte("[DONE]")})
			}
		}
		return a, nil
	},
	refusal: cohereRefusal,
	broken: func(*call) (event, string, string) {
		o := object{"type": "message-end", "delta": object{"finish_reason": "ERROR", "error": "the model failed"}}
		return event{name: "message-end", data: compact(o)}, "ERROR", ""
	},
}

// cohereRerank is POST /v2/rerank: one search unit a query of up to 100 documents.
var cohereRerank = &vendor{
	provider: "cohere", operation: "rerank",
	respond: func(c *call) (*answer, error) {
		var ask struct {
			Documents []json.RawMessage `json:"documents"`
		}
		if err := json.Unmarshal(c.body, &ask); err != nil {
			return nil, err
		}
		if len(ask.Documents) == 0 {
			return nil, fmt.Errorf("documents must not be empty")
		}
		c.entry.ID = c.tag
		results := make([]any, len(ask.Documents))
		for i := range results {
			results[i] = object{"index": i, "relevance_score": 1 / float64(i+1)}
		}
		units := (len(ask.Documents) + 99) / 100
		var u llm.Usage
		u.Set(llm.SearchUnits, float64(units))
		c.entry.Generated = classes(&u)
		return &answer{header: cohereHeader(c), usage: u, unary: compact(object{
			"id": c.entry.ID, "results": results,
			"meta": object{"api_version": object{"version": "2"}, "billed_units": object{"search_units": units}},
		})}, nil
	},
	refusal: cohereRefusal,
}

func cohereHeader(c *call) http.Header {
	h := http.Header{}
	h.Set("X-Debug-Trace-Id", c.tag)
	h.Set("X-Request-Id", c.entry.RequestID)
	return h
}

func cohereRefusal(_ *call, status int, message string) ([]byte, string, string) {
	return compact(object{"message": message}), "", ""
}
