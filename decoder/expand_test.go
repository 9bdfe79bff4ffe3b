package decoder

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// gzipped compresses a string so many times.
func gzipped(t testing.TB, s string, times int) string {
	for range times {
		var out bytes.Buffer
		z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
		io.WriteString(z, s)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		s = out.String()
	}
	return s
}

// TestExpandingContent: a small body that decodes to very much is not read to its end.
// The record says so, and what follows on the connection is read as ever.
func TestExpandingContent(t *testing.T) {
	noLeak(t)
	spaces := strings.Repeat(" ", 16<<20)
	twice := "Content-Encoding: gzip, gzip"
	streaming := []string{twice, "Content-Type: text/event-stream"}
	for name, c := range map[string]struct {
		ask, answer string
		want        llm.Completeness
	}{
		"request":   {post("/echo", gzipped(t, `{"model":"echo","prompt":"`+spaces+`"}`, 2), twice), reply(`{"usage":5}`), llm.Exact},
		"response":  {post("/echo", askUnary), reply(gzipped(t, `{"usage":5,"text":"`+spaces+`"}`, 2), twice), llm.Missing},
		"stream":    {post("/echo", askStream), strings.Replace(reply(gzipped(t, "data: {\"usage\":5}\n\ndata: "+spaces+"{}\n\n", 2), streaming...), "Content-Type: application/json\r\n", "", 1), llm.Estimated},
		"after all": {post("/echo", askStream), strings.Replace(reply(gzipped(t, "data: {\"usage\":5}\n\ndata: [DONE]\n\n"+spaces, 2), streaming...), "Content-Type: application/json\r\n", "", 1), llm.Exact},
	} {
		for how, size := range map[string]int{"whole": 1 << 20, "byte by byte": 1} {
			r := newRig(t)
			for _, m := range split([]message{{flow.Write, c.ask}, {flow.Read, c.answer}, {flow.Write, post("/echo", askUnary)}, {flow.Read, reply(`{"usage":2}`)}}, nil, size) {
				r.push(m.dir, m.bytes)
			}
			r.Close()
			if len(r.calls) != 2 {
				t.Fatalf("%s, %s: %d calls", name, how, len(r.calls))
			}
			partial, failures := llm.PartialOverLimit, uint64(1)
			if name == "after all" {
				partial, failures = "", 0
			}
			got, next := r.calls[0], r.calls[1]
			if got.Completeness != c.want || got.Partial != partial {
				t.Errorf("%s, %s: %v, %q", name, how, got.Completeness, got.Partial)
			}
			if n := r.Stats().Failures["decoded_size"]; n != failures {
				t.Errorf("%s, %s: %v", name, how, r.Stats().Failures)
			}
			if next.Completeness != llm.Exact || next.Partial != "" {
				t.Errorf("%s, %s: next %v, %q", name, how, next.Completeness, next.Partial)
			}
		}
	}
}

// TestExpandingMessage: the same on a WebSocket. What refers to the message is lost too.
func TestExpandingMessage(t *testing.T) {
	noLeak(t)
	for _, keep := range []bool{true, false} {
		extension := "Sec-WebSocket-Extensions: permessage-deflate\r\n"
		want := []string{"missing over_limit"}
		if !keep {
			extension = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
			want = []string{"estimated over_limit", "exact "}
		}
		client, server := newWire(true, true, true), newWire(false, true, keep)
		msgs := []message{
			{flow.Write, handshake}, {flow.Read, accept(extension)},
			{flow.Write, client.message("well?", 1)}, {flow.Read, server.message(`{"text":"`+strings.Repeat("a", 64<<20)+`"}`, 1)},
			{flow.Read, server.message(`{"usage":1}`, 1)},
			{flow.Write, client.message("well?", 1)}, {flow.Read, server.message(`{"usage":2}`, 1)},
		}
		for how, size := range map[string]int{"whole": 1 << 20, "byte by byte": 1} {
			r := newRig(t, talking)
			for _, m := range split(msgs, nil, size) {
				r.push(m.dir, m.bytes)
			}
			r.Close()
			var got []string
			for _, c := range r.calls {
				got = append(got, fmt.Sprintf("%v %s", c.Completeness, c.Partial))
			}
			if !slices.Equal(got, want) || r.Stats().Failures["decoded_size"] != 1 {
				t.Errorf("context kept %v, %s: %q, want %q; %v", keep, how, got, want, r.Stats().Failures)
			}
		}
	}
}
