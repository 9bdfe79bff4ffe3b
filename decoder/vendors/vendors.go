// Package vendors is the table of the API families that can be decoded.
package vendors

import (
	"github.com/tollwire/tollwire/decoder/anthropic"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/openai"
)

// All returns every vendor. On a tie of confidence the first one gets the call, so
// what others imitate stands last.
func All(cfg content.Config) []exchange.Vendor {
	return []exchange.Vendor{
		anthropic.New(cfg),
		openai.New(cfg),
	}
}
