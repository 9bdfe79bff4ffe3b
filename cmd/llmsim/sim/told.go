package sim

import (
	"iter"

	"github.com/tollwire/tollwire/llm"
)

// told is a stream that is the text, piece by piece, between a beginning and an end.
type told struct {
	first []event
	piece func(text string) event
	last  []event
}

func (t told) events(c *call) iter.Seq[event] {
	return func(yield func(event) bool) {
		for _, e := range t.first {
			if !yield(e) {
				return
			}
		}
		for w := range speak(&c.plan, c.seed) {
			e := t.piece(w.text)
			e.content, e.tokens = true, max(1, w.tokens)
			if !yield(e) {
				return
			}
		}
		for _, e := range t.last {
			if !yield(e) {
				return
			}
		}
	}
}

// said is the whole visible text.
func (c *call) said() string { return gather(speak(&c.plan, c.seed)) }

// tokens is a usage of input and output alone.
func tokens(input, output int) llm.Usage {
	var u llm.Usage
	u.Set(llm.Input, float64(input))
	u.Set(llm.Output, float64(output))
	return u
}

// either is first when ok, else second.
func either(ok bool, first, second string) string {
	if ok {
		return first
	}
	return second
}

// plainRefusal is an error that is a text and no more.
func plainRefusal(_ *call, _ int, message string) ([]byte, string, string) {
	return compact(object{"error": message}), "", ""
}
