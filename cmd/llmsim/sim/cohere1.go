package sim

import (
	"strings"

	"github.com/tollwire/tollwire/llm"
)

// cohereChat1 is POST /v1/chat and /v1/generate, which stream lines of JSON.
var cohereChat1 = &vendor{
	provider: "cohere", operation: "chat",
	prepare: func(c *call) {
		if strings.HasSuffix(c.r.URL.Path, "/generate") {
			c.entry.Operation = "text_completion"
		}
	},
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = c.tag, ""
		u := tokens(p.Input, p.Tokens)
		e.Generated = classes(&u)
		finish := cohereReason(p.Finish)
		meta := object{"api_version": object{"version": "1"},
			"billed_units": object{"input_tokens": p.Input, "output_tokens": p.Tokens},
			"tokens":       object{"input_tokens": p.Input + 66, "output_tokens": p.Tokens + 2}}
		whole := object{"response_id": e.ID, "generation_id": c.tag + "-g", "text": c.said(), "finish_reason": finish, "meta": meta}
		if e.Operation == "text_completion" {
			whole = object{"id": e.ID, "prompt": "", "meta": meta,
				"generations": []any{object{"id": c.tag + "-g", "text": c.said(), "finish_reason": finish}}}
		}
		a := &answer{header: cohereHeader(c), kind: ndjsonCohere}
		if !c.ask.Stream {
			a.unary, a.visible, a.usage, a.finish = compact(whole), true, u, []string{finish}
			return a, nil
		}
		last := event{usage: &u, final: true, finish: finish,
			data: compact(object{"is_finished": true, "event_type": "stream-end", "finish_reason": finish, "response": whole})}
		a.events = told{
			first: []event{{data: compact(object{"is_finished": false, "event_type": "stream-start", "generation_id": c.tag + "-g"})}},
			piece: func(text string) event {
				return event{data: compact(object{"is_finished": false, "event_type": "text-generation", "text": text})}
			},
			last: []event{last},
		}.events(c)
		return a, nil
	},
	refusal: cohereRefusal,
}

// cohereEmbed is POST /v1/embed and /v2/embed.
var cohereEmbed = &vendor{
	provider: "cohere", operation: "embeddings",
	respond: func(c *call) (*answer, error) {
		c.entry.ID = c.tag
		var u llm.Usage
		u.Set(llm.Input, float64(c.plan.Input))
		c.entry.Generated = classes(&u)
		return &answer{header: cohereHeader(c), usage: u, unary: compact(object{
			"id": c.tag, "texts": []any{"a"}, "embeddings": object{"float": []any{[]any{0.1, -0.2}}}, "response_type": "embeddings_by_type",
			"meta": object{"api_version": object{"version": "2"}, "billed_units": object{"input_tokens": c.plan.Input}},
		})}, nil
	},
	refusal: cohereRefusal,
}
