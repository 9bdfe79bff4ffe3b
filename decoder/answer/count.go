// Package answer holds what reading the answers of all vendors has in common: the
// last stated of each number and of each choice's finish reason, and how sure the
// usage is in the end.
package answer

import (
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// Count is a count as it was stated last; the zero value was never stated.
type Count struct {
	n  int64
	ok bool
}

// Of returns a stated count.
func Of(n int64) Count { return Count{n, true} }

// Scan takes the value that comes next. What can be no count (null, text, a fraction,
// less than zero) states nothing, and what was stated before stands.
func (c *Count) Scan(s *jsonscan.Scanner) {
	if n, ok := s.Int(); ok && n >= 0 && n <= llm.MaxAmount {
		*c = Count{n, true}
	}
}

// Text is Scan for a number in a header.
func (c *Count) Text(v string) {
	if v == "" {
		return
	}
	var s jsonscan.Scanner
	s.ResetBytes([]byte(v))
	was := *c
	if c.Scan(&s); s.End() != nil {
		*c = was
	}
}

// Known reports whether the count was stated; a stated zero counts.
func (c Count) Known() bool { return c.ok }

// N is the count, 0 when it was never stated.
func (c Count) N() int64 { return c.n }

// Plus adds the two; it is known when either is.
func (c Count) Plus(d Count) Count { return Count{c.n + d.n, c.ok || d.ok} }

// Less is c without its parts. Parts that exceed it are refused: they cannot be.
func (c Count) Less(parts ...Count) (rest Count, ok bool) {
	rest = c
	for _, p := range parts {
		rest.n -= p.n
	}
	if rest.n < 0 {
		return c, false
	}
	return rest, true
}

// Or is c when it is known, else d.
func (c Count) Or(d Count) Count {
	if c.ok {
		return c
	}
	return d
}

// Put states the count for a class, when it is known.
func (c Count) Put(u *llm.Usage, class llm.Class) {
	if c.ok {
		u.Set(class, float64(c.n))
	}
}
