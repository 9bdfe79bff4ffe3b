package dashscope

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

var socket = &exchange.Request{Method: "GET", Host: "dashscope.aliyuncs.com", Path: "/api-ws/v1/inference/", Header: http.Header{"Upgrade": {"websocket"}}}

// The messages follow https://help.aliyun.com/zh/model-studio/cosyvoice-websocket-api.
func TestTasks(t *testing.T) {
	const (
		run      = `>{"header":{"action":"run-task","task_id":"t1","streaming":"duplex"},"payload":{"task_group":"audio","task":"tts","function":"SpeechSynthesizer","model":"cosyvoice-v2","parameters":{},"input":{}}}`
		started  = `{"header":{"task_id":"t1","event":"task-started","attributes":{}},"payload":{}}`
		more     = `>{"header":{"action":"continue-task","task_id":"t1","streaming":"duplex"},"payload":{"input":{"text":"hi"}}}`
		some     = `{"header":{"task_id":"t1","event":"result-generated"},"payload":{"output":{"sentence":{"words":[]}},"usage":{"characters":1}}}`
		finished = `{"header":{"task_id":"t1","event":"task-finished"},"payload":{"output":{},"usage":{"characters":2}}}`
	)
	for _, x := range []struct {
		name     string
		messages []string
		want     map[string]float64
		sure     llm.Completeness
		visible  int
		check    func(c *llm.Call, done bool) bool
	}{
		{"spoken", []string{run, started, more, "\xff\xfb\x90sound", some, "\xff\xfb\x90sound", finished}, map[string]float64{"characters": 2}, llm.Exact, 2,
			func(c *llm.Call, done bool) bool {
				return done && c.RequestModel == "cosyvoice-v2" && c.Operation == "speech" && c.ResponseID == "t1" && c.Provider == "qwen"
			}},
		{"broken off", []string{run, started, more, some}, map[string]float64{"characters": 1}, llm.Estimated, 0,
			func(c *llm.Call, done bool) bool { return !done }},
		{"written down", []string{strings.Replace(run, "tts", "asr", 1), started, ">sound", `{"header":{"task_id":"t1","event":"result-generated"},"payload":{"output":{"sentence":{"text":"hello"}},"usage":{"duration":3}}}`,
			`{"header":{"task_id":"t1","event":"task-finished"},"payload":{"output":{},"usage":null}}`}, map[string]float64{"seconds": 3}, llm.Exact, 1,
			func(c *llm.Call, _ bool) bool { return c.Operation == "transcription" }},
		{"failed", []string{run, `{"header":{"task_id":"t1","event":"task-failed","error_code":"InvalidParameter","error_message":"x"},"payload":{}}`}, map[string]float64{}, llm.Missing, 0,
			func(c *llm.Call, done bool) bool { return done && c.InBandError && c.ErrorType == "InvalidParameter" }},
	} {
		v := New(content.Config{NoEstimate: true})
		if got := v.Recognize(socket, new(exchange.Facts)); got != exchange.Sure {
			t.Fatal(got)
		}
		c := &llm.Call{Status: 101}
		d, done, asked, visible := v.Open(socket, new(exchange.Facts), c), false, 0, 0
		for _, m := range x.messages {
			data, ours := strings.CutPrefix(m, ">")
			e := &exchange.Event{Data: strings.NewReader(data), FromClient: ours}
			if err := d.Event(e); err != nil {
				t.Fatal(x.name, err)
			}
			done = done || e.Done
			if e.Asked {
				asked++
			}
			if e.Content == exchange.Visible {
				visible++
			}
		}
		var err error
		if !done {
			err = exchange.ErrCut
		}
		d.End(err)
		if got := answertest.Classes(&c.Usage); !maps.Equal(got, x.want) || c.Completeness != x.sure || visible != x.visible || asked != 1 || !x.check(c, done) {
			t.Errorf("%s: %v %+v, content %d, asked %d", x.name, got, c, visible, asked)
		}
	}
}

func FuzzTask(f *testing.F) {
	f.Add([]byte(`{"header":{"action":"run-task","task_id":"t"},"payload":{"task":"asr","model":"m"}}`), []byte(`{"header":{"event":"task-finished"},"payload":{"output":{"sentence":{"text":"a"}},"usage":{"duration":2}}}`))
	f.Add([]byte("sound"), []byte(`{"header":{"event":"task-failed","error_code":"x"}}`))
	f.Fuzz(func(t *testing.T, ask, answer []byte) {
		run := func(pieces func(io.Reader) io.Reader) (*llm.Call, bool) {
			c := &llm.Call{Status: 101}
			d := New(content.Config{NoEstimate: true}).Open(socket, &exchange.Facts{}, c)
			d.Event(&exchange.Event{Data: pieces(bytes.NewReader(ask)), FromClient: true})
			e := &exchange.Event{Data: pieces(bytes.NewReader(answer))}
			err := d.Event(e)
			if err == nil && !e.Done {
				err = exchange.ErrCut
			}
			d.End(err)
			return c, e.Done
		}
		a, done := run(func(r io.Reader) io.Reader { return r })
		b, again := run(iotest.OneByteReader)
		if a.Usage != b.Usage || a.Completeness != b.Completeness || a.ErrorType != b.ErrorType || done != again {
			t.Fatalf("%+v, in pieces %+v", a, b)
		}
		if !done && a.Completeness == llm.Exact {
			t.Fatalf("exact, and not done: %+v", a)
		}
	})
}
