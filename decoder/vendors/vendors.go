// Package vendors is the table of the API families that can be decoded.
package vendors

import (
	"github.com/tollwire/tollwire/decoder/alephalpha"
	"github.com/tollwire/tollwire/decoder/anthropic"
	"github.com/tollwire/tollwire/decoder/baidu"
	"github.com/tollwire/tollwire/decoder/bedrock"
	"github.com/tollwire/tollwire/decoder/cohere"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/dashscope"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/gemini"
	"github.com/tollwire/tollwire/decoder/mcp"
	"github.com/tollwire/tollwire/decoder/ollama"
	"github.com/tollwire/tollwire/decoder/openai"
	"github.com/tollwire/tollwire/decoder/replicate"
	"github.com/tollwire/tollwire/decoder/rerank"
	"github.com/tollwire/tollwire/decoder/selfhosted"
	"github.com/tollwire/tollwire/decoder/tgi"
	"github.com/tollwire/tollwire/decoder/watsonx"
)

// All returns every vendor. On a tie of confidence the first one gets the call, so
// what others imitate stands last.
func All(cfg content.Config) []exchange.Vendor {
	return []exchange.Vendor{
		mcp.New(),
		bedrock.New(cfg),
		gemini.New(cfg),
		cohere.New(cfg),
		ollama.New(cfg),
		watsonx.New(cfg),
		dashscope.New(cfg),
		baidu.New(cfg),
		replicate.New(cfg),
		alephalpha.New(cfg),
		rerank.New(),
		tgi.New(cfg),
		selfhosted.New(cfg),
		anthropic.New(cfg),
		openai.New(cfg),
	}
}
