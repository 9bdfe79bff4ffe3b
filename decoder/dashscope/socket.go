package dashscope

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// isSocket recognises the WebSocket on which tasks of speech run
// (https://help.aliyun.com/zh/model-studio/cosyvoice-websocket-api). The one of realtime
// sessions speaks OpenAI's format.
func isSocket(req *exchange.Request) bool {
	return req.Method == http.MethodGet && strings.EqualFold(req.Header.Get("Upgrade"), "websocket") &&
		strings.HasSuffix(strings.TrimRight(req.Path, "/"), "/api-ws/v1/inference")
}

// task decodes one task: text that is spoken, or speech that is written down. The client
// runs it, sends text or sound, and finishes it.
type task struct {
	v     *Vendor
	c     *llm.Call
	meter content.Meter
	ended bool

	characters, seconds stated.Count
}

func newTask(v *Vendor, c *llm.Call) *task {
	c.Provider, c.Operation, c.Stream = "qwen", "speech", true
	d := &task{v: v, c: c}
	d.meter.Open(v.cfg, new(exchange.Facts), c)
	return d
}

// Next implements exchange.Sequel.
func (d *task) Next(c *llm.Call) exchange.Decoder { return newTask(d.v, c) }

// Response implements exchange.Decoder.
func (d *task) Response(*exchange.Response) {}

// Body implements exchange.Decoder: the handshake was refused.
func (d *task) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	for key := range s.Object {
		if string(key) == "code" {
			code := ""
			s.Into(&code)
			answer.Fail(d.c, code)
		}
	}
	return s.Err()
}

// Event implements exchange.Decoder. What is no JSON is sound.
func (d *task) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.meter.Event()
	if s.Kind() != jsonscan.Object {
		var bad *jsonscan.SyntaxError
		if err := s.Err(); err != nil && !errors.As(err, &bad) {
			return err
		}
		if !e.FromClient {
			d.meter.Seen(exchange.Visible)
			e.Content = exchange.Visible
		}
		return nil
	}
	event := d.message(s)
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	switch event {
	case "run-task":
		e.Start, e.Asked = true, true
	case "task-finished", "task-failed":
		d.ended = event == "task-finished"
		e.Done = true
	}
	return nil
}

// message returns the client's action, or the server's event.
func (d *task) message(s *jsonscan.Scanner) (event string) {
	c := d.c
	for key := range s.Object {
		switch string(key) {
		case "header":
			for key := range s.Object {
				switch string(key) {
				case "action", "event":
					s.Into(&event)
				case "task_id":
					s.Into(&c.ResponseID)
				case "error_code":
					code := ""
					s.Into(&code)
					answer.Fail(c, code)
				}
			}
		case "payload":
			for key := range s.Object {
				switch string(key) {
				case "model":
					s.Into(&c.RequestModel)
				case "task":
					if kind := ""; s.Into(&kind) && kind == "asr" {
						c.Operation = "transcription"
					}
				case "output":
					d.output(s)
				case "usage":
					d.usage(s)
				}
			}
		}
	}
	return event
}

// output reads what was written down: a sentence, again and again until it is whole.
func (d *task) output(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) != "sentence" {
			continue
		}
		for key := range s.Object {
			if string(key) == "text" {
				if n, _ := s.TextLen(); n > 0 {
					d.meter.Seen(exchange.Visible)
				}
			}
		}
	}
}

func (d *task) usage(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "characters":
			d.characters.Read(s)
		case "duration":
			d.seconds.Read(s)
		}
	}
}

// End implements exchange.Decoder.
func (d *task) End(err error) {
	d.characters.Into(&d.c.Usage, llm.Characters)
	d.seconds.Into(&d.c.Usage, llm.Seconds)
	answer.Settle(d.c, llm.SourceStream, err == nil && d.ended)
	d.meter.End(err == nil && d.ended)
}
