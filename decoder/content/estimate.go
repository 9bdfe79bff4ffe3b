package content

import (
	"strings"

	"github.com/tollwire/tollwire/decoder/estimate"
	"github.com/tollwire/tollwire/llm"
)

// messageOverhead are the tokens that a chat's template adds to its texts: roles and
// delimiters of one or two messages.
const messageOverhead = 8

// claudeTools are the tokens of the system prompt that comes with tools of any number,
// by Anthropic's documentation of Claude 4's pricing.
const claudeTools = 346

// A tool call costs more than its name and arguments: measured on the corpora.
const (
	callOverhead       = 10
	claudeCallOverhead = 40
)

// estimate counts the tokens that the provider did not state, where content shows
// that the call was served.
func (m *Meter) estimate() {
	c := m.c
	if c.Status >= 400 || m.output.Bytes == 0 && c.Operation != "embeddings" {
		return
	}
	model := c.ResponseModel
	if model == "" {
		model = c.RequestModel
	}
	claude := strings.Contains(model, "claude")
	if prompt := &m.f.Text; prompt.Bytes > 0 {
		n := estimate.Tokens(model, prompt.Kept, prompt.Bytes)
		if n == 0 {
			return // no sample was kept
		}
		if c.Operation == "chat" {
			n += messageOverhead
		}
		if claude && m.f.Keys["tools"] {
			n += claudeTools
		}
		c.Usage.Set(llm.Input, float64(n))
	}
	if n := estimate.Tokens(model, m.output.Kept, m.output.Bytes); n > 0 {
		if claude {
			n += claudeCallOverhead * int64(len(c.ToolCalls))
		} else {
			n += callOverhead * int64(len(c.ToolCalls))
		}
		reasoning := n * m.hidden / max(1, m.hidden+m.visible)
		c.Usage.Set(llm.Output, float64(n-reasoning))
		if reasoning > 0 {
			c.Usage.Set(llm.Reasoning, float64(reasoning))
		}
	}
	if c.Usage.HasTokens() {
		c.Completeness, c.UsageSource = llm.Estimated, llm.SourceTokenizer
	}
}
