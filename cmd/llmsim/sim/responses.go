package sim

import (
	"cmp"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// openaiResponses is POST /v1/responses.
var openaiResponses = &vendor{
	provider: "openai", operation: "chat",
	respond: func(c *call) (*answer, error) {
		r := newResponse(c)
		if !c.ask.Stream && c.ask.Background {
			return r.background()
		}
		a := &answer{header: openaiHeader(c)}
		if c.ask.Stream {
			a.events = r.events()
			return a, nil
		}
		body, usage := r.state(r.status(), true)
		a.unary, a.visible, a.usage, a.finish = indented(body), true, usage, []string{r.finish()}
		return a, nil
	},
	refusal: openaiRefusal,
	broken: func(c *call) (event, string, string) {
		return event{name: "error", data: compact(object{
			"type": "error", "code": "server_error", "message": "The server had an error.", "param": nil, "sequence_number": 99,
		})}, "error", "server_error"
	},
}

// response is one answer of the Responses API, over SSE or a WebSocket.
type response struct {
	c       *call
	created int64
	rnd     *rand.Rand
}

func newResponse(c *call) *response {
	e := c.entry
	e.ID = "resp_" + c.tag
	e.Served = served(&c.plan, c.ask.Model)
	e.Tier = cmp.Or(c.plan.Tier, "default")
	_, u := c.openaiUsage(c.plan.Tokens, c.plan.Think)
	e.Generated = classes(&u)
	return &response{c: c, created: time.Now().Unix(), rnd: rand.New(rand.NewPCG(c.seed, 0x726573))}
}

func (r *response) status() string {
	if r.c.plan.Finish == "length" || r.c.plan.Finish == "filter" {
		return "incomplete"
	}
	return "completed"
}

// finish is the status, or why the response is incomplete.
func (r *response) finish() string {
	switch r.c.plan.Finish {
	case "length":
		return "max_output_tokens"
	case "filter":
		return "content_filter"
	}
	return "completed"
}

// state is the response object, with its output and usage once it is done.
func (r *response) state(status string, done bool) (object, llm.Usage) {
	e := r.c.entry
	o := object{
		"id": e.ID, "object": "response", "created_at": r.created, "status": status, "background": false, "error": nil,
		"incomplete_details": nil, "instructions": nil, "max_output_tokens": nil, "model": e.Served, "output": []any{},
		"parallel_tool_calls": true, "previous_response_id": nil, "reasoning": object{"effort": nil, "summary": nil},
		"service_tier": "auto", "store": true, "temperature": 1.0, "text": object{"format": object{"type": "text"}, "verbosity": "medium"},
		"tool_choice": "auto", "tools": []any{}, "top_p": 1.0, "truncation": "disabled", "usage": nil, "user": nil, "metadata": object{},
	}
	if !done {
		return o, llm.Usage{}
	}
	if status == "incomplete" {
		o["incomplete_details"] = object{"reason": r.finish()}
	}
	w, u := r.c.openaiUsage(r.c.plan.Tokens, r.c.plan.Think)
	in := object{"cached_tokens": w.PromptIn.Cached}
	if w.PromptIn.Write > 0 {
		in["cache_write_tokens"] = w.PromptIn.Write
	}
	o["usage"] = object{
		"input_tokens": w.Prompt, "input_tokens_details": in,
		"output_tokens": w.Completion, "output_tokens_details": object{"reasoning_tokens": w.CompletionIn.Reasoning},
		"total_tokens": w.Total,
	}
	o["service_tier"] = e.Tier
	var out []any
	if r.c.plan.Think > 0 {
		out = append(out, object{"id": "rs_" + r.c.tag, "type": "reasoning", "summary": []any{}})
	}
	out = append(out, r.item("completed", true))
	o["output"] = out
	return o, u
}

// item is the output item: a message or a tool call.
func (r *response) item(status string, whole bool) object {
	if r.c.plan.Finish == "tool" {
		arguments := ""
		if whole {
			arguments = strings.Join(toolArguments, "")
		}
		name := cmp.Or(r.c.plan.Tool, "get_weather")
		r.c.entry.Tools = []string{name}
		return object{"id": "fc_" + r.c.tag, "type": "function_call", "status": status, "arguments": arguments,
			"call_id": "call_" + r.c.tag, "name": name}
	}
	content := []any{}
	if whole {
		content = append(content, r.part(gather(speak(&r.c.plan, r.c.seed))))
	}
	return object{"id": "msg_" + r.c.tag, "type": "message", "status": status, "content": content, "role": "assistant"}
}

func (r *response) part(text string) object {
	if r.c.plan.Finish == "refusal" {
		return object{"type": "refusal", "refusal": text}
	}
	return object{"type": "output_text", "annotations": []any{}, "logprobs": []any{}, "text": text}
}

func (r *response) events() iter.Seq[event] {
	c := r.c
	return func(yield func(event) bool) {
		n := 0
		send := func(kind string, o object, e event) bool {
			o["type"], o["sequence_number"] = kind, n
			n++
			if e.content && c.plan.Obfuscation {
				o["obfuscation"] = padding(r.rnd)
			}
			e.name, e.data = kind, compact(o)
			return yield(e)
		}
		start, _ := r.state("in_progress", false)
		if !send("response.created", object{"response": start}, event{}) ||
			!send("response.in_progress", object{"response": start}, event{}) {
			return
		}
		index, hidden := 0, c.plan.Think
		if c.plan.Think > 0 && c.plan.ShowThink {
			item := object{"id": "rs_" + c.tag, "type": "reasoning", "summary": []any{}}
			if !send("response.output_item.added", object{"output_index": 0, "item": item}, event{}) {
				return
			}
			for w := range ponder(&c.plan, c.seed) {
				o := object{"item_id": "rs_" + c.tag, "output_index": 0, "summary_index": 0, "delta": w.text}
				if !send("response.reasoning_summary_text.delta", o, event{content: true, tokens: w.tokens}) {
					return
				}
			}
			if !send("response.output_item.done", object{"output_index": 0, "item": item}, event{}) {
				return
			}
			index, hidden = 1, 0
		}
		if !r.output(send, index, hidden) {
			return
		}
		end, usage := r.state(r.status(), true)
		e := event{usage: &usage, final: true, finish: r.finish()}
		send("response."+r.status(), object{"response": end}, e)
	}
}

// output sends the events of the output item at index.
func (r *response) output(send func(string, object, event) bool, index, hidden int) bool {
	c := r.c
	if !send("response.output_item.added", object{"output_index": index, "item": r.item("in_progress", false)}, event{}) {
		return false
	}
	at := func(o object) object {
		o["output_index"] = index
		return o
	}
	if c.plan.Finish == "tool" {
		id := "fc_" + c.tag
		for _, a := range toolArguments {
			if !send("response.function_call_arguments.delta", at(object{"item_id": id, "delta": a}), event{content: true, tokens: 1 + hidden}) {
				return false
			}
			hidden = 0
		}
		if !send("response.function_call_arguments.done", at(object{"item_id": id, "arguments": strings.Join(toolArguments, "")}), event{}) {
			return false
		}
	} else {
		kind := "response.output_text."
		if c.plan.Finish == "refusal" {
			kind = "response.refusal."
		}
		in := func(o object) object {
			o["item_id"], o["content_index"] = "msg_"+c.tag, 0
			return at(o)
		}
		if !send("response.content_part.added", in(object{"part": r.part("")}), event{}) {
			return false
		}
		var said strings.Builder
		for w := range speak(&c.plan, c.seed) {
			said.WriteString(w.text)
			if !send(kind+"delta", in(object{"delta": w.text, "logprobs": []any{}}), event{content: true, tokens: max(1, w.tokens) + hidden}) {
				return false
			}
			hidden = 0
		}
		done := in(object{"text": said.String()})
		if c.plan.Finish == "refusal" {
			done = in(object{"refusal": said.String()})
		}
		if !send(kind+"done", done, event{}) || !send("response.content_part.done", in(object{"part": r.part(said.String())}), event{}) {
			return false
		}
	}
	return send("response.output_item.done", at(object{"item": r.item("completed", true)}), event{})
}
