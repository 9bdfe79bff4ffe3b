package sim

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// anthropicMessages is POST /v1/messages.
var anthropicMessages = &vendor{
	provider: "anthropic", operation: "chat",
	respond: func(c *call) (*answer, error) { return newMessage(c, "msg_01").answer() },
	refusal: anthropicRefusal,
	broken: func(c *call) (event, string, string) {
		return event{name: "error", data: anthropicError(c, "overloaded_error", "Overloaded")}, "overloaded_error", ""
	},
}

// vertexAnthropic is the same API on Vertex, its model in the path:
// …/publishers/anthropic/models/M:rawPredict and :streamRawPredict.
var vertexAnthropic = &vendor{
	provider: "gcp.vertex_ai", operation: "chat",
	prepare: func(c *call) {
		path := c.r.URL.Path
		c.ask.Model, _, _ = strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ":")
		if model, _, ok := strings.Cut(c.ask.Model, "@"); ok && c.plan.Model == "" {
			c.plan.Model = served(&c.plan, model)
		}
		c.ask.Stream = strings.HasSuffix(path, ":streamRawPredict")
	},
	respond: func(c *call) (*answer, error) { return newMessage(c, "msg_vrtx_01").answer() },
	refusal: anthropicRefusal,
	broken:  anthropicMessages.broken,
}

type (
	messageUsage struct {
		Input     int `json:"input_tokens"`
		Creation  int `json:"cache_creation_input_tokens"`
		CacheRead int `json:"cache_read_input_tokens"`
		*messageSplit
		Output int `json:"output_tokens"`
		*messageThinking
		Tier string `json:"service_tier,omitempty"`
		Geo  string `json:"inference_geo,omitempty"`
	}
	messageSplit struct {
		Split struct {
			FiveMinutes int `json:"ephemeral_5m_input_tokens"`
			OneHour     int `json:"ephemeral_1h_input_tokens"`
		} `json:"cache_creation"`
	}
	messageThinking struct {
		Details struct {
			Thinking int `json:"thinking_tokens"`
		} `json:"output_tokens_details"`
	}
	messageBody struct {
		Model        string       `json:"model"`
		ID           string       `json:"id"`
		Type         string       `json:"type"`
		Role         string       `json:"role"`
		Content      []any        `json:"content"`
		StopReason   *string      `json:"stop_reason"`
		StopSequence *string      `json:"stop_sequence"`
		Usage        messageUsage `json:"usage"`
	}
	textBlock struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	thinkingBlock struct {
		Type      string `json:"type"`
		Thinking  string `json:"thinking"`
		Signature string `json:"signature"`
	}
	toolBlock struct {
		Type  string `json:"type"`
		ID    string `json:"id"`
		Name  string `json:"name"`
		Input any    `json:"input"`
	}
)

// message is one answer in Anthropic's shape.
type message struct {
	c    *call
	stop string
	rnd  *rand.Rand
}

func newMessage(c *call, prefix string) *message {
	e := c.entry
	e.ID = prefix + c.tag
	e.Served = served(&c.plan, c.ask.Model)
	e.Tier = cmp.Or(c.plan.Tier, "standard")
	u := c.usageSoFar(c.plan.Tokens, c.plan.Think)
	e.Generated = classes(&u)
	m := &message{c: c, rnd: rand.New(rand.NewPCG(c.seed, 0x706164))}
	switch c.plan.Finish {
	case "length":
		m.stop = "max_tokens"
	case "tool":
		m.stop = "tool_use"
	case "filter", "refusal":
		m.stop = "refusal"
	default:
		m.stop = "end_turn"
	}
	return m
}

// usage is what the shape states of the usage, and its classes. What is written to
// the cache without a time to live stated stands in the total only.
func (m *message) usage(output, thinking int, split, whole bool) (messageUsage, llm.Usage) {
	p := &m.c.plan
	w := messageUsage{
		Input: p.Input, CacheRead: p.CacheRead, Creation: p.CacheWrite + p.Write5m + p.Write1h,
		Output: output + thinking,
	}
	u := m.c.usageSoFar(output, thinking)
	if split {
		w.messageSplit = &messageSplit{}
		w.Split.FiveMinutes, w.Split.OneHour = p.Write5m, p.Write1h
		w.Tier, w.Geo = m.c.entry.Tier, "not_available"
	}
	if whole && p.Think > 0 {
		w.messageThinking = &messageThinking{}
		w.Details.Thinking = thinking
	}
	return w, u
}

func (m *message) answer() (*answer, error) {
	a := &answer{header: anthropicHeader(m.c)}
	if m.c.ask.Stream {
		a.events = m.events()
		return a, nil
	}
	p := &m.c.plan
	b := m.body()
	b.StopReason = &m.stop
	b.Usage, a.usage = m.usage(p.Tokens, p.Think, true, true)
	if p.Think > 0 {
		b.Content = append(b.Content, thinkingBlock{"thinking", gather(ponder(p, m.c.seed)), m.signature()})
	}
	if p.Tokens > 0 {
		b.Content = append(b.Content, textBlock{"text", gather(speak(p, m.c.seed))})
	}
	if p.Finish == "tool" {
		t := m.tool()
		t.Input = map[string]any{"city": "Paris", "days": 3}
		b.Content = append(b.Content, t)
		m.c.entry.Tools = []string{t.Name}
	}
	a.unary, a.visible, a.finish = compact(b), true, []string{m.stop}
	return a, nil
}

func (m *message) body() messageBody {
	return messageBody{Model: m.c.entry.Served, ID: m.c.entry.ID, Type: "message", Role: "assistant", Content: []any{}}
}

func (m *message) tool() toolBlock {
	return toolBlock{Type: "tool_use", ID: "toolu_01" + m.c.tag, Name: cmp.Or(m.c.plan.Tool, "get_weather"), Input: struct{}{}}
}

func (m *message) signature() string {
	return strings.Repeat("EqQBCgIYAhIM", 20) + m.c.tag
}

// event is an event as Anthropic sends it: named after its type, and padded with
// spaces before its last brace.
func (m *message) event(name string, v any) event {
	data := compact(v)
	if m.c.plan.Obfuscation && name != "ping" {
		data = append(data[:len(data)-1], strings.Repeat(" ", m.rnd.IntN(16))+"}"...)
	}
	return event{name: name, data: data}
}

type (
	blockStart struct {
		Type  string `json:"type"`
		Index int    `json:"index"`
		Block any    `json:"content_block"`
	}
	blockDelta struct {
		Type  string `json:"type"`
		Index int    `json:"index"`
		Delta any    `json:"delta"`
	}
	blockStop struct {
		Type  string `json:"type"`
		Index int    `json:"index"`
	}
	textDelta struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	thinkingDelta struct {
		Type     string `json:"type"`
		Thinking string `json:"thinking"`
	}
	signatureDelta struct {
		Type      string `json:"type"`
		Signature string `json:"signature"`
	}
	jsonDelta struct {
		Type    string `json:"type"`
		Partial string `json:"partial_json"`
	}
	typed struct {
		Type string `json:"type"`
	}
)

func (m *message) events() iter.Seq[event] {
	p := &m.c.plan
	return func(yield func(event) bool) {
		index := 0
		start := func(block any) bool {
			return yield(m.event("content_block_start", blockStart{"content_block_start", index, block}))
		}
		delta := func(d any, tokens int) bool {
			e := m.event("content_block_delta", blockDelta{"content_block_delta", index, d})
			e.content, e.tokens = tokens > 0, tokens
			return yield(e)
		}
		stop := func() bool {
			index++
			return yield(m.event("content_block_stop", blockStop{"content_block_stop", index - 1}))
		}

		opening := m.body()
		var said llm.Usage
		opening.Usage, said = m.usage(min(1, p.Tokens), 0, true, false)
		e := m.event("message_start", struct {
			Type    string      `json:"type"`
			Message messageBody `json:"message"`
		}{"message_start", opening})
		e.usage = &said
		if !yield(e) {
			return
		}
		pinged := !p.Ping
		ping := func() bool {
			if pinged {
				return true
			}
			pinged = true
			return yield(m.event("ping", typed{"ping"}))
		}
		if p.Think > 0 {
			if !start(thinkingBlock{Type: "thinking"}) || !ping() {
				return
			}
			for w := range ponder(p, m.c.seed) {
				if !delta(thinkingDelta{"thinking_delta", w.text}, w.tokens) {
					return
				}
			}
			if !delta(signatureDelta{"signature_delta", m.signature()}, 0) || !stop() {
				return
			}
		}
		if p.Tokens > 0 {
			if !start(textBlock{Type: "text"}) || !ping() {
				return
			}
			for w := range speak(p, m.c.seed) {
				if !delta(textDelta{"text_delta", w.text}, max(1, w.tokens)) {
					return
				}
			}
			if !stop() {
				return
			}
		}
		if p.Finish == "tool" {
			t := m.tool()
			m.c.entry.Tools = []string{t.Name}
			if !start(t) || !delta(jsonDelta{"input_json_delta", ""}, 0) {
				return
			}
			for _, a := range toolArguments {
				if !delta(jsonDelta{"input_json_delta", a}, 1) {
					return
				}
			}
			if !stop() {
				return
			}
		}
		usage, u := m.usage(p.Tokens, p.Think, false, true)
		e = m.event("message_delta", struct {
			Type  string `json:"type"`
			Delta struct {
				StopReason   string  `json:"stop_reason"`
				StopSequence *string `json:"stop_sequence"`
			} `json:"delta"`
			Usage messageUsage `json:"usage"`
		}{Type: "message_delta", Delta: struct {
			StopReason   string  `json:"stop_reason"`
			StopSequence *string `json:"stop_sequence"`
		}{StopReason: m.stop}, Usage: usage})
		e.usage, e.final, e.finish = &u, true, m.stop
		if !yield(e) {
			return
		}
		yield(m.event("message_stop", typed{"message_stop"}))
	}
}

func anthropicHeader(c *call) http.Header {
	h := http.Header{}
	h.Set("Request-Id", c.entry.RequestID)
	h.Set("X-Request-Id", c.entry.RequestID)
	h.Set("Anthropic-Organization-Id", "00000000-0000-4000-8000-00000000051a")
	anthropicLimits(c, h)
	return h
}

func anthropicLimits(c *call, h http.Header) {
	reset := time.Now().UTC().Add(time.Second).Format(time.RFC3339)
	for kind, limit := range map[string]int{"requests": 4000, "tokens": 480000, "input-tokens": 400000, "output-tokens": 80000} {
		name := "Anthropic-Ratelimit-" + kind + "-"
		h.Set(name+"Limit", fmt.Sprint(limit))
		h.Set(name+"Remaining", fmt.Sprint(limit-1))
		h.Set(name+"Reset", reset)
	}
}

func anthropicRefusal(c *call, status int, message string) (body []byte, kind, code string) {
	switch status {
	case 401:
		kind = "authentication_error"
	case 403:
		kind = "permission_error"
	case 404:
		kind = "not_found_error"
	case 413:
		kind = "request_too_large"
	case 429:
		kind = "rate_limit_error"
	case 529:
		kind = "overloaded_error"
	case 500:
		kind = "api_error"
	default:
		kind = "invalid_request_error"
		if status > 500 {
			kind = "api_error"
		}
	}
	h := c.w.Header()
	h.Set("Request-Id", c.entry.RequestID)
	h.Set("X-Request-Id", c.entry.RequestID)
	anthropicLimits(c, h)
	return anthropicError(c, kind, message), kind, ""
}

func anthropicError(c *call, kind, message string) []byte {
	var e struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
		RequestID string `json:"request_id"`
	}
	e.Type, e.Error.Type, e.Error.Message, e.RequestID = "error", kind, message, c.entry.RequestID
	return compact(e)
}
