package gemini

import (
	"io"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// prediction reads Vertex AI's predict of Google's own models: text embeddings,
// which state each text's tokens, and images, which are counted.
type prediction struct {
	v      *Vendor
	c      *llm.Call
	s      *jsonscan.Scanner
	tokens stated.Count
	chars  stated.Count
	images stated.Count
}

// Response implements exchange.Decoder.
func (d *prediction) Response(*exchange.Response) {}

// Event implements exchange.Decoder.
func (d *prediction) Event(e *exchange.Event) error { return d.Body(e.Data) }

// Body implements exchange.Decoder.
func (d *prediction) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	d.s = s
	if s.Kind() == jsonscan.Array { // an error
		for range s.Array {
			d.object()
		}
	} else {
		d.object()
	}
	return s.Err()
}

func (d *prediction) object() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "predictions":
			for range s.Array {
				d.one()
			}
		case "metadata":
			for key := range s.Object {
				if string(key) == "billableCharacterCount" {
					d.chars.Read(s)
				}
			}
		case "error":
			fail(d.c, s)
		}
	}
}

func (d *prediction) one() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "embeddings":
			for key := range s.Object {
				if string(key) != "statistics" {
					continue
				}
				for key := range s.Object {
					if string(key) == "token_count" {
						var n stated.Count
						n.Read(s)
						add(&d.tokens, n)
					}
				}
			}
		case "bytesBase64Encoded", "gcsUri":
			add(&d.images, stated.Of(1))
		}
	}
}

// End implements exchange.Decoder.
func (d *prediction) End(err error) {
	u := &d.c.Usage
	d.tokens.Into(u, llm.Input)
	d.chars.Into(u, llm.Characters)
	d.images.Into(u, llm.Images)
	answer.Settle(d.c, llm.SourceBody, err == nil)
}
