package openai

import (
	"cmp"
	"net/url"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// session is what holds for all calls of a Realtime connection
// (https://platform.openai.com/docs/api-reference/realtime).
type session struct {
	provider    string
	asked       string // model of the handshake, or of the client's settings
	served      string
	transcriber string // model that writes down what the user says
}

// turn decodes one response of a Realtime session. xAI, Azure and DashScope speak the
// same, the names of the beta included.
type turn struct {
	call
	session *session
	begun   bool // the server has begun to answer
	put     bool // the question was put: what the user says from here on is none of it
}

func newTurn(v *Vendor, sess *session, c *llm.Call) *turn {
	c.Provider, c.Operation, c.Stream = sess.provider, operations[realtime], true
	c.RequestModel, c.ResponseModel = sess.asked, sess.served
	d := &turn{call: call{v: v, c: c, f: new(exchange.Facts), api: realtime, stream: true}, session: sess}
	d.meter.Open(v.cfg, d.f, c)
	return d
}

// sessionModel is the model that a handshake's query names; Azure's is a deployment.
func sessionModel(query string) string {
	q, _ := url.ParseQuery(query) // what can be read of it
	model := q.Get("model")
	if model == "" {
		model = q.Get("deployment")
	}
	return strings.Clone(model[:min(len(model), jsonscan.MaxText)])
}

// Next implements exchange.Sequel.
func (d *turn) Next(c *llm.Call) exchange.Decoder { return newTurn(d.v, d.session, c) }

// Response implements exchange.Decoder.
func (d *turn) Response(*exchange.Response) {}

// Event implements exchange.Decoder.
func (d *turn) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	if s.Kind() != jsonscan.Object {
		return s.Err()
	}
	if e.FromClient {
		return d.client(s, e)
	}
	d.meter.Event()
	err := d.server(s, e)
	e.Content, e.Done = d.meter.Kind(), d.done
	return err
}

// client reads a message of the client. Until the question is put, each may be the
// first of it: the settings before and the sound of minutes are not.
func (d *turn) client(s *jsonscan.Scanner, e *exchange.Event) error {
	kind := ""
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "session":
			d.settings(s, &d.session.asked)
		}
	}
	if err := s.End(); err != nil {
		return err
	}
	if d.c.RequestModel == "" {
		d.c.RequestModel = d.session.asked
	}
	e.Start = !d.put
	switch kind {
	case "response.create":
		d.put, e.Asked = true, true
	case "conversation.item.create", "input_audio_buffer.commit":
		d.put = true
	}
	return nil
}

// settings reads a session object. Where the session only transcribes, its model is none.
func (d *turn) settings(s *jsonscan.Scanner, model *string) {
	for key := range s.Object {
		switch string(key) {
		case "model":
			last(s, model)
		case "input_audio_transcription": // the beta's
			d.transcription(s)
		case "audio":
			for key := range s.Object {
				if string(key) != "input" {
					continue
				}
				for key := range s.Object {
					if string(key) == "transcription" {
						d.transcription(s)
					}
				}
			}
		}
	}
}

func (d *turn) transcription(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) == "model" {
			last(s, &d.session.transcriber)
		}
	}
}

// server reads a message of the server.
func (d *turn) server(s *jsonscan.Scanner, e *exchange.Event) error {
	c := d.c
	kind, code, errorKind := "", "", ""
	index := 0
	var beside usage // stands at the top level
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "output_index":
			if n, ok := s.Int(); ok && n >= 0 {
				index = int(min(n, 1<<20))
			}
		case "session":
			d.settings(s, &d.session.served)
		case "delta":
			d.responseDelta(s, kind, index)
		case "item":
			if kind == "response.output_item.added" || kind == "response.output_item.done" {
				d.item(s, index, kind == "response.output_item.done")
			}
		case "response":
			d.reply(s)
		case "usage":
			beside.read(s)
		case "error":
			code, errorKind, _ = fault(s)
		}
	}
	if err := s.End(); err != nil {
		d.whole = false
		return err
	}
	c.ResponseModel = d.session.served
	switch kind {
	case "input_audio_buffer.speech_stopped":
		e.Start, d.put = !d.put, true
	case "response.created":
		d.begun = true
	case "response.function_call_arguments.done":
		d.meter.ToolEnd(index)
	case "response.done":
		if beside.seen { // xAI's
			d.usage = beside
		}
		d.done, d.whole = true, d.usage.seen
	case "error": // the answer to what the client sent, which then has no other
		if d.put && !d.begun {
			d.fail(code, errorKind)
			d.done = true
		}
	case "conversation.item.input_audio_transcription.completed":
		e.Aside = func(t *llm.Call) {
			d.transcribed(t)
			beside.settle(t, transcription)
			answer.Settle(t, llm.SourceStream, true)
		}
	case "conversation.item.input_audio_transcription.failed":
		e.Aside = func(t *llm.Call) {
			d.transcribed(t)
			answer.Fail(t, code, errorKind)
		}
	}
	return nil
}

// transcribed fills in a call at the model that writes down what the user says: its
// usage is billed apart.
func (d *turn) transcribed(t *llm.Call) {
	t.Provider, t.Operation, t.RequestModel = d.session.provider, operations[transcription], d.session.transcriber
}

// reply reads a response, whose id is the last one stated: others may run beside it.
func (d *turn) reply(s *jsonscan.Scanner) {
	status := ""
	for key := range s.Object {
		switch string(key) {
		case "id":
			last(s, &d.c.ResponseID)
		case "status":
			s.Into(&status)
		case "status_details":
			d.statusDetails(s)
		case "usage":
			d.usage.read(s)
		case "output":
			if !d.items {
				for i := range s.Array {
					d.item(s, i, true)
				}
			}
		}
	}
	switch status {
	case "completed", "incomplete", "cancelled":
		d.reasons.Set(0, cmp.Or(d.reason, status))
	case "failed":
		if !d.c.InBandError {
			d.fail("", status)
		}
	}
}

func (d *turn) statusDetails(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "reason": // max_output_tokens, content_filter, turn_detected, client_cancelled
			s.Into(&d.reason)
		case "error":
			if code, kind, some := fault(s); some {
				d.fail(code, kind)
			}
		}
	}
}
