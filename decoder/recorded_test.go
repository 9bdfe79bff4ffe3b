package decoder_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/conformance"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
)

// BenchmarkRecorded decodes the recorded SSE streams on one connection, in records as
// the taps make them, with all vendors.
func BenchmarkRecorded(b *testing.B) {
	dir, err := conformance.Find()
	if err != nil {
		b.Fatal(err)
	}
	var exchanges [][2][]byte
	size := int64(0)
	err = conformance.Load(dir, func(c conformance.Case) error {
		if c.Want.Framing != "sse" {
			return nil
		}
		ask, err := c.Entry.RequestWire()
		if err != nil {
			return err
		}
		answer, err := c.Entry.ResponseWire()
		if err != nil {
			return err
		}
		exchanges = append(exchanges, [2][]byte{ends(ask), ends(answer)})
		size += int64(len(exchanges[len(exchanges)-1][1]))
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	const record = 4 << 10
	d := decoder.New(decoder.Config{Vendors: vendors.All(content.Config{NoEstimate: true})})
	defer d.Close()
	var pos [2]uint64
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range exchanges {
			for dir, wire := range e {
				for len(wire) > 0 {
					n := min(len(wire), record)
					d.Push(&flow.Data{Kind: flow.KindData, Conn: flow.Conn{Key: 1, Gen: 1}, Dir: flow.Dir(dir), Pos: pos[dir], Payload: wire[:n]})
					pos[dir] += uint64(n)
					wire = wire[n:]
				}
			}
		}
	}
	b.ReportMetric(float64(d.Stats().Calls)/float64(b.N*len(exchanges)), "calls/exchange")
}

// recordedEvents are the JSON of the same streams' events, already cut out of them,
// and the size of the lines that they stood in.
func recordedEvents(b *testing.B) (events [][]byte, size int64) {
	dir, err := conformance.Find()
	if err != nil {
		b.Fatal(err)
	}
	err = conformance.Load(dir, func(c conformance.Case) error {
		if c.Want.Framing == "sse" {
			for line := range bytes.Lines(c.Entry.Response.Body) {
				if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
					events = append(events, bytes.TrimSpace(data))
					size += int64(len(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return events, size
}

// BenchmarkRecordedGJSONPaths is gjson alone, asked for the fields that a decoder needs
// by their paths. BenchmarkRecorded is held to the faster of this and the next.
func BenchmarkRecordedGJSONPaths(b *testing.B) {
	events, size := recordedEvents(b)
	b.SetBytes(size)
	for b.Loop() {
		for _, e := range events {
			gjson.GetManyBytes(e, "id", "model", "type", "usage", "choices.0.finish_reason", "choices.0.delta.content", "delta.text", "response.usage")
		}
	}
}

// fields are what BenchmarkRecordedGJSONWalk reads.
type fields struct {
	id, model, kind, finish string
	text                    int
	counts                  [3]int64
}

// BenchmarkRecordedGJSONWalk is gjson alone, going over each event once and into the
// objects that a decoder goes into.
func BenchmarkRecordedGJSONWalk(b *testing.B) {
	events, size := recordedEvents(b)
	b.SetBytes(size)
	var f fields
	for b.Loop() {
		for _, e := range events {
			f.walk(gjson.ParseBytes(e))
		}
	}
	if f.text == 0 || f.counts[2] == 0 || f.finish == "" {
		b.Fatalf("nothing was read: %+v", f)
	}
}

func (f *fields) walk(v gjson.Result) {
	v.ForEach(func(key, v gjson.Result) bool {
		switch key.Str {
		case "id", "responseId":
			f.id = v.Str
		case "model", "modelVersion":
			f.model = v.Str
		case "type":
			f.kind = v.Str
		case "finish_reason", "finishReason", "stop_reason":
			f.finish = v.Str
		case "text", "content":
			if v.Type == gjson.String {
				f.text += len(v.Str)
			} else {
				f.walk(v)
			}
		case "delta":
			if v.Type == gjson.String {
				f.text += len(v.Str)
			} else {
				f.walk(v)
			}
		case "choices", "candidates", "parts":
			v.ForEach(func(_, v gjson.Result) bool {
				f.walk(v)
				return true
			})
		case "message", "response", "usage", "usageMetadata":
			f.walk(v)
		case "prompt_tokens", "input_tokens", "promptTokenCount":
			f.counts[0] = v.Int()
		case "completion_tokens", "output_tokens", "candidatesTokenCount":
			f.counts[1] = v.Int()
		case "total_tokens", "totalTokenCount":
			f.counts[2] = v.Int()
		}
		return true
	})
}

// BenchmarkHeld prints the bytes that one open call costs in the middle of an event, with
// everything on: a short one, one with a prompt of 16 MiB, one that has streamed for an
// hour at 20 events a second.
func BenchmarkHeld(b *testing.B) {
	const event = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}` + "\n\n"
	for _, x := range []struct {
		name                   string
		prompt, events, opened int
	}{{"short", 1 << 10, 10, 1000}, {"prompt", 16 << 20, 10, 20}, {"hour", 1 << 10, 20 * 3600, 20}} {
		b.Run(x.name, func(b *testing.B) {
			ask := `{"model":"gpt-4o","stream":true,"response_format":{"type":"json_object"},"messages":[{"role":"user","content":"` + strings.Repeat("long ", x.prompt/5) + `"}]}`
			ask = fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(ask), ask)
			const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
			chunk := []byte(fmt.Sprintf("%x\r\n%s\r\n", len(event), event))
			held := 0.0
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				d := decoder.New(decoder.Config{Vendors: vendors.All(content.Config{})})
				for i := range x.opened {
					var pos [2]uint64
					push := func(dir flow.Dir, p []byte) {
						d.Push(&flow.Data{Kind: flow.KindData, Conn: flow.Conn{Key: uint64(i), Gen: 1}, Dir: dir, Pos: pos[dir], Payload: p})
						pos[dir] += uint64(len(p))
					}
					for p := []byte(ask); len(p) > 0; p = p[min(len(p), 16<<10):] {
						push(flow.Write, p[:min(len(p), 16<<10)])
					}
					push(flow.Read, []byte(head))
					for range x.events {
						push(flow.Read, chunk)
					}
					push(flow.Read, chunk[:len(chunk)/2])
				}
				for range 4 { // each halves the stacks that are too large
					runtime.GC()
				}
				runtime.ReadMemStats(&after)
				held = float64(int64(after.HeapAlloc+after.StackInuse)-int64(before.HeapAlloc+before.StackInuse)) / float64(x.opened)
				if n := d.Stats().Exchanges; n != x.opened {
					b.Fatalf("%d calls are open, want %d", n, x.opened)
				}
				d.Close()
			}
			b.ReportMetric(held, "held")
		})
	}
}
