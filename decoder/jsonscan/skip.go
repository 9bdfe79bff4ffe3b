package jsonscan

import "io"

// Skip passes over one value of any kind and any depth, in constant memory.
func (s *Scanner) Skip() { s.skip(s.Kind()) }

// skip passes over the value of kind k that stands at pos.
func (s *Scanner) skip(k Kind) {
	switch k {
	case None:
		if s.err != nil {
			return
		}
		if s.pos < len(s.buf) {
			s.bad("no value begins like this")
		} else {
			s.cut()
		}
	case String:
		s.pos++
		s.skipText()
	case Object, Array:
		s.skipNested()
	default:
		s.skipToken()
	}
}

// skipToken passes over a number or a literal.
func (s *Scanner) skipToken() {
	for {
		i := s.pos
		for i < len(s.buf) && !delimits[s.buf[i]] {
			i++
		}
		if s.pos = i; i < len(s.buf) {
			return
		}
		if !s.fill() {
			if s.end != io.EOF || s.deep > 0 {
				s.cut()
			}
			return
		}
	}
}

func (s *Scanner) skipNested() {
	for depth := 0; ; {
		b := s.buf[s.pos:]
		i := 0
		for i < len(b) && !structural[b[i]] {
			i++
		}
		s.pos += i
		if i == len(b) {
			if !s.fill() {
				s.cut()
				return
			}
			continue
		}
		s.pos++
		switch b[i] {
		case '"':
			if !s.skipText() {
				return
			}
		case '{', '[':
			depth++
		default:
			if depth--; depth == 0 {
				return
			}
		}
	}
}

// skipText passes over a string after its opening quote.
func (s *Scanner) skipText() bool {
	for {
		if s.pos == len(s.buf) && !s.fill() {
			s.cut()
			return false
		}
		s.pos += special(s.buf[s.pos:])
		if s.pos == len(s.buf) {
			continue
		}
		c := s.buf[s.pos]
		if s.pos++; c == '"' {
			return true
		}
		if _, ok := s.next(); !ok {
			return false
		}
	}
}

// The characters that matter when a nested value is skipped.
var structural = [256]bool{'"': true, '{': true, '}': true, '[': true, ']': true}
