// Package jsonstream splits a body into the JSON values it is made of, as they pass:
// one after the other (NDJSON, whatever stands between the values), or the elements
// of one array. A value ends with its last byte; nothing after it is waited for.
package jsonstream

import (
	"bytes"
	"errors"
	"io"

	"github.com/tollwire/tollwire/decoder/exchange"
)

// ErrSyntax is returned where no value can begin or end.
var ErrSyntax = errors.New("not a stream of JSON values")

// Reader reads the values of a body.
type Reader struct {
	b       exchange.Body
	begun   bool
	inArray bool // the values are the elements of an array
	closed  bool // which has ended
	in      bool // in a value
	value   Value
}

// NewReader returns a reader of b's values.
func NewReader(b exchange.Body) *Reader { return &Reader{b: b} }

// Next skips what is left of the value before, and returns when the next one begins;
// the Reader itself then reads it.
func (r *Reader) Next() error {
	for r.in {
		w, err := r.b.Window()
		if err != nil {
			return cut(err)
		}
		n, end, err := r.value.Scan(w)
		r.b.Discard(n)
		if r.in = !end; err != nil {
			return err
		}
	}
	for {
		w, err := r.b.Window()
		if err != nil {
			return err
		}
		switch c := w[0]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0x1e:
		case c == ',' && r.inArray && !r.closed:
		case c == ']' && r.inArray && !r.closed:
			r.closed = true
		case c == '[' && !r.begun:
			r.begun, r.inArray = true, true
		case r.closed || c == ',' || c == ']' || c == '}':
			return ErrSyntax
		default:
			r.begun, r.in, r.value = true, true, Value{}
			return nil
		}
		r.b.Discard(1)
	}
}

// Read reads the value; io.EOF is its end.
func (r *Reader) Read(p []byte) (int, error) {
	if !r.in {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	w, err := r.b.Window()
	if err != nil {
		return 0, cut(err)
	}
	n, end, err := r.value.Scan(w[:min(len(w), len(p))])
	copy(p, w[:n])
	r.b.Discard(n)
	if r.in = !end; n == 0 && end && err == nil {
		err = io.EOF
	}
	return n, err
}

// cut is the end of the body in the middle of a value.
func cut(err error) error {
	if err == io.EOF {
		return exchange.ErrCut
	}
	return err
}

// Value follows one JSON value to its end. The zero value is before its first byte.
type Value struct {
	depth  int
	begun  bool
	quoted bool // in a string
	escape bool // after a backslash in it
	scalar bool // a number or a word, which ends before what follows it
}

const maxDepth = 1 << 20

// Scan takes the bytes of b that belong to the value, and says whether it has ended.
func (v *Value) Scan(b []byte) (n int, end bool, err error) {
	for n < len(b) {
		if v.quoted {
			n += v.inString(b[n:])
			if !v.quoted && v.depth == 0 {
				return n, true, nil
			}
			continue
		}
		c := b[n]
		if v.scalar {
			switch c {
			case ' ', '\t', '\r', '\n', ',', ']', '}', '{', '[', '"':
				return n, true, nil
			}
			n++
			continue
		}
		switch c {
		case '"':
			v.quoted = true
		case '{', '[':
			if v.depth++; v.depth > maxDepth {
				return n, true, ErrSyntax
			}
		case '}', ']':
			if v.depth--; v.depth <= 0 {
				return n + 1, true, nil
			}
		default:
			v.scalar = !v.begun
		}
		v.begun = true
		n++
	}
	return n, false, nil
}

// inString goes to the end of the string, or of b.
func (v *Value) inString(b []byte) (n int) {
	if v.escape {
		v.escape = false
		n = 1
	}
	for n < len(b) {
		i := bytes.IndexByte(b[n:], '"')
		stop := len(b)
		if i >= 0 {
			stop = n + i
		}
		if j := bytes.IndexByte(b[n:stop], '\\'); j >= 0 {
			if n += j + 2; n > len(b) {
				v.escape = true
				return len(b)
			}
			continue
		}
		if i < 0 {
			return len(b)
		}
		v.quoted = false
		return stop + 1
	}
	return n
}
