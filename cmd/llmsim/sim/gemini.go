package sim

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"

	"github.com/tollwire/tollwire/llm"
)

// gemini is …/models/M:generateContent and :streamGenerateContent, over SSE with
// alt=sse, else as a JSON array. Vertex's paths are answered as Vertex.
var gemini = &vendor{
	provider: "gcp.gemini", operation: "generate_content",
	prepare: func(c *call) {
		path := c.r.URL.EscapedPath()
		model, method, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ":")
		if m, err := url.PathUnescape(model); err == nil {
			model = m
		}
		c.ask.Model, c.ask.Stream = model, method == "streamGenerateContent"
		if strings.Contains(path, "/projects/") {
			c.entry.Provider = "gcp.vertex_ai"
		}
	},
	respond: func(c *call) (*answer, error) {
		e := c.entry
		e.ID, e.Served = c.tag, cmp.Or(c.plan.Model, c.ask.Model)
		wire, usage := geminiUsage(c)
		e.Generated = classes(&usage)
		chunk := func(parts []any, finish string, usage any) object {
			candidate := object{"content": object{"parts": parts, "role": "model"}, "index": 0}
			if finish != "" {
				candidate["finishReason"] = finish
			}
			return object{"candidates": []any{candidate}, "usageMetadata": usage, "modelVersion": e.Served, "responseId": e.ID}
		}
		a := &answer{header: http.Header{}}
		a.header.Set("Content-Type", "application/json; charset=UTF-8")
		a.header.Set("Server", "scaffolding on HTTPServer2")
		a.header.Set("Vary", "Origin")
		finish := geminiFinish(c.plan.Finish)
		if !c.ask.Stream {
			a.unary, a.visible = indented(chunk(geminiParts(c), finish, wire)), true
			a.usage, a.finish = usage, []string{finish}
			return a, nil
		}
		a.kind = jsonArray
		if c.r.URL.Query().Get("alt") == "sse" {
			a.kind, c.plan.CRLF = sse, true
		}
		// Before the last chunk only what was read so far is stated.
		early := object{"promptTokenCount": wire["promptTokenCount"], "totalTokenCount": wire["promptTokenCount"]}
		var so llm.Usage
		so.Set(llm.Input, float64(c.plan.Input+c.plan.CacheRead)) // the cached part is told at the end only
		a.events = func(yield func(event) bool) {
			hidden := c.plan.Think
			if c.plan.ShowThink {
				hidden = 0
				for w := range ponder(&c.plan, c.seed) {
					part := object{"text": w.text, "thought": true}
					if !yield(event{data: compact(chunk([]any{part}, "", early)), content: true, tokens: w.tokens, usage: &so}) {
						return
					}
				}
			}
			if c.plan.Finish == "tool" {
				parts := geminiParts(c)
				yield(event{data: compact(chunk(parts, finish, wire)), content: true, tokens: hidden + 1, usage: &usage, final: true, finish: finish})
				return
			}
			for w := range speak(&c.plan, c.seed) {
				part := object{"text": w.text}
				if !yield(event{data: compact(chunk([]any{part}, "", early)), content: true, tokens: hidden + max(1, w.tokens), usage: &so}) {
					return
				}
				hidden = 0
			}
			yield(event{data: compact(chunk([]any{object{"text": ""}}, finish, wire)), usage: &usage, final: true, finish: finish})
		}
		return a, nil
	},
	refusal: func(c *call, status int, message string) ([]byte, string, string) {
		word := map[int]string{400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
			429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}[status]
		word = cmp.Or(word, "UNKNOWN")
		o := object{"error": object{"code": status, "message": message, "status": word}}
		if c.ask.Stream && c.r.URL.Query().Get("alt") != "sse" {
			return indented([]any{o}), word, ""
		}
		return indented(o), word, ""
	},
	broken: func(*call) (event, string, string) {
		o := object{"error": object{"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}}
		return event{data: compact(o)}, "UNAVAILABLE", ""
	},
}

// geminiUsage is usageMetadata: cached inside prompt, thoughts apart.
func geminiUsage(c *call) (object, llm.Usage) {
	p := &c.plan
	prompt := p.Input + p.CacheRead
	o := object{
		"promptTokenCount": prompt, "candidatesTokenCount": p.Tokens, "totalTokenCount": prompt + p.Tokens + p.Think,
		"promptTokensDetails": []any{object{"modality": "TEXT", "tokenCount": prompt}},
	}
	var u llm.Usage
	u.Set(llm.Input, float64(p.Input))
	u.Set(llm.Output, float64(p.Tokens))
	if p.CacheRead > 0 {
		o["cachedContentTokenCount"] = p.CacheRead
		u.Set(llm.CacheRead, float64(p.CacheRead))
	}
	if p.Think > 0 {
		o["thoughtsTokenCount"] = p.Think
		u.Set(llm.Reasoning, float64(p.Think))
	}
	return o, u
}

func geminiParts(c *call) []any {
	if c.plan.Finish == "tool" {
		name := cmp.Or(c.plan.Tool, "get_weather")
		c.entry.Tools = []string{name}
		return []any{object{"functionCall": object{"name": name, "args": object{"city": "Paris", "days": 3}}}}
	}
	return []any{object{"text": gather(speak(&c.plan, c.seed))}}
}

func geminiFinish(why string) string {
	switch why {
	case "length":
		return "MAX_TOKENS"
	case "filter", "refusal":
		return "SAFETY"
	}
	return "STOP"
}
