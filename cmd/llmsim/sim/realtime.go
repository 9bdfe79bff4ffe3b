package sim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tollwire/tollwire/llm"
)

// realtime is OpenAI's Realtime API: text, or sound with what it says; with what the
// user said written down by another model, where the session asks for that.
var realtime = &dialogue{
	provider: "openai",
	hello: func(c *call) [][]byte {
		return [][]byte{compact(object{"type": "session.created", "event_id": "event_" + c.tag, "session": object{
			"id": "sess_" + c.tag, "object": "realtime.session", "type": "realtime", "model": served(&c.plan, c.ask.Model),
			"output_modalities": []any{"text"},
		}})}
	},
	begin: func() reply { return new(voice).answer },
}

// voice is what a Realtime session remembers.
type voice struct {
	sound       bool   // it answers with sound
	transcriber string // model that writes down what is heard
	heard       int    // bytes of sound that were not committed
	spoken      bool   // the question is sound
}

// realtimeMessage is what is read of a client's message.
type realtimeMessage struct {
	Type    string `json:"type"`
	Audio   string `json:"audio"`
	Session struct {
		Modalities []string `json:"output_modalities"`
		Audio      struct {
			Input struct {
				Transcription struct {
					Model string `json:"model"`
				} `json:"transcription"`
			} `json:"input"`
		} `json:"audio"`
	} `json:"session"`
}

func (v *voice) answer(c *call, msg []byte) ([][]byte, func(func(event) bool)) {
	n := 0
	say := func(kind string, o object) []byte {
		n++
		o["type"], o["event_id"] = kind, fmt.Sprintf("event_%s_r%d", c.tag, n)
		return compact(o)
	}
	var m realtimeMessage
	if err := json.Unmarshal(msg, &m); err != nil {
		return [][]byte{say("error", object{"error": object{"type": "invalid_request_error", "code": "invalid_json", "message": err.Error()}})}, nil
	}
	item := func(kind string) object {
		return object{"id": "item_" + c.tag, "type": "message", "role": "user", "status": "completed", "content": []any{object{"type": kind}}}
	}
	switch m.Type {
	case "session.update":
		v.sound = slices.Contains(m.Session.Modalities, "audio")
		v.transcriber = m.Session.Audio.Input.Transcription.Model
		return [][]byte{say("session.updated", object{"session": object{"object": "realtime.session", "model": served(&c.plan, c.ask.Model)}})}, nil
	case "conversation.item.create":
		v.spoken = false
		return [][]byte{say("conversation.item.added", object{"item": item("input_text")})}, nil
	case "input_audio_buffer.append":
		v.heard += len(m.Audio) * 3 / 4
		return nil, nil
	case "input_audio_buffer.commit":
		if v.heard == 0 {
			return [][]byte{say("error", object{"error": object{"type": "invalid_request_error", "code": "input_audio_buffer_commit_empty"}})}, nil
		}
		replies := [][]byte{
			say("input_audio_buffer.committed", object{"item_id": "item_" + c.tag}),
			say("conversation.item.added", object{"item": item("input_audio")}),
		}
		if v.transcriber != "" {
			replies = append(replies, say("conversation.item.input_audio_transcription.completed", v.transcribe(c)))
		}
		v.heard, v.spoken = 0, true
		return replies, nil
	case "response.create":
		return nil, v.respond(c)
	}
	return [][]byte{say("error", object{"error": object{"type": "invalid_request_error", "code": "unknown_event",
		"message": fmt.Sprintf("unknown event %q", m.Type)}})}, nil
}

// transcribe enters what was heard into the ledger as a call of its own.
func (v *voice) transcribe(c *call) object {
	e := *c.entry
	const bytesPerSecond = 2 * 24000 // of pcm16
	seconds := float64(v.heard) / bytesPerSecond
	var u llm.Usage
	u.Set(llm.Seconds, seconds)
	e.Operation, e.Asked, e.Served, e.Stream = "transcription", v.transcriber, "", false
	e.Usage, e.Generated, e.Stated, e.End = classes(&u), classes(&u), llm.Exact.String(), Now()
	c.s.ledger.add(&e)
	return object{"item_id": "item_" + c.tag, "content_index": 0, "transcript": "hello",
		"usage": object{"type": "duration", "seconds": seconds}}
}

// respond is a response's events.
func (v *voice) respond(c *call) func(func(event) bool) {
	e, p := c.entry, &c.plan
	e.ID, e.Served = "resp_"+c.tag, served(p, c.ask.Model)
	in, out := llm.Input, llm.Output
	heard := object{"text_tokens": p.Input + p.CacheRead, "audio_tokens": 0}
	says := object{"text_tokens": p.Tokens, "audio_tokens": 0}
	if v.spoken {
		in, heard = llm.InputAudio, object{"text_tokens": p.CacheRead, "audio_tokens": p.Input}
	}
	if v.sound {
		out, says = llm.OutputAudio, object{"text_tokens": 0, "audio_tokens": p.Tokens}
	}
	heard["cached_tokens"] = p.CacheRead
	heard["cached_tokens_details"] = object{"text_tokens": p.CacheRead, "audio_tokens": 0, "image_tokens": 0}
	var u llm.Usage
	u.Set(llm.Input, 0)
	u.Set(llm.Output, 0)
	u.Set(llm.CacheRead, float64(p.CacheRead)) // of text
	u.Set(in, float64(p.Input))
	u.Set(out, float64(p.Tokens))
	e.Generated = classes(&u)
	usage := object{
		"total_tokens": p.Input + p.CacheRead + p.Tokens, "input_tokens": p.Input + p.CacheRead, "output_tokens": p.Tokens,
		"input_token_details": heard, "output_token_details": says,
	}
	return func(yield func(event) bool) { v.stream(c, usage, &u, yield) }
}

func (v *voice) stream(c *call, usage object, u *llm.Usage, yield func(event) bool) {
	e, p := c.entry, &c.plan
	item, n := "item_a"+c.tag, 0
	send := func(kind string, o object, ev event) bool {
		n++
		o["type"], o["event_id"] = kind, fmt.Sprintf("event_%s_%d", c.tag, n)
		ev.data = compact(o)
		return yield(ev)
	}
	state := func(status string, usage any) object {
		return object{"response": object{"object": "realtime.response", "id": e.ID, "status": status, "status_details": nil,
			"output": []any{}, "output_modalities": []any{"text"}, "usage": usage}}
	}
	part := func(o object) object {
		o["response_id"], o["item_id"], o["output_index"], o["content_index"] = e.ID, item, 0, 0
		return o
	}
	if !send("response.created", state("in_progress", nil), event{}) ||
		!send("response.output_item.added", object{"response_id": e.ID, "output_index": 0,
			"item": object{"id": item, "type": "message", "status": "in_progress", "role": "assistant", "content": []any{}}}, event{}) {
		return
	}
	kind := either(v.sound, "response.output_audio_transcript.", "response.output_text.")
	var said strings.Builder
	for w := range speak(p, c.seed) {
		said.WriteString(w.text)
		if !send(kind+"delta", part(object{"delta": w.text}), event{content: true, tokens: max(1, w.tokens)}) {
			return
		}
		sound := base64.StdEncoding.EncodeToString(make([]byte, 2400))
		if v.sound && !send("response.output_audio.delta", part(object{"delta": sound}), event{content: true}) {
			return
		}
	}
	_ = send(kind+"done", part(object{either(v.sound, "transcript", "text"): said.String()}), event{}) &&
		send("response.done", state("completed", usage), event{usage: u, final: true, finish: "completed"})
}
