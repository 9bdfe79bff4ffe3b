// Package stated holds the numbers that a response states, as vendors read them.
package stated

import (
	"fmt"

	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// Count is a count that a response may state, several times over: the last holds,
// and a null takes nothing back.
type Count struct {
	N   int64
	OK  bool // stated
	bad bool
}

// Read takes a count from s. One that cannot be (negative, beyond llm.MaxAmount) is
// not taken; Bad tells.
func (c *Count) Read(s *jsonscan.Scanner) {
	if s.Kind() == jsonscan.Number {
		n, ok := s.Int()
		if s.Err() != nil {
			return
		}
		if !ok || n < 0 || n > llm.MaxAmount {
			c.bad = true
			return
		}
		c.N, c.OK, c.bad = n, true, false
		return
	}
	s.Skip()
}

// Bad reports whether the last one stated was not taken.
func (c *Count) Bad() bool { return c.bad }

// Or returns c when it was stated, else d.
func (c Count) Or(d Count) Count {
	if c.OK {
		return c
	}
	return d
}

// Of returns a stated count of n.
func Of(n int64) Count { return Count{N: n, OK: true} }

// Into states c in u as class k, if c was stated.
func (c Count) Into(u *llm.Usage, k llm.Class) {
	if c.OK {
		u.Set(k, float64(c.N))
	}
}

// Whole is a stated total of which parts are taken one after the other.
type Whole struct {
	Left int64
	// Over is the first part that was more than what was left of the whole.
	Over string
}

// Take takes a part, at most what is left.
func (w *Whole) Take(c Count, name string) Count {
	if c.N > w.Left {
		if w.Over == "" {
			w.Over = fmt.Sprintf("%s %d exceeds the %d it is part of", name, c.N, w.Left)
		}
		c.N = w.Left
	}
	w.Left -= c.N
	return c
}

// Some takes as much of a part as is left, which need not be all of it: parts by
// kind of content overlap with parts by cache.
func (w *Whole) Some(c Count) Count {
	c.N = min(c.N, w.Left)
	w.Left -= c.N
	return c
}

// Disagree notes how a response contradicts itself; the first one stays.
func Disagree(c *llm.Call, format string, args ...any) {
	if c.Disagreement == "" {
		c.Disagreement = fmt.Sprintf(format, args...)
	}
}

// Digits reports whether text is a number: a status that stands where an error's
// name should.
func Digits(text string) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return text != ""
}
