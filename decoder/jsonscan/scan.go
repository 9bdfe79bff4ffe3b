// Package jsonscan reads JSON as it passes. A Scanner pulls bytes from an io.Reader
// through one small window and gathers nothing but the short strings that its caller
// asks for, so a body of any length, with strings of any length, costs the same
// memory: encoding/json and jsontext hold a whole string token, which in a model's
// body is the whole prompt.
//
//	var id string
//	var total int64
//	s := jsonscan.New(r)
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
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"strconv"
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

// New returns a Scanner that reads from r.
func New(r io.Reader) *Scanner {
	s := new(Scanner)
	s.Reset(r)
	return s
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
		if !s.blanks() {
			s.cut()
			return
		}
		switch c := s.buf[s.pos]; {
		case c == '}':
			s.pos++
			s.deep--
			return
		case c == ',' && !first:
			s.pos++
			if !s.blanks() {
				s.cut()
				return
			}
		case !first:
			s.bad("want , or } after a member")
			return
		}
		if s.buf[s.pos] != '"' {
			s.bad("want a key")
			return
		}
		s.pos++
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

func blank(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// The characters that end a number or a literal.
var delimits = [256]bool{
	',': true, '}': true, ']': true, ' ': true, '\n': true, '\r': true, '\t': true, ':': true, '"': true, '{': true, '[': true,
}

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
