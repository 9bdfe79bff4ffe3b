package sim

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// framing is how events stand in a body.
type framing uint8

const (
	sse framing = iota
	ndjson
	jsonArray
	eventStream
	sseTight     // as DashScope writes it
	ndjsonCohere // with a content type of its own
)

func (f framing) contentType() string {
	return [...]string{
		"text/event-stream; charset=utf-8", "application/x-ndjson",
		"application/json; charset=UTF-8", "application/vnd.amazon.eventstream",
		"text/event-stream;charset=UTF-8", "application/stream+json",
	}[f]
}

// output writes the events of a stream.
type output struct {
	c       *call
	kind    framing
	enc     encoder // nil for identity
	coded   bytes.Buffer
	pending bytes.Buffer // events that wait for Coalesce
	events  int          // how many
	content int          // content events among them
	first   bool         // no event was written yet
}

func newOutput(c *call, kind framing, coding string) *output {
	o := &output{c: c, kind: kind, first: true}
	if coding != "identity" {
		o.enc = newEncoder(coding, &o.coded)
	}
	return o
}

// event frames e and writes it, or lets it wait for others.
func (o *output) event(e event) error {
	b := &o.pending
	switch o.kind {
	case sse:
		o.sse(b, e)
	case ndjson, ndjsonCohere:
		b.Write(e.data)
		b.WriteByte('\n')
	case jsonArray:
		if o.first {
			b.WriteByte('[')
		} else {
			b.WriteString(",\r\n")
		}
		b.Write(e.data)
	case eventStream:
		b.Write(awsFrame(e))
	case sseTight:
		fmt.Fprintf(b, "id:1\nevent:%s\n:HTTP_STATUS/200\ndata:%s\n\n", e.name, e.data)
	}
	o.first = false
	o.events++
	if e.content {
		o.content++
	}
	if o.events < o.c.plan.Coalesce {
		return nil
	}
	return o.release()
}

func (o *output) sse(b *bytes.Buffer, e event) {
	nl := "\n"
	if o.c.plan.CRLF {
		nl = "\r\n"
	}
	if e.comment {
		b.WriteString(": ")
		b.Write(e.data)
		b.WriteString(nl + nl)
		return
	}
	if e.name != "" {
		b.WriteString("event: " + e.name + nl)
	}
	b.WriteString("data: ")
	b.Write(e.data)
	b.WriteString(nl + nl)
}

// release writes the events that wait.
func (o *output) release() error {
	if o.events == 0 {
		return nil
	}
	p := o.pending.Bytes()
	content := o.content
	o.events, o.content = 0, 0
	defer o.pending.Reset()
	if o.c.plan.Split > 0 && len(p) > 1 {
		if err := o.put(p[:len(p)/2], 0); err != nil {
			return err
		}
		o.c.wait(o.c.plan.Split)
		p = p[len(p)/2:]
	}
	return o.put(p, content)
}

// put writes p through the content coding, at once.
func (o *output) put(p []byte, content int) error {
	at := Now()
	coded := p
	if o.enc != nil {
		o.coded.Reset()
		o.enc.Write(p)
		if err := o.enc.Flush(); err != nil {
			return err
		}
		coded = o.coded.Bytes()
		at = Now()
	}
	o.c.entry.write(Write{At: at, Bytes: len(p), Content: content})
	return o.raw(coded)
}

func (o *output) raw(p []byte) error {
	n, err := o.c.w.Write(p)
	o.c.entry.ResponseBytes += int64(n)
	if err != nil {
		return err
	}
	return o.flush()
}

func (o *output) flush() error { return http.NewResponseController(o.c.w).Flush() }

// end writes what waits and what the framing and the coding end with.
func (o *output) end() error {
	if o.kind == jsonArray {
		if o.first {
			o.pending.WriteByte('[')
		}
		o.pending.WriteByte(']')
		o.events++
	}
	if err := o.release(); err != nil {
		return err
	}
	if o.enc == nil {
		return nil
	}
	o.coded.Reset()
	if err := o.enc.Close(); err != nil {
		return err
	}
	return o.raw(o.coded.Bytes())
}

// encoder is a content coding.
type encoder interface {
	io.WriteCloser
	Flush() error
}

func newEncoder(coding string, w io.Writer) encoder {
	switch coding {
	case "gzip":
		return gzip.NewWriter(w)
	case "deflate":
		return zlib.NewWriter(w) // RFC 9110: "deflate" is the zlib format
	case "br":
		return brotli.NewWriterLevel(w, 4)
	default:
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // only for options out of range
		}
		return z
	}
}
