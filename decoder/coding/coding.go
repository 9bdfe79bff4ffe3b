// Package coding undoes content encodings as the bytes pass: what the sender has
// flushed can be read before anything else crosses, and windows and output are bounded.
package coding

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
)

// ErrUnknown is wrapped by Open's error for an encoding nobody has taught it.
var ErrUnknown = errors.New("unknown content encoding")

const (
	maxCodings    = 2       // encodings on top of each other: an archive that is sent compressed
	maxZstdWindow = 8 << 20 // RFC 9659
	windowSize    = 4 << 10
)

// Open returns the decoded content of b, which fails with ErrExpands where it gets too
// long for what crossed. header is the value of Content-Encoding.
func Open(header string, b exchange.Body) (exchange.Body, error) {
	var names []string
	for name := range strings.SplitSeq(header, ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" && name != "identity" {
			names = append(names, name)
		}
	}
	if len(names) > maxCodings {
		return nil, fmt.Errorf("%w: %d on top of each other", ErrUnknown, len(names))
	}
	m := new(Meter)
	for i := len(names) - 1; i >= 0; i-- { // applied in order, so undone from the last
		open, ok := openers(names[i])
		if !ok {
			return nil, fmt.Errorf("%w: %.20q", ErrUnknown, names[i])
		}
		d := &decoded{name: names[i], source: source{Body: b}}
		d.open = func() (io.Reader, error) {
			var src io.Reader = &d.source
			if i == len(names)-1 { // what crossed
				src = m.In(src)
			}
			r, err := open(src)
			return m.Out(r), err
		}
		b = d
	}
	return b, nil
}

func openers(name string) (func(io.Reader) (io.Reader, error), bool) {
	switch name {
	case "gzip", "x-gzip":
		return func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }, true
	case "deflate":
		return openDeflate, true
	case "br":
		return func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil }, true
	case "zstd":
		return openZstd, true
	}
	return nil, false
}

// openDeflate reads zlib's format, which the standard means, or bare deflate, which
// some servers send.
func openDeflate(r io.Reader) (io.Reader, error) {
	var head [2]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	whole := io.MultiReader(strings.NewReader(string(head[:n])), r)
	if head[0]&0xf == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return zlib.NewReader(whole)
	}
	return flate.NewReader(whole), nil
}

func openZstd(r io.Reader) (io.Reader, error) {
	// One goroutine's worth of concurrency is none: output never trails its input.
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return nil, err
	}
	return d, nil
}

// decoded is a body with one encoding undone.
type decoded struct {
	name   string
	source source
	open   func() (io.Reader, error)
	r      io.Reader
	buf    []byte
	window []byte
	err    error
}

// source remembers how the encoded bytes ended: that, and not what a decompressor
// makes of it, is how the content ended.
type source struct {
	exchange.Body
	begun bool
	err   error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Body.Read(p)
	s.begun = s.begun || n > 0
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Window implements exchange.Body.
func (d *decoded) Window() ([]byte, error) {
	for len(d.window) == 0 {
		if d.err != nil {
			return nil, d.err
		}
		if d.buf == nil {
			d.buf = make([]byte, windowSize)
		}
		n, err := d.read(d.buf)
		d.window, d.err = d.buf[:n], err
	}
	return d.window, nil
}

func (d *decoded) read(p []byte) (n int, err error) {
	if d.r == nil {
		if d.r, err = d.open(); err != nil {
			d.r = nil
		}
	}
	if d.r != nil {
		n, err = d.r.Read(p)
	}
	switch {
	case err == nil, err == io.EOF && d.r != nil:
		return n, err
	case d.source.err != nil:
		return n, d.source.err
	case !d.source.begun: // an empty body is empty, encoded or not
		return n, io.EOF
	}
	return n, fmt.Errorf("decode %s: %w", d.name, err)
}

// Discard implements exchange.Body.
func (d *decoded) Discard(n int) { d.window = d.window[n:] }

// Read implements exchange.Body.
func (d *decoded) Read(p []byte) (int, error) {
	if len(d.window) == 0 && d.err == nil && len(p) > 0 {
		n, err := d.read(p)
		if d.err = err; n > 0 {
			err = nil
		}
		return n, err
	}
	w, err := d.Window()
	n := copy(p, w)
	d.Discard(n)
	return n, err
}

// Resume implements exchange.Body: what follows refers to what is lost.
func (d *decoded) Resume() bool { return false }

// Time implements exchange.Body.
func (d *decoded) Time() flow.Time { return d.source.Time() }
