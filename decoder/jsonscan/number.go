package jsonscan

import (
	"io"
	"strconv"
)

// Int takes a number that is whole and fits, however it is written (3, 3.0, 3e2).
func (s *Scanner) Int() (n int64, ok bool) {
	b, ok := s.number()
	if !ok {
		return 0, false
	}
	if len(b) < 18 {
		digits, negative := b, false
		if b[0] == '-' {
			digits, negative = b[1:], true
		}
		whole := true
		for _, c := range digits {
			if c-'0' > 9 {
				whole = false
				break
			}
			n = n*10 + int64(c-'0')
		}
		if whole {
			if negative {
				n = -n
			}
			return n, true
		}
	}
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if n = int64(f); err != nil || f < -1<<63 || f >= 1<<63 || float64(n) != f {
		return 0, false
	}
	return n, true
}

// Float takes a number.
func (s *Scanner) Float() (f float64, ok bool) {
	b, ok := s.number()
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(b), 64)
	return f, err == nil
}

// Decimal takes a number as it is written, for amounts that must stay exact.
func (s *Scanner) Decimal() (text string, ok bool) {
	b, ok := s.number()
	return string(b), ok
}

// Bool takes true or false.
func (s *Scanner) Bool() (v, ok bool) {
	if s.Kind() != Bool {
		s.Skip()
		return false, false
	}
	b, ok := s.token()
	return len(b) == len("true"), ok
}

// number takes a number's text; it is valid until the Scanner is used.
func (s *Scanner) number() ([]byte, bool) {
	if s.Kind() != Number {
		s.Skip()
		return nil, false
	}
	b, ok := s.token()
	return b, ok && b != nil
}

// token takes a number or a literal whose first byte is in the window. A number
// longer than maxNumber, and what is read as null, come back as nil.
func (s *Scanner) token() (text []byte, ok bool) {
	start := s.Offset()
	i := s.pos
	for i < len(s.buf) && !delimits[s.buf[i]] {
		i++
	}
	text = s.buf[s.pos:i]
	s.pos = i
	long := len(text) > maxNumber
	if i == len(s.buf) {
		// It may go on behind the window.
		text = append(s.num[:0], text[:min(len(text), maxNumber)]...)
		for ; ; s.pos++ {
			if s.pos == len(s.buf) && !s.fill() {
				if s.end != io.EOF || s.deep > 0 {
					s.cut()
					return nil, false
				}
				break
			}
			c := s.buf[s.pos]
			if delimits[c] {
				break
			}
			if long = long || len(text) == maxNumber; !long {
				text = append(text, c)
			}
		}
	}
	switch string(text) {
	case "true", "false":
		return text, true
	case "null", "NaN", "Infinity", "-Infinity":
		return nil, true
	}
	if len(text) == 0 || !isNumber(text) && !(long && numeric(text)) {
		s.err = &SyntaxError{Offset: start, What: "neither a number nor true, false or null"}
		return nil, false
	}
	if long {
		return nil, true
	}
	return text, true
}

// isNumber reports whether b is a number by JSON's grammar.
func isNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && b[n]-'0' < 10 {
			n++
		}
		b = b[n:]
		return n > 0
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) > 1 && b[0] == '0' && b[1]-'0' < 10 || !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		if b = b[1:]; !digits() {
			return false
		}
	}
	if len(b) > 0 && b[0]|0x20 == 'e' {
		if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

// numeric reports whether the first bytes of a long token may be a number's.
func numeric(b []byte) bool {
	for _, c := range b {
		if c-'0' > 9 && c != '.' && c != '-' && c != '+' && c|0x20 != 'e' {
			return false
		}
	}
	return true
}

// The characters that end a number or a literal.
var delimits = [256]bool{
	',': true, '}': true, ']': true, ' ': true, '\n': true, '\r': true, '\t': true, ':': true, '"': true, '{': true, '[': true,
}
