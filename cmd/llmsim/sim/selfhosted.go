package sim

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/llm"
)

// llamacpp is llama.cpp's own POST /completion.
var llamacpp = &vendor{
	provider: "llama_cpp", operation: "text_completion",
	respond: func(c *call) (*answer, error) {
		p := &c.plan
		c.entry.Served = p.Model
		u := tokens(p.Input, p.Tokens)
		u.Set(llm.CacheRead, float64(p.CacheRead))
		c.entry.Generated = classes(&u)
		finish := either(p.Finish == "length", "limit", "eos")
		end := func(text string) object {
			return object{"content": text, "stop": true, "stop_type": finish, "model": c.entry.Served,
				"tokens_evaluated": p.Input + p.CacheRead, "tokens_predicted": p.Tokens, "tokens_cached": p.Input + p.CacheRead + p.Tokens,
				"timings": object{"cache_n": p.CacheRead, "prompt_n": p.Input, "predicted_n": p.Tokens, "prompt_ms": 12.5, "predicted_ms": 40.25}}
		}
		a := &answer{header: http.Header{}, visible: true, usage: u, finish: []string{finish}, unary: compact(end(c.said()))}
		if c.ask.Stream {
			a.events = told{
				piece: func(text string) event {
					return event{data: compact(object{"index": 0, "content": text, "stop": false})}
				},
				last: []event{{data: compact(end("")), usage: &u, final: true, finish: finish}},
			}.events(c)
		}
		return a, nil
	},
	refusal: func(_ *call, status int, message string) ([]byte, string, string) {
		return compact(object{"error": object{"code": status, "message": message, "type": "server_error"}}), "server_error", ""
	},
}

// llamaEmbedding is llama.cpp's own POST /embedding, which states no usage and no model.
var llamaEmbedding = &vendor{
	provider: "llama_cpp", operation: "embeddings",
	respond: func(c *call) (*answer, error) {
		c.entry.Served = ""
		var u llm.Usage
		u.Set(llm.Input, float64(c.plan.Input))
		c.entry.Generated = classes(&u)
		return &answer{header: http.Header{}, noUsage: true,
			unary: compact([]any{object{"index": 0, "embedding": []any{[]float64{0.25, -0.5}}}})}, nil
	},
	refusal: plainRefusal,
}

// generate is the path that SGLang and Text Generation Inference share.
var generate = &vendor{
	operation: "text_completion",
	prepare: func(c *call) {
		if strings.Contains(string(c.body), `"sampling_params"`) {
			c.entry.Provider = "sglang"
		}
		c.ask.Stream = c.ask.Stream || strings.HasSuffix(c.r.URL.Path, "_stream")
	},
	respond: func(c *call) (*answer, error) {
		if c.entry.Provider == "sglang" {
			return sglang(c), nil
		}
		return tgi(c), nil
	},
	refusal: plainRefusal,
}

// sglang repeats the text and the usage in each event.
func sglang(c *call) *answer {
	e, p := c.entry, &c.plan
	e.ID = c.tag
	u := tokens(p.Input, p.Tokens)
	u.Set(llm.CacheRead, float64(p.CacheRead))
	e.Generated = classes(&u)
	kind := lengthOr("stop")(p.Finish)
	state := func(text string, output int, finish any) object {
		return object{"text": text, "meta_info": object{"id": e.ID, "prompt_tokens": p.Input + p.CacheRead, "cached_tokens": p.CacheRead,
			"completion_tokens": output, "finish_reason": finish, "e2e_latency": 0.25}}
	}
	a := &answer{header: http.Header{}, visible: true, usage: u, finish: []string{kind},
		unary: compact(state(c.said(), p.Tokens, object{"type": kind}))}
	if !c.ask.Stream {
		return a
	}
	said, n := "", 0
	a.events = told{
		piece: func(text string) event {
			said += text
			n++
			so := tokens(p.Input, min(n, p.Tokens))
			so.Set(llm.CacheRead, float64(p.CacheRead))
			return event{data: compact(state(said, min(n, p.Tokens), nil)), usage: &so}
		},
		last: []event{
			{data: compact(state(c.said(), p.Tokens, object{"type": kind})), usage: &u, final: true, finish: kind},
			{data: []byte("[DONE]")},
		},
	}.events(c)
	return a
}

// tgi states the prompt's tokens in the head, of whole answers only.
func tgi(c *call) *answer {
	p := &c.plan
	finish := either(p.Finish == "length", "length", "eos_token")
	u := tokens(p.Input, p.Tokens)
	c.entry.Generated = classes(&u)
	details := object{"finish_reason": finish, "generated_tokens": p.Tokens, "seed": nil}
	a := &answer{header: http.Header{}, visible: true, usage: u, finish: []string{finish},
		unary: compact(object{"generated_text": c.said(), "details": details})}
	a.header.Set("X-Prompt-Tokens", strconv.Itoa(p.Input))
	a.header.Set("X-Generated-Tokens", strconv.Itoa(p.Tokens))
	if !c.ask.Stream {
		return a
	}
	a.header = http.Header{}
	details["input_length"] = p.Input
	token := func(text string, special bool) object {
		return object{"index": 1, "token": object{"id": 7, "text": text, "logprob": -0.5, "special": special}, "generated_text": nil, "details": nil}
	}
	last := token("</s>", true)
	last["generated_text"], last["details"] = c.said(), details
	a.events = told{
		piece: func(text string) event { return event{data: compact(token(text, false))} },
		last:  []event{{data: compact(last), usage: &u, final: true, finish: finish}},
	}.events(c)
	return a
}

// triton is Triton's generate extension, which states no usage.
var triton = &vendor{
	provider: "triton", operation: "text_completion",
	prepare: func(c *call) {
		_, rest, _ := strings.Cut(c.r.URL.Path, "/v2/models/")
		c.ask.Model, _, _ = strings.Cut(rest, "/")
		c.ask.Stream = strings.HasSuffix(c.r.URL.Path, "_stream")
	},
	respond: func(c *call) (*answer, error) {
		c.entry.Served = c.ask.Model
		u := tokens(c.plan.Input, c.plan.Tokens)
		c.entry.Generated = classes(&u)
		state := func(text string) object {
			return object{"model_name": c.ask.Model, "model_version": "1", "text_output": text}
		}
		a := &answer{header: http.Header{}, visible: true, noUsage: true, unary: compact(state(c.said()))}
		if c.ask.Stream {
			a.events = told{piece: func(text string) event { return event{data: compact(state(text))} }}.events(c)
		}
		return a, nil
	},
	refusal: plainRefusal,
}

// lmstudio is LM Studio's own POST /api/v1/chat.
var lmstudio = &vendor{
	provider: "lmstudio", operation: "chat",
	respond: func(c *call) (*answer, error) {
		p := &c.plan
		c.entry.Served = c.ask.Model
		u := tokens(p.Input, p.Tokens)
		u.Set(llm.Reasoning, float64(p.Think))
		c.entry.Generated = classes(&u)
		whole := object{"model_instance_id": c.ask.Model, "output": []any{object{"type": "message", "content": c.said()}},
			"stats": object{"input_tokens": p.Input, "total_output_tokens": p.Tokens + p.Think, "reasoning_output_tokens": p.Think,
				"tokens_per_second": 43.7, "time_to_first_token_seconds": 0.2}}
		a := &answer{header: http.Header{}, visible: true, usage: u, unary: compact(whole)}
		if c.ask.Stream {
			a.events = told{
				first: []event{{name: "chat.start", data: compact(object{"type": "chat.start", "model_instance_id": c.ask.Model})}},
				piece: func(text string) event {
					return event{name: "message.delta", data: compact(object{"type": "message.delta", "content": text})}
				},
				last: []event{{name: "chat.end", data: compact(object{"type": "chat.end", "result": whole}), usage: &u, final: true}},
			}.events(c)
		}
		return a, nil
	},
	refusal: func(_ *call, _ int, message string) ([]byte, string, string) {
		return compact(object{"error": object{"type": "invalid_request", "message": message}}), "invalid_request", ""
	},
}

// alephAlpha is POST /complete.
var alephAlpha = &vendor{
	provider: "aleph_alpha", operation: "text_completion",
	respond: func(c *call) (*answer, error) {
		p := &c.plan
		c.entry.Served = ""
		u := tokens(p.Input, p.Tokens)
		c.entry.Generated = classes(&u)
		finish := either(p.Finish == "length", "maximum_tokens", "end_of_text")
		counts := func(o object) object {
			o["num_tokens_prompt_total"], o["num_tokens_generated"] = p.Input, p.Tokens
			return o
		}
		a := &answer{header: http.Header{}, visible: true, usage: u, finish: []string{finish}, unary: compact(counts(object{
			"model_version": "2026", "completions": []any{object{"completion": c.said(), "finish_reason": finish}}}))}
		if c.ask.Stream {
			a.events = told{
				piece: func(text string) event {
					return event{data: compact(object{"type": "stream_chunk", "index": 0, "completion": text})}
				},
				last: []event{
					{data: compact(object{"type": "stream_summary", "index": 0, "model_version": "2026", "finish_reason": finish}), finish: finish},
					{data: compact(counts(object{"type": "completion_summary", "optimized_prompt": nil})), usage: &u, final: true},
				},
			}.events(c)
		}
		return a, nil
	},
	refusal: func(_ *call, _ int, message string) ([]byte, string, string) {
		return compact(object{"error": message, "code": "BAD_REQUEST"}), "BAD_REQUEST", ""
	},
}
