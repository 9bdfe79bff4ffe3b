package openai

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

// talk is what was said on one WebSocket: its calls, each with the indexes of the
// messages that began it and with its content.
type talk struct {
	calls  []*llm.Call
	starts [][]int
	seen   []answertest.Contents
	asides []*llm.Call
	due    []int // the messages after which an answer was due
}

func handshake(url string) *exchange.Request {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "wss://"), "/")
	path, query, _ := strings.Cut("/"+path, "?")
	return &exchange.Request{Method: "GET", Host: host, Path: path, Query: query, Header: http.Header{"Upgrade": {"websocket"}}}
}

// speak decodes messages, of which those with a > are the client's.
func speak(t testing.TB, url string, messages ...string) talk {
	t.Helper()
	v, req := New(content.Config{NoEstimate: true}), handshake(url)
	if got := v.Recognize(req, new(exchange.Facts)); got < exchange.Path {
		t.Fatalf("%s: recognized as %v", url, got)
	}
	var r talk
	var d exchange.Decoder
	open := func() {
		c := &llm.Call{Status: 101}
		if s, ok := d.(exchange.Sequel); ok {
			d = s.Next(c)
		} else {
			d = v.Open(req, new(exchange.Facts), c)
		}
		d.Response(&exchange.Response{Status: 101})
		r.calls, r.starts, r.seen = append(r.calls, c), append(r.starts, nil), append(r.seen, answertest.Contents{})
	}
	done := true
	for i, m := range messages {
		if done {
			open()
		}
		data, ours := strings.CutPrefix(m, ">")
		e := &exchange.Event{Data: strings.NewReader(data), FromClient: ours}
		if err := d.Event(e); err != nil {
			t.Fatal(m, err)
		}
		at := len(r.calls) - 1
		if e.Start {
			r.starts[at] = append(r.starts[at], i)
		}
		if e.Asked {
			r.due = append(r.due, i)
		}
		if e.Content == exchange.Visible {
			r.seen[at].Visible++
		}
		if e.Content == exchange.Hidden {
			r.seen[at].Hidden++
		}
		if e.Aside != nil {
			c := new(llm.Call)
			e.Aside(c)
			r.asides = append(r.asides, c)
		}
		if done = e.Done; done {
			d.End(nil)
		}
	}
	if !done {
		d.End(exchange.ErrCut)
	}
	return r
}

// The messages follow https://platform.openai.com/docs/api-reference/realtime-server-events.
const (
	created = `{"type":"session.created","event_id":"e1","session":{"type":"realtime","id":"sess_1","model":"gpt-realtime-2025-08-28","output_modalities":["audio"]}}`
	begins  = `{"type":"response.created","response":{"id":"resp_1","status":"in_progress","usage":null}}`
)

func TestRealtimeBySound(t *testing.T) {
	r := speak(t, "wss://api.openai.com/v1/realtime?model=gpt-realtime",
		created,
		`>{"type":"session.update","session":{"type":"realtime","audio":{"input":{"transcription":{"model":"gpt-4o-mini-transcribe"}}}}}`,
		`>{"type":"input_audio_buffer.append","audio":"AAAA"}`,
		`>{"type":"input_audio_buffer.append","audio":"AAAA"}`,
		`{"type":"input_audio_buffer.speech_stopped","audio_end_ms":2000,"item_id":"item_1"}`,
		`>{"type":"input_audio_buffer.append","audio":"AAAA"}`, // silence
		begins,
		`{"type":"response.output_audio_transcript.delta","response_id":"resp_1","delta":"Hi"}`,
		`{"type":"response.output_audio.delta","response_id":"resp_1","delta":"AAAA"}`,
		`{"type":"conversation.item.input_audio_transcription.completed","item_id":"item_1","transcript":"hello","usage":{"type":"tokens","total_tokens":22,"input_tokens":13,"input_token_details":{"text_tokens":0,"audio_tokens":13},"output_tokens":9}}`,
		`{"type":"response.done","response":{"id":"resp_1","status":"completed","output":[{"type":"message","content":[{"type":"output_audio","transcript":"Hi"}]}],
			"usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,
			"input_token_details":{"text_tokens":119,"audio_tokens":13,"image_tokens":0,"cached_tokens":64,"cached_tokens_details":{"text_tokens":60,"audio_tokens":4,"image_tokens":0}},
			"output_token_details":{"text_tokens":30,"audio_tokens":91}}}}`)
	c := r.calls[0]
	want := map[string]float64{"input": 59, "input_audio": 9, "cache_read": 60, "cache_read_audio": 4, "output": 30, "output_audio": 91}
	if got := answertest.Classes(&c.Usage); !covers(got, want) || c.Completeness != llm.Exact || c.UsageSource != llm.SourceStream {
		t.Errorf("%v %v %v", got, c.Completeness, c.Disagreement)
	}
	if c.RequestModel != "gpt-realtime" || c.ResponseModel != "gpt-realtime-2025-08-28" || c.ResponseID != "resp_1" || c.Provider != "openai" ||
		!slices.Equal(c.FinishReasons, []string{"completed"}) || c.Disagreement != "" || !c.Stream {
		t.Errorf("%+v", c)
	}
	if r.seen[0].Visible != 2 || !slices.Equal(r.starts[0], []int{1, 2, 3, 4}) {
		t.Errorf("content %+v, the question may begin with %v", r.seen[0], r.starts[0])
	}
	if len(r.asides) != 1 {
		t.Fatalf("%d calls beside", len(r.asides))
	}
	aside := r.asides[0]
	if got := answertest.Classes(&aside.Usage); !covers(got, map[string]float64{"input": 0, "input_audio": 13, "output": 9}) ||
		aside.RequestModel != "gpt-4o-mini-transcribe" || aside.Operation != "transcription" || aside.Completeness != llm.Exact {
		t.Errorf("%v %+v", got, aside)
	}
}

// covers reports whether got states want, and no other tokens.
func covers(got, want map[string]float64) bool {
	got = maps.Clone(got)
	maps.DeleteFunc(got, func(class string, n float64) bool { return n == 0 && want[class] == 0 })
	want = maps.Clone(want)
	maps.DeleteFunc(want, func(_ string, n float64) bool { return n == 0 })
	return maps.Equal(got, want)
}

func TestRealtimeAnswers(t *testing.T) {
	const (
		item   = `>{"type":"conversation.item.create","item":{"type":"message"}}`
		create = `>{"type":"response.create"}`
		usage  = `"usage":{"total_tokens":15,"input_tokens":10,"output_tokens":5,"input_token_details":{"text_tokens":10},"output_token_details":{"text_tokens":5}}`
		delta  = `{"type":"response.output_text.delta","delta":"a"}`
	)
	for _, x := range []struct {
		name, url string
		messages  []string
		check     func(talk) bool
	}{
		{"a cancelled answer was used all the same", "wss://api.openai.com/v1/realtime?model=m", []string{item, create, begins, delta,
			`{"type":"response.done","response":{"id":"resp_1","status":"cancelled","status_details":{"type":"cancelled","reason":"turn_detected"},` + usage + `}}`},
			func(r talk) bool {
				c := r.calls[0]
				return slices.Equal(c.FinishReasons, []string{"turn_detected"}) && c.Completeness == llm.Exact && c.Usage.Get(llm.Output) == 5
			}},
		{"an answer that is too long", "wss://api.openai.com/v1/realtime?model=m", []string{create, begins, delta,
			`{"type":"response.done","response":{"status":"incomplete","status_details":{"type":"incomplete","reason":"max_output_tokens"},` + usage + `}}`},
			func(r talk) bool { return slices.Equal(r.calls[0].Quality, []string{"length"}) }},
		{"an answer is due when it was asked for", "wss://api.openai.com/v1/realtime?model=m", []string{created, item, create},
			func(r talk) bool { return slices.Equal(r.due, []int{2}) }},
		{"a failed answer", "wss://api.openai.com/v1/realtime?model=m", []string{create, begins,
			`{"type":"response.done","response":{"status":"failed","status_details":{"type":"failed","error":{"type":"server_error","code":"rate_limit_exceeded"}},"usage":null}}`},
			func(r talk) bool {
				c := r.calls[0]
				return c.ErrorType == "rate_limit_exceeded" && c.InBandError && c.Completeness == llm.Missing && len(c.FinishReasons) == 0
			}},
		{"an error instead of an answer", "wss://api.openai.com/v1/realtime?model=m", []string{create,
			`{"type":"error","error":{"type":"invalid_request_error","code":"conversation_already_has_active_response"}}`},
			func(r talk) bool {
				c := r.calls[0]
				return c.ErrorType == "conversation_already_has_active_response" && c.InBandError
			}},
		{"an error that is not the answer's", "wss://api.openai.com/v1/realtime?model=m", []string{create, begins,
			`{"type":"error","error":{"type":"invalid_request_error","code":"unknown_event"}}`, delta,
			`{"type":"response.done","response":{"id":"resp_1","status":"completed",` + usage + `}}`},
			func(r talk) bool {
				return len(r.calls) == 1 && r.calls[0].ErrorType == "" && r.calls[0].Completeness == llm.Exact
			}},
		{"a tool", "wss://api.openai.com/v1/realtime?model=m", []string{create, begins,
			`{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","name":"weather","call_id":"c"}}`,
			`{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{\"city\":"}`,
			`{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{\"city\":"}`,
			`{"type":"response.output_item.done","output_index":0,"item":{"type":"function_call","name":"weather","arguments":"{\"city\":"}}`,
			`{"type":"response.done","response":{"status":"completed","output":[{"type":"function_call","name":"weather"}],` + usage + `}}`},
			func(r talk) bool {
				c := r.calls[0]
				return slices.Equal(c.ToolCalls, []string{"weather"}) && slices.Equal(c.Quality, []string{"arguments_invalid"})
			}},
		{"two answers, the names of the beta, the types behind", "wss://r.openai.azure.com/openai/realtime?api-version=2024-10-01&deployment=mine", []string{
			`>{"session":{"input_audio_transcription":{"model":"whisper-1"}},"type":"session.update"}`, item, create,
			`{"response":{"id":"resp_1","status":"in_progress"},"type":"response.created"}`, `{"type":"response.text.delta","delta":"a"}`,
			`{"response":{"id":"resp_1","status":"completed",` + usage + `},"type":"response.done"}`,
			`{"transcript":"x","usage":{"type":"duration","seconds":1.5},"type":"conversation.item.input_audio_transcription.completed"}`,
			create, `{"type":"response.created","response":{"id":"resp_2"}}`, `{"type":"response.done","response":{"id":"resp_2","status":"completed",` + usage + `}}`},
			func(r talk) bool {
				return len(r.calls) == 2 && r.calls[0].ResponseID == "resp_1" && r.calls[1].ResponseID == "resp_2" && r.calls[1].RequestModel == "mine" &&
					r.calls[0].Provider == "azure.ai.openai" && r.calls[1].Provider == "azure.ai.openai" && r.calls[1].Operation == "chat" &&
					len(r.asides) == 1 && r.asides[0].RequestModel == "whisper-1" && r.asides[0].Usage.Get(llm.Seconds) == 1.5 && !r.asides[0].Usage.HasTokens()
			}},
		{"xAI states its usage beside the response", "wss://api.x.ai/v1/realtime", []string{
			`>{"type":"session.update","session":{"model":"grok-voice"}}`, create, begins, delta,
			`{"type":"response.done","response":{"id":"r","status":"completed"},"usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15,"grok_tokens":3,"billable_audio_seconds":2.5}}`},
			func(r talk) bool {
				c := r.calls[0]
				return c.Provider == "x_ai" && c.Usage.Get(llm.Input) == 10 && c.Usage.Get(llm.Seconds) == 2.5 && c.Completeness == llm.Exact && c.RequestModel == "grok-voice"
			}},
		{"a cut answer", "wss://api.openai.com/v1/realtime?model=m", []string{create, begins, delta},
			func(r talk) bool { return r.calls[0].Completeness == llm.Missing && r.seen[0].Visible == 1 }},
		{"a transcription that failed", "wss://api.openai.com/v1/realtime?intent=transcription", []string{
			`{"type":"conversation.item.input_audio_transcription.failed","item_id":"i","error":{"type":"transcription_error","code":"audio_unintelligible"}}`},
			func(r talk) bool { return len(r.asides) == 1 && r.asides[0].ErrorType == "audio_unintelligible" }},
	} {
		if r := speak(t, x.url, x.messages...); !x.check(r) {
			t.Errorf("%s: %+v", x.name, r)
			for _, c := range append(r.calls, r.asides...) {
				t.Logf("%+v", c)
			}
		}
	}
}

// Responses over a WebSocket (https://platform.openai.com/docs/guides/websocket-mode).
func TestResponsesSocket(t *testing.T) {
	const usage = `"usage":{"input_tokens":30,"input_tokens_details":{"cached_tokens":10},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":37}`
	r := speak(t, "wss://api.openai.com/v1/responses",
		`>{"type":"response.create","model":"gpt-5.2","store":false,"metadata":{"team":"a"},"text":{"format":{"type":"json_object"}},"input":[{"type":"message","role":"user","content":"hi"}]}`,
		`{"type":"response.created","response":{"id":"resp_1","status":"in_progress","model":"gpt-5.2-2026","usage":null}}`,
		`{"type":"response.reasoning_summary_text.delta","delta":"hm"}`,
		`{"type":"response.output_text.delta","output_index":1,"delta":"no JSON"}`,
		`{"type":"response.completed","response":{"id":"resp_1","status":"completed","model":"gpt-5.2-2026",`+usage+`}}`,
		`>{"type":"response.create","model":"gpt-5.2","previous_response_id":"resp_1","input":[]}`,
		`{"type":"error","status":400,"error":{"code":"previous_response_not_found","type":"invalid_request_error"}}`,
		`>{"type":"response.create","model":"gpt-5.2","input":[]}`,
		`{"type":"response.created","response":{"id":"resp_3","status":"in_progress"}}`)
	if len(r.calls) != 3 || !slices.Equal(r.due, []int{0, 5, 7}) {
		t.Fatalf("%d calls, answers are due after %v", len(r.calls), r.due)
	}
	c := r.calls[0]
	want := map[string]float64{"input": 20, "cache_read": 10, "output": 5, "reasoning": 2}
	if got := answertest.Classes(&c.Usage); !covers(got, want) || c.Completeness != llm.Exact || c.UsageSource != llm.SourceStream ||
		c.RequestModel != "gpt-5.2" || c.ResponseModel != "gpt-5.2-2026" || c.Metadata["team"] != "a" || !c.Stream ||
		!slices.Equal(c.Quality, []string{"schema_invalid"}) || r.seen[0].Hidden != 1 || r.seen[0].Visible != 1 {
		t.Errorf("%v %+v %+v", got, c, r.seen[0])
	}
	if c := r.calls[1]; c.ErrorType != "previous_response_not_found" || !c.InBandError || c.Metadata != nil {
		t.Errorf("%+v", c)
	}
	if c := r.calls[2]; c.Completeness != llm.Missing || c.ResponseID != "resp_3" {
		t.Errorf("%+v", c)
	}
}

func FuzzSocket(f *testing.F) {
	f.Add(true, created+"\n>{\"type\":\"response.create\"}\n"+begins+"\n"+`{"type":"response.done","response":{"id":"r","status":"completed","usage":{"input_tokens":1,"output_tokens":2}}}`)
	f.Add(true, `{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"duration","seconds":1}}`)
	f.Add(false, ">"+`{"type":"response.create","model":"m","input":"x"}`+"\n"+`{"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":1,"output_tokens":2}}}`)
	f.Add(false, `{"type":"error","error":{"code":"c"}}`)
	f.Fuzz(func(t *testing.T, realtime bool, lines string) {
		v, req := New(content.Config{}), handshake("wss://h/v1/responses")
		if realtime {
			req = handshake("wss://h/v1/realtime?model=m")
		}
		c := &llm.Call{Status: 101}
		d := v.Open(req, new(exchange.Facts), c)
		d.Response(&exchange.Response{Status: 101})
		for line := range strings.SplitSeq(lines, "\n") {
			data, ours := strings.CutPrefix(line, ">")
			e := &exchange.Event{Data: strings.NewReader(data), FromClient: ours}
			err := d.Event(e)
			if e.Aside != nil {
				e.Aside(new(llm.Call))
			}
			if e.Done || err != nil {
				d.End(err)
				if err != nil && c.Completeness == llm.Exact && !e.Done {
					t.Errorf("exact after %v", err)
				}
				c = &llm.Call{Status: 101}
				d = d.(exchange.Sequel).Next(c)
			}
		}
		d.End(exchange.ErrCut)
		if c.Completeness == llm.Exact {
			t.Error("exact without an end")
		}
	})
}
