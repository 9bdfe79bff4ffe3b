package gemini

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// isLive recognises the Live API's WebSocket (https://ai.google.dev/api/live).
func isLive(req *exchange.Request) bool {
	return req.Method == "GET" && strings.HasSuffix(req.Path, "BidiGenerateContent")
}

// live decodes one turn of a Live session, to its turnComplete. The first turn holds
// the session's setup.
type live struct {
	decoder
	turn     bool // the turn is complete
	asked    bool // a message came that is no setup
	provider string
}

// Next implements exchange.Sequel.
func (d *live) Next(c *llm.Call) exchange.Decoder { return newLive(d.v, d.facts, d.provider, c) }

func newLive(v *Vendor, facts *exchange.Facts, provider string, c *llm.Call) *live {
	d := &live{decoder: decoder{v: v, c: c, facts: facts}, provider: provider}
	c.Provider, c.Operation = provider, "generate_content"
	d.open()
	d.meter.Open(v.cfg, facts, c)
	return d
}

// open takes over what is known. The setup, which only the session's first call
// sees, is to the calls after it what a request's body is: it is kept in the facts.
func (d *live) open() {
	d.c.Stream = true
	d.c.RequestModel = d.facts.Model
}

// Response implements exchange.Decoder.
func (d *live) Response(*exchange.Response) { d.open() }

// Body implements exchange.Decoder: the handshake was refused.
func (d *live) Body(r io.Reader) error { return d.decoder.Body(r) }

// Event implements exchange.Decoder.
func (d *live) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.s, d.stream = s, true
	d.meter.Event()
	if e.FromClient {
		setup, due := d.client()
		e.Start, e.Asked = !setup && !d.asked, due
		d.asked = d.asked || !setup
		return s.Err()
	}
	turn := d.server()
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	d.turn = d.turn || turn
	e.Done = d.turn
	return nil
}

// client reads a message of the client, and reports whether it only sets the session up,
// and whether an answer is due.
func (d *live) client() (setup, due bool) {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "setup":
			setup = true
			for key := range s.Object {
				if string(key) == "model" && s.Into(&d.facts.Model) {
					d.facts.Model = d.facts.Model[strings.LastIndexByte(d.facts.Model, '/')+1:]
					d.open()
				}
			}
		case "clientContent":
			for key := range s.Object {
				if string(key) == "turnComplete" {
					due, _ = s.Bool()
				}
			}
		}
	}
	return setup, due
}

// server reads a message of the server, and reports whether the turn is complete.
func (d *live) server() (turn bool) {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "serverContent":
			for key := range s.Object {
				switch string(key) {
				case "modelTurn":
					for key := range s.Object {
						if string(key) == "parts" {
							for range s.Array {
								d.part(0)
							}
						}
					}
				case "turnComplete":
					turn, _ = s.Bool()
				case "interrupted":
					if v, _ := s.Bool(); v {
						d.reasons.Set(0, "interrupted")
					}
				}
			}
		case "toolCall":
			for key := range s.Object {
				if string(key) == "functionCalls" {
					for range s.Array {
						d.function()
					}
				}
			}
		case "usageMetadata":
			d.usage()
		case "error":
			if s.Kind() == jsonscan.Object {
				fail(d.c, s)
			}
		}
	}
	return turn
}

// End implements exchange.Decoder.
func (d *live) End(err error) {
	d.c.FinishReasons = d.reasons.List()
	d.settle(llm.SourceStream, err == nil && d.turn)
}
