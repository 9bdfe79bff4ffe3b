package sim

import (
	"encoding/json"
	"net/http"

	"github.com/tollwire/tollwire/llm"
)

// dashscope is Qwen's own API: a header asks for the stream, whose events repeat the
// usage and all the text so far.
var dashscope = &vendor{
	provider: "qwen", operation: "chat",
	prepare: func(c *call) { c.ask.Stream = c.r.Header.Get("X-Dashscope-Sse") == "enable" },
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = c.tag, "" // its answer names no model
		u := tokens(p.Input, p.Tokens)
		u.Set(llm.CacheRead, float64(p.CacheRead))
		e.Generated = classes(&u)
		finish := lengthOr("stop")(p.Finish)
		state := func(text, finish string, output int) object {
			return object{"request_id": e.ID,
				"output": object{"choices": []any{object{"finish_reason": finish, "message": object{"role": "assistant", "content": text}}}},
				"usage": object{"input_tokens": p.Input + p.CacheRead, "output_tokens": output, "total_tokens": p.Input + p.CacheRead + output,
					"prompt_tokens_details": object{"cached_tokens": p.CacheRead}}}
		}
		a := &answer{header: http.Header{"X-Request-Id": {e.RequestID}}, kind: sseTight}
		if !c.ask.Stream {
			a.unary, a.visible, a.usage, a.finish = compact(state(c.said(), finish, p.Tokens)), true, u, []string{finish}
			return a, nil
		}
		said, n := "", 0
		a.events = told{
			piece: func(text string) event {
				said += text
				n++
				so := tokens(p.Input, min(n, p.Tokens))
				so.Set(llm.CacheRead, float64(p.CacheRead))
				return event{name: "result", data: compact(state(said, "null", min(n, p.Tokens))), usage: &so}
			},
			last: []event{{name: "result", data: compact(state(c.said(), finish, p.Tokens)), usage: &u, final: true, finish: finish}},
		}.events(c)
		return a, nil
	},
	refusal: func(c *call, status int, message string) ([]byte, string, string) {
		return compact(object{"code": "InvalidParameter", "message": message, "request_id": c.tag}), "InvalidParameter", ""
	},
}

// dashscopeTasks is the WebSocket on which text is spoken: a task is run, given text, and
// finished, and the characters are what is billed.
var dashscopeTasks = &dialogue{
	provider: "qwen",
	begin:    func() reply { return new(speech).answer },
}

// speech is what is known of the task that runs.
type speech struct {
	id         string
	characters int
}

func (v *speech) answer(c *call, msg []byte) ([][]byte, func(func(event) bool)) {
	var m struct {
		Header struct {
			Action string `json:"action"`
			Task   string `json:"task_id"`
		} `json:"header"`
		Payload struct {
			Model string `json:"model"`
			Input struct {
				Text string `json:"text"`
			} `json:"input"`
		} `json:"payload"`
	}
	header := object{"task_id": v.id, "attributes": object{}}
	if err := json.Unmarshal(msg, &m); err != nil {
		header["event"], header["error_code"], header["error_message"] = "task-failed", "InvalidParameter", err.Error()
		return [][]byte{compact(object{"header": header, "payload": object{}})}, nil
	}
	switch m.Header.Action {
	case "run-task":
		c.ask.Model = m.Payload.Model
		*v = speech{id: m.Header.Task}
		header["task_id"], header["event"] = v.id, "task-started"
		return [][]byte{compact(object{"header": header, "payload": object{}})}, nil
	case "continue-task":
		v.characters += len([]rune(m.Payload.Input.Text))
	case "finish-task":
		return nil, v.speak(c)
	}
	return nil, nil
}

func (v *speech) speak(c *call) func(func(event) bool) {
	c.entry.ID, c.entry.Served, c.entry.Operation = v.id, "", "speech"
	var u llm.Usage
	u.Set(llm.Characters, float64(v.characters))
	c.entry.Generated = classes(&u)
	state := func(event string) []byte {
		return compact(object{"header": object{"task_id": v.id, "event": event}, "payload": object{
			"output": object{"sentence": object{"words": []any{}}}, "usage": object{"characters": v.characters}}})
	}
	return told{
		piece: func(text string) event { return event{data: []byte("sound of " + text)} },
		last:  []event{{data: state("result-generated")}, {data: state("task-finished"), usage: &u, final: true}},
	}.events(c)
}
