// Package rerank decodes reranking as most services speak it, {query, documents} for
// {results} or {data}: Voyage, Jina, vLLM, Text Embeddings Inference, gateways. It
// reads Cohere's billed units as well, for hosts that pass its answers on.
package rerank

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/hosts"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// Vendor implements exchange.Vendor.
type Vendor struct{ scan jsonscan.Pool }

// New returns the vendor.
func New() *Vendor { return new(Vendor) }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "rerank" }

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	switch {
	case req.Method != "POST" || !strings.HasSuffix(strings.TrimSuffix(req.Path, "/"), "/rerank"):
		return exchange.No
	case !facts.Known:
		return exchange.Maybe
	case facts.Keys["query"] && (facts.Keys["documents"] || facts.Keys["texts"]):
		return exchange.Path
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	c.Operation = "rerank"
	if h := hosts.Lookup(req.Host, req.Path); h != nil {
		c.Provider = h.Provider
	}
	content.Asked(facts, c)
	return &decoder{v: v, c: c, facts: facts}
}

type decoder struct {
	v        *Vendor
	c        *llm.Call
	facts    *exchange.Facts
	tokens   stated.Count
	total    stated.Count
	searches stated.Count
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { content.Asked(d.facts, d.c) }

// Event implements exchange.Decoder.
func (d *decoder) Event(e *exchange.Event) error { return d.Body(e.Data) }

// Body implements exchange.Decoder.
func (d *decoder) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	c := d.c
	for key := range s.Object {
		switch string(key) {
		case "id":
			s.Into(&c.ResponseID)
		case "model":
			s.Into(&c.ResponseModel)
		case "usage":
			d.usage(s)
		case "meta": // Cohere's, {"billed_units":{"search_units":1}}
			for key := range s.Object {
				if string(key) == "billed_units" {
					d.usage(s)
				}
			}
		case "error", "detail":
			if k := s.Kind(); k == jsonscan.Object || k == jsonscan.String {
				answer.Fail(c)
			}
		}
	}
	return s.Err()
}

func (d *decoder) usage(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "prompt_tokens", "input_tokens":
			d.tokens.Read(s)
		case "total_tokens":
			d.total.Read(s)
		case "search_units":
			d.searches.Read(s)
		case "cost": // OpenRouter
			if text, ok := s.Decimal(); ok {
				d.c.StatedCost, d.c.StatedCostSource = text, "usage.cost"
			}
		}
	}
}

// End implements exchange.Decoder. Nothing is written, so the total is the input.
func (d *decoder) End(err error) {
	u := &d.c.Usage
	d.total.Or(d.tokens).Into(u, llm.Input)
	d.searches.Into(u, llm.SearchUnits)
	answer.Settle(d.c, llm.SourceBody, err == nil)
}
