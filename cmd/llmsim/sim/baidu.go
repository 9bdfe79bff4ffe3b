package sim

import (
	"net/http"
	"strings"
)

// baidu is the first version of Qianfan, whose paths name the model; each event of a
// stream states the usage so far.
var baidu = &vendor{
	provider: "baidu", operation: "chat",
	prepare: func(c *call) {
		_, c.ask.Model, _ = strings.Cut(c.r.URL.Path, "/wenxinworkshop/chat/")
	},
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = "as-"+c.tag, "" // its answer names no model
		u := tokens(p.Input, p.Tokens)
		e.Generated = classes(&u)
		finish := lengthOr("normal")(p.Finish)
		state := func(text string, output int) object {
			return object{"id": e.ID, "object": "chat.completion", "result": text, "is_truncated": false,
				"usage": object{"prompt_tokens": p.Input, "completion_tokens": output, "total_tokens": p.Input + output}}
		}
		whole := state(c.said(), p.Tokens)
		whole["finish_reason"] = finish
		a := &answer{header: http.Header{}, visible: true, usage: u, finish: []string{finish}, unary: compact(whole)}
		if !c.ask.Stream {
			return a, nil
		}
		last := state("", p.Tokens)
		last["is_end"], last["finish_reason"] = true, finish
		n := 0
		a.events = told{
			piece: func(text string) event {
				n++
				o := state(text, min(n, p.Tokens))
				o["is_end"] = false
				so := tokens(p.Input, min(n, p.Tokens))
				return event{data: compact(o), usage: &so}
			},
			last: []event{{data: compact(last), usage: &u, final: true, finish: finish}},
		}.events(c)
		return a, nil
	},
	refusal: func(_ *call, _ int, message string) ([]byte, string, string) {
		return compact(object{"error_code": 336003, "error_msg": message}), "336003", ""
	},
}
