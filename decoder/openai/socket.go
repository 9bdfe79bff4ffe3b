package openai

import (
	"net/http"
	"strings"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/hosts"
	"github.com/tollwire/tollwire/decoder/request"
	"github.com/tollwire/tollwire/llm"
)

// upgraded returns the API that a WebSocket's handshake asks for, none if it is none.
func upgraded(req *exchange.Request) api {
	if req.Method != http.MethodGet || !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") {
		return none
	}
	switch path := strings.TrimRight(req.Path, "/"); {
	case strings.HasSuffix(path, "/realtime"):
		return realtime
	case strings.HasSuffix(path, "/responses"):
		return responses
	}
	return none
}

// openSocket opens the first call of a WebSocket.
func (v *Vendor) openSocket(a api, req *exchange.Request, c *llm.Call) exchange.Decoder {
	provider := ""
	if h := hosts.Lookup(req.Host, req.Path); h != nil {
		provider = h.Provider
	}
	if a == realtime {
		return newTurn(v, &session{provider: provider, asked: sessionModel(req.Query)}, c)
	}
	return newExchange(v, provider, c)
}

// socketCall decodes one response of the Responses API over a WebSocket: the client's
// response.create is the body of a request, the events are those of a stream
// (https://platform.openai.com/docs/guides/websocket-mode).
type socketCall struct {
	call
	provider string
	asked    bool
}

func newExchange(v *Vendor, provider string, c *llm.Call) *socketCall {
	c.Provider, c.Operation, c.Stream = provider, operations[responses], true
	d := &socketCall{call: call{v: v, c: c, f: new(exchange.Facts), api: responses, stream: true}, provider: provider}
	d.meter.Open(v.cfg, d.f, c)
	return d
}

// Next implements exchange.Sequel.
func (d *socketCall) Next(c *llm.Call) exchange.Decoder { return newExchange(d.v, d.provider, c) }

// Response implements exchange.Decoder.
func (d *socketCall) Response(*exchange.Response) {}

// Event implements exchange.Decoder.
func (d *socketCall) Event(e *exchange.Event) error {
	if !e.FromClient {
		err := d.call.Event(e)
		if d.c.InBandError { // nothing of the answer follows an error
			d.done, e.Done = true, true
		}
		return err
	}
	if d.asked {
		return nil
	}
	*d.f = exchange.Facts{}
	body := request.Reader{NoSample: d.v.cfg.NoEstimate}
	if err := body.Read(e.Data, "application/json", d.f); err != nil {
		return err
	}
	if d.f.Keys["input"] || d.f.Keys["model"] || d.f.Keys["previous_response_id"] {
		d.asked, e.Start, e.Asked = true, true, true
		d.f.StreamSet = false // a stream it is
		d.ask()
	}
	return nil
}
