package coding

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
)

type flusher interface {
	io.WriteCloser
	Flush() error
}

var encoders = map[string]func(io.Writer) flusher{
	"gzip":         func(w io.Writer) flusher { g, _ := gzip.NewWriterLevel(w, 1); return g },
	"deflate":      func(w io.Writer) flusher { z, _ := zlib.NewWriterLevel(w, 1); return z },
	"deflate, raw": func(w io.Writer) flusher { f, _ := flate.NewWriter(w, 1); return f },
	"br":           func(w io.Writer) flusher { return brotli.NewWriterLevel(w, 1) },
	"zstd": func(w io.Writer) flusher {
		z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
		return z
	},
}

func header(name string) string { h, _, _ := strings.Cut(name, ","); return h }

// pipeBody makes a stream.Reader a body.
type pipeBody struct{ *stream.Reader }

func (pipeBody) Resume() bool { return false }

// TestFlushedIsReadable pushes a flushed stream chunk by chunk: each chunk's content
// must be read before the next crosses, with its own time.
func TestFlushedIsReadable(t *testing.T) {
	for name, encode := range encoders {
		t.Run(name, func(t *testing.T) {
			var wire bytes.Buffer
			e := encode(&wire)
			var got []string
			p := stream.NewPipe(1<<20, func(r *stream.Reader) {
				b, err := Open(header(name), pipeBody{r})
				if err != nil {
					t.Error(err)
					return
				}
				for {
					w, err := b.Window()
					if err != nil {
						got = append(got, err.Error())
						return
					}
					got = append(got, fmt.Sprintf("%d %s", b.Time(), w))
					b.Discard(len(w))
				}
			})
			defer p.Stop()
			for i := range 5 {
				fmt.Fprintf(e, "chunk %d %s", i, strings.Repeat("x", i*100))
				e.Flush()
				p.Push(stream.Segment{Time: flow.Time(i + 1), Bytes: wire.Bytes()})
				wire.Reset()
				if want := fmt.Sprintf("%d chunk %d %s", i+1, i, strings.Repeat("x", i*100)); len(got) != i+1 || got[i] != want {
					t.Fatalf("after chunk %d: %q", i, got)
				}
			}
			e.Close()
			p.Push(stream.Segment{Time: 9, Bytes: wire.Bytes()})
			p.End(io.EOF, 10)
			if got[len(got)-1] != "EOF" {
				t.Errorf("ended with %q", got[len(got)-1])
			}
		})
	}
}

// sliceBody is a body of bytes that ends with err.
type sliceBody struct {
	b   []byte
	err error
}

func (s *sliceBody) Window() ([]byte, error) {
	if len(s.b) == 0 {
		return nil, s.err
	}
	return s.b, nil
}
func (s *sliceBody) Resume() bool    { return false }
func (s *sliceBody) Discard(n int)   { s.b = s.b[n:] }
func (s *sliceBody) Time() flow.Time { return 0 }
func (s *sliceBody) Read(p []byte) (int, error) {
	w, err := s.Window()
	n := copy(p, w)
	s.Discard(n)
	return n, err
}

func encode(t testing.TB, name string, content []byte) []byte {
	var wire bytes.Buffer
	e := encoders[name](&wire)
	if _, err := e.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return wire.Bytes()
}

func TestSeveralAndEmpty(t *testing.T) {
	twice := encode(t, "br", encode(t, "gzip", []byte("hello")))
	b, err := Open("gzip, br", &sliceBody{twice, io.EOF})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for name := range encoders {
		b, _ := Open(header(name), &sliceBody{nil, io.EOF})
		if got, err := io.ReadAll(b); len(got) > 0 || err != nil {
			t.Errorf("%s: empty body: %q, %v", name, got, err)
		}
	}
	if _, err := Open("sdch", &sliceBody{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown encoding: %v", err)
	}
	if _, err := Open("gzip,gzip,gzip", &sliceBody{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("too many: %v", err)
	}
}

// TestCutAndLost holds that the content ends as its source did, at every byte.
func TestCutAndLost(t *testing.T) {
	for name := range encoders {
		wire := encode(t, name, []byte(strings.Repeat("some content ", 20)))
		for n := range wire {
			for _, end := range []error{exchange.ErrCut, exchange.ErrLost} {
				b, _ := Open(header(name), &sliceBody{wire[:n], end})
				if _, err := io.ReadAll(b); !errors.Is(err, end) && err != nil {
					t.Fatalf("%s cut at %d of %d: %v", name, n, len(wire), err)
				}
			}
		}
	}
}

// TestBomb reads megabytes of nothing through a fixed amount of memory, as far as a
// Meter lets them pass.
func TestBomb(t *testing.T) {
	for name, encode := range encoders {
		var wire bytes.Buffer
		e := encode(&wire)
		zeros := make([]byte, 1<<20)
		for range 16 {
			e.Write(zeros)
		}
		e.Close()
		b, _ := Open(header(name), &sliceBody{wire.Bytes(), io.EOF})
		most := min(16<<20, int64(freeBytes+maxRatio*wire.Len()+windowSize))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := drain(b)
		runtime.ReadMemStats(&after)
		if n > most || (n == 16<<20) != (err == io.EOF) || n < 16<<20 && !errors.Is(err, ErrExpands) {
			t.Errorf("%s: %d bytes of %d, %v", name, n, wire.Len(), err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 12<<20 {
			t.Errorf("%s: %d bytes allocated", name, grown)
		}
	}
}

// drain reads a body to its end.
func drain(b exchange.Body) (n int64, err error) {
	for {
		w, err := b.Window()
		if err != nil {
			return n, err
		}
		n += int64(len(w))
		b.Discard(len(w))
	}
}

func FuzzCoding(f *testing.F) {
	names := []string{"gzip", "deflate", "deflate, raw", "br", "zstd"}
	for i, name := range names {
		f.Add(i, encode(f, name, []byte("content")))
	}
	f.Fuzz(func(t *testing.T, i int, wire []byte) {
		b, err := Open(header(names[uint(i)%uint(len(names))]), &sliceBody{wire, exchange.ErrCut})
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 1<<20; {
			w, err := b.Window()
			if err != nil {
				return
			}
			if len(w) == 0 {
				t.Fatal("an empty window")
			}
			n += len(w)
			b.Discard(len(w))
		}
	})
}
