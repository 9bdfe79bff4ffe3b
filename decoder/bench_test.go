package decoder

import (
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// skim is a vendor that reads what passes and looks at none of it.
type skim struct{ echo }

func (skim) Open(_ *exchange.Request, f *exchange.Facts, c *llm.Call) exchange.Decoder {
	return skimDecoder{}
}

type skimDecoder struct{}

func (skimDecoder) Response(*exchange.Response) {}
func (skimDecoder) Body(r io.Reader) error      { _, err := io.Copy(io.Discard, r); return err }
func (skimDecoder) Event(e *exchange.Event) error {
	e.Content = exchange.Visible
	_, err := io.Copy(io.Discard, e.Data)
	return err
}
func (skimDecoder) End(error) {}

func skimming(c *Config) { c.Vendors = []exchange.Vendor{skim{}} }

// BenchmarkStream decodes streams of 200-byte events, one event a record.
func BenchmarkStream(b *testing.B) {
	r := newRig(b, skimming)
	defer r.Close()
	r.push(flow.Write, post("/echo", askStream))
	r.push(flow.Read, streamHead)
	e := r.data(flow.Read, []byte(event(strings.Repeat("x", 200))))
	b.SetBytes(int64(len(e.Payload)))
	for b.Loop() {
		r.Push(e)
		e.Pos += uint64(len(e.Payload))
		e.Time++
	}
}

// BenchmarkHeld prints the bytes that one open stream costs, in the middle of an event.
func BenchmarkHeld(b *testing.B) {
	for b.Loop() {
		const streams = 2000
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := newRig(b, skimming)
		for i := range streams {
			r.conn.Key, r.pos = uint64(i), [2]uint64{}
			r.push(flow.Write, post("/echo", askStream))
			r.push(flow.Read, streamHead+event(strings.Repeat("x", 200)))
			for range 10 {
				r.push(flow.Read, event(strings.Repeat("y", 200)))
			}
			r.push(flow.Read, chunk("data: the beginning of"))
		}
		for range 4 { // each halves the stacks that are too large
			runtime.GC()
		}
		runtime.ReadMemStats(&after)
		held := after.HeapAlloc + after.StackInuse - before.HeapAlloc - before.StackInuse
		b.ReportMetric(float64(held)/streams, "held")
		r.Close()
	}
}
