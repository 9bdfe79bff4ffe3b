package mcp

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/request"
	"github.com/tollwire/tollwire/llm"
)

const ask = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"name":"no"}}}`

func facts(t testing.TB, body string) *exchange.Facts {
	t.Helper()
	f := new(exchange.Facts)
	if err := new(request.Reader).Read(strings.NewReader(body), "application/json", f); err != nil {
		t.Fatal(err)
	}
	return f
}

func head(path string, pairs ...string) *exchange.Request {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	path, query, _ := strings.Cut(path, "?")
	return &exchange.Request{Method: "POST", Path: path, Query: query, Host: "localhost", Header: h}
}

func TestRecognize(t *testing.T) {
	for _, c := range []struct {
		req  *exchange.Request
		body string
		want exchange.Confidence
	}{
		{head("/mcp"), ask, exchange.Path},
		{head("/anything"), ask, exchange.Weak},
		{head("/x", "Mcp-Session-Id", "s"), ask, exchange.Sure},
		{head("/messages/?sessionId=1"), ask, exchange.Path},
		{head("/mcp"), `{"jsonrpc":"2.0","method":"notifications/initialized"}`, exchange.No},
		{head("/mcp"), `{"jsonrpc":"2.0","id":1,"result":{}}`, exchange.No},
		{head("/"), `{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[]}`, exchange.No},
		{head("/"), `{"jsonrpc":"2.0","id":1,"method":"message/send","params":{}}`, exchange.No},
		{head("/"), `{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{}}`, exchange.No},
		{head("/v1/messages"), `{"model":"m","messages":[]}`, exchange.No},
	} {
		if got := New().Recognize(c.req, &exchange.Facts{}); got != exchange.Maybe {
			t.Errorf("%s before its body: %v", c.req.Path, got)
		}
		if got := New().Recognize(c.req, facts(t, c.body)); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.req.Path, c.body, got, c.want)
		}
	}
}

func TestCalls(t *testing.T) {
	for _, x := range []struct {
		name, body string
		events     []string
		want       llm.MCP
		errorType  string
	}{
		{"answer", `{"result":{"content":[{"type":"text","text":"2"}],"isError":false},"jsonrpc":"2.0","id":7}`, nil,
			llm.MCP{Method: "tools/call", Tool: "add", Session: "s"}, ""},
		{"failed tool", `{"jsonrpc":"2.0","id":7,"result":{"isError":true,"content":[]}}`, nil,
			llm.MCP{Method: "tools/call", Tool: "add", Session: "s", IsError: true}, "tool_error"},
		{"error", `{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Unknown tool"}}`, nil,
			llm.MCP{Method: "tools/call", Tool: "add", Session: "s", ErrorCode: -32602}, "-32602"},
		{"error of nobody", `{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}`, nil,
			llm.MCP{Method: "tools/call", Tool: "add", Session: "s", ErrorCode: -32700}, "-32700"},
		{"batch", `[{"jsonrpc":"2.0","id":6,"result":{}},{"jsonrpc":"2.0","id":7,"error":{"code":1}}]`, nil,
			llm.MCP{Method: "tools/call", Tool: "add", Session: "s", ErrorCode: 1}, "1"},
		{"events", "", []string{
			`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}`,
			`{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}`,
			`{"jsonrpc":"2.0","id":8,"error":{"code":5}}`,
			`{"jsonrpc":"2.0","id":7,"result":{"isError":true}}`,
		}, llm.MCP{Method: "tools/call", Tool: "add", Session: "s", IsError: true}, "tool_error"},
	} {
		c := &llm.Call{}
		d := New().Open(head("/mcp"), facts(t, ask), c)
		c.Status = 200
		d.Response(&exchange.Response{Status: 200, Header: http.Header{"Mcp-Session-Id": {"s"}}})
		if x.events == nil {
			if err := d.Body(iotest.OneByteReader(strings.NewReader(x.body))); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		}
		for i, data := range x.events {
			e := &exchange.Event{Data: iotest.OneByteReader(strings.NewReader(data))}
			if err := d.Event(e); err != nil || e.Done != (i == len(x.events)-1) {
				t.Errorf("%s: event %d: %v, done %v", x.name, i, err, e.Done)
			}
		}
		d.End(nil)
		if c.MCP != x.want || c.ErrorType != x.errorType || c.InBandError != (x.errorType != "") || c.Operation != "execute_tool" {
			t.Errorf("%s: %+v %q %q, want %+v", x.name, c.MCP, c.ErrorType, c.Operation, x.want)
		}
	}
}

func TestOtherMethodsKeepTheirName(t *testing.T) {
	c := &llm.Call{}
	New().Open(head("/messages?sessionId=abc"), facts(t, `{"jsonrpc":"2.0","id":"a","method":"tools/list"}`), c)
	if c.Operation != "tools/list" || c.MCP.Session != "abc" || c.MCP.Tool != "" {
		t.Errorf("%+v", c)
	}
}

func FuzzMCP(f *testing.F) {
	f.Add([]byte(ask), []byte(`{"jsonrpc":"2.0","id":7,"result":{"isError":true}}`))
	f.Add([]byte(ask), []byte(`[{"jsonrpc":"2.0","id":7,"error":{"code":-1}}]`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":"x","method":"initialize"}`), []byte(`{"id":"x","result":`))
	f.Fuzz(func(t *testing.T, ask, body []byte) {
		run := func(r io.Reader) (*llm.Call, error) {
			fa := new(exchange.Facts)
			_ = new(request.Reader).Read(bytes.NewReader(ask), "application/json", fa)
			c := &llm.Call{Status: 200}
			d := New().Open(head("/mcp"), fa, c)
			d.Response(&exchange.Response{Status: 200})
			err := d.Body(r)
			d.End(err)
			return c, err
		}
		a, err := run(bytes.NewReader(body))
		b, err2 := run(iotest.OneByteReader(bytes.NewReader(body)))
		if a.MCP != b.MCP || a.ErrorType != b.ErrorType || (err == nil) != (err2 == nil) {
			t.Fatalf("%+v %v, in pieces %+v %v", a.MCP, err, b.MCP, err2)
		}
	})
}
