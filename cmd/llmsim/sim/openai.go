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

// openaiChat is POST /v1/chat/completions and everything shaped like it.
var openaiChat = &vendor{
	provider: "openai", operation: "chat",
	prepare: func(c *call) {
		// Azure's older paths name a deployment instead of a model.
		if _, rest, ok := strings.Cut(c.r.URL.Path, "/deployments/"); ok && c.ask.Model == "" {
			c.ask.Model, _, _ = strings.Cut(rest, "/")
		}
	},
	respond: func(c *call) (*answer, error) { return newChat(c).answer() },
	refusal: openaiRefusal,
	broken:  openaiBroken,
}

// hostProvider names the provider that an OpenAI-shaped call to host goes to, ""
// for OpenAI itself and for hosts that say nothing.
func hostProvider(host string) string {
	for suffix, name := range map[string]string{
		"openai.azure.com": "azure.ai.openai", "api.mistral.ai": "mistral_ai", "api.groq.com": "groq",
		"api.x.ai": "x_ai", "api.deepseek.com": "deepseek", "api.perplexity.ai": "perplexity",
		"openrouter.ai": "openrouter",
	} {
		if name, port, ok := strings.Cut(host, ":"); ok && port != "" {
			host = name
		}
		if strings.HasSuffix(host, suffix) {
			return name
		}
	}
	return ""
}

type chatUsage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
	PromptIn   struct {
		Cached int `json:"cached_tokens"`
		Write  int `json:"cache_write_tokens,omitempty"`
		Audio  int `json:"audio_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionIn struct {
		Reasoning int `json:"reasoning_tokens"`
		Audio     int `json:"audio_tokens"`
		Accepted  int `json:"accepted_prediction_tokens"`
		Rejected  int `json:"rejected_prediction_tokens"`
	} `json:"completion_tokens_details"`
}

// usageSoFar is what the call used once it has generated so many tokens, in
// classes; everything is always stated, zeros too.
func (c *call) usageSoFar(output, reasoning int) llm.Usage {
	p := &c.plan
	var u llm.Usage
	u.Set(llm.Input, float64(p.Input))
	u.Set(llm.CacheRead, float64(p.CacheRead))
	if p.CacheWrite > 0 {
		u.Set(llm.CacheWrite, float64(p.CacheWrite))
	}
	if p.Write5m > 0 {
		u.Set(llm.CacheWrite5m, float64(p.Write5m))
	}
	if p.Write1h > 0 {
		u.Set(llm.CacheWrite1h, float64(p.Write1h))
	}
	u.Set(llm.Output, float64(output))
	u.Set(llm.Reasoning, float64(reasoning))
	return u
}

// openaiUsage is u as OpenAI's shape states it, and the classes that this shape
// can tell apart: it knows one kind of cache write.
func (c *call) openaiUsage(output, reasoning int) (chatUsage, llm.Usage) {
	p := &c.plan
	write := p.CacheWrite + p.Write5m + p.Write1h
	var w chatUsage
	w.Prompt = p.Input + p.CacheRead + write
	w.Completion = output + reasoning
	w.Total = w.Prompt + w.Completion
	w.PromptIn.Cached, w.PromptIn.Write = p.CacheRead, write
	w.CompletionIn.Reasoning = reasoning
	var u llm.Usage
	u.Set(llm.Input, float64(p.Input))
	u.Set(llm.CacheRead, float64(p.CacheRead))
	if write > 0 {
		u.Set(llm.CacheWrite, float64(write))
	}
	u.Set(llm.Output, float64(output))
	u.Set(llm.Reasoning, float64(reasoning))
	return w, u
}

type (
	chatBody struct {
		ID          string       `json:"id"`
		Object      string       `json:"object"`
		Created     int64        `json:"created"`
		Model       string       `json:"model"`
		Choices     []chatChoice `json:"choices"`
		Usage       chatUsage    `json:"usage"`
		Tier        string       `json:"service_tier"`
		Fingerprint string       `json:"system_fingerprint"`
	}
	chatChoice struct {
		Index    int         `json:"index"`
		Message  chatMessage `json:"message"`
		Logprobs any         `json:"logprobs"`
		Finish   string      `json:"finish_reason"`
	}
	chatMessage struct {
		Role        string     `json:"role"`
		Content     *string    `json:"content"`
		Reasoning   *string    `json:"reasoning_content,omitempty"`
		Tools       []chatTool `json:"tool_calls,omitempty"`
		Refusal     *string    `json:"refusal"`
		Annotations []any      `json:"annotations"`
	}
	chatTool struct {
		Index    *int   `json:"index,omitempty"`
		ID       string `json:"id,omitempty"`
		Type     string `json:"type,omitempty"`
		Function struct {
			Name      string `json:"name,omitempty"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	}
	chatChunk struct {
		ID          string        `json:"id"`
		Object      string        `json:"object"`
		Created     int64         `json:"created"`
		Model       string        `json:"model"`
		Tier        string        `json:"service_tier"`
		Fingerprint string        `json:"system_fingerprint"`
		Choices     []chunkChoice `json:"choices"`
		*chunkUsage
		Obfuscation string `json:"obfuscation,omitempty"`
	}
	// chunkUsage is there, null or not, only in streams that were asked to state it.
	chunkUsage struct {
		Usage *chatUsage `json:"usage"`
	}
	chunkChoice struct {
		Index    int     `json:"index"`
		Delta    any     `json:"delta"`
		Logprobs any     `json:"logprobs"`
		Finish   *string `json:"finish_reason"`
	}
)

// chat is one answer in OpenAI's shape.
type chat struct {
	c       *call
	base    chatChunk
	created int64
	states  bool // the stream states its usage
	rnd     *rand.Rand
}

func newChat(c *call) *chat {
	e := c.entry
	e.ID = "chatcmpl-" + c.tag
	e.Served = served(&c.plan, c.ask.Model)
	e.Tier = cmp.Or(c.plan.Tier, "default")
	_, u := c.openaiUsage(c.plan.Tokens, c.plan.Think)
	e.Generated = classes(&u)
	created := time.Now().Unix()
	return &chat{
		c: c, created: created,
		base: chatChunk{
			ID: e.ID, Object: "chat.completion.chunk", Created: created, Model: e.Served,
			Tier: e.Tier, Fingerprint: "fp_" + c.s.nonce,
		},
		states: (c.ask.StreamOptions.IncludeUsage || c.plan.Usage == "every") && c.plan.Usage != "off",
		rnd:    rand.New(rand.NewPCG(c.seed, 0x6f6266)),
	}
}

func (t *chat) answer() (*answer, error) {
	a := &answer{header: openaiHeader(t.c)}
	if t.c.ask.Stream {
		a.events = t.events()
		return a, nil
	}
	a.unary, a.visible = t.whole()
	_, a.usage = t.c.openaiUsage(t.c.plan.Tokens, t.c.plan.Think)
	a.finish = []string{openaiFinish(t.c.plan.Finish)}
	return a, nil
}

func (t *chat) whole() (body []byte, visible bool) {
	c := t.c
	said := gather(speak(&c.plan, c.seed))
	m := chatMessage{Role: "assistant", Content: &said, Annotations: []any{}}
	switch {
	case c.plan.Finish == "tool":
		m.Content, m.Tools = nil, []chatTool{t.tool("", strings.Join(toolArguments, ""))}
		c.entry.Tools = []string{m.Tools[0].Function.Name}
	case c.plan.Finish == "refusal":
		m.Content, m.Refusal = nil, &said
	}
	if c.plan.ShowThink && c.plan.Think > 0 {
		thought := gather(ponder(&c.plan, c.seed))
		m.Reasoning = &thought
	}
	usage, _ := c.openaiUsage(c.plan.Tokens, c.plan.Think)
	return indented(chatBody{
		ID: c.entry.ID, Object: "chat.completion", Created: t.created, Model: c.entry.Served,
		Choices: []chatChoice{{Message: m, Finish: openaiFinish(c.plan.Finish)}},
		Usage:   usage, Tier: c.entry.Tier, Fingerprint: t.base.Fingerprint,
	}), true
}

// tool is the call of the planned tool; kind "first" has its name, "more" only
// arguments, "" is whole.
func (t *chat) tool(kind, arguments string) chatTool {
	var w chatTool
	if kind != "" {
		w.Index = new(int)
	}
	if kind != "more" {
		w.ID, w.Type = "call_"+t.c.tag, "function"
		w.Function.Name = cmp.Or(t.c.plan.Tool, "get_weather")
	}
	w.Function.Arguments = arguments
	return w
}

// chunk is one chunk's JSON.
func (t *chat) chunk(delta any, finish string, usage *chatUsage) []byte {
	k := t.base
	k.Choices = []chunkChoice{{Delta: delta}}
	if finish != "" {
		k.Choices[0].Finish = &finish
	}
	if delta == nil {
		k.Choices = []chunkChoice{}
	}
	if t.states {
		k.chunkUsage = &chunkUsage{usage}
	}
	if t.c.plan.Obfuscation {
		k.Obfuscation = padding(t.rnd)
	}
	return compact(k)
}

func (t *chat) events() iter.Seq[event] {
	type opening struct {
		Role    string  `json:"role"`
		Content *string `json:"content"`
		Refusal *string `json:"refusal"`
	}
	type (
		text struct {
			Content string `json:"content"`
		}
		reasoning struct {
			Reasoning string `json:"reasoning_content"`
		}
		refusal struct {
			Refusal string `json:"refusal"`
		}
		tools struct {
			Tools []chatTool `json:"tool_calls"`
		}
	)
	c := t.c
	p := &c.plan
	return func(yield func(event) bool) {
		if p.Ping && hostProvider(c.r.Host) == "openrouter" {
			if !yield(event{data: []byte("OPENROUTER PROCESSING"), comment: true}) {
				return
			}
		}
		said, thought := 0, 0
		// with adds to an event the usage so far, where every chunk states it.
		with := func(e event, delta any, finish string) event {
			var usage *chatUsage
			if p.Usage == "every" {
				w, u := c.openaiUsage(said, thought)
				usage, e.usage = &w, &u
			}
			e.data, e.finish = t.chunk(delta, finish, usage), finish
			return e
		}
		empty := ""
		open := opening{Role: "assistant", Content: &empty}
		if p.Finish == "tool" {
			open.Content = nil
		}
		if !yield(with(event{}, open, "")) {
			return
		}
		if p.ShowThink {
			for w := range ponder(p, c.seed) {
				thought += w.tokens
				if !yield(with(event{content: true, tokens: w.tokens}, reasoning{w.text}, "")) {
					return
				}
			}
		} else if p.Think > 0 {
			// Hidden reasoning only takes time: a token of it is due before the first word.
			thought = p.Think
		}
		hidden := 0
		if !p.ShowThink {
			hidden = p.Think
		}
		if p.Finish == "tool" {
			c.entry.Tools = []string{cmp.Or(p.Tool, "get_weather")}
			first := event{content: true, tokens: hidden + 1}
			if !yield(with(first, tools{[]chatTool{t.tool("first", "")}}, "")) {
				return
			}
			for _, a := range toolArguments {
				if !yield(with(event{content: true, tokens: 1}, tools{[]chatTool{t.tool("more", a)}}, "")) {
					return
				}
			}
			said = p.Tokens
		} else {
			for w := range speak(p, c.seed) {
				said += w.tokens
				var delta any = text{w.text}
				if p.Finish == "refusal" {
					delta = refusal{w.text}
				}
				if !yield(with(event{content: true, tokens: hidden + max(1, w.tokens)}, delta, "")) {
					return
				}
				hidden = 0
			}
		}
		if !yield(with(event{}, struct{}{}, openaiFinish(p.Finish))) {
			return
		}
		if t.states {
			w, u := c.openaiUsage(p.Tokens, p.Think)
			if !yield(event{data: t.chunk(nil, "", &w), usage: &u, final: true}) {
				return
			}
		}
		yield(event{data: []byte("[DONE]")})
	}
}

func openaiFinish(why string) string {
	switch why {
	case "length":
		return "length"
	case "tool":
		return "tool_calls"
	case "filter":
		return "content_filter"
	}
	return "stop"
}

// padding is what OpenAI adds to an event so that its size says less.
func padding(rnd *rand.Rand) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, 1+rnd.IntN(15))
	for i := range b {
		b[i] = letters[rnd.IntN(len(letters))]
	}
	return string(b)
}

func openaiHeader(c *call) http.Header {
	h := http.Header{}
	h.Set("X-Request-Id", c.entry.RequestID)
	h.Set("Openai-Organization", "llmsim")
	h.Set("Openai-Processing-Ms", "12")
	h.Set("Openai-Version", "2020-10-01")
	openaiLimits(c, h)
	return h
}

func openaiLimits(c *call, h http.Header) {
	h.Set("X-Ratelimit-Limit-Requests", "10000")
	h.Set("X-Ratelimit-Limit-Tokens", "2000000")
	h.Set("X-Ratelimit-Remaining-Requests", "9999")
	h.Set("X-Ratelimit-Remaining-Tokens", fmt.Sprint(2000000-min(2000000, c.plan.Input)))
	h.Set("X-Ratelimit-Reset-Requests", "6ms")
	h.Set("X-Ratelimit-Reset-Tokens", "0s")
}

type openaiError struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

func openaiRefusal(c *call, status int, message string) (body []byte, kind, code string) {
	switch {
	case status == 401:
		kind, code = "invalid_request_error", "invalid_api_key"
	case status == 404:
		kind, code = "invalid_request_error", "model_not_found"
	case status == 429:
		kind, code = "tokens", "rate_limit_exceeded"
	case status >= 500:
		kind = "server_error"
	default:
		kind = "invalid_request_error"
	}
	openaiLimits(c, c.w.Header())
	var e openaiError
	e.Error.Message, e.Error.Type = message, kind
	if code != "" {
		e.Error.Code = &code
	}
	return indented(e), kind, code
}

func openaiBroken(*call) (event, string, string) {
	var e openaiError
	e.Error.Message = "The server had an error while processing your request. Sorry about that!"
	e.Error.Type = "server_error"
	return event{data: compact(e)}, "server_error", ""
}
