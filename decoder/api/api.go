// Package api recognises calls to priced HTTP APIs that are no models: a geocoder, a
// search. Which they are is configured; what they say is not read.
package api

import (
	"io"
	"net"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

// Rules names the priced API that a request is made to, "" where it is none. The host
// is in lower case and without the port. It is called for every request that crosses.
type Rules func(host, path, method string) string

// Vendor implements exchange.Vendor.
type Vendor struct{ rules Rules }

// New returns the vendor.
func New(r Rules) *Vendor { return &Vendor{r} }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "api" }

// Recognize implements exchange.Vendor. Whoever knows a call to a model goes first.
func (v *Vendor) Recognize(req *exchange.Request, _ *exchange.Facts) exchange.Confidence {
	if v.rule(req) == "" {
		return exchange.No
	}
	return exchange.Weak
}

func (v *Vendor) rule(req *exchange.Request) string {
	host := req.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return v.rules(host, req.Path, req.Method)
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, _ *exchange.Facts, c *llm.Call) exchange.Decoder {
	c.API = v.rule(req)
	return decoder{c}
}

type decoder struct{ c *llm.Call }

// Response implements exchange.Decoder.
func (decoder) Response(*exchange.Response) {}

// Body implements exchange.Decoder.
func (decoder) Body(io.Reader) error { return nil }

// Event implements exchange.Decoder.
func (decoder) Event(*exchange.Event) error { return nil }

// End implements exchange.Decoder. Such an API is paid by the request.
func (d decoder) End(error) {
	d.c.Usage.Set(llm.Requests, 1)
	d.c.Completeness = llm.Exact
}
