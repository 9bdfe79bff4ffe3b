package anthropic

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// batchID is the id in GET …/messages/batches/ID/results, "" where a path is none.
func batchID(req *exchange.Request) string {
	_, rest, ok := strings.Cut(req.Path, "/messages/batches/")
	id, results := strings.CutSuffix(rest, "/results")
	if !ok || !results || req.Method != "GET" || strings.Contains(id, "/") {
		return ""
	}
	return strings.Clone(id[:min(len(id), jsonscan.MaxText)])
}

// batch decodes the results of a batch, a line each: one record of the sum, which
// counts once however often the results are fetched.
type batch struct {
	v    *Vendor
	c    *llm.Call
	id   string
	ends bool // all lines were read
}

// Response implements exchange.Decoder.
func (d *batch) Response(*exchange.Response) {}

// Body implements exchange.Decoder.
func (d *batch) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	for s.Kind() == jsonscan.Object {
		d.line(s)
	}
	d.ends = s.End() == nil
	return s.Err()
}

// Event implements exchange.Decoder.
func (d *batch) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.line(s)
	d.ends = s.End() == nil
	return s.Err()
}

// line reads {"custom_id":…,"result":{"type":"succeeded","message":{…}}}.
func (d *batch) line(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) != "result" {
			continue
		}
		for key := range s.Object {
			if string(key) == "message" && s.Kind() == jsonscan.Object {
				d.message(s)
			}
		}
	}
}

func (d *batch) message(s *jsonscan.Scanner) {
	var m Message
	one := llm.Call{Status: d.c.Status}
	m.Open(content.Config{NoQuality: true, NoEstimate: true}, new(exchange.Facts), &one)
	m.message(s)
	m.usage.settle(&one)
	d.c.ResponseModel = one.ResponseModel
	if d.c.Disagreement == "" {
		d.c.Disagreement = one.Disagreement
	}
	for k := range llm.NumClasses {
		if one.Usage.Has(k) {
			d.c.Usage.Set(k, d.c.Usage.Get(k)+one.Usage.Get(k))
		}
	}
}

// End implements exchange.Decoder.
func (d *batch) End(err error) {
	c := d.c
	c.ServiceTier = "batch"
	answer.Settle(c, llm.SourceBody, err == nil && d.ends)
	c.ResponseID, c.Deferred = d.id, llm.DeferredDone
	if c.Status >= 400 || c.Completeness != llm.Exact {
		c.Deferred = llm.DeferredWaiting // they are not ready, or fetched again
	}
}
