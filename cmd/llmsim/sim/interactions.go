package sim

import (
	"cmp"
	"net/http"

	"github.com/tollwire/tollwire/llm"
)

// geminiInteractions is POST /v1beta/interactions.
var geminiInteractions = &vendor{
	provider: "gcp.gemini", operation: "chat",
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = "v1_"+c.tag, cmp.Or(p.Model, c.ask.Model)
		u := tokens(p.Input, p.Tokens)
		u.Set(llm.CacheRead, float64(p.CacheRead))
		u.Set(llm.Reasoning, float64(p.Think))
		e.Generated = classes(&u)
		state := func(status string) object {
			return object{"id": e.ID, "object": "interaction", "model": e.Served, "role": "model", "status": status}
		}
		done := state("completed")
		done["usage"] = object{
			"total_input_tokens": p.Input + p.CacheRead, "total_cached_tokens": p.CacheRead, "total_output_tokens": p.Tokens,
			"total_thought_tokens": p.Think, "total_tool_use_tokens": 0, "total_tokens": p.Input + p.CacheRead + p.Tokens + p.Think,
			"input_tokens_by_modality": []any{object{"modality": "text", "tokens": p.Input + p.CacheRead}},
		}
		a := &answer{header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}}}
		if !c.ask.Stream {
			done["steps"] = []any{object{"type": "model_output", "content": []any{object{"type": "text", "text": c.said()}}}}
			a.unary, a.visible, a.usage, a.finish = indented(done), true, u, []string{"completed"}
			return a, nil
		}
		send := func(kind string, o object) event {
			o["event_type"] = kind
			return event{name: kind, data: compact(o)}
		}
		end := send("interaction.completed", object{"interaction": done})
		end.usage, end.final, end.finish = &u, true, "completed"
		a.events = told{
			first: []event{
				send("interaction.created", object{"interaction": state("in_progress")}),
				send("step.start", object{"index": 0, "step": object{"type": "model_output"}}),
			},
			piece: func(text string) event {
				return send("step.delta", object{"index": 0, "delta": object{"type": "text", "text": text}})
			},
			last: []event{send("step.stop", object{"index": 0}), end, {name: "done", data: []byte("[DONE]")}},
		}.events(c)
		return a, nil
	},
	refusal: gemini.refusal,
}
