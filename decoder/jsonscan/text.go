package jsonscan

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// Into takes a string into *dst, cut at MaxText bytes; another kind leaves *dst
// alone. Nothing is allocated when *dst holds that string already.
func (s *Scanner) Into(dst *string) bool {
	if s.Kind() != String {
		s.Skip()
		return false
	}
	s.pos++
	b := s.buf[s.pos:]
	if q := special(b); q <= MaxText && q < len(b) && b[q] == '"' {
		s.pos += q + 1
		if string(b[:q]) != *dst {
			*dst = string(mend(b[:q]))
		}
		return true
	}
	s.key = s.key[:0]
	if _, ok := s.text(&s.key, MaxText, nil); !ok {
		return false
	}
	if string(s.key) != *dst {
		*dst = string(mend(s.key))
	}
	return true
}

// AppendText appends a string to dst, at most max bytes of it and whole characters
// only. length is that of the whole string in bytes, so length > len(out)-len(dst)
// says that it was cut. Bytes that are no UTF-8 become U+FFFD each.
func (s *Scanner) AppendText(dst []byte, max int) (out []byte, length int64, ok bool) {
	if s.Kind() != String {
		s.Skip()
		return dst, 0, false
	}
	s.pos++
	n := len(dst)
	out = dst
	if length, ok = s.text(&out, max, nil); !ok {
		return out[:n], 0, false
	}
	if !utf8.Valid(out[n:]) {
		out = append(out[:n], mend(out[n:])...)
	}
	return out, length, true
}

// Text is AppendText into a new string.
func (s *Scanner) Text(max int) (text string, length int64, ok bool) {
	s.key = s.key[:0]
	b, length, ok := s.AppendText(s.key, max)
	if cap(b) <= 4*MaxText {
		s.key = b
	}
	return string(b), length, ok
}

// TextLen takes a string and returns its length in bytes, escapes undone.
func (s *Scanner) TextLen() (length int64, ok bool) { return s.Stream(nil) }

// Stream hands a string to sink in pieces, escapes undone, as they pass. A piece is
// valid during the call only, may end within a character, and its bytes need not be
// UTF-8. When the input ends early ok is false, and the pieces before it stand.
func (s *Scanner) Stream(sink func(piece []byte)) (length int64, ok bool) {
	if s.Kind() != String {
		s.Skip()
		return 0, false
	}
	s.pos++
	return s.text(nil, 0, sink)
}

// text reads a string after its opening quote. What fits into max goes to dst, and
// every piece to sink, when they are not nil.
func (s *Scanner) text(dst *[]byte, max int, sink func([]byte)) (length int64, ok bool) {
	full := dst == nil
	base := 0
	if !full {
		base = len(*dst)
	}
	for {
		if s.pos == len(s.buf) && !s.fill() {
			s.cut()
			return length, false
		}
		piece := s.buf[s.pos:]
		piece = piece[:special(piece)]
		if s.pos += len(piece); len(piece) == 0 {
			c := s.buf[s.pos]
			if s.pos++; c == '"' {
				return length, true
			}
			r, ok := s.escape()
			if !ok {
				return length, false
			}
			if piece = utf8.AppendRune(s.esc[:0], r); r < 0 { // a byte that is no UTF-8, escaped for no reason
				piece = append(s.esc[:0], byte(-r))
			}
		}
		length += int64(len(piece))
		if !full {
			room := max - (len(*dst) - base)
			if len(piece) > room {
				*dst = wholeRunes(append(*dst, piece[:room]...), base, piece[room])
				full = true
			} else {
				*dst = append(*dst, piece...)
			}
		}
		if sink != nil {
			sink(piece)
		}
	}
}

// special is the index of the first quote or backslash in b, or len(b). Eight bytes are
// looked at in one go: x has a zero where b has a quote, y where it has a backslash, and
// the lowest bit that is left in m is the first of them.
func special(b []byte) int {
	const lo, hi = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		v := binary.LittleEndian.Uint64(b[i:])
		x, y := v^('"'*lo), v^('\\'*lo)
		if m := ((x-lo)&^x | (y-lo)&^y) & hi; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(b) && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// wholeRunes takes a character that next continues off the end of b[base:].
func wholeRunes(b []byte, base int, next byte) []byte {
	if utf8.RuneStart(next) {
		return b
	}
	for i := len(b) - 1; i >= base && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			return b[:i]
		}
	}
	return b
}

// escape reads an escape after its backslash. A negative rune is minus a raw byte.
func (s *Scanner) escape() (r rune, ok bool) {
	c, ok := s.next()
	if !ok {
		return 0, false
	}
	switch c {
	case 'n':
		return '\n', true
	case 't':
		return '\t', true
	case 'r':
		return '\r', true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'u':
		return s.unicode()
	}
	if c >= utf8.RuneSelf {
		return -rune(c), true
	}
	return rune(c), true
}

// unicode reads the four digits of a \u escape and, when they are the first half of
// a surrogate pair, the escape with the second. Halves alone become U+FFFD.
func (s *Scanner) unicode() (rune, bool) {
	r, ok := s.hex4()
	if !ok || r < 0xd800 || r > 0xdfff {
		return r, ok
	}
	if r > 0xdbff || !s.ahead(1) || s.buf[s.pos] != '\\' || !s.ahead(2) || s.buf[s.pos+1] != 'u' || !s.ahead(6) {
		return utf8.RuneError, s.err == nil
	}
	low := rune(0)
	for _, c := range s.buf[s.pos+2 : s.pos+6] {
		d := unhex(c)
		if d < 0 {
			return utf8.RuneError, true // the next escape reports it
		}
		low = low<<4 | d
	}
	if low < 0xdc00 || low > 0xdfff {
		return utf8.RuneError, true
	}
	s.pos += 6
	return (r-0xd800)<<10 | (low - 0xdc00) + 0x10000, true
}

func (s *Scanner) hex4() (r rune, ok bool) {
	for range 4 {
		c, ok := s.next()
		if !ok {
			return 0, false
		}
		d := unhex(c)
		if d < 0 {
			s.pos--
			s.bad(`want four hex digits after \u`)
			return 0, false
		}
		r = r<<4 | d
	}
	return r, true
}

func unhex(c byte) rune {
	switch {
	case c-'0' < 10:
		return rune(c - '0')
	case c|0x20-'a' < 6:
		return rune(c|0x20-'a') + 10
	}
	return -1
}

// mend replaces each byte that is no UTF-8 by U+FFFD.
func mend(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	out := make([]byte, 0, len(b)+2*utf8.UTFMax)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		out = utf8.AppendRune(out, r)
		b = b[n:]
	}
	return out
}
