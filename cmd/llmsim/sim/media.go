package sim

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/tollwire/tollwire/llm"
)

// openaiImages is POST /v1/images/generations and /v1/images/edits, the latter a form.
var openaiImages = &vendor{
	provider: "openai", operation: "generate_content",
	prepare: func(c *call) {
		if f, err := readForm(c); err == nil {
			c.ask.Model, c.ask.Stream = f["model"], f["stream"] == "true"
		}
	},
	respond: func(c *call) (*answer, error) {
		p := &c.plan
		c.entry.Served = "" // the body names no model
		var u llm.Usage
		u.Set(llm.Input, float64(p.Input))
		u.Set(llm.InputImage, float64(p.CacheRead))
		u.Set(llm.Output, float64(p.Tokens))
		u.Set(llm.Images, 1)
		c.entry.Generated = classes(&u)
		usage := object{"input_tokens": p.Input + p.CacheRead, "output_tokens": p.Tokens, "total_tokens": p.Input + p.CacheRead + p.Tokens,
			"input_tokens_details": object{"text_tokens": p.Input, "image_tokens": p.CacheRead}}
		picture := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x89, 'P', 'N', 'G'}, 600))
		a := &answer{header: openaiHeader(c), visible: true, usage: u,
			unary: compact(object{"created": 1, "data": []any{object{"b64_json": picture}}, "usage": usage})}
		if c.ask.Stream {
			kind := either(strings.HasSuffix(c.r.URL.Path, "/edits"), "image_edit", "image_generation")
			event1 := event{name: kind + ".partial_image", content: true, tokens: 1,
				data: compact(object{"type": kind + ".partial_image", "partial_image_index": 0, "b64_json": picture})}
			last := event{name: kind + ".completed", content: true, tokens: p.Tokens, usage: &u, final: true,
				data: compact(object{"type": kind + ".completed", "b64_json": picture, "usage": usage})}
			a.events = func(yield func(event) bool) { _ = yield(event1) && yield(last) }
		}
		return a, nil
	},
	refusal: openaiRefusal,
}

// openaiSpeech is POST /v1/audio/speech: sound, billed by the text's characters, or
// events that state tokens.
var openaiSpeech = &vendor{
	provider: "openai", operation: "speech",
	respond: func(c *call) (*answer, error) {
		var ask struct {
			Input  string `json:"input"`
			Format string `json:"stream_format"`
		}
		if err := json.Unmarshal(c.body, &ask); err != nil {
			return nil, err
		}
		p := &c.plan
		c.entry.Served = ""
		sound := bytes.Repeat([]byte{0xff, 0xf3, 0x44, 0xc4}, 1500)
		if ask.Format != "sse" {
			var u llm.Usage
			u.Set(llm.Characters, float64(utf8.RuneCountInString(ask.Input)))
			c.entry.Generated = classes(&u)
			h := openaiHeader(c)
			h.Set("Content-Type", "audio/mpeg")
			return &answer{header: h, unary: sound, usage: u}, nil
		}
		u := tokens(p.Input, p.Tokens)
		c.entry.Generated, c.entry.Stream = classes(&u), true
		usage := object{"input_tokens": p.Input, "output_tokens": p.Tokens, "total_tokens": p.Input + p.Tokens}
		delta := compact(object{"type": "speech.audio.delta", "audio": base64.StdEncoding.EncodeToString(sound)})
		return &answer{header: openaiHeader(c), events: told{
			piece: func(string) event { return event{data: delta} },
			last:  []event{{data: compact(object{"type": "speech.audio.done", "usage": usage}), usage: &u, final: true}},
		}.events(c)}, nil
	},
	refusal: openaiRefusal,
}

// openaiRuns is POST /v1/threads/…/runs, streamed: the run's steps state the usage
// that the run states again.
var openaiRuns = &vendor{
	provider: "openai", operation: "invoke_agent",
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = "run_"+c.tag, served(p, c.ask.Model)
		u := tokens(p.Input, p.Tokens)
		e.Generated = classes(&u)
		usage := object{"prompt_tokens": p.Input, "completion_tokens": p.Tokens, "total_tokens": p.Input + p.Tokens}
		run := func(status string, usage any) object {
			return object{"id": e.ID, "object": "thread.run", "status": status, "model": e.Served, "usage": usage}
		}
		a := &answer{header: openaiHeader(c), noUsage: true, unary: indented(run("queued", nil))}
		if c.ask.Stream {
			send := func(name string, o object) event { return event{name: name, data: compact(o)} }
			end := send("thread.run.completed", run("completed", usage))
			end.usage, end.final, end.finish = &u, true, "completed"
			a.events = told{
				first: []event{send("thread.run.created", run("queued", nil)), send("thread.run.in_progress", run("in_progress", nil))},
				piece: func(text string) event {
					return send("thread.message.delta", object{"id": "msg_" + c.tag, "object": "thread.message.delta",
						"delta": object{"content": []any{object{"index": 0, "type": "text", "text": object{"value": text}}}}})
				},
				last: []event{
					send("thread.run.step.completed", object{"id": "step_" + c.tag, "object": "thread.run.step", "status": "completed", "usage": usage}),
					end, {name: "done", data: []byte("[DONE]")},
				},
			}.events(c)
		}
		return a, nil
	},
	refusal: openaiRefusal,
}

// geminiEmbed is …:embedContent, whose answer states its tokens, and Vertex's
// …:predict of an embedding, whose answer states them for each text.
var geminiEmbed = &vendor{
	provider: "gcp.gemini", operation: "embeddings",
	prepare: func(c *call) {
		gemini.prepare(c)
		c.ask.Stream = false
	},
	respond: func(c *call) (*answer, error) {
		c.entry.Served = ""
		var u llm.Usage
		u.Set(llm.Input, float64(c.plan.Input))
		c.entry.Generated = classes(&u)
		values := []any{0.1, -0.2, 0.3}
		o := object{"embedding": object{"values": values}, "usageMetadata": object{"promptTokenCount": c.plan.Input, "totalTokenCount": c.plan.Input}}
		if strings.HasSuffix(c.r.URL.Path, ":predict") {
			o = object{"predictions": []any{object{"embeddings": object{"values": values,
				"statistics": object{"truncated": false, "token_count": c.plan.Input}}}}}
		}
		return &answer{header: http.Header{}, usage: u, unary: indented(o)}, nil
	},
	refusal: gemini.refusal,
}

// ollamaEmbed is POST /api/embed.
var ollamaEmbed = &vendor{
	provider: "ollama", operation: "embeddings",
	respond: func(c *call) (*answer, error) {
		c.entry.Served = cmp.Or(c.plan.Model, c.ask.Model)
		var u llm.Usage
		u.Set(llm.Input, float64(c.plan.Input))
		c.entry.Generated = classes(&u)
		return &answer{header: http.Header{}, usage: u, unary: compact(object{"model": c.entry.Served, "embeddings": []any{[]any{0.1, -0.2}},
			"total_duration": 14143917, "load_duration": 1019500, "prompt_eval_count": c.plan.Input})}, nil
	},
	refusal: plainRefusal,
}

// rerankTokens is Voyage's and Jina's POST /v1/rerank, which count tokens.
var rerankTokens = &vendor{
	operation: "rerank",
	prepare: func(c *call) {
		c.entry.Provider = either(strings.Contains(c.r.Host, "voyageai"), "voyageai", "jina")
	},
	respond: func(c *call) (*answer, error) {
		c.entry.Served = c.ask.Model
		var u llm.Usage
		u.Set(llm.Input, float64(c.plan.Input))
		c.entry.Generated = classes(&u)
		return &answer{header: http.Header{}, usage: u, unary: compact(object{"model": c.ask.Model,
			"data": []any{object{"index": 0, "relevance_score": 0.9}}, "usage": object{"total_tokens": c.plan.Input}})}, nil
	},
	refusal: plainRefusal,
}

// anthropicComplete is the legacy POST /v1/complete, which states no usage.
var anthropicComplete = &vendor{
	provider: "anthropic", operation: "text_completion",
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = "compl_"+c.tag, cmp.Or(p.Model, c.ask.Model)
		u := tokens(p.Input, p.Tokens)
		e.Generated = classes(&u)
		finish := either(p.Finish == "length", "max_tokens", "stop_sequence")
		state := func(text string, finish any) object {
			return object{"type": "completion", "id": e.ID, "completion": text, "stop_reason": finish, "model": e.Served}
		}
		a := &answer{header: http.Header{}, visible: true, noUsage: true, finish: []string{finish}, unary: compact(state(c.said(), finish))}
		if c.ask.Stream {
			a.events = told{
				piece: func(text string) event { return event{name: "completion", data: compact(state(text, nil))} },
				last:  []event{{name: "completion", data: compact(state("", finish)), finish: finish}},
			}.events(c)
		}
		return a, nil
	},
	refusal: anthropicMessages.refusal,
}
