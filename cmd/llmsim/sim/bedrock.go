package sim

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/llm"
)

// bedrockConverse is POST /model/M/converse and /converse-stream.
var bedrockConverse = &vendor{
	provider: "aws.bedrock", operation: "chat",
	prepare: bedrockPath,
	respond: func(c *call) (*answer, error) {
		e := c.entry
		e.Served = "" // Converse names no model in its answer
		p := &c.plan
		stop := bedrockStop(p.Finish)
		wire := object{
			"inputTokens": p.Input, "outputTokens": p.Tokens + p.Think,
			"totalTokens":          p.Input + p.CacheRead + p.CacheWrite + p.Write5m + p.Write1h + p.Tokens + p.Think,
			"cacheReadInputTokens": p.CacheRead, "cacheWriteInputTokens": p.CacheWrite + p.Write5m + p.Write1h,
		}
		// Converse does not tell reasoning from output, nor one time to live from another.
		var u llm.Usage
		u.Set(llm.Input, float64(p.Input))
		u.Set(llm.CacheRead, float64(p.CacheRead))
		u.Set(llm.CacheWrite, float64(p.CacheWrite+p.Write5m+p.Write1h))
		u.Set(llm.Output, float64(p.Tokens+p.Think))
		e.Generated = classes(&u)
		a := &answer{header: bedrockHeader(c), kind: eventStream}
		if !c.ask.Stream {
			content := []any{object{"text": gather(speak(p, c.seed))}}
			if p.Finish == "tool" {
				content = []any{object{"toolUse": object{"toolUseId": "tooluse_" + c.tag, "name": bedrockTool(c), "input": object{"city": "Paris", "days": 3}}}}
			}
			a.unary, a.visible, a.usage, a.finish = compact(object{
				"metrics": object{"latencyMs": 321}, "output": object{"message": object{"content": content, "role": "assistant"}},
				"stopReason": stop, "usage": wire,
			}), true, u, []string{stop}
			return a, nil
		}
		a.events = converseEvents(c, stop, wire, &u)
		return a, nil
	},
	refusal: bedrockRefusal,
	broken:  bedrockBroken,
}

func converseEvents(c *call, stop string, usage object, u *llm.Usage) iter.Seq[event] {
	rnd := rand.New(rand.NewPCG(c.seed, 0x617773))
	return func(yield func(event) bool) {
		send := func(name string, o object, e event) bool {
			if c.plan.Obfuscation {
				o["p"] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[:1+rnd.IntN(52)]
			}
			e.name, e.data = name, compact(o)
			return yield(e)
		}
		if !send("messageStart", object{"role": "assistant"}, event{}) {
			return
		}
		index := 0
		delta := func(d object, tokens int) bool {
			return send("contentBlockDelta", object{"contentBlockIndex": index, "delta": d}, event{content: true, tokens: tokens})
		}
		if c.plan.Think > 0 {
			for w := range ponder(&c.plan, c.seed) {
				if !delta(object{"reasoningContent": object{"text": w.text}}, w.tokens) {
					return
				}
			}
			if !send("contentBlockStop", object{"contentBlockIndex": index}, event{}) {
				return
			}
			index++
		}
		if c.plan.Finish == "tool" {
			start := object{"toolUse": object{"toolUseId": "tooluse_" + c.tag, "name": bedrockTool(c)}}
			if !send("contentBlockStart", object{"contentBlockIndex": index, "start": start}, event{}) {
				return
			}
			for _, a := range toolArguments {
				if !delta(object{"toolUse": object{"input": a}}, 1) {
					return
				}
			}
		} else {
			for w := range speak(&c.plan, c.seed) {
				if !delta(object{"text": w.text}, max(1, w.tokens)) {
					return
				}
			}
		}
		_ = send("contentBlockStop", object{"contentBlockIndex": index}, event{}) &&
			send("messageStop", object{"stopReason": stop}, event{finish: stop}) &&
			send("metadata", object{"metrics": object{"latencyMs": 321}, "usage": usage}, event{usage: u, final: true})
	}
}

// bedrockInvoke is POST /model/M/invoke and /invoke-with-response-stream: the JSON of
// the model's own vendor, in frames when it streams. Anthropic's is here.
var bedrockInvoke = &vendor{
	provider: "aws.bedrock", operation: "chat",
	prepare: bedrockPath,
	respond: func(c *call) (*answer, error) {
		if m := bedrockModelOf(c.ask.Model); m != nil {
			return m.answer(c)
		}
		// The body names the model without Bedrock's prefix and version.
		if c.plan.Model == "" {
			model := c.ask.Model[strings.LastIndexByte(c.ask.Model, '.')+1:]
			model, _, _ = strings.Cut(model, "-v1:")
			c.plan.Model = cmp.Or(model, c.ask.Model)
		}
		m := newMessage(c, "msg_bdrk_01")
		c.entry.Tier = ""
		a, err := m.answer()
		if err != nil {
			return nil, err
		}
		a.header, a.kind = bedrockHeader(c), eventStream
		p := &c.plan
		if !c.ask.Stream {
			a.header.Set("X-Amzn-Bedrock-Input-Token-Count", strconv.Itoa(p.Input))
			a.header.Set("X-Amzn-Bedrock-Output-Token-Count", strconv.Itoa(p.Tokens+p.Think))
			a.header.Set("X-Amzn-Bedrock-Cache-Read-Input-Token-Count", strconv.Itoa(p.CacheRead))
			a.header.Set("X-Amzn-Bedrock-Cache-Write-Input-Token-Count", strconv.Itoa(p.CacheWrite+p.Write5m+p.Write1h))
			a.header.Set("X-Amzn-Bedrock-Invocation-Latency", "321")
			return a, nil
		}
		inner := a.events
		a.events = func(yield func(event) bool) {
			for e := range inner {
				switch e.name {
				case "ping":
					continue
				case "message_stop":
					e.data = compact(object{"type": "message_stop", "amazon-bedrock-invocationMetrics": object{
						"inputTokenCount": p.Input, "outputTokenCount": p.Tokens + p.Think, "invocationLatency": 321, "firstByteLatency": 45,
						"cacheReadInputTokenCount": p.CacheRead, "cacheWriteInputTokenCount": p.CacheWrite + p.Write5m + p.Write1h,
					}})
				}
				e.name, e.data = "chunk", compact(struct {
					Bytes string `json:"bytes"`
					P     string `json:"p"`
				}{base64.StdEncoding.EncodeToString(e.data), "abcdefghijklmnopqrstuvwxyz"[:1+len(e.data)%26]})
				if !yield(e) {
					return
				}
			}
		}
		return a, nil
	},
	refusal: bedrockRefusal,
	broken:  bedrockBroken,
}

// bedrockPath reads /model/M/OPERATION: the model is percent-encoded.
func bedrockPath(c *call) {
	path := strings.TrimPrefix(c.r.URL.EscapedPath(), "/model/")
	model, operation, _ := strings.Cut(path, "/")
	if m, err := url.PathUnescape(model); err == nil {
		model = m
	}
	c.ask.Model, c.ask.Stream = model, strings.HasSuffix(operation, "-stream")
	if strings.Contains(model, "embed") {
		c.entry.Operation = "embeddings"
	}
}

func bedrockTool(c *call) string {
	name := cmp.Or(c.plan.Tool, "get_weather")
	c.entry.Tools = []string{name}
	return name
}

func bedrockStop(why string) string {
	switch why {
	case "length":
		return "max_tokens"
	case "tool":
		return "tool_use"
	case "filter":
		return "content_filtered"
	case "refusal":
		return "guardrail_intervened"
	}
	return "end_turn"
}

func bedrockHeader(c *call) http.Header {
	h := http.Header{}
	h.Set("X-Amzn-Requestid", c.entry.RequestID)
	h.Set("X-Request-Id", c.entry.RequestID)
	return h
}

func bedrockRefusal(c *call, status int, message string) ([]byte, string, string) {
	kind := map[int]string{400: "ValidationException", 401: "AccessDeniedException", 403: "AccessDeniedException",
		404: "ResourceNotFoundException", 429: "ThrottlingException", 503: "ServiceUnavailableException"}[status]
	kind = cmp.Or(kind, "InternalServerException")
	h := c.w.Header()
	h.Set("X-Amzn-Errortype", kind+":http://internal.amazon.com/coral/com.amazon.bedrock/")
	h.Set("X-Amzn-Requestid", c.entry.RequestID)
	return compact(object{"message": message}), kind, ""
}

func bedrockBroken(*call) (event, string, string) {
	const kind = "modelStreamErrorException"
	b, _ := json.Marshal(object{"message": "The model returned an error."})
	return event{name: kind, data: b, exception: true}, kind, ""
}
