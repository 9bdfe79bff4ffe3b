package sim

import (
	"encoding/json"
	"net/http"
)

// mcp is a server of the Model Context Protocol over streamable HTTP: initialize,
// tools/list, tools/call (error=inband: a result with isError; a tool named
// "unknown": a JSON-RPC error). It answers as JSON, or as SSE when the plan's
// showthink is on. Its calls state no usage.
var mcp = &vendor{
	provider: "mcp", operation: "execute_tool",
	prepare: func(c *call) { c.ask.Stream = false },
	respond: func(c *call) (*answer, error) {
		var ask struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				Name string `json:"name"`
			} `json:"params"`
		}
		if err := json.Unmarshal(c.body, &ask); err != nil {
			return nil, err
		}
		a := &answer{header: http.Header{}, noUsage: true}
		a.header.Set("Mcp-Session-Id", "session-"+c.s.nonce)
		a.header.Set("X-Request-Id", c.entry.RequestID)
		if len(ask.ID) == 0 {
			a.status = http.StatusAccepted // a notification
			return a, nil
		}
		reply := object{"jsonrpc": "2.0", "id": ask.ID}
		switch {
		case ask.Method == "initialize":
			reply["result"] = object{"protocolVersion": "2025-06-18", "capabilities": object{"tools": object{}},
				"serverInfo": object{"name": "llmsim", "version": "1"}}
		case ask.Method == "tools/list":
			reply["result"] = object{"tools": []any{object{"name": "get_weather", "inputSchema": object{"type": "object"}}}}
		case ask.Method == "tools/call" && ask.Params.Name != "unknown":
			c.entry.Tools = []string{ask.Params.Name}
			failed := c.plan.Error == "inband"
			if failed {
				c.entry.Error, c.entry.Outcome = "tool_error", "error"
			}
			reply["result"] = object{"content": []any{object{"type": "text", "text": gather(speak(&c.plan, c.seed))}}, "isError": failed}
		case ask.Method == "tools/call":
			c.entry.Error, c.entry.ErrorCode, c.entry.Outcome = "-32602", "-32602", "error"
			reply["error"] = object{"code": -32602, "message": "Unknown tool: " + ask.Params.Name}
		default:
			c.entry.Error, c.entry.ErrorCode, c.entry.Outcome = "-32601", "-32601", "error"
			reply["error"] = object{"code": -32601, "message": "Method not found"}
		}
		if !c.plan.ShowThink {
			a.unary = compact(reply)
			return a, nil
		}
		c.plan.Error = ""
		a.events = func(yield func(event) bool) {
			yield(event{name: "message", data: compact(reply)})
		}
		return a, nil
	},
	refusal: func(_ *call, _ int, message string) ([]byte, string, string) {
		return compact(object{"jsonrpc": "2.0", "id": nil, "error": object{"code": -32600, "message": message}}), "-32600", ""
	},
}
