// Package jsonscan reads JSON as it passes. A Scanner pulls bytes from an io.Reader
// through one small window and gathers nothing but the short strings that its caller
// asks for, so a body of any length, with strings of any length, costs the same
// memory: encoding/json and jsontext hold a whole string token, which in a model's
// body is the whole prompt.
//
//	var id string
//	var total int64
//	s := pool.Get(r)
//	for key := range s.Object {
//		switch string(key) {
//		case "id":
//			s.Into(&id)
//		case "usage":
//			for key := range s.Object {
//				if string(key) == "total_tokens" {
//					total, _ = s.Int()
//				}
//			}
//		}
//	}
//	err := s.Err()
//	pool.Put(s)
//
// Each value is taken by one call, or by none: what the loop's body leaves is
// skipped. A null, or a value of another kind than the one asked for, is skipped
// and reported as absent (false), because the same field is an object at one
// provider and a string at the next. Kind tells beforehand.
//
// The first error stops the Scanner: every later call does nothing and reports
// nothing, loops end, Err tells. A value is reported only once its end was seen, so
// a body that is cut in the middle of a number never yields the wrong number.
//
// What is read past without being asked for is not validated beyond its brackets
// and strings. NaN and the infinities, which Python writes, are read as null, raw
// control characters in strings as they stand, unknown escapes as the character.
package jsonscan

import (
	"fmt"
	"io"
	"unicode/utf8"
)

const (
	// Window is the size in bytes of the buffer between a Scanner and its reader.
	Window = 4 << 10
	// MaxDepth is how deeply objects and arrays may be nested where they are entered.
	MaxDepth = 1000
	// MaxText is the longest string in bytes that Into keeps, and the longest key.
	MaxText = 256
	// maxNumber is the longest number in bytes that is taken.
	maxNumber = 64
)

// Kind is the kind of a value.
type Kind uint8

const (
	None Kind = iota // no value: the end of the input, or an error
	Null
	Bool
	Number
	String
	Array
	Object
)

// SyntaxError says where the input stops being JSON.
type SyntaxError struct {
	Offset int64 // bytes before the offending one
	What   string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("json at byte %d: %s", e.Offset, e.What)
}

// Scanner reads one JSON value, or several one after the other. The zero value is an
// empty input; Reset or ResetBytes gives it another. It is not safe for concurrent use.
type Scanner struct {
	r    io.Reader
	buf  []byte // the window: buf[pos:] is unread
	pos  int
	off  int64 // bytes of the input before buf
	end  error // why r has no more; nil while it may have
	err  error // sticky
	deep int   // open objects and arrays

	own []byte // the window's memory, kept over resets
	key []byte // a key that didn't stand whole in the window
	num [maxNumber]byte
	esc [utf8.UTFMax]byte
}

// Whole is a reader that may have all that is left of its input at hand. It then
// lends it, and has nothing left.
type Whole interface {
	io.Reader
	// Whole is valid until the reader's next method is called.
	Whole() (b []byte, ok bool)
}

// Reset starts over with r, keeping the window's memory. What a Whole lends is read in
// place.
func (s *Scanner) Reset(r io.Reader) {
	if w, ok := r.(Whole); ok {
		if b, ok := w.Whole(); ok {
			s.ResetBytes(b)
			return
		}
	}
	if s.own == nil {
		s.own = make([]byte, Window)
	}
	s.r, s.buf, s.pos, s.off, s.end, s.err, s.deep = r, s.own[:0], 0, 0, nil, nil, 0
}

// ResetBytes starts over with b, which is read in place and not kept.
func (s *Scanner) ResetBytes(b []byte) {
	s.r, s.buf, s.pos, s.off, s.end, s.err, s.deep = nil, b, 0, 0, io.EOF, nil, 0
}

// Err is what stopped the Scanner: nil, a *SyntaxError, io.ErrUnexpectedEOF when the
// reader ended inside a value, or the reader's own error, unchanged.
func (s *Scanner) Err() error { return s.err }

// Fail stops the Scanner with err, unless it has stopped already.
func (s *Scanner) Fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Offset is how many bytes of the input were read.
func (s *Scanner) Offset() int64 { return s.off + int64(s.pos) }

// Kind tells what comes next without taking it; blanks before it are passed over.
// None at the end of the input is no error: see End.
func (s *Scanner) Kind() Kind {
	if s.err != nil || !s.blanks() {
		if s.err == nil && s.end != io.EOF {
			s.err = s.end
		}
		return None
	}
	k := kinds[s.buf[s.pos]]
	if k == None {
		s.bad("no value begins like this")
	}
	return k
}

// kinds are the kinds of values by their first byte.
var kinds = [256]Kind{
	'{': Object, '[': Array, '"': String, 't': Bool, 'f': Bool, 'n': Null, 'N': Null, 'I': Null, '-': Number,
	'0': Number, '1': Number, '2': Number, '3': Number, '4': Number, '5': Number, '6': Number, '7': Number, '8': Number, '9': Number,
}

// Peek returns up to n (at most 64) of the bytes that come next after blanks, fewer
// only when the input has no more. Nothing is taken.
func (s *Scanner) Peek(n int) []byte {
	if s.err != nil || !s.blanks() {
		return nil
	}
	s.ahead(min(n, 64))
	return s.buf[s.pos:min(len(s.buf), s.pos+n)]
}

// End reports whether nothing but blanks is left: nil then, a *SyntaxError when
// something is, or what stopped the Scanner.
func (s *Scanner) End() error {
	if s.err == nil {
		if s.blanks() {
			s.bad("data after the value")
		} else if s.end != io.EOF {
			s.err = s.end
		}
	}
	return s.err
}

// Object goes over the members of the object that comes next. The key, its escapes
// undone and cut at MaxText, is valid until the Scanner is used: compare it first.
// Leaving the loop early skips the rest of the object.
func (s *Scanner) Object(yield func(key []byte) bool) {
	if !s.enter(Object) {
		return
	}
	more := true
	for first := true; ; first = false {
		if b := s.buf[s.pos:]; len(b) > 1 && b[0] == ',' && b[1] == '"' && !first { // the usual case
			s.pos += 2
		} else if !s.nextKey(first) {
			return
		}
		key, ok := s.member()
		if !ok {
			return
		}
		start := s.off + int64(s.pos)
		more = more && yield(key)
		if s.err == nil && s.off+int64(s.pos) == start {
			s.skip(kinds[s.buf[s.pos]])
		}
		if s.err != nil {
			return
		}
	}
}

// nextKey passes over what stands before a key, its quote included, or the end of the
// object, for which it reports false.
func (s *Scanner) nextKey(first bool) bool {
	if !s.blanks() {
		s.cut()
		return false
	}
	switch c := s.buf[s.pos]; {
	case c == '}':
		s.pos++
		s.deep--
		return false
	case c == ',' && !first:
		s.pos++
		if !s.blanks() {
			s.cut()
			return false
		}
	case !first:
		s.bad("want , or } after a member")
		return false
	}
	if s.buf[s.pos] != '"' {
		s.bad("want a key")
		return false
	}
	s.pos++
	return true
}

// Array goes over the elements of the array that comes next. Leaving the loop early
// skips the rest of it.
func (s *Scanner) Array(yield func(i int) bool) {
	if !s.enter(Array) {
		return
	}
	more := true
	for i := 0; ; i++ {
		if !s.blanks() {
			s.cut()
			return
		}
		switch c := s.buf[s.pos]; {
		case c == ']':
			s.pos++
			s.deep--
			return
		case c == ',' && i > 0:
			s.pos++
			if !s.blanks() {
				s.cut()
				return
			}
		case i > 0:
			s.bad("want , or ] after an element")
			return
		}
		start := s.Offset()
		more = more && yield(i)
		if s.err == nil && s.Offset() == start {
			s.Skip()
		}
		if s.err != nil {
			return
		}
	}
}

// enter takes the opening bracket of a k, or skips what comes instead.
func (s *Scanner) enter(k Kind) bool {
	if s.Kind() != k {
		s.Skip()
		return false
	}
	if s.deep == MaxDepth {
		s.bad("nested too deeply")
		return false
	}
	s.deep++
	s.pos++
	return true
}

// member reads a key after its quote, the colon, and up to the value's first byte.
func (s *Scanner) member() (key []byte, ok bool) {
	b := s.buf[s.pos:]
	if q := special(b); q <= MaxText && q < len(b) && b[q] == '"' {
		p := q + 1
		for p < len(b) && blank(b[p]) {
			p++
		}
		if p < len(b) && b[p] == ':' {
			for p++; p < len(b) && blank(b[p]); p++ {
			}
			if p < len(b) {
				s.pos += p
				return b[:q], true
			}
		}
	}
	s.key = s.key[:0]
	if _, ok = s.text(&s.key, MaxText, nil); !ok {
		return nil, false
	}
	if !s.blanks() {
		s.cut()
		return nil, false
	}
	if s.buf[s.pos] != ':' {
		s.bad("want : after a key")
		return nil, false
	}
	s.pos++
	if !s.blanks() {
		s.cut()
		return nil, false
	}
	return s.key, true
}
