package answer

import (
	"fmt"
	"io"

	"github.com/tollwire/tollwire/llm"
)

const maxChoices = 16

// Reasons are the finish reasons of the choices, the last stated of each.
type Reasons struct {
	by [maxChoices]string
	n  int
}

// Set states the reason of a choice, by its index from 0.
func (r *Reasons) Set(choice int64, reason string) {
	if reason == "" || choice < 0 || choice >= maxChoices {
		return
	}
	r.by[choice] = reason
	r.n = max(r.n, int(choice)+1)
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

// Disagree notes how the response contradicts itself; the first one stands.
func Disagree(c *llm.Call, format string, args ...any) {
	if c.Disagreement == "" {
		c.Disagreement = fmt.Sprintf(format, args...)
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

// Lead is a reader whose first bytes can be looked at.
type Lead struct {
	r    io.Reader
	buf  [8]byte
	n, i int
	err  error
}

// Reset starts over with r.
func (l *Lead) Reset(r io.Reader) { *l = Lead{r: r} }

// Is reports whether the first bytes are word's, of which there are at most eight.
func (l *Lead) Is(word string) bool {
	for l.n < len(word) && l.err == nil {
		// Only as far as it holds: an event's data may take its time.
		if l.n > 0 && string(l.buf[:l.n]) != word[:l.n] {
			return false
		}
		var m int
		m, l.err = l.r.Read(l.buf[l.n:len(word)])
		l.n += m
	}
	return l.n >= len(word) && string(l.buf[:len(word)]) == word
}

// Read implements io.Reader, with the first bytes still there.
func (l *Lead) Read(p []byte) (int, error) {
	if l.i < l.n {
		n := copy(p, l.buf[l.i:l.n])
		l.i += n
		return n, nil
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.r.Read(p)
}
