package bedrock

import (
	"strconv"

	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

type field struct{ stated.Count }

// header takes the count that a header states.
func (f *field) header(text string) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n <= llm.MaxAmount {
		f.Count = stated.Of(n)
	}
}

// counts are one statement of usage. Input excludes what was read from the cache and
// written to it.
type counts struct {
	input, output, read, write, total field
	write5m, write1h                  stated.Count
}

// scan reads {"inputTokens":…}, or invocationMetrics' {"inputTokenCount":…}.
func (u *counts) scan(s *jsonscan.Scanner) {
	for key := range s.Object {
		u.member(s, key)
	}
}

func (u *counts) member(s *jsonscan.Scanner, key []byte) {
	switch string(key) {
	case "inputTokens", "inputTokenCount":
		u.input.Read(s)
	case "outputTokens", "outputTokenCount":
		u.output.Read(s)
	case "totalTokens", "totalTokenCount":
		u.total.Read(s)
	case "cacheReadInputTokens", "cacheReadInputTokenCount":
		u.read.Read(s)
	case "cacheWriteInputTokens", "cacheWriteInputTokenCount":
		u.write.Read(s)
	case "cacheDetails":
		u.write5m, u.write1h = stated.Count{}, stated.Count{}
		for range s.Array {
			u.detail(s)
		}
	}
}

// detail reads {"ttl":"1h","inputTokens":7}, a part of what was written.
func (u *counts) detail(s *jsonscan.Scanner) {
	ttl, n := "", stated.Count{}
	for key := range s.Object {
		switch string(key) {
		case "ttl":
			s.Into(&ttl)
		case "inputTokens":
			n.Read(s)
		}
	}
	sum := &u.write5m
	switch ttl {
	case "5m":
	case "1h":
		sum = &u.write1h
	default:
		return
	}
	sum.N, sum.OK = sum.N+n.N, sum.OK || n.OK
}

// settle states u in c.
func (u *counts) settle(c *llm.Call) {
	if sum := u.input.N + u.output.N + u.read.N + u.write.N; u.total.OK && u.input.OK && u.output.OK && u.total.N != sum {
		stated.Disagree(c, "total %d is not input %d + output %d + cache read %d + cache write %d",
			u.total.N, u.input.N, u.output.N, u.read.N, u.write.N)
	}
	u.input.Into(&c.Usage, llm.Input)
	u.read.Into(&c.Usage, llm.CacheRead)
	u.output.Into(&c.Usage, llm.Output)
	write := stated.Whole{Left: u.write.N}
	if !u.write.OK {
		write.Left = u.write5m.N + u.write1h.N
	}
	write.Take(u.write5m, "cacheDetails 5m").Into(&c.Usage, llm.CacheWrite5m)
	write.Take(u.write1h, "cacheDetails 1h").Into(&c.Usage, llm.CacheWrite1h)
	if u.write.OK && (write.Left > 0 || !u.write5m.OK && !u.write1h.OK) {
		stated.Of(write.Left).Into(&c.Usage, llm.CacheWrite)
	}
	if write.Over != "" {
		stated.Disagree(c, "%s", write.Over)
	}
}

// fill states in c what it doesn't state yet, and reports whether that was anything
// of input or output. A count that differs from c's is noted as a disagreement.
func (u *counts) fill(c *llm.Call, name string) (filled bool) {
	use := &c.Usage
	for _, k := range [...]struct {
		n       field
		has     bool
		now     float64
		class   llm.Class
		decides bool
	}{
		{u.input, use.Has(llm.Input), use.Get(llm.Input), llm.Input, true},
		{u.output, use.Has(llm.Output), use.Get(llm.Output) + use.Get(llm.Reasoning), llm.Output, true},
		{u.read, use.Has(llm.CacheRead), use.Get(llm.CacheRead), llm.CacheRead, false},
		{u.write, use.Has(llm.CacheWrite) || use.Has(llm.CacheWrite5m) || use.Has(llm.CacheWrite1h),
			use.Get(llm.CacheWrite) + use.Get(llm.CacheWrite5m) + use.Get(llm.CacheWrite1h), llm.CacheWrite, false},
	} {
		switch {
		case !k.n.OK:
		case !k.has:
			k.n.Into(use, k.class)
			filled = filled || k.decides
		case k.now != float64(k.n.N):
			stated.Disagree(c, "%s: %.0f in the body, %d in the %s", k.class, k.now, k.n.N, name)
		}
	}
	return filled
}
