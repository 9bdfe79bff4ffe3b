package jsonscan

import "io"

func blank(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// blanks moves to the next byte that is none, false when there isn't any.
func (s *Scanner) blanks() bool {
	return s.pos < len(s.buf) && solid[s.buf[s.pos]] || s.passBlanks()
}

// solid are the bytes that are neither blank nor the first of a byte order mark.
var solid = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' ' && c != 0xef
	}
	return t
}()

func (s *Scanner) passBlanks() bool {
	for {
		for ; s.pos < len(s.buf); s.pos++ {
			if !blank(s.buf[s.pos]) {
				if s.buf[s.pos] == 0xef && s.Offset() == 0 && s.bom() {
					continue
				}
				return true
			}
		}
		if !s.fill() {
			return false
		}
	}
}

// bom passes over all but the last byte of a byte order mark.
func (s *Scanner) bom() bool {
	if s.ahead(3) && s.buf[s.pos+1] == 0xbb && s.buf[s.pos+2] == 0xbf {
		s.pos += 2
		return true
	}
	return false
}

// next takes one byte of a value.
func (s *Scanner) next() (byte, bool) {
	if s.pos == len(s.buf) && !s.fill() {
		s.cut()
		return 0, false
	}
	c := s.buf[s.pos]
	s.pos++
	return c, true
}

// ahead sees to it that n bytes stand unread in the window; n is at most 64.
func (s *Scanner) ahead(n int) bool {
	for len(s.buf)-s.pos < n {
		if s.end != nil {
			return false
		}
		left := copy(s.own, s.buf[s.pos:])
		s.off += int64(s.pos)
		s.pos = 0
		s.buf = s.own[:left]
		s.read(left)
	}
	return true
}

// fill reads more into the window once all of it was read, false when there is none.
func (s *Scanner) fill() bool {
	if s.end != nil || s.r == nil {
		if s.end == nil {
			s.end = io.EOF
		}
		return false
	}
	s.off += int64(len(s.buf))
	s.pos, s.buf = 0, s.own[:0]
	return s.read(0)
}

// read reads into the window behind its first n bytes.
func (s *Scanner) read(n int) bool {
	for range 100 {
		m, err := s.r.Read(s.own[n:])
		s.buf = s.own[:n+m]
		if err != nil {
			s.end = err
		}
		if m > 0 || err != nil {
			return m > 0
		}
	}
	s.end = io.ErrNoProgress
	return false
}

// cut stops the Scanner because the input ended where a value should go on.
func (s *Scanner) cut() {
	if s.err == nil {
		if s.err = s.end; s.err == io.EOF || s.err == nil {
			s.err = io.ErrUnexpectedEOF
		}
	}
}

func (s *Scanner) bad(what string) {
	if s.err == nil {
		s.err = &SyntaxError{Offset: s.Offset(), What: what}
	}
}
