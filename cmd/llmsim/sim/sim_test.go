package sim

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Dir = t.TempDir()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client trusts the server's CA and dials it whatever host is asked for.
func client(t *testing.T, s *Server, h2 bool) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2, DisableCompression: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			if _, port, _ := net.SplitHostPort(addr); port == "443" {
				addr = s.TLSAddr()
			}
			return d.DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// post makes a call and returns the status, the head and as much of the body as
// came, with the error that ended it.
func post(t *testing.T, c *http.Client, url, plan, body string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Llmsim", plan)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

const (
	chatAsk    = `{"model":"gpt-4o","stream":%v,"stream_options":{"include_usage":%v},"messages":[]}`
	messageAsk = `{"model":"claude-sonnet-4-5","stream":%v,"messages":[]}`
)

// last is the ledger's newest entry, once it is there.
func last(t *testing.T, s *Server) *Entry {
	t.Helper()
	return entries(t, s, 1)[0]
}

// entries are the ledger's newest ones, once there are n, the newest first.
func entries(t *testing.T, s *Server, n int) []*Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	es, err := s.Ledger().Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	es = slices.Clone(es)
	slices.Reverse(es)
	return es
}

// dataLines are the data of an SSE body's events.
func dataLines(body []byte) []string {
	var out []string
	for line := range strings.Lines(string(body)) {
		if d, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "data: "); ok {
			out = append(out, d)
		}
	}
	return out
}

func TestStreamIsTheUnaryAnswer(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	for _, plan := range []string{"tokens=40", "tokens=7;think=5;seed=9", "body=5000;size=100", "finish=refusal"} {
		_, whole, err := post(t, c, "https://api.openai.com/v1/chat/completions", "input=9;"+plan, fmt.Sprintf(chatAsk, false, false))
		if err != nil {
			t.Fatal(err)
		}
		var one struct {
			Choices []struct {
				Message struct{ Content, Refusal string }
			}
			Usage json.RawMessage
		}
		if err := json.Unmarshal(whole, &one); err != nil {
			t.Fatal(err)
		}
		_, stream, err := post(t, c, "https://api.openai.com/v1/chat/completions", "input=9;"+plan, fmt.Sprintf(chatAsk, true, true))
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		var usage string
		events := dataLines(stream)
		for _, d := range events[:len(events)-1] {
			var k struct {
				Choices []struct {
					Delta struct{ Content, Refusal string }
				}
				Usage any
			}
			if err := json.Unmarshal([]byte(d), &k); err != nil {
				t.Fatal(err)
			}
			for _, ch := range k.Choices {
				said.WriteString(ch.Delta.Content + ch.Delta.Refusal)
			}
			if k.Usage != nil {
				usage = string(compact(k.Usage))
			}
		}
		m := one.Choices[0].Message
		if events[len(events)-1] != "[DONE]" || said.String() != m.Content+m.Refusal {
			t.Errorf("%s: streamed %q, whole %q", plan, said.String(), m.Content+m.Refusal)
		}
		var unary any
		json.Unmarshal(one.Usage, &unary)
		if usage != string(compact(unary)) {
			t.Errorf("%s: usage streamed %s, whole %s", plan, usage, compact(unary))
		}
	}
}

func TestUsageIsStatedOnlyWhenAsked(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	for _, tt := range []struct {
		plan   string
		asked  bool
		times  int
		stated string
	}{{"tokens=3", false, 0, "missing"}, {"tokens=3", true, 1, "exact"}, {"tokens=3;usage=off", true, 0, "missing"}, {"tokens=3;usage=every", false, 6, "exact"}} {
		s.Ledger().Reset()
		_, b, _ := post(t, c, "https://api.openai.com/v1/chat/completions", tt.plan, fmt.Sprintf(chatAsk, true, tt.asked))
		n := strings.Count(string(b), `"usage":{`)
		e := last(t, s)
		if n != tt.times || e.Stated != tt.stated || (e.Usage == nil) != (tt.stated == "missing") || e.Generated["output"] != 3 {
			t.Errorf("%+v: stated %d times, ledger %s %v", tt, n, e.Stated, e.Usage)
		}
	}
}

func TestFaults(t *testing.T) {
	s := start(t, Config{})
	for _, h2 := range []bool{false, true} {
		c := client(t, s, h2)
		for _, tt := range []struct {
			url, plan, ask string
			status         int
			outcome, kind  string
			whole          bool
		}{
			{"api.openai.com/v1/chat/completions", "error=429;retry=7", chatAsk, 429, "error", "tokens", true},
			{"api.openai.com/v1/chat/completions", "error=inband", chatAsk, 200, "error", "server_error", true},
			{"api.openai.com/v1/chat/completions", "cut=2", chatAsk, 200, "cut", "", false},
			{"api.openai.com/v1/chat/completions", "nonsense=2", chatAsk, 400, "error", "invalid_request_error", true},
			{"api.openai.com/v1/chat/completions", "", `{"model":7,"x":%v%v}`, 400, "error", "invalid_request_error", true},
			{"api.anthropic.com/v1/messages", "error=529", messageAsk, 529, "error", "overloaded_error", true},
			{"api.anthropic.com/v1/messages", "error=inband;errorat=1", messageAsk, 200, "error", "overloaded_error", true},
			{"api.anthropic.com/v1/messages", "cut=0", messageAsk, 200, "cut", "", false},
		} {
			s.Ledger().Reset()
			ask := fmt.Sprintf(tt.ask, slices.Repeat([]any{true}, strings.Count(tt.ask, "%v"))...)
			resp, body, err := post(t, c, "https://"+tt.url, tt.plan, ask)
			e := last(t, s)
			if resp.StatusCode != tt.status || (err == nil) != tt.whole || e.Outcome != tt.outcome || e.Error != tt.kind {
				t.Errorf("h2 %v: %s %q: %d, %v, %s; ledger %+v", h2, tt.url, tt.plan, resp.StatusCode, err, body, e)
			}
			if e.ResponseBytes != int64(len(body)) {
				t.Errorf("%q: %d bytes came, the ledger says %d", tt.plan, len(body), e.ResponseBytes)
			}
			if tt.kind != "" && !bytes.Contains(body, []byte(tt.kind)) {
				t.Errorf("%q: the body does not say %s: %s", tt.plan, tt.kind, body)
			}
			if h2 != (e.HTTP == "HTTP/2.0") {
				t.Errorf("served over %s", e.HTTP)
			}
		}
	}
}

func TestEncodings(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, true)
	decode := map[string]func(io.Reader) (io.Reader, error){
		"gzip":    func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"deflate": func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
		"br":      func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
		"zstd":    func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	}
	for coding, open := range decode {
		for _, stream := range []bool{false, true} {
			resp, b, err := post(t, c, "https://api.anthropic.com/v1/messages", "tokens=30;encoding="+coding, fmt.Sprintf(messageAsk, stream))
			if err != nil || resp.Header.Get("Content-Encoding") != coding {
				t.Fatalf("%s: %v, %v", coding, err, resp.Header)
			}
			r, err := open(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			out, err := io.ReadAll(r)
			if err != nil || !bytes.Contains(out, []byte(`"end_turn"`)) {
				t.Errorf("%s, stream %v: %v, %s", coding, stream, err, out)
			}
		}
	}
}

func TestPaceCoalesceAndSplit(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	url := "https://api.anthropic.com/v1/messages"
	post(t, c, url, "tokens=11;rate=200;first=50ms", fmt.Sprintf(messageAsk, true))
	e := last(t, s)
	at := e.Contents()
	if len(at) != 11 {
		t.Fatalf("%d contents", len(at))
	}
	// Each token is due at a time of its own: on a busy machine one may come late, none early.
	for i, n := range at {
		due := 49*time.Millisecond + time.Duration(i)*5*time.Millisecond
		if d := time.Duration(n - e.HeadSent); d < due || d > due+2*time.Second {
			t.Errorf("token %d after %v, due after %v", i, d, due)
		}
	}
	if !(e.FirstByte > 0 && e.FirstByte <= e.RequestEnd && e.RequestEnd <= e.HeadSent && at[10] <= e.End) {
		t.Errorf("times out of order: %+v", e)
	}

	s.Ledger().Reset()
	post(t, c, url, "tokens=11;coalesce=5", fmt.Sprintf(messageAsk, true))
	if e := last(t, s); len(e.Writes) > 5 || len(e.Contents()) != 11 {
		t.Errorf("coalesced into %v", e.Writes)
	}
	s.Ledger().Reset()
	_, b, _ := post(t, c, url, "tokens=3;split=1ms", fmt.Sprintf(messageAsk, true))
	if e := last(t, s); len(e.Writes) != 2*len(dataLines(b)) || len(e.Contents()) != 3 {
		t.Errorf("%d events split into %v", len(dataLines(b)), e.Writes)
	}
}

func TestSizes(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	prompt := fmt.Sprintf(`{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":%q}]}`, strings.Repeat("x", 3<<20))
	resp, b, err := post(t, c, "http://"+s.Addr()+"/v1/chat/completions", "body=2097152;size=512", prompt)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp.Status, err)
	}
	said := 0
	for _, d := range dataLines(b) {
		var k struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if json.Unmarshal([]byte(d), &k) == nil && len(k.Choices) > 0 {
			said += len(k.Choices[0].Delta.Content)
		}
	}
	e := last(t, s)
	if said != 2<<20 || e.RequestBytes != int64(len(prompt)) || e.ResponseBytes != int64(len(b)) || e.ContentWrites != 4096 {
		t.Errorf("%d bytes of text; ledger %d in, %d out, %d contents", said, e.RequestBytes, e.ResponseBytes, e.ContentWrites)
	}
}

func TestOtherTraffic(t *testing.T) {
	s := start(t, Config{Chatty: "127.0.0.1:0"})
	c := client(t, s, false)
	for path, want := range map[string]int{"/health": 15, "/big?bytes=1000001": 1000001, "/chatty?n=10&size=7": 70} {
		resp, err := c.Get("http://" + s.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || len(b) != want {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	if n := len(s.Ledger().Entries()); n != 0 {
		t.Errorf("%d entries for no call", n)
	}
	conn, err := net.Dial("tcp", s.ChattyAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello\nsend 3 10\n")
	got := make([]byte, 36)
	if _, err := io.ReadFull(conn, got); err != nil || string(got[:16]) != "hello\nabcdefghi\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLedgerFileAndReset(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	for range 3 {
		post(t, c, "http://"+s.Addr()+"/v1/messages", "tokens=2", fmt.Sprintf(messageAsk, false))
	}
	entries(t, s, 3)
	resp, err := c.Get("http://" + s.Addr() + "/_ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	over, _ := io.ReadAll(resp.Body)
	file, err := os.ReadFile(s.LedgerPath())
	if err != nil || string(file) != string(over) || bytes.Count(file, []byte("\n")) != 3 {
		t.Errorf("%v: file %s\nserved %s", err, file, over)
	}
	var e Entry
	if err := json.Unmarshal(bytes.SplitN(file, []byte("\n"), 2)[0], &e); err != nil || e.ID != s.Ledger().Entries()[0].ID {
		t.Errorf("%v %+v", err, e)
	}
}

func TestRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.har")
	archive := `{"log":{"entries":[
	{"_id":"one","request":{"method":"POST","url":"https://x/v1/messages"},"response":{"status":200,"headers":[{"name":"x-a","value":"b"}],
	 "content":{"mimeType":"text/event-stream","text":"data: 1\n\ndata: 2\n\n","_chunks":[4,10]}}},
	{"_id":"two","request":{"method":"POST","url":"https://x/v1/messages"},"response":{"status":429,"content":{"text":"{}"}}}]}}`
	if err := os.WriteFile(path, []byte(archive), 0o644); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{HAR: []string{path}})
	c := client(t, s, false)
	ask := func(id string) (int, string) {
		req, _ := http.NewRequest(http.MethodPost, "http://"+s.Addr()+"/v1/messages", strings.NewReader("{}"))
		if id != "" {
			req.Header.Set(entryHeader, id)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, tt := range []struct {
		id, body string
		status   int
	}{{"", "data: 1\n\ndata: 2\n\n", 200}, {"", "{}", 429}, {"", "data: 1\n\ndata: 2\n\n", 200}, {"two", "{}", 429}, {"three", `{"error":"no recorded entry \"three\""}`, 404}} {
		if status, body := ask(tt.id); status != tt.status || body != tt.body {
			t.Errorf("%q: %d %q", tt.id, status, body)
		}
	}
	if e := s.Ledger().Entries()[0]; e.ID != "one" || len(e.Writes) != 3 || e.Writes[1].Bytes != 10 || !e.Stream {
		t.Errorf("%+v", e)
	}
	// A request with a plan of its own is made up, not replayed.
	if _, b, _ := post(t, c, "http://"+s.Addr()+"/v1/messages", "tokens=2", fmt.Sprintf(messageAsk, false)); !bytes.Contains(b, []byte(`"end_turn"`)) {
		t.Errorf("%s", b)
	}
}

func TestTLSChoices(t *testing.T) {
	s := start(t, Config{Key: "rsa", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}})
	post(t, client(t, s, true), "https://bedrock-runtime.us-east-1.amazonaws.com/v1/messages", "", fmt.Sprintf(messageAsk, true))
	e := last(t, s)
	if e.TLS != "TLS 1.2" || e.Cipher != "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" || e.HTTP != "HTTP/2.0" {
		t.Errorf("%+v", e)
	}
}

func TestH2C(t *testing.T) {
	s := start(t, Config{})
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p}
	defer tr.CloseIdleConnections()
	post(t, &http.Client{Transport: tr}, "http://"+s.Addr()+"/v1/messages", "", fmt.Sprintf(messageAsk, true))
	if e := last(t, s); e.HTTP != "HTTP/2.0" || e.TLS != "" || e.Outcome != "completed" {
		t.Errorf("%+v", e)
	}
}

func TestClientThatGoes(t *testing.T) {
	s := start(t, Config{})
	c := client(t, s, false)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://api.anthropic.com/v1/messages", strings.NewReader(fmt.Sprintf(messageAsk, true)))
	req.Header.Set("X-Llmsim", "tokens=1000;rate=20")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(resp.Body, make([]byte, 1000))
	cancel()
	resp.Body.Close()
	if e := last(t, s); e.Outcome != "client_gone" || e.Stated != "estimated" || len(e.Finish) != 0 {
		t.Errorf("%+v", e)
	}
}

func TestLedgerIsBounded(t *testing.T) {
	var l Ledger
	for i := range MaxEntries + 10 {
		l.add(&Entry{ID: fmt.Sprint(i)})
	}
	if es := l.Entries(); len(es) != MaxEntries || es[0].ID != "10" || l.Dropped() != 10 {
		t.Errorf("%d entries, the first %s, %d dropped", len(es), es[0].ID, l.Dropped())
	}
	e := &Entry{}
	for range MaxWrites + 5 {
		e.write(Write{Content: 1})
	}
	if len(e.Writes) != MaxWrites || e.WritesDropped != 5 || e.ContentWrites != MaxWrites+5 {
		t.Errorf("%d writes, %d dropped", len(e.Writes), e.WritesDropped)
	}
}

func TestPlans(t *testing.T) {
	p := DefaultPlan()
	if err := p.Overlay("tokens=3; rate=2.5,first=10ms ;tool=look;error=inband"); err != nil {
		t.Fatal(err)
	}
	if p.Tokens != 3 || p.Rate != 2.5 || p.First != 10*time.Millisecond || p.Finish != "tool" || p.Error != "inband" {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{"x=1", "tokens", "tokens=-1", "tokens=x", "rate=-1", "rate=NaN", "jitter=2", "first=1", "encoding=lz4", "error=200", "ping=yes", "cut=-2"} {
		if err := p.Overlay(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add("tokens=3;rate=1;first=1s;encoding=gzip")
	f.Fuzz(func(t *testing.T, spec string) {
		p := DefaultPlan()
		if err := p.Overlay(spec); err != nil {
			return
		}
		if p.Tokens < 0 || p.Size < 0 || p.Rate < 0 || p.Jitter > 1 || p.Coalesce < 1 {
			t.Errorf("%q gave %+v", spec, p)
		}
	})
}
