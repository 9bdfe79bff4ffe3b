package coding

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/tollwire/tollwire/decoder/exchange"
)

// slowly lends a body one byte at a time.
type slowly struct{ *sliceBody }

func (s slowly) Window() ([]byte, error) {
	w, err := s.sliceBody.Window()
	return w[:min(len(w), 1)], err
}

func (s slowly) Read(p []byte) (int, error) { return s.sliceBody.Read(p[:min(len(p), 1)]) }

// TestExpands: codings on top of each other make neither more than a Meter allows, nor
// more work in between, and fail the same way however their bytes cross.
func TestExpands(t *testing.T) {
	zeros := make([]byte, 8<<20)
	// A program of frames that say nothing: the work is between the codings.
	idle := encode(t, "br", bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 1<<20))
	for name, wire := range map[string][]byte{
		"gzip, gzip": encode(t, "gzip", encode(t, "gzip", zeros)),
		"zstd, br":   idle,
		"gzip, zstd": encode(t, "zstd", encode(t, "gzip", zeros)),
		"zstd":       encode(t, "zstd", zeros),
		"br":         encode(t, "br", zeros),
	} {
		for how, body := range map[string]exchange.Body{
			"whole":        &sliceBody{wire, io.EOF},
			"byte by byte": slowly{&sliceBody{wire, io.EOF}},
		} {
			b, err := Open(name, body)
			if err != nil {
				t.Fatal(err)
			}
			n, err := drain(b)
			if most := int64(freeBytes + maxRatio*len(wire) + windowSize); !errors.Is(err, ErrExpands) || n > most {
				t.Errorf("%s, %s: %d bytes of %d, %v", name, how, n, len(wire), err)
			}
			if again, err := drain(b); again != 0 || !errors.Is(err, ErrExpands) {
				t.Errorf("%s, %s: then %d bytes, %v", name, how, again, err)
			}
		}
	}
}

// TestRepetitive: what a program may well send passes, however much it shrinks.
func TestRepetitive(t *testing.T) {
	var content []byte
	for i := range 20_000 {
		content = fmt.Appendf(content, `{"role":"tool","tool_call_id":"call_%d","content":"{\"status\":429,\"retry_after\":30}"},`, i)
	}
	for name := range encoders {
		wire := encode(t, name, content)
		b, _ := Open(header(name), &sliceBody{wire, io.EOF})
		if n, err := drain(b); n != int64(len(content)) || err != io.EOF {
			t.Errorf("%s: %d bytes of %d that crossed as %d, %v", name, n, len(content), len(wire), err)
		}
	}
}
