// Package answer holds what reading the answers of all vendors has in common: the
// choices' finish reasons, errors that a body states, and how sure usage is in the end.
package answer

import (
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

const (
	maxChoices  = 16  // whose reasons are kept
	maxFollowed = 128 // of which it is known whether they have one; OpenAI makes no more
)

// Reasons are the finish reasons of the choices, the last stated of each.
type Reasons struct {
	by          [maxChoices]string
	n           int
	seen, ended choices
	beyond      bool // a choice was seen that is not followed
}

// Index reads the place that a choice, a block or a tool call says it has; at where it does
// not say one. What lies beyond all bounds is one place.
func Index(s *jsonscan.Scanner, at int) int {
	if n, ok := s.Int(); ok && n >= 0 {
		return int(min(n, 1<<20))
	}
	return at
}

// choices is a set of those that are followed.
type choices [maxFollowed / 64]uint64

func (c *choices) add(choice int) { c[choice/64] |= 1 << (choice % 64) }

// Seen notes that a choice, by its index from 0, has begun.
func (r *Reasons) Seen(choice int) {
	if choice < 0 || choice >= maxFollowed {
		r.beyond = true
		return
	}
	r.seen.add(choice)
}

// Set states the reason of a choice, by its index from 0. An empty one is none.
func (r *Reasons) Set(choice int, reason string) {
	if r.Seen(choice); reason == "" || choice < 0 || choice >= maxFollowed {
		return
	}
	r.ended.add(choice)
	if choice < maxChoices {
		r.by[choice] = reason
		r.n = max(r.n, choice+1)
	}
}

// Ended reports whether every choice that was seen has its reason, and one was seen: where
// nothing else says that a stream is over, nothing follows.
func (r *Reasons) Ended() bool {
	return r.seen != choices{} && r.seen == r.ended && !r.beyond
}

// List is in the order of the choices; nil when none was stated.
func (r *Reasons) List() []string {
	var out []string
	for _, s := range r.by[:r.n] {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// Fail notes an error that the body states. kind is the provider's word for it, the
// first of those given that isn't empty; without any it is "error".
func Fail(c *llm.Call, kind ...string) {
	c.InBandError = c.Status > 0 && c.Status < 400
	for _, k := range kind {
		if k != "" {
			c.ErrorType = k
			return
		}
	}
	if c.InBandError && c.ErrorType == "" {
		c.ErrorType = "error"
	}
}

// Settle says how sure the usage of c is. final: the provider's last word on it was
// seen, at source; else what is known was stated before a cut.
func Settle(c *llm.Call, source llm.UsageSource, final bool) {
	switch {
	case c.Usage.Empty():
		c.Completeness, c.UsageSource = llm.Missing, ""
	case final:
		c.Completeness, c.UsageSource = llm.Exact, source
	default:
		c.Completeness, c.UsageSource = llm.Estimated, llm.SourceStreamPartial
	}
}
