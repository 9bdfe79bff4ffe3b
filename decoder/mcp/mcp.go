// Package mcp decodes calls of the Model Context Protocol over HTTP: JSON-RPC 2.0,
// answered by one object or by events
// (https://modelcontextprotocol.io/specification/2025-06-18/basic/transports).
// Over the older transport the answer comes on another connection, and is not seen.
package mcp

import (
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/llm"
)

// Vendor implements exchange.Vendor.
type Vendor struct{ scan jsonscan.Pool }

// New returns the vendor.
func New() *Vendor { return new(Vendor) }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "mcp" }

// toolCall is the method that runs a tool.
const toolCall = "tools/call"

// methods are those that somebody waits for. Notifications, pings, subscriptions and
// other protocols on JSON-RPC (A2A, language servers, blockchains) are none.
var methods = map[string]bool{
	"initialize": true, toolCall: true, "tools/list": true,
	"prompts/get": true, "prompts/list": true,
	"resources/read": true, "resources/list": true, "resources/templates/list": true,
	"completion/complete": true, "sampling/createMessage": true, "elicitation/create": true,
	"tasks/get": true, "tasks/result": true,
}

// ours are headers that only this protocol's clients send.
func ours(req *exchange.Request) bool {
	return req.Header.Get("Mcp-Session-Id") != "" || req.Header.Get("Mcp-Protocol-Version") != ""
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	switch {
	case req.Method != "POST":
		return exchange.No
	case !facts.Known:
		return exchange.Maybe
	case !facts.Keys["jsonrpc"] || !methods[facts.JSONRPCMethod]:
		return exchange.No
	case facts.JSONRPCMethod == "tasks/get" && !ours(req): // A2A has it too
		return exchange.No
	case ours(req):
		return exchange.Sure
	case strings.Contains(req.Path, "/mcp"), strings.HasSuffix(req.Path, "/messages"), strings.HasSuffix(req.Path, "/messages/"):
		return exchange.Path
	}
	return exchange.Weak
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	c.MCP.Session = names.Of(req.Header.Get("Mcp-Session-Id"))
	if c.MCP.Session == "" {
		if q, err := url.ParseQuery(req.Query); err == nil {
			c.MCP.Session = names.Of(q.Get("sessionId"))
		}
	}
	d := &decoder{v: v, c: c, facts: facts}
	d.asked()
	return d
}

type decoder struct {
	v     *Vendor
	c     *llm.Call
	facts *exchange.Facts
}

func (d *decoder) asked() {
	c, f := d.c, d.facts
	c.MCP.Method = f.JSONRPCMethod
	c.Operation = f.JSONRPCMethod
	if f.JSONRPCMethod == toolCall {
		c.Operation = "execute_tool"
		c.MCP.Tool = f.JSONRPCTool
	}
}

// Response implements exchange.Decoder.
func (d *decoder) Response(r *exchange.Response) {
	d.asked()
	if id := r.Header.Get("Mcp-Session-Id"); id != "" {
		d.c.MCP.Session = names.Of(id)
	}
}

// Body implements exchange.Decoder. A batch is answered by an array.
func (d *decoder) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	switch s.Kind() {
	case jsonscan.Object:
		d.message(s)
	case jsonscan.Array:
		for range s.Array {
			d.message(s)
		}
	default: // a page, or nothing: 202 has no body
		return nil
	}
	return s.Err()
}

// Event implements exchange.Decoder. Before the answer come the server's progress
// and its own requests.
func (d *decoder) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	if s.Kind() != jsonscan.Object {
		return nil
	}
	answered := d.message(s)
	if err := s.End(); err != nil {
		return err
	}
	if answered {
		e.Content, e.Done = exchange.Visible, true
	}
	return nil
}

// answer is what a message says of the call it answers.
type answer struct {
	id      string
	any     bool // it has a result or an error
	failed  bool
	code    int
	isError bool
}

// message reads a message and reports whether it answers the call.
func (d *decoder) message(s *jsonscan.Scanner) bool {
	var a answer
	for key := range s.Object {
		switch string(key) {
		case "id":
			if s.Kind() == jsonscan.Number {
				a.id, _ = s.Decimal()
			} else {
				s.Into(&a.id)
			}
		case "result":
			a.any = true
			for key := range s.Object {
				if string(key) == "isError" {
					a.isError, _ = s.Bool()
				}
			}
		case "error":
			a.any, a.failed = true, true
			for key := range s.Object {
				if string(key) == "code" {
					n, _ := s.Int()
					a.code = int(n)
				}
			}
		}
	}
	// An error of which the server doesn't know what it answers has a null id.
	if !a.any || s.Err() != nil || d.facts.JSONRPCID != "" && a.id != d.facts.JSONRPCID && !(a.failed && a.id == "") {
		return false
	}
	c := d.c
	switch {
	case a.failed:
		c.MCP.ErrorCode = a.code
		c.ErrorType = strconv.Itoa(a.code)
		c.InBandError = c.Status < 400
	case a.isError:
		c.MCP.IsError = true
		c.ErrorType = "tool_error"
		c.InBandError = c.Status < 400
	}
	return true
}

// End implements exchange.Decoder. There are no tokens.
func (d *decoder) End(error) {}
