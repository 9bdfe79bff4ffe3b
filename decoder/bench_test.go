package decoder

import (
	"io"
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
