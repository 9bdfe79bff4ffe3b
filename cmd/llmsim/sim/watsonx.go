package sim

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
)

// watsonx is IBM's /ml/v1/text/chat, /text/generation and their streams.
var watsonx = &vendor{
	provider: "ibm.watsonx.ai", operation: "chat",
	prepare: func(c *call) {
		var ask struct {
			Model string `json:"model_id"`
		}
		json.Unmarshal(c.body, &ask) // it was read before
		c.ask.Model, c.ask.Stream = ask.Model, strings.HasSuffix(c.r.URL.Path, "_stream")
		if strings.Contains(c.r.URL.Path, "/generation") {
			c.entry.Operation = "text_completion"
		}
	},
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.Served = cmp.Or(p.Model, c.ask.Model)
		u := tokens(p.Input, p.Tokens)
		e.Generated = classes(&u)
		a := &answer{header: http.Header{}, visible: true, usage: u}
		if e.Operation == "chat" {
			watsonxChat(c, a)
		} else {
			watsonxText(c, a)
		}
		return a, nil
	},
	refusal: func(c *call, status int, message string) ([]byte, string, string) {
		return compact(object{"errors": []any{object{"code": "invalid_request_entity", "message": message}}, "trace": c.tag, "status_code": status}),
			"invalid_request_entity", ""
	},
}

func watsonxChat(c *call, a *answer) {
	e, p, u := c.entry, &c.plan, &a.usage
	e.ID = "chatcmpl-" + c.tag
	finish := lengthOr("stop")(p.Finish)
	usage := object{"prompt_tokens": p.Input, "completion_tokens": p.Tokens, "total_tokens": p.Input + p.Tokens}
	state := func(choices ...any) object {
		return object{"id": e.ID, "object": "chat.completion", "model_id": e.Served, "model": e.Served, "choices": choices}
	}
	if !c.ask.Stream {
		o := state(object{"index": 0, "finish_reason": finish, "message": object{"role": "assistant", "content": c.said()}})
		o["usage"] = usage
		a.unary, a.finish = compact(o), []string{finish}
		return
	}
	delta := func(text string, finish any) object {
		return object{"index": 0, "finish_reason": finish, "delta": object{"role": "assistant", "content": text}}
	}
	end := state()
	end["choices"], end["usage"] = []any{}, usage
	a.events = told{
		piece: func(text string) event {
			return event{name: "message", data: compact(state(delta(text, nil)))}
		},
		last: []event{
			{name: "message", data: compact(state(delta("", finish))), finish: finish},
			{name: "message", data: compact(end), usage: u, final: true},
		},
	}.events(c)
}

func watsonxText(c *call, a *answer) {
	e, p, u := c.entry, &c.plan, &a.usage
	finish := either(p.Finish == "length", "max_tokens", "eos_token")
	state := func(text string, input, output int, finish string) object {
		return object{"model_id": e.Served, "created_at": "2026-01-01T00:00:00Z", "results": []any{object{
			"generated_text": text, "generated_token_count": output, "input_token_count": input, "stop_reason": finish}}}
	}
	if !c.ask.Stream {
		a.unary, a.finish = compact(state(c.said(), p.Input, p.Tokens, finish)), []string{finish}
		return
	}
	n := 0
	a.events = told{
		// The input stands in the first event only.
		first: []event{{name: "message", data: compact(state("", p.Input, 0, "not_finished"))}},
		piece: func(text string) event {
			n++
			so := tokens(p.Input, min(n, p.Tokens))
			return event{name: "message", data: compact(state(text, 0, min(n, p.Tokens), "not_finished")), usage: &so}
		},
		last: []event{{name: "message", data: compact(state("", 0, p.Tokens, finish)), usage: u, final: true, finish: finish}},
	}.events(c)
}
