// Package sse reads Server-Sent Events as they pass, in all the dialects seen: LF,
// CRLF and CR, comments, no space after the colon, data on several lines, a byte
// order mark, a last event without its empty line. An event's data is never gathered.
// The format is https://html.spec.whatwg.org/multipage/server-sent-events.html.
package sse

import (
	"bytes"
	"io"

	"github.com/tollwire/tollwire/decoder/exchange"
)

// maxName bounds an event's name; longer ones are cut.
const maxName = 128

// Reader reads the events of a body.
type Reader struct {
	b     exchange.Body
	name  []byte
	state state
	lf    bool // a CR was the last byte: an LF that follows belongs to it
	space bool // a colon was the last byte: a space that follows belongs to it
	begun bool
	torn  bool // after a hole
	lent  int  // bytes of the window that Whole has lent
}

type state uint8

const (
	between state = iota // no data of the next event has been seen
	inData               // inside of a data line
	atLine               // after a data line
)

// NewReader returns a reader of b's events.
func NewReader(b exchange.Body) *Reader { return &Reader{b: b} }

// Next skips what is left of the event before, and returns the next one's name as
// soon as its data begins; the Reader itself then reads the data. The name is valid
// until the next call.
func (r *Reader) Next() (name []byte, err error) {
	for r.state != between {
		if err := r.skip(); err != nil {
			return nil, err
		}
	}
	r.name = r.name[:0]
	if r.torn {
		if err := r.mend(); err != nil {
			return nil, err
		}
	}
	for {
		f, err := r.field()
		if err != nil {
			return nil, err
		}
		switch f {
		case fieldData:
			r.state = inData
			return r.name, nil
		case fieldBare:
			r.state = atLine
			return r.name, nil
		case fieldNone: // an empty line: an event without data is none
			r.name = r.name[:0]
		}
	}
}

// Resume goes on after a hole, as far as the body can: with the event after the next
// empty line, because where in a line the hole ends nobody knows.
func (r *Reader) Resume() bool {
	if !r.b.Resume() {
		return false
	}
	r.state = between
	r.lf, r.space, r.torn = false, false, true
	return true
}

// Read reads the data of the event, its lines joined by LF, and returns io.EOF when
// the event is whole: when its empty line has crossed, or the body has ended in order.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch r.state {
		case between:
			return 0, io.EOF
		case atLine:
			more, err := r.line()
			if err != nil {
				return 0, err
			}
			if more {
				p[0] = '\n'
				return 1, nil
			}
		case inData:
			w, err := r.window()
			if err != nil {
				return 0, r.ended(err)
			}
			w = w[:min(len(w), len(p))]
			end := lineEnd(w)
			n := copy(p, w[:end])
			r.b.Discard(n)
			if end < len(w) {
				r.eol(w[end])
				r.state = atLine
			}
			if n > 0 {
				return n, nil
			}
		}
	}
}

// Whole lends the data of the event when all of it has crossed: one line, and the empty
// line that ends it. It implements jsonscan.Whole.
func (r *Reader) Whole() ([]byte, bool) {
	if r.state != inData {
		return nil, false
	}
	w, err := r.window()
	if err != nil {
		return nil, false // Read says it again
	}
	end := bytes.IndexByte(w, '\n')
	if end < 0 {
		return nil, false
	}
	data, rest := w[:end], w[end+1:]
	if n := len(data); n > 0 && data[n-1] == '\r' {
		if data = data[:n-1]; len(rest) > 0 && rest[0] == '\r' {
			rest = rest[1:]
		}
	}
	if len(rest) == 0 || rest[0] != '\n' || bytes.IndexByte(data, '\r') >= 0 {
		return nil, false
	}
	r.lent = len(w) - len(rest) + 1
	r.state = between
	return data, true
}

// mend skips the lines of which a part is lost, to the next empty one.
func (r *Reader) mend() error {
	if err := r.rest(nil); err != nil {
		return err
	}
	for {
		f, err := r.field()
		if err != nil {
			return err
		}
		switch f {
		case fieldNone:
			r.torn, r.name = false, r.name[:0]
			return nil
		case fieldData:
			if err := r.rest(nil); err != nil {
				return err
			}
		}
	}
}

// skip drops a piece of the event's data.
func (r *Reader) skip() error {
	if r.state == atLine {
		_, err := r.line()
		return eventEnd(err)
	}
	if err := r.rest(nil); err != nil {
		return eventEnd(r.ended(err))
	}
	r.state = atLine
	return nil
}

// eventEnd hides the end of an event: the body's own comes with the next field.
func eventEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// line reads lines after a data line, until more data begins or the event ends.
func (r *Reader) line() (more bool, err error) {
	for {
		f, err := r.field()
		if err != nil {
			return false, r.ended(err)
		}
		switch f {
		case fieldData:
			r.state = inData
			return true, nil
		case fieldBare:
			return true, nil
		case fieldNone:
			r.state = between
			return false, nil
		}
	}
}

// ended ends the event with the body.
func (r *Reader) ended(err error) error {
	r.state = between
	return err
}

type field uint8

const (
	fieldNone  field = iota // an empty line
	fieldData               // its value follows
	fieldBare               // data without a colon: its value is empty and its line over
	fieldOther              // read, a comment too
)

// field reads the beginning of a line: all of it unless it is data.
func (r *Reader) field() (field, error) {
	var name [6]byte
	n := 0
	for {
		w, err := r.window()
		if err != nil {
			return 0, err
		}
		if n == 0 && !r.begun {
			r.begun = true
			if w[0] == 0xef { // a byte order mark, whose other two bytes may be yet to come
				if err := r.mark(); err != nil {
					return 0, err
				}
				continue
			}
		}
		if n == 0 && len(w) >= 6 { // the usual cases
			switch {
			case string(w[:5]) == "data:":
				r.b.Discard(5)
				r.space = true
				return fieldData, nil
			case string(w[:6]) == "event:":
				r.b.Discard(6)
				r.space = true
				r.name = r.name[:0]
				return fieldOther, r.rest(&r.name)
			}
		}
		switch c := w[0]; {
		case c == '\n' || c == '\r':
			r.eol(c)
			switch string(name[:n]) {
			case "":
				return fieldNone, nil
			case "data":
				return fieldBare, nil
			}
			return fieldOther, nil
		case c == ':':
			r.b.Discard(1)
			r.space = true
			switch string(name[:n]) {
			case "data":
				return fieldData, nil
			case "event":
				r.name = r.name[:0]
				return fieldOther, r.rest(&r.name)
			}
			return fieldOther, r.rest(nil)
		case n == len(name):
			return fieldOther, r.rest(nil)
		default:
			name[n] = c
			n++
			r.b.Discard(1)
		}
	}
}

// mark reads a byte order mark.
func (r *Reader) mark() error {
	for range 3 {
		w, err := r.window()
		if err != nil {
			return err
		}
		if w[0] < 0x80 {
			break
		}
		r.b.Discard(1)
	}
	return nil
}

// rest reads to the end of the line, keeping the beginning of it when keep is set.
func (r *Reader) rest(keep *[]byte) error {
	for {
		w, err := r.window()
		if err != nil {
			return err
		}
		end := lineEnd(w)
		if keep != nil {
			*keep = append(*keep, w[:min(end, maxName-len(*keep))]...)
		}
		r.b.Discard(end)
		if end < len(w) {
			r.eol(w[end])
			return nil
		}
	}
}

// window lends bytes of the body that belong to no line's end and no colon before.
func (r *Reader) window() ([]byte, error) {
	if r.lent > 0 {
		r.b.Discard(r.lent)
		r.lent = 0
	}
	for {
		w, err := r.b.Window()
		if err != nil {
			return nil, err
		}
		skip := r.lf && w[0] == '\n' || r.space && w[0] == ' '
		r.lf, r.space = false, false
		if !skip {
			return w, nil
		}
		r.b.Discard(1)
		if len(w) > 1 {
			return w[1:], nil
		}
	}
}

// eol takes a line's end c. After a CR nothing is waited for.
func (r *Reader) eol(c byte) {
	r.b.Discard(1)
	r.lf = c == '\r'
}

// lineEnd is the index of the first line end in w, or len(w).
func lineEnd(w []byte) int {
	if i := bytes.IndexByte(w, '\n'); i >= 0 {
		w = w[:i]
	}
	if i := bytes.IndexByte(w, '\r'); i >= 0 {
		return i
	}
	return len(w)
}
