// Package anthropic decodes the Messages API, on any host that speaks it, Vertex AI's
// included, and the legacy completions.
package anthropic

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/hosts"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/llm"
)

// Vendor recognises and decodes calls in Anthropic's formats.
type Vendor struct {
	cfg  content.Config
	scan jsonscan.Pool
}

// New returns the vendor.
func New(cfg content.Config) *Vendor { return &Vendor{cfg: cfg} }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "anthropic" }

// onVertex is the part of a Vertex path before the model's name.
const onVertex = "/publishers/anthropic/models/"

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, f *exchange.Facts) exchange.Confidence {
	if batchID(req) != "" {
		return exchange.Sure
	}
	if req.Method != "POST" {
		return exchange.No
	}
	path := strings.TrimRight(req.Path, "/")
	if _, model, ok := strings.Cut(path, onVertex); ok {
		if strings.HasSuffix(model, ":rawPredict") || strings.HasSuffix(model, ":streamRawPredict") {
			return exchange.Sure
		}
		return exchange.No
	}
	var needs string
	switch {
	case strings.HasSuffix(path, "/messages"):
		needs = "messages"
	case strings.HasSuffix(path, "/v1/complete"):
		needs = "max_tokens_to_sample"
	default:
		return exchange.No
	}
	switch {
	case f.Known && f.Keys["jsonrpc"]:
		return exchange.No // MCP's older transport posts to /messages
	case req.Header.Get("Anthropic-Version") != "" || req.Host == "api.anthropic.com":
		return exchange.Sure
	case !f.Known:
		return exchange.Maybe
	case f.Keys[needs]:
		return exchange.Path
	case !f.Whole && f.Model != "":
		return exchange.Weak
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, f *exchange.Facts, c *llm.Call) exchange.Decoder {
	c.Operation = "chat"
	if id := batchID(req); id != "" {
		if h := hosts.Lookup(req.Host, req.Path); h != nil {
			c.Provider = h.Provider
		}
		return &batch{v: v, c: c, id: id}
	}
	d := &call{v: v, c: c, f: f}
	if strings.HasSuffix(strings.TrimRight(req.Path, "/"), "/complete") {
		c.Operation = "text_completion"
	}
	if h := hosts.Lookup(req.Host, req.Path); h != nil {
		c.Provider = h.Provider
	}
	if _, model, ok := strings.Cut(req.Path, onVertex); ok {
		c.Provider = "gcp.vertex_ai"
		model, method, _ := strings.Cut(model, ":")
		c.RequestModel = names.InPath(model)
		c.Stream = method == "streamRawPredict"
		if _, rest, ok := strings.Cut(req.Path, "/locations/"); ok {
			region, _, _ := strings.Cut(rest, "/")
			c.Region = names.Of(region)
		}
	}
	content.Asked(f, c)
	d.m.Open(v.cfg, f, c)
	return d
}

type call struct {
	v *Vendor
	c *llm.Call
	f *exchange.Facts
	m Message
}

// Response implements exchange.Decoder.
func (d *call) Response(*exchange.Response) { content.Asked(d.f, d.c) }

// Body implements exchange.Decoder.
func (d *call) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	return d.m.Body(s)
}

// Event implements exchange.Decoder.
func (d *call) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.c.Stream = true
	var err error
	e.Content, err = d.m.Event(s, e.Name)
	e.Done = d.m.Done()
	return err
}

// End implements exchange.Decoder.
func (d *call) End(err error) { d.m.End(err) }
