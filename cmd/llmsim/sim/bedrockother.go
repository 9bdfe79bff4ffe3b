package sim

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/llm"
)

// A bedrockModel is the JSON of one vendor's models behind InvokeModel.
type bedrockModel struct {
	served bool // the body names the model
	// stated: the body states the usage; else only headers and metrics do.
	stated bool
	whole  func(c *call) object
	piece  func(text string) object // nil: it streams nothing
	last   func(c *call) object
	finish func(why string) string
}

// bedrockModels are found by the model's vendor and, where it has more than one kind,
// the beginning of its name.
var bedrockModels = map[string]*bedrockModel{
	"amazon.titan": {
		stated: true,
		whole: func(c *call) object {
			return object{"inputTextTokenCount": c.plan.Input, "results": []any{object{
				"tokenCount": c.plan.Tokens, "outputText": c.said(), "completionReason": titanReason(c.plan.Finish)}}}
		},
		piece: func(text string) object {
			return object{"outputText": text, "index": 0, "totalOutputTextTokenCount": nil, "completionReason": nil}
		},
		last: func(c *call) object {
			return object{"outputText": "", "index": 0, "inputTextTokenCount": c.plan.Input,
				"totalOutputTextTokenCount": c.plan.Tokens, "completionReason": titanReason(c.plan.Finish)}
		},
		finish: titanReason,
	},
	"amazon.nova": {
		stated: true,
		whole: func(c *call) object {
			return object{"output": object{"message": object{"role": "assistant", "content": []any{object{"text": c.said()}}}},
				"stopReason": bedrockStop(c.plan.Finish), "usage": novaUsage(c)}
		},
		piece: func(text string) object {
			return object{"contentBlockDelta": object{"delta": object{"text": text}, "contentBlockIndex": 0}}
		},
		last: func(c *call) object {
			return object{"messageStop": object{"stopReason": bedrockStop(c.plan.Finish)}, "metadata": object{"usage": novaUsage(c), "metrics": object{}}}
		},
		finish: bedrockStop,
	},
	"meta.llama": {
		stated: true,
		whole: func(c *call) object {
			return object{"generation": c.said(), "prompt_token_count": c.plan.Input, "generation_token_count": c.plan.Tokens,
				"stop_reason": lengthOr("stop")(c.plan.Finish)}
		},
		piece: func(text string) object {
			return object{"generation": text, "prompt_token_count": nil, "generation_token_count": 1, "stop_reason": nil}
		},
		last: func(c *call) object {
			return object{"generation": "", "prompt_token_count": c.plan.Input, "generation_token_count": c.plan.Tokens,
				"stop_reason": lengthOr("stop")(c.plan.Finish)}
		},
		finish: lengthOr("stop"),
	},
	"mistral.mistral": {
		whole: func(c *call) object {
			return object{"outputs": []any{object{"text": c.said(), "stop_reason": lengthOr("stop")(c.plan.Finish)}}}
		},
		piece: func(text string) object {
			return object{"outputs": []any{object{"text": text, "stop_reason": nil}}}
		},
		last: func(c *call) object {
			return object{"outputs": []any{object{"text": "", "stop_reason": lengthOr("stop")(c.plan.Finish)}}}
		},
		finish: lengthOr("stop"),
	},
	"cohere.command": {
		whole: func(c *call) object {
			c.entry.ID = c.tag
			return object{"response_id": c.tag, "text": c.said(), "generation_id": c.tag, "chat_history": []any{}, "finish_reason": cohereReason(c.plan.Finish)}
		},
		piece: func(text string) object {
			return object{"is_finished": false, "event_type": "text-generation", "text": text}
		},
		last: func(c *call) object {
			return object{"is_finished": true, "event_type": "stream-end", "finish_reason": cohereReason(c.plan.Finish)}
		},
		finish: cohereReason,
	},
	"ai21.jamba": {
		stated: true,
		whole: func(c *call) object {
			c.entry.ID = "chat-" + c.tag
			return object{"id": c.entry.ID, "choices": []any{object{"index": 0, "finish_reason": lengthOr("stop")(c.plan.Finish),
				"message": object{"role": "assistant", "content": c.said(), "tool_calls": nil}}},
				"usage": object{"prompt_tokens": c.plan.Input, "completion_tokens": c.plan.Tokens, "total_tokens": c.plan.Input + c.plan.Tokens}}
		},
		finish: lengthOr("stop"),
	},
	"amazon.titan-embed": {
		stated: true,
		whole: func(c *call) object {
			return object{"embedding": []any{0.1, -0.2, 0.3}, "inputTextTokenCount": c.plan.Input}
		},
		finish: func(string) string { return "" },
	},
}

func titanReason(why string) string { return either(why == "length", "LENGTH", "FINISH") }

func cohereReason(why string) string { return either(why == "length", "MAX_TOKENS", "COMPLETE") }

// lengthOr is for vendors that know two ends.
func lengthOr(otherwise string) func(why string) string {
	return func(why string) string { return either(why == "length", "length", otherwise) }
}

func novaUsage(c *call) object {
	p := &c.plan
	return object{"inputTokens": p.Input, "outputTokens": p.Tokens, "totalTokens": p.Input + p.Tokens + p.CacheRead,
		"cacheReadInputTokenCount": p.CacheRead, "cacheWriteInputTokenCount": 0}
}

// bedrockModelOf is the JSON that a model speaks, nil for Anthropic's.
func bedrockModelOf(model string) *bedrockModel {
	var found *bedrockModel
	longest := 0
	for name, m := range bedrockModels {
		if strings.Contains(model, name) && len(name) > longest {
			found, longest = m, len(name)
		}
	}
	return found
}

// answer is the answer of m to an InvokeModel.
func (m *bedrockModel) answer(c *call) (*answer, error) {
	p := &c.plan
	c.entry.Served = ""
	u := tokens(p.Input, p.Tokens)
	if c.entry.Operation == "embeddings" {
		u = llm.Usage{}
		u.Set(llm.Input, float64(p.Input))
	}
	if m == bedrockModels["amazon.nova"] {
		u.Set(llm.CacheRead, float64(p.CacheRead))
	}
	c.entry.Generated = classes(&u)
	a := &answer{header: bedrockHeader(c), kind: eventStream, usage: u}
	finish := m.finish(p.Finish)
	if !c.ask.Stream {
		a.unary, a.visible = compact(m.whole(c)), true
		if finish != "" {
			a.finish = []string{finish}
		}
		a.header.Set("X-Amzn-Bedrock-Input-Token-Count", strconv.Itoa(p.Input))
		if c.entry.Operation != "embeddings" {
			a.header.Set("X-Amzn-Bedrock-Output-Token-Count", strconv.Itoa(p.Tokens))
		}
		return a, nil
	}
	if m.piece == nil {
		return nil, errors.New("the model is unsupported for streaming")
	}
	framed := func(o object) event {
		return event{name: "chunk", data: compact(object{"bytes": base64.StdEncoding.EncodeToString(compact(o)), "p": "abcdef"})}
	}
	end := m.last(c)
	end["amazon-bedrock-invocationMetrics"] = object{"inputTokenCount": p.Input, "outputTokenCount": p.Tokens,
		"invocationLatency": 321, "firstByteLatency": 45}
	last := framed(end)
	last.usage, last.final, last.finish = &u, true, finish
	a.events = told{piece: func(text string) event { return framed(m.piece(text)) }, last: []event{last}}.events(c)
	return a, nil
}

// bedrockAgent is POST /agents/…/sessions/…/text: the answer in chunks, and a trace
// that states what one of the calls to a model behind it used.
var bedrockAgent = &vendor{
	provider: "aws.bedrock", operation: "invoke_agent",
	prepare: func(c *call) { c.ask.Stream = true },
	respond: func(c *call) (*answer, error) {
		u := tokens(c.plan.Input, c.plan.Tokens)
		c.entry.Generated = classes(&u)
		trace := event{name: "trace", usage: &u, data: compact(object{"sessionId": c.tag, "trace": object{"orchestrationTrace": object{
			"modelInvocationOutput": object{"metadata": object{"usage": object{"inputTokens": c.plan.Input, "outputTokens": c.plan.Tokens}}}}}})}
		return &answer{header: bedrockHeader(c), kind: eventStream, events: told{
			piece: func(text string) event {
				return event{name: "chunk", data: compact(object{"bytes": base64.StdEncoding.EncodeToString([]byte(text))})}
			},
			last: []event{trace},
		}.events(c)}, nil
	},
	refusal: bedrockRefusal,
	broken:  bedrockBroken,
}
