package sim

import (
	"net/http"

	"github.com/tollwire/tollwire/llm"
)

// dashscope is Qwen's own API: a header asks for the stream, whose events repeat the
// usage and all the text so far.
var dashscope = &vendor{
	provider: "qwen", operation: "chat",
	prepare: func(c *call) { c.ask.Stream = c.r.Header.Get("X-Dashscope-Sse") == "enable" },
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = c.tag, "" // its answer names no model
		u := tokens(p.Input, p.Tokens)
		u.Set(llm.CacheRead, float64(p.CacheRead))
		e.Generated = classes(&u)
		finish := lengthOr("stop")(p.Finish)
		state := func(text, finish string, output int) object {
			return object{"request_id": e.ID,
				"output": object{"choices": []any{object{"finish_reason": finish, "message": object{"role": "assistant", "content": text}}}},
				"usage": object{"input_tokens": p.Input + p.CacheRead, "output_tokens": output, "total_tokens": p.Input + p.CacheRead + output,
					"prompt_tokens_details": object{"cached_tokens": p.CacheRead}}}
		}
		a := &answer{header: http.Header{"X-Request-Id": {e.RequestID}}, kind: sseTight}
		if !c.ask.Stream {
			a.unary, a.visible, a.usage, a.finish = compact(state(c.said(), finish, p.Tokens)), true, u, []string{finish}
			return a, nil
		}
		said, n := "", 0
		a.events = told{
			piece: func(text string) event {
				said += text
				n++
				so := tokens(p.Input, min(n, p.Tokens))
				so.Set(llm.CacheRead, float64(p.CacheRead))
				return event{name: "result", data: compact(state(said, "null", min(n, p.Tokens))), usage: &so}
			},
			last: []event{{name: "result", data: compact(state(c.said(), finish, p.Tokens)), usage: &u, final: true, finish: finish}},
		}.events(c)
		return a, nil
	},
	refusal: func(c *call, status int, message string) ([]byte, string, string) {
		return compact(object{"code": "InvalidParameter", "message": message, "request_id": c.tag}), "InvalidParameter", ""
	},
}
