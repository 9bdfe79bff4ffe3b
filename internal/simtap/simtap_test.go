package simtap_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"golang.org/x/net/http2"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/simtap"
	"github.com/tollwire/tollwire/llm"
)

// apis are one call of each API that the simulator serves. A stream is asked for by
// what stands behind the bar in the path, by %v in the body, or by the header.
var apis = []struct{ name, host, path, body, header string }{
	{"chat", "api.openai.com", "/v1/chat/completions", `{"model":"gpt-4o","stream":%v,"stream_options":{"include_usage":true},"messages":[]}`, ""},
	{"Azure", "r.openai.azure.com", "/openai/deployments/gpt-4o/chat/completions", `{"stream":%v,"stream_options":{"include_usage":true},"messages":[]}`, ""},
	{"completions", "api.openai.com", "/v1/completions", `{"model":"davinci-002","stream":%v,"stream_options":{"include_usage":true},"prompt":"x"}`, ""},
	{"responses", "api.openai.com", "/v1/responses", `{"model":"gpt-5","stream":%v,"input":"hi"}`, ""},
	{"embeddings", "api.openai.com", "/v1/embeddings", `{"model":"text-embedding-3-small","input":["a","b"]}`, ""},
	{"images", "api.openai.com", "/v1/images/generations", `{"model":"gpt-image-1","stream":%v,"prompt":"a cat"}`, ""},
	{"speech", "api.openai.com", "/v1/audio/speech", `{"model":"tts-1","input":"naïve café","voice":"x"}`, ""},
	{"speech in events", "api.openai.com", "/v1/audio/speech", `{"model":"gpt-4o-mini-tts","input":"hi","stream_format":"sse"}`, ""},
	{"a run", "api.openai.com", "/v1/threads/thread_1/runs", `{"assistant_id":"asst_1","model":"gpt-4o","stream":true}`, ""},
	{"messages", "api.anthropic.com", "/v1/messages", `{"model":"claude-haiku-4-5","stream":%v,"messages":[]}`, ""},
	{"complete", "api.anthropic.com", "/v1/complete", `{"model":"claude-2","stream":%v,"prompt":"x","max_tokens_to_sample":9}`, ""},
	{"Vertex's Claude", "us-east5-aiplatform.googleapis.com", "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-haiku-4-5:|rawPredict|streamRawPredict",
		`{"anthropic_version":"vertex-2023-10-16","stream":%v,"messages":[]}`, ""},
	{"Gemini", "generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:|generateContent|streamGenerateContent?alt=sse", `{"contents":[]}`, ""},
	{"Vertex, an array", "aiplatform.googleapis.com", "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:|generateContent|streamGenerateContent", `{"contents":[]}`, ""},
	{"interactions", "generativelanguage.googleapis.com", "/v1beta/interactions", `{"model":"gemini-3-pro","stream":%v,"input":"hi"}`, ""},
	{"embedContent", "generativelanguage.googleapis.com", "/v1beta/models/gemini-embedding-001:embedContent", `{"content":{"parts":[{"text":"x"}]}}`, ""},
	{"predict", "us-central1-aiplatform.googleapis.com", "/v1/projects/p/locations/us-central1/publishers/google/models/text-embedding-005:predict", `{"instances":[{"content":"x"}]}`, ""},
	{"Converse", "bedrock-runtime.us-east-1.amazonaws.com", "/model/us.amazon.nova-lite-v1%3A0/|converse|converse-stream", `{"messages":[]}`, ""},
	{"invoke Claude", "bedrock-runtime.us-east-1.amazonaws.com", "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/|invoke|invoke-with-response-stream", `{"anthropic_version":"bedrock-2023-05-31","messages":[]}`, ""},
	{"invoke Titan", "bedrock-runtime.us-east-1.amazonaws.com", "/model/amazon.titan-text-express-v1/|invoke|invoke-with-response-stream", `{"inputText":"hi"}`, ""},
	{"invoke Nova", "bedrock-runtime.us-east-1.amazonaws.com", "/model/amazon.nova-micro-v1%3A0/|invoke|invoke-with-response-stream", `{"messages":[]}`, ""},
	{"invoke Llama", "bedrock-runtime.us-east-1.amazonaws.com", "/model/meta.llama3-70b-instruct-v1%3A0/|invoke|invoke-with-response-stream", `{"prompt":"hi"}`, ""},
	{"invoke Mistral", "bedrock-runtime.us-east-1.amazonaws.com", "/model/mistral.mistral-7b-instruct-v0%3A2/|invoke|invoke-with-response-stream", `{"prompt":"hi"}`, ""},
	{"invoke Cohere", "bedrock-runtime.us-east-1.amazonaws.com", "/model/cohere.command-r-v1%3A0/|invoke|invoke-with-response-stream", `{"message":"hi"}`, ""},
	{"invoke Jamba", "bedrock-runtime.us-east-1.amazonaws.com", "/model/ai21.jamba-1-5-mini-v1%3A0/invoke", `{"messages":[]}`, ""},
	{"invoke an embedding", "bedrock-runtime.us-east-1.amazonaws.com", "/model/amazon.titan-embed-text-v2%3A0/invoke", `{"inputText":"hi"}`, ""},
	{"an agent", "bedrock-agent-runtime.us-east-1.amazonaws.com", "/agents/A/agentAliases/B/sessions/C/text", `{"inputText":"hi","enableTrace":true}`, ""},
	{"Cohere", "api.cohere.com", "/v2/chat", `{"model":"command-a-03-2025","stream":%v,"messages":[]}`, ""},
	{"Cohere 1", "api.cohere.com", "/v1/chat", `{"model":"command-r","stream":%v,"message":"hi"}`, ""},
	{"Cohere 1, generate", "api.cohere.com", "/v1/generate", `{"model":"command","stream":%v,"prompt":"hi"}`, ""},
	{"Cohere, embed", "api.cohere.com", "/v2/embed", `{"model":"embed-v4.0","texts":["a"]}`, ""},
	{"Cohere, rerank", "api.cohere.com", "/v2/rerank", `{"model":"rerank-v3.5","query":"q","documents":["a","b"]}`, ""},
	{"Voyage, rerank", "api.voyageai.com", "/v1/rerank", `{"model":"rerank-2","query":"q","documents":["a","b"]}`, ""},
	{"Ollama", "localhost:11434", "/api/chat", `{"model":"llama3","stream":%v,"messages":[]}`, ""},
	{"Ollama, generate", "localhost:11434", "/api/generate", `{"model":"llama3","stream":%v,"prompt":"hi"}`, ""},
	{"Ollama, embed", "localhost:11434", "/api/embed", `{"model":"nomic-embed-text","input":"hi"}`, ""},
	{"DashScope", "dashscope-intl.aliyuncs.com", "/api/v1/services/aigc/text-generation/generation", `{"model":"qwen-plus","input":{"messages":[]},"parameters":{}}`, "X-DashScope-SSE: enable"},
	{"Baidu", "aip.baidubce.com", "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie-4.0-8k", `{"stream":%v,"messages":[]}`, ""},
	{"watsonx", "us-south.ml.cloud.ibm.com", "/ml/v1/text/|chat|chat_stream?version=2026-01-01", `{"model_id":"ibm/granite-3-8b","messages":[]}`, ""},
	{"watsonx, generation", "us-south.ml.cloud.ibm.com", "/ml/v1/text/|generation|generation_stream?version=2026-01-01", `{"model_id":"ibm/granite-3-8b","input":"hi"}`, ""},
	{"Replicate, waiting", "api.replicate.com", "/v1/models/meta/llama-3/predictions", `{"input":{"prompt":"hi"}}`, "=Prefer: wait"},
	{"Aleph Alpha", "api.aleph-alpha.com", "/complete", `{"model":"luminous-base","stream":%v,"prompt":"hi","maximum_tokens":9}`, ""},
	{"TGI", "localhost:8080", "/|generate|generate_stream", `{"inputs":"hi","parameters":{}}`, ""},
	{"llama.cpp", "localhost:8080", "/completion", `{"prompt":"hi","n_predict":9,"stream":%v}`, ""},
	{"llama.cpp, embedding", "localhost:8080", "/embedding", `{"content":"hi"}`, ""},
	{"SGLang", "localhost:30000", "/generate", `{"text":"hi","sampling_params":{},"stream":%v}`, ""},
	{"Triton", "localhost:8000", "/v2/models/ensemble/|generate|generate_stream", `{"text_input":"hi"}`, ""},
	{"LM Studio", "localhost:1234", "/api/v1/chat", `{"model":"qwen","input":"hi","stream":%v}`, ""},
}

// request makes the request of an API, nil when it doesn't stream.
func request(t *testing.T, i int, scheme string, stream bool) *http.Request {
	t.Helper()
	a := apis[i]
	path, body := a.path, a.body
	streams := strings.Contains(body, "%v") || strings.HasPrefix(a.header, "X-")
	if before, verbs, ok := strings.Cut(path, "|"); ok {
		whole, streamed, _ := strings.Cut(verbs, "|")
		streams = true
		if path = before + whole; stream {
			path = before + streamed
		} else if _, query, ok := strings.Cut(streamed, "?"); ok && !strings.HasPrefix(query, "alt") {
			path += "?" + query
		}
	}
	if stream && !streams {
		return nil
	}
	if strings.Contains(body, "%v") {
		body = fmt.Sprintf(body, stream)
	}
	r, err := http.NewRequest("POST", scheme+"://"+a.host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if name, value, ok := strings.Cut(strings.TrimPrefix(a.header, "="), ": "); ok && (stream || a.header[0] == '=') {
		r.Header.Set(name, value)
	}
	return r
}

// client dials s whatever the host: by HTTP/1.1 or HTTP/2, over TLS or in plaintext.
func client(t *testing.T, s *sim.Server, scheme string, h2 bool) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	addr := s.TLSAddr()
	if scheme == "http" {
		addr = s.Addr()
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	conf := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	if scheme == "http" && h2 {
		tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, n, a string, _ *tls.Config) (net.Conn, error) { return dial(ctx, n, a) }}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	tr := &http.Transport{DialContext: dial, TLSClientConfig: conf, ForceAttemptHTTP2: h2, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// serve starts a simulator that is tapped.
func serve(t *testing.T, plan string) (*sim.Server, *simtap.Tap) {
	t.Helper()
	p := sim.DefaultPlan()
	if err := p.Overlay(plan); err != nil {
		t.Fatal(err)
	}
	tap := simtap.New()
	s, err := sim.Start(sim.Config{Dir: t.TempDir(), Plan: &p, Tap: tap.Wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, tap
}

// settle closes s and holds the tap's calls to its ledger.
func settle(t *testing.T, s *sim.Server, tap *simtap.Tap, want int) []*llm.Call {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	entries, err := s.Ledger().Wait(ctx, want)
	if err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	calls, failures := tap.Close()
	for kind, n := range failures {
		t.Errorf("%d failures: %s", n, kind)
	}
	for _, m := range ledgercheck.Check(entries, tap.Records(calls), ledgercheck.Options{Role: "server"}).Mismatches {
		t.Error(m)
	}
	return calls
}

func do(t *testing.T, c *http.Client, r *http.Request) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode/100 != 2 {
		t.Errorf("%s: %v, %d: %.300s", r.URL, err, resp.StatusCode, body)
	}
}

// TestEveryAPI makes every call over every transport and content coding.
func TestEveryAPI(t *testing.T) {
	const plan = "input=9;cached=4;tokens=5;think=2;encoding="
	for _, tt := range []struct {
		name, scheme, coding string
		h2                   bool
	}{
		{"plaintext", "http", "identity", false}, {"TLS", "https", "gzip", false}, {"HTTP2", "https", "br", true},
		{"plaintext HTTP2", "http", "zstd", true}, {"deflate", "http", "deflate", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, tap := serve(t, plan+tt.coding)
			c := client(t, s, tt.scheme, tt.h2)
			n := 0
			for i := range apis {
				for _, stream := range []bool{false, true} {
					if r := request(t, i, tt.scheme, stream); r != nil {
						do(t, c, r)
						n++
					}
				}
			}
			settle(t, s, tap, n)
		})
	}
}

// TestForms sends forms, which have a model in one of their parts.
func TestForms(t *testing.T) {
	s, tap := serve(t, "input=30;tokens=5")
	c := client(t, s, "https", true)
	n := 0
	for _, f := range []struct{ path, model, file, extra string }{
		{"/v1/audio/transcriptions", "gpt-4o-transcribe", "file", ""},
		{"/v1/audio/transcriptions", "gpt-4o-transcribe", "file", "stream"},
		{"/v1/audio/transcriptions", "whisper-1", "file", ""},
		{"/v1/images/edits", "gpt-image-1", "image", ""},
	} {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		file, err := w.CreateFormFile(f.file, "a.bin")
		if err != nil {
			t.Fatal(err)
		}
		file.Write(bytes.Repeat([]byte("\r\n--x\r\n"), 20000))
		w.WriteField("model", f.model)
		w.WriteField("prompt", "a cat")
		if f.extra != "" {
			w.WriteField(f.extra, "true")
		}
		w.Close()
		r, _ := http.NewRequest("POST", "https://api.openai.com"+f.path, &b)
		r.Header.Set("Content-Type", w.FormDataContentType())
		do(t, c, r)
		n++
	}
	settle(t, s, tap, n)
}

// TestFetchedAnswers fetches answers that were made in the background, more often than
// it must, and on other connections than they were asked for on.
func TestFetchedAnswers(t *testing.T) {
	s, tap := serve(t, "input=9;tokens=5")
	for _, call := range []struct{ ask, body, fetch string }{
		{"https://api.openai.com/v1/responses", `{"model":"gpt-5","background":true,"input":"hi"}`, "https://api.openai.com/v1/responses/"},
		{"https://api.replicate.com/v1/models/meta/llama-3/predictions", `{"input":{}}`, "https://api.replicate.com/v1/predictions/"},
	} {
		r, _ := http.NewRequest("POST", call.ask, strings.NewReader(call.body))
		r.Header.Set("Content-Type", "application/json")
		resp, err := client(t, s, "https", false).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		_, id, _ := strings.Cut(strings.ReplaceAll(string(body), " ", ""), `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		for range 4 {
			r, _ := http.NewRequest("GET", call.fetch+id, nil)
			do(t, client(t, s, "https", true), r)
		}
	}
	calls := settle(t, s, tap, 2)
	for _, c := range calls {
		if c.Method != "POST" || c.Times.End.Sub(c.Times.Start) <= 0 {
			t.Errorf("%+v", c)
		}
	}
}

// TestSockets speaks with each API that answers on a WebSocket: several answers on a
// connection, sound, what the user said written down at another model, and errors.
func TestSockets(t *testing.T) {
	const (
		create = `{"type":"response.create"}`
		item   = `{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[]}}`
		update = `{"type":"session.update","session":{"type":"realtime","output_modalities":["audio"],"audio":{"input":{"transcription":{"model":"whisper-1"}}}}}`
		sound  = `{"type":"input_audio_buffer.append","audio":"AAAAAAAAAAAAAAAA"}`
		commit = `{"type":"input_audio_buffer.commit"}`
		run    = `{"header":{"action":"run-task","task_id":"t1","streaming":"duplex"},"payload":{"task_group":"audio","task":"tts","model":"cosyvoice-v2","input":{}}}`
		text   = `{"header":{"action":"continue-task","task_id":"t1"},"payload":{"input":{"text":"naïve"}}}`
		finish = `{"header":{"action":"finish-task","task_id":"t1"},"payload":{"input":{}}}`
		asks   = `{"type":"response.create","model":"gpt-5","input":"hi","store":false}`
	)
	for _, tt := range []struct {
		name, host, path string
		messages         []string
		calls            int
	}{
		{"Realtime", "api.openai.com", "/v1/realtime?model=gpt-realtime", []string{item, create, item, create, create}, 3},
		{"Realtime on Azure", "r.openai.azure.com", "/openai/realtime?api-version=2025-04-01&deployment=gpt-realtime", []string{item, create}, 1},
		{"Realtime with sound", "api.openai.com", "/v1/realtime?model=gpt-realtime", []string{update, sound, sound, commit, create, sound, commit, create}, 4},
		{"Responses", "api.openai.com", "/v1/responses", []string{asks, asks}, 2},
		{"Live", "generativelanguage.googleapis.com", "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
			[]string{`{"setup":{"model":"models/gemini-live-2.5-flash"}}`, `{"clientContent":{"turns":[],"turnComplete":true}}`, `{"clientContent":{"turns":[],"turnComplete":true}}`}, 2},
		{"DashScope", "dashscope.aliyuncs.com", "/api-ws/v1/inference", []string{run, text, text, finish, strings.Replace(run, "t1", "t2", 1), text, finish}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, tap := serve(t, "input=9;cached=4;tokens=5")
			d := ws.Dialer{NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
			}}
			conn, _, _, err := d.Dial(t.Context(), "ws://"+tt.host+tt.path)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			for _, m := range tt.messages {
				if err := wsutil.WriteClientText(conn, []byte(m)); err != nil {
					t.Fatal(err)
				}
				for m == create || m == asks || m == finish || strings.HasPrefix(m, `{"clientContent`) { // to the answer's end
					b, err := wsutil.ReadServerText(conn)
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Contains(b, []byte(`"type":"response.done"`)) || bytes.Contains(b, []byte(`"type":"response.completed"`)) || bytes.Contains(b, []byte("turnComplete")) || bytes.Contains(b, []byte("task-finished")) {
						break
					}
				}
			}
			conn.Close()
			for _, c := range settle(t, s, tap, tt.calls) {
				if c.Operation != "transcription" && (c.Times.FirstContent < c.Times.Start || c.Times.End < c.Times.LastContent || c.Times.Chunks == 0) {
					t.Errorf("%+v", c.Times)
				}
			}
		})
	}
}
