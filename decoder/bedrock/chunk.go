package bedrock

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
)

// errChunk is returned for a chunk that is not {"bytes":"BASE64"}.
var errChunk = errors.New("a chunk holds no base64")

// chunk reads the bytes inside of {"bytes":"BASE64","p":"…"} as they pass.
type chunk struct {
	r      io.Reader
	err    error
	in     [1024]byte // in[i:n] is read from r and not looked at yet
	i, n   int
	inside bool
	padded bool  // the base64 has ended
	broken error // what follows out[o:m]

	quad [1024]byte // base64 not decoded yet
	q    int
	out  [768]byte // out[o:m] is decoded and not handed on yet
	o, m int
}

// open begins a chunk and reads up to its bytes; false when it has none.
func (k *chunk) open(r io.Reader) (bool, error) {
	k.r, k.err, k.i, k.n, k.inside, k.padded, k.broken, k.q, k.o, k.m = r, nil, 0, 0, false, false, nil, 0, 0, 0
	c, err := k.solid()
	if err != nil || c != '{' {
		return false, k.fail(err)
	}
	for {
		switch c, err = k.solid(); {
		case err != nil:
			return false, k.fail(err)
		case c == ',':
			continue
		case c == '}':
			return false, nil
		case c != '"':
			return false, errChunk
		}
		key, err := k.key()
		if err != nil {
			return false, k.fail(err)
		}
		if c, err = k.solid(); err != nil || c != ':' {
			return false, k.fail(err)
		}
		if c, err = k.solid(); err != nil {
			return false, k.fail(err)
		}
		if key && c == '"' {
			k.inside = true
			return true, nil
		}
		if err := k.skip(c); err != nil {
			return false, k.fail(err)
		}
	}
}

// fail is the reader's error, or errChunk where there is none.
func (k *chunk) fail(err error) error {
	if err == nil || err == io.EOF {
		return errChunk
	}
	return err
}

// next takes a byte.
func (k *chunk) next() (byte, error) {
	for k.i == k.n {
		if k.err != nil {
			return 0, k.err
		}
		k.i = 0
		k.n, k.err = k.r.Read(k.in[:])
	}
	k.i++
	return k.in[k.i-1], nil
}

// solid takes the next byte that is no blank.
func (k *chunk) solid() (byte, error) {
	for {
		c, err := k.next()
		if err != nil || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c, err
		}
	}
}

// key reads a member's name after its quote and reports whether it is "bytes".
func (k *chunk) key() (is bool, err error) {
	const name = "bytes"
	is = true
	for i := 0; ; i++ {
		c, err := k.next()
		switch {
		case err != nil:
			return false, err
		case c == '"':
			return is && i == len(name), nil
		case c == '\\':
			if _, err := k.next(); err != nil {
				return false, err
			}
			is = false
		case i >= len(name) || c != name[i]:
			is = false
		}
	}
}

// skip passes over a value that begins with c, which is a string or simple.
func (k *chunk) skip(c byte) error {
	if c != '"' {
		for c != ',' && c != '}' {
			if c == '{' || c == '[' || c == '"' {
				return errChunk
			}
			var err error
			if c, err = k.next(); err != nil {
				return err
			}
		}
		k.i--
		return nil
	}
	for {
		c, err := k.next()
		if err != nil {
			return err
		}
		switch c {
		case '"':
			return nil
		case '\\':
			if _, err := k.next(); err != nil {
				return err
			}
		}
	}
}

// Read implements io.Reader. What was decoded before an error is handed on before it,
// however it crossed.
func (k *chunk) Read(p []byte) (int, error) {
	for k.o == k.m {
		switch {
		case k.broken != nil:
			return 0, k.broken
		case !k.inside:
			return 0, io.EOF
		}
		k.broken = k.gather()
		whole := k.q &^ 3
		if k.padded && k.q > 0 { // nothing follows the padding
			whole, k.broken = 0, errChunk
		}
		if k.broken == nil && !k.inside && whole != k.q {
			k.broken = errChunk
		}
		n, err := base64.StdEncoding.Decode(k.out[:], k.quad[:whole])
		if err != nil {
			k.broken = errChunk
		}
		k.o, k.m = 0, n
		k.padded = k.padded || whole > 0 && k.quad[whole-1] == '='
		k.q = copy(k.quad[:], k.quad[whole:k.q])
	}
	n := copy(p, k.out[k.o:k.m])
	k.o += n
	return n, nil
}

// gather takes what has crossed of the base64, at least four bytes of it, or to its end.
func (k *chunk) gather() error {
	for k.inside && k.q < len(k.quad) && (k.i < k.n || k.q < 4) {
		if k.i == k.n {
			if _, err := k.next(); err != nil {
				return k.fail(err)
			}
			k.i--
		}
		w := k.in[k.i:k.n]
		w = w[:min(len(w), len(k.quad)-k.q)]
		end := bytes.IndexAny(w, "\"\\\r\n")
		if end < 0 {
			end = len(w)
		}
		k.q += copy(k.quad[k.q:], w[:end])
		if k.i += end; end == len(w) {
			continue
		}
		switch c, _ := k.next(); c {
		case '"':
			k.inside = false
			return nil
		case '\\': // some encoders escape the slash
		default: // a line's end, which a string doesn't hold and base64 would skip
			return errChunk
		}
		c, err := k.next()
		if err != nil {
			return k.fail(err)
		}
		if c != '/' {
			return errChunk
		}
		k.quad[k.q] = c
		k.q++
	}
	return nil
}
