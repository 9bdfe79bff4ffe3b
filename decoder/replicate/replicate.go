// Package replicate decodes Replicate's predictions
// (https://replicate.com/docs/reference/http). Usage stands in the answer only when
// the request waited for the prediction's end; else it is fetched with GET.
package replicate

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// Vendor implements exchange.Vendor.
type Vendor struct {
	cfg  content.Config
	scan jsonscan.Pool
}

// New returns the vendor.
func New(cfg content.Config) *Vendor { return &Vendor{cfg: cfg} }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "replicate" }

// parse reads /v1/predictions, /v1/models/OWNER/NAME/predictions and the same of a
// deployment.
func parse(path string) (model string, ok bool) {
	rest, ok := strings.CutSuffix(strings.TrimSuffix(path, "/"), "/predictions")
	if !ok {
		return "", false
	}
	for _, sep := range []string{"/v1/models/", "/v1/deployments/"} {
		if _, model, ok := strings.Cut(rest, sep); ok && strings.Count(model, "/") == 1 {
			return names.InPath(model), true
		}
	}
	return "", strings.HasSuffix(rest, "/v1")
}

// fetches recognises GET /v1/predictions/ID at Replicate's own host: the path may be
// anybody's.
func fetches(req *exchange.Request) bool {
	id, ok := strings.CutPrefix(req.Path, "/v1/predictions/")
	return ok && id != "" && !strings.Contains(id, "/") && req.Method == "GET" && req.Host == host
}

const host = "api.replicate.com"

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	if fetches(req) {
		return exchange.Sure
	}
	model, ok := parse(req.Path)
	switch {
	case req.Method != "POST" || !ok:
		return exchange.No
	case req.Host == host:
		return exchange.Sure
	case !facts.Known:
		return exchange.Maybe
	case facts.Keys["input"] && (model != "" || facts.Keys["version"]):
		return exchange.Path
	}
	return exchange.No
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	c.Provider = "replicate"
	c.Operation = "text_completion" // the wire doesn't say what the model makes
	d := &decoder{v: v, c: c, facts: facts}
	d.model, _ = parse(req.Path)
	d.fetches = fetches(req)
	d.asked()
	d.meter.Open(v.cfg, facts, c)
	return d
}

type decoder struct {
	v             *Vendor
	c             *llm.Call
	facts         *exchange.Facts
	model         string
	meter         content.Meter
	status        string
	fetches       bool
	input, output stated.Count
	images        stated.Count
	seconds       float64
}

func (d *decoder) asked() {
	content.Asked(d.facts, d.c)
	if d.model != "" {
		d.c.RequestModel = d.model
	}
}

// Response implements exchange.Decoder.
func (d *decoder) Response(*exchange.Response) { d.asked() }

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
		case "status":
			if s.Kind() == jsonscan.String {
				s.Into(&d.status)
			}
		case "output":
			switch s.Kind() {
			case jsonscan.String:
				s.Stream(d.text)
			case jsonscan.Array:
				for range s.Array {
					s.Stream(d.text)
				}
			}
		case "metrics":
			d.metrics(s)
		case "error":
			if s.Kind() == jsonscan.String {
				answer.Fail(c)
			}
		}
	}
	return s.Err()
}

func (d *decoder) text(p []byte) { d.meter.Text(0, p) }

func (d *decoder) metrics(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "input_token_count":
			d.input.Read(s)
		case "output_token_count":
			d.output.Read(s)
		case "image_count":
			d.images.Read(s)
		case "predict_time":
			d.seconds, _ = s.Float()
		}
	}
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	ended := false
	switch d.status {
	case "failed":
		answer.Fail(c, d.status)
		ended = true
	case "succeeded", "canceled", "aborted":
		c.FinishReasons = []string{d.status}
		ended = true
	}
	d.input.Into(&c.Usage, llm.Input)
	d.output.Into(&c.Usage, llm.Output)
	d.images.Into(&c.Usage, llm.Images)
	if d.seconds > 0 {
		c.Usage.Set(llm.Seconds, d.seconds)
	}
	answer.Settle(c, llm.SourceBody, err == nil && ended)
	switch {
	case c.Status >= 400 && !d.fetches:
	case ended && (err == nil || !d.fetches):
		c.Deferred = llm.DeferredDone
	case d.fetches:
		c.Deferred = llm.DeferredWaiting
	case err == nil && c.ResponseID != "":
		c.Deferred = llm.DeferredAsked
	}
	if ended { // else there is no text to estimate by yet
		d.meter.End(err == nil)
	}
}
