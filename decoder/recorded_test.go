package decoder_test

import (
	"bytes"
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
