package sim

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/gobwas/ws"
)

// apis are one call to each API; %v in a body is whether it streams.
var apis = []struct {
	name, url, body string
	provider        string
	operation       string
	kind            string // content type of the stream, "" where there is none
	asked, served   string
	finish          []string
	usage           map[string]float64
}{
	{"chat", "https://api.openai.com/v1/chat/completions", `{"model":"gpt-4o","stream":%v,"stream_options":{"include_usage":true}}`,
		"openai", "chat", "text/event-stream; charset=utf-8", "gpt-4o", "gpt-4o-2024-08-06", []string{"stop"},
		map[string]float64{"input": 9, "cache_read": 4, "cache_write": 3, "output": 5, "reasoning": 2}},
	{"messages", "https://api.anthropic.com/v1/messages", `{"model":"claude-haiku-4-5","stream":%v}`,
		"anthropic", "chat", "text/event-stream; charset=utf-8", "claude-haiku-4-5", "claude-haiku-4-5-20251001", []string{"end_turn"},
		map[string]float64{"input": 9, "cache_read": 4, "cache_write_5m": 2, "cache_write_1h": 1, "output": 5, "reasoning": 2}},
	{"responses", "https://api.openai.com/v1/responses", `{"model":"gpt-5","stream":%v,"input":"hi"}`,
		"openai", "chat", "text/event-stream; charset=utf-8", "gpt-5", "gpt-5-2025-08-07", []string{"completed"},
		map[string]float64{"input": 9, "cache_read": 4, "cache_write": 3, "output": 5, "reasoning": 2}},
	{"completions", "https://api.openai.com/v1/completions", `{"model":"davinci-002","stream":%v,"stream_options":{"include_usage":true},"prompt":"x"}`,
		"openai", "text_completion", "text/event-stream; charset=utf-8", "davinci-002", "davinci-002", []string{"stop"},
		map[string]float64{"input": 9, "cache_read": 4, "cache_write": 3, "output": 5, "reasoning": 2}},
	{"embeddings", "https://api.openai.com/v1/embeddings", `{"model":"text-embedding-3-small","input":["a","b"],"x":%v}`,
		"openai", "embeddings", "", "text-embedding-3-small", "text-embedding-3-small", nil, map[string]float64{"input": 9}},
	{"gemini sse", "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:%s?alt=sse", `{"contents":[],"x":%v}`,
		"gcp.gemini", "generate_content", "text/event-stream; charset=utf-8", "gemini-2.5-flash", "gemini-2.5-flash", []string{"STOP"},
		map[string]float64{"input": 9, "cache_read": 4, "output": 5, "reasoning": 2}},
	{"vertex array", "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:%s", `{"x":%v}`,
		"gcp.vertex_ai", "generate_content", "application/json; charset=UTF-8", "gemini-2.5-pro", "gemini-2.5-pro", []string{"STOP"},
		map[string]float64{"input": 9, "cache_read": 4, "output": 5, "reasoning": 2}},
	{"converse", "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.amazon.nova-lite-v1%%3A0/converse%s", `{"messages":[],"x":%v}`,
		"aws.bedrock", "chat", "application/vnd.amazon.eventstream", "us.amazon.nova-lite-v1:0", "", []string{"end_turn"},
		map[string]float64{"input": 9, "cache_read": 4, "cache_write": 3, "output": 7}},
	{"invoke", "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-haiku-4-5-20251001-v1%%3A0/invoke%s",
		`{"anthropic_version":"bedrock-2023-05-31","x":%v}`,
		"aws.bedrock", "chat", "application/vnd.amazon.eventstream", "us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5-20251001", []string{"end_turn"},
		map[string]float64{"input": 9, "cache_read": 4, "cache_write_5m": 2, "cache_write_1h": 1, "output": 5, "reasoning": 2}},
	{"cohere", "https://api.cohere.com/v2/chat", `{"model":"command-a-03-2025","stream":%v}`,
		"cohere", "chat", "text/event-stream; charset=utf-8", "command-a-03-2025", "", []string{"COMPLETE"},
		map[string]float64{"input": 9, "output": 5}},
	{"rerank", "https://api.cohere.com/v2/rerank", `{"model":"rerank-v3.5","documents":["a","b"],"x":%v}`,
		"cohere", "rerank", "", "rerank-v3.5", "", nil, map[string]float64{"search_units": 1}},
	{"ollama", "https://localhost/api/chat", `{"model":"llama3","stream":%v}`,
		"ollama", "chat", "application/x-ndjson", "llama3", "llama3", []string{"stop"},
		map[string]float64{"input": 9, "output": 7}},
}

// urlFor puts the method into a path that names it.
func urlFor(url string, stream bool) string {
	method := map[bool]string{true: "streamGenerateContent", false: "generateContent"}[stream]
	if strings.Contains(url, "amazonaws") {
		method = map[bool]string{true: "-stream", false: ""}[stream]
		if strings.Contains(url, "/invoke") && stream {
			method = "-with-response-stream"
		}
	}
	if strings.Contains(url, "%s") {
		return fmt.Sprintf(url, method)
	}
	return url
}

const fullPlan = "input=9;cached=4;write5m=2;write1h=1;tokens=5;think=2"

func TestEveryAPI(t *testing.T) {
	s := start(t, Config{})
	for _, h2 := range []bool{false, true} {
		c := client(t, s, h2)
		for _, api := range apis {
			for _, stream := range []bool{false, true} {
				if stream && api.kind == "" {
					continue
				}
				s.Ledger().Reset()
				resp, body, err := post(t, c, urlFor(api.url, stream), fullPlan, fmt.Sprintf(api.body, stream))
				e := last(t, s)
				if err != nil || resp.StatusCode != 200 || e.Outcome != "completed" || e.Stated != "exact" || e.Stream != stream {
					t.Errorf("%s, stream %v: %v, %d, %s, ledger %+v", api.name, stream, err, resp.StatusCode, body, e)
					continue
				}
				if e.Provider != api.provider || e.Operation != api.operation || e.Asked != api.asked || e.Served != api.served || !slices.Equal(e.Finish, api.finish) {
					t.Errorf("%s, stream %v: ledger %+v", api.name, stream, e)
				}
				for class, n := range e.Usage {
					if api.usage[class] != n {
						t.Errorf("%s, stream %v: %s is %v, want %v", api.name, stream, class, n, api.usage[class])
					}
				}
				for class, n := range api.usage {
					if e.Usage[class] != n || e.Generated[class] != n {
						t.Errorf("%s, stream %v: %s stated %v, generated %v, want %v", api.name, stream, class, e.Usage[class], e.Generated[class], n)
					}
				}
				if stream && resp.Header.Get("Content-Type") != api.kind {
					t.Errorf("%s streams %s", api.name, resp.Header.Get("Content-Type"))
				}
				if e.ID != "" && !bytes.Contains(body, []byte(e.ID)) && api.name != "converse" && !(api.name == "invoke" && stream) {
					t.Errorf("%s: id %s is not in the body", api.name, e.ID)
				}
				if stream {
					if n := len(eventsOf(t, api.kind, body)); n < 6 {
						t.Errorf("%s: %d events in %s", api.name, n, body)
					}
				} else if !json.Valid(body) {
					t.Errorf("%s: not JSON: %s", api.name, body)
				}
			}
		}
	}
}

// eventsOf reads a stream's events; each must be JSON.
func eventsOf(t *testing.T, kind string, body []byte) []string {
	t.Helper()
	var out []string
	switch {
	case strings.HasPrefix(kind, "text/event-stream"):
		for _, d := range dataLines(body) {
			if d != "[DONE]" {
				out = append(out, d)
			}
		}
	case kind == "application/x-ndjson":
		out = strings.Split(strings.TrimSpace(string(body)), "\n")
	case kind == "application/vnd.amazon.eventstream":
		dec := eventstream.NewDecoder()
		for r := bytes.NewReader(body); r.Len() > 0; {
			m, err := dec.Decode(r, nil)
			if err != nil {
				t.Fatalf("frame: %v", err)
			}
			var v struct{ Bytes string }
			json.Unmarshal(m.Payload, &v)
			if inner, err := base64.StdEncoding.DecodeString(v.Bytes); err == nil && v.Bytes != "" {
				m.Payload = inner
			}
			out = append(out, string(m.Payload))
		}
	default:
		var list []json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatalf("array: %v", err)
		}
		for _, v := range list {
			out = append(out, string(v))
		}
	}
	for _, e := range out {
		if !json.Valid([]byte(e)) {
			t.Errorf("not JSON: %s", e)
		}
	}
	return out
}

// TestNoCutIsExact cuts every stream after each of its content events.
func TestNoCutIsExact(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	for _, api := range apis {
		if api.kind == "" {
			continue
		}
		for cut := range 5 {
			s.Ledger().Reset()
			_, _, err := post(t, c, urlFor(api.url, true), fmt.Sprintf("%s;cut=%d", fullPlan, cut), fmt.Sprintf(api.body, true))
			if e := last(t, s); err == nil || e.Outcome != "cut" || e.Stated == "exact" || e.ContentWrites != cut {
				t.Errorf("%s cut after %d: %v, %s, usage %s", api.name, cut, err, e.Outcome, e.Stated)
			}
		}
	}
}

func TestEveryAPIRefusesAndBreaks(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, true)
	for _, api := range apis {
		for _, status := range []int{400, 429, 500} {
			s.Ledger().Reset()
			resp, body, _ := post(t, c, urlFor(api.url, false), fmt.Sprintf("error=%d", status), fmt.Sprintf(api.body, false))
			if e := last(t, s); resp.StatusCode != status || e.Status != status || e.Outcome != "error" || !json.Valid(body) || e.Asked != api.asked {
				t.Errorf("%s: %d, %s, ledger %+v", api.name, resp.StatusCode, body, e)
			}
		}
		if api.kind == "" {
			continue
		}
		s.Ledger().Reset()
		_, body, err := post(t, c, urlFor(api.url, true), "error=inband;errorat=2;tokens=9", fmt.Sprintf(api.body, true))
		if e := last(t, s); err != nil || e.Outcome != "error" || e.Stated == "exact" || e.ContentWrites != 2 {
			t.Errorf("%s, in band: %v, %s, ledger %+v", api.name, err, body, e)
		}
		eventsOf(t, api.kind, body)
	}
}

func TestTools(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, true)
	for _, api := range apis {
		if api.finish == nil || api.name == "completions" {
			continue
		}
		for _, stream := range []bool{false, true} {
			s.Ledger().Reset()
			_, body, err := post(t, c, urlFor(api.url, stream), "tool=look_up;tokens=9", fmt.Sprintf(api.body, stream))
			e := last(t, s)
			if stream {
				body = []byte(strings.Join(eventsOf(t, api.kind, body), "\n"))
			}
			if err != nil || !slices.Equal(e.Tools, []string{"look_up"}) || !bytes.Contains(body, []byte("look_up")) || stream && e.ContentWrites == 0 {
				t.Errorf("%s, stream %v: %v, %s, ledger %+v", api.name, stream, err, body, e)
			}
		}
	}
}

func TestTranscription(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	ask := func(fields ...string) []byte {
		t.Helper()
		s.Ledger().Reset()
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for i := 0; i < len(fields); i += 2 {
			w.WriteField(fields[i], fields[i+1])
		}
		f, _ := w.CreateFormFile("file", "a.wav")
		f.Write(bytes.Repeat([]byte{0, 1, 2, 0xff}, 5000))
		w.Close()
		req, _ := http.NewRequest(http.MethodPost, "https://api.openai.com/v1/audio/transcriptions", &b)
		req.Header.Set("Content-Type", w.FormDataContentType())
		req.Header.Set("X-Llmsim", "input=30;tokens=6")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %d %s", err, resp.StatusCode, body)
		}
		return body
	}
	ask("model", "whisper-1")
	if e := last(t, s); e.Usage["seconds"] != 30 || e.Asked != "whisper-1" || e.Operation != "transcription" {
		t.Errorf("%+v", e)
	}
	body := ask("model", "gpt-4o-transcribe", "stream", "true")
	if e := last(t, s); e.Usage["input_audio"] != 30 || e.Usage["output"] != 6 || !e.Stream || e.ContentWrites != 6 {
		t.Errorf("%+v\n%s", e, body)
	}
	ask("response_format", "text", "model", "gpt-4o-transcribe")
	if e := last(t, s); e.Stated != "missing" || e.Usage != nil {
		t.Errorf("%+v", e)
	}
}

func TestMCP(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	for _, tt := range []struct {
		plan, ask, want string
		status          int
		kind            string
	}{
		{"", `{"jsonrpc":"2.0","id":1,"method":"initialize"}`, `"protocolVersion"`, 200, ""},
		{"", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, ``, 202, ""},
		{"", `{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"t"}}`, `"isError":false`, 200, ""},
		{"error=inband", `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t"}}`, `"isError":true`, 200, "tool_error"},
		{"showthink=on", `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"unknown"}}`, "event: message\ndata: {\"error\":{\"code\":-32602", 200, "-32602"},
	} {
		s.Ledger().Reset()
		resp, body, err := post(t, c, "https://localhost:"+port(s)+"/mcp", tt.plan, tt.ask)
		e := last(t, s)
		if err != nil || resp.StatusCode != tt.status || !bytes.Contains(body, []byte(tt.want)) || e.Error != tt.kind || e.Status != tt.status {
			t.Errorf("%s: %v %d %s, ledger %+v", tt.ask, err, resp.StatusCode, body, e)
		}
	}
}

func port(s *Server) string {
	_, p, _ := net.SplitHostPort(s.TLSAddr())
	return p
}

// peer is a WebSocket client that masks, and packs with context takeover.
type peer struct {
	t      *testing.T
	conn   net.Conn
	in     *bufio.Reader
	pack   bool
	out    bytes.Buffer
	packer *flate.Writer
	window []byte
}

func dial(t *testing.T, s *Server, path, plan string, pack bool) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	p := &peer{t: t, conn: conn, in: bufio.NewReader(conn), pack: pack}
	p.packer, _ = flate.NewWriter(&p.out, 9)
	offer := ""
	if pack {
		offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Llmsim: %s\r\n%s\r\n", path, plan, offer)
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("upgrade: %v %+v", err, resp)
	}
	if got := resp.Header.Get("Sec-Websocket-Extensions") != ""; got != pack {
		t.Fatalf("extensions agreed: %v", got)
	}
	return p
}

func (p *peer) send(fragments int, msg string) {
	p.t.Helper()
	data := []byte(msg)
	if p.pack {
		p.out.Reset()
		p.packer.Write(data)
		p.packer.Flush()
		data = bytes.TrimSuffix(p.out.Bytes(), []byte("\x00\x00\xff\xff"))
	}
	for i := range fragments {
		part := data[i*len(data)/fragments : (i+1)*len(data)/fragments]
		h := ws.Header{Fin: i == fragments-1, OpCode: ws.OpText, Masked: true, Mask: ws.NewMask(), Length: int64(len(part)), Rsv: ws.Rsv(p.pack && i == 0, false, false)}
		if i > 0 {
			h.OpCode = ws.OpContinuation
		}
		masked := bytes.Clone(part)
		ws.Cipher(masked, h.Mask, 0)
		if err := ws.WriteHeader(p.conn, h); err != nil {
			p.t.Fatal(err)
		}
		p.conn.Write(masked)
	}
}

func (p *peer) receive() string {
	p.t.Helper()
	var msg []byte
	packed := false
	for first := true; ; first = false {
		h, err := ws.ReadHeader(p.in)
		if err != nil {
			p.t.Fatal(err)
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(p.in, b); err != nil {
			p.t.Fatal(err)
		}
		if first {
			packed = h.Rsv1()
		}
		if msg = append(msg, b...); h.Fin {
			break
		}
	}
	if packed != p.pack {
		p.t.Fatalf("packed %v", packed)
	}
	if !packed {
		return string(msg)
	}
	r := flate.NewReaderDict(bytes.NewReader(append(msg, "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)), p.window)
	out, err := io.ReadAll(r)
	if err != nil {
		p.t.Fatal(err)
	}
	p.window = append(p.window, out...)
	p.window = p.window[max(0, len(p.window)-32<<10):]
	return string(out)
}

func (p *peer) until(mark string) (all []string) {
	p.t.Helper()
	for {
		m := p.receive()
		if all = append(all, m); strings.Contains(m, mark) {
			return all
		}
	}
}

func TestWebSockets(t *testing.T) {
	s := start(t, Config{})
	for _, pack := range []bool{false, true} {
		for _, split := range []string{"0s", "1ms"} {
			plan := "input=9;cached=2;tokens=7;encoding=auto;split=" + split
			s.Ledger().Reset()

			p := dial(t, s, "/v1/realtime?model=gpt-realtime", plan, pack)
			p.until("session.created")
			for range 2 { // context takeover: the second needs the first
				p.send(2, `{"type":"conversation.item.create","item":{"type":"message"}}`)
				p.until("conversation.item.added")
				p.send(3, `{"type":"response.create"}`)
				p.until("response.done")
			}
			es := entries(t, s, 2)
			if len(es) != 2 || es[0].ID == es[1].ID {
				t.Fatalf("%d entries", len(es))
			}
			e := es[0]
			if e.HTTP != "websocket" || e.Asked != "gpt-realtime" || e.Stated != "exact" || e.Usage["input"] != 9 || e.Usage["output"] != 7 || e.ContentWrites != 7 {
				t.Errorf("%+v", e)
			}

			p = dial(t, s, "/v1/responses", plan, pack)
			p.send(1, `{"type":"response.create","model":"gpt-5","input":"x"}`)
			p.until("response.completed")
			if e := entries(t, s, 3)[0]; !strings.HasPrefix(e.ID, "resp_") || e.Asked != "gpt-5" || e.Usage["cache_read"] != 2 || !slices.Equal(e.Finish, []string{"completed"}) {
				t.Errorf("%+v", e)
			}

			p = dial(t, s, "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", plan, pack)
			p.send(1, `{"setup":{"model":"models/gemini-live-2.5"}}`)
			p.until("setupComplete")
			p.send(1, `{"clientContent":{"turns":[],"turnComplete":true}}`)
			p.until("usageMetadata")
			if e := entries(t, s, 4)[0]; e.Provider != "gcp.gemini" || e.Asked != "gemini-live-2.5" || e.Usage["output"] != 7 {
				t.Errorf("%+v", e)
			}
		}
	}
}
