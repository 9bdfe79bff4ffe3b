package decoder

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// TestShapes: each framing of a stream, whole and byte by byte, chunked and not.
func TestShapes(t *testing.T) {
	noLeak(t)
	const a, b, c = `{"text":"a"}`, `{"text":"b"}`, `{"usage":3}`
	for _, s := range []struct {
		name, ask, contentType, body string
		events                       int
	}{
		{"sse", askStream, "text/event-stream; charset=utf-8", "data: " + a + "\n\ndata: " + b + "\n\ndata: " + c + "\n\n", 3},
		{"sse mislabelled", askStream, "application/json", "data: " + a + "\n\ndata: " + b + "\n\ndata: " + c + "\n\n", 3},
		{"ndjson", askUnary, "application/x-ndjson", a + "\n" + b + "\n" + c + "\n", 3},
		{"ndjson mislabelled", askStream, "application/json", a + "\n" + b + "\n" + c, 3},
		{"array", askStream, "application/json", "[" + a + "\r\n,\r\n" + b + ",\n" + c + "]\r\n", 3},
		{"one object though a stream was asked for", askStream, "application/json", `{"text":"ab","usage":3}`, 0},
		{"one object", askUnary, "application/json", `{"text":"ab","usage":3}` + "\n", 0},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			for _, framed := range []string{
				"HTTP/1.1 200 OK\r\nContent-Type: " + s.contentType + "\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(s.body) + lastChunk,
				fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", s.contentType, len(s.body), s.body),
			} {
				r := newRig(t)
				for _, m := range split([]message{{flow.Write, post("/echo", s.ask)}, {flow.Read, framed}}, nil, size) {
					r.push(m.dir, m.bytes)
				}
				k := r.one()
				if k.ResponseModel != "ab" || k.Usage.Get(llm.Output) != 3 || k.Completeness != llm.Exact || k.Times.AnyChunk != s.events {
					t.Errorf("%s, split %d: %q %v %v, %d events", s.name, size, k.ResponseModel, k.Usage.Get(llm.Output), k.Completeness, k.Times.AnyChunk)
				}
			}
		}
	}
}

// TestFirstEventOfMislabelledStream is timed when it came, not when the second did.
func TestFirstEventOfMislabelledStream(t *testing.T) {
	r := newRig(t)
	r.push(flow.Write, post("/echo", askStream))
	r.push(flow.Read, strings.Replace(streamHead, "text/event-stream", "application/json", 1))
	r.push(flow.Read, chunk(`{"text":"a"}`+"\n"))
	r.push(flow.Read, chunk(`{"text":"b"}`+"\n")+lastChunk)
	c := r.one()
	if c.Times.FirstContent != 1000+flow.Time(3*time.Millisecond) || c.Times.Gaps.Max() != time.Millisecond || c.Times.Shared != 0 {
		t.Errorf("%+v", c.Times)
	}
}
