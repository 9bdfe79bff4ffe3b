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

// BenchmarkRecordedGJSON is what BenchmarkRecorded is held to: gjson alone, on the
// JSON of the same events, already cut out of the streams, reading the fields that a
// decoder needs.
func BenchmarkRecordedGJSON(b *testing.B) {
	dir, err := conformance.Find()
	if err != nil {
		b.Fatal(err)
	}
	var events [][]byte
	size := int64(0)
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
	b.SetBytes(size)
	for b.Loop() {
		for _, e := range events {
			gjson.GetManyBytes(e, "id", "model", "type", "usage", "choices.0.finish_reason", "choices.0.delta.content", "delta.text", "response.usage")
		}
	}
}
