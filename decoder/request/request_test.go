package request

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tollwire/tollwire/decoder/exchange"
)

func read(t *testing.T, body string) *exchange.Facts {
	t.Helper()
	var whole, single exchange.Facts
	if err := new(Reader).Read(strings.NewReader(body), "application/json", &whole); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if err := new(Reader).Read(iotest.OneByteReader(strings.NewReader(body)), "application/json", &single); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if whole.Model != single.Model || whole.Text.Bytes != single.Text.Bytes || string(whole.Text.Kept) != string(single.Text.Kept) {
		t.Fatalf("read whole %+v, in bytes %+v", whole, single)
	}
	return &whole
}

func TestShapes(t *testing.T) {
	for _, c := range []struct {
		body  string
		check func(f *exchange.Facts) bool
		text  string
	}{
		{`{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hé"},{"role":"user","content":[{"type":"text","text":" you"},{"type":"image_url","image_url":{"url":"data:x"}}]}]}`,
			func(f *exchange.Facts) bool {
				return f.Model == "gpt-4o" && f.Stream && f.StreamSet && f.IncludeUsage && f.Keys["messages"] && f.Text.Chars == 6
			}, "hé you"},
		{`{"model":"m","input":"hi","text":{"format":{"type":"json_schema","schema":{}}},"instructions":"be"}`,
			func(f *exchange.Facts) bool { return f.JSONSchema && !f.StreamSet }, "hibe"},
		{`{"contents":[{"parts":[{"text":"a"},{"inlineData":{"data":"AAAA"}}],"role":"user"}],"generationConfig":{"responseMimeType":"application/json"}}`,
			func(f *exchange.Facts) bool { return f.JSONSchema }, "a"},
		{`{"response_format":{"type":"text"},"metadata":{"user_id":"u","n":1},"service_tier":"flex","web_search_options":{"search_context_size":"high"}}`,
			func(f *exchange.Facts) bool {
				return !f.JSONSchema && f.Metadata["user_id"] == "u" && len(f.Metadata) == 1 && f.ServiceTier == "flex" && f.SearchContext == "high"
			}, ""},
		{`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":{"x":1},"name":"add"}}`,
			func(f *exchange.Facts) bool {
				return f.JSONRPCMethod == "tools/call" && f.JSONRPCTool == "add" && f.JSONRPCID == "7" && f.Keys["jsonrpc"]
			}, ""},
		{`{"model":"gpt-image-1","prompt":"a cat","size":"1024x1024","quality":"high","n":2}`,
			func(f *exchange.Facts) bool {
				return f.ImageSize == "1024x1024" && f.ImageQuality == "high" && f.ImageCount == 2
			}, "a cat"},
		{`{"model_id":"ibm/granite","model":"x","modelId":"y","input":["a","b"],"format":"json"}`,
			func(f *exchange.Facts) bool { return f.Model == "x" && f.JSONSchema }, "ab"},
		{`{"anthropic_version":"bedrock-2023-05-31","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"r"}]}]}`,
			func(f *exchange.Facts) bool { return f.AnthropicVersion == "bedrock-2023-05-31" && f.Model == "" }, "sr"},
	} {
		f := read(t, c.body)
		if !f.Known || !f.Whole || f.Bytes != int64(len(c.body)) || !c.check(f) || string(f.Text.Kept) != c.text || f.Text.Bytes != int64(len(c.text)) {
			t.Errorf("%s: %+v, text %q", c.body, f, f.Text.Kept)
		}
	}
}

func TestWhatIsNoObjectIsNotKnown(t *testing.T) {
	for _, body := range []string{"", "[1]", "model=x", "\x00\x01", `"x"`} {
		var f exchange.Facts
		if err := new(Reader).Read(strings.NewReader(body), "", &f); err != nil || f.Known {
			t.Errorf("%q: %v, %+v", body, err, f)
		}
	}
}

func TestWhatWasReadStands(t *testing.T) {
	var f exchange.Facts
	r := io.MultiReader(strings.NewReader(`{"model":"m","stream":true,"messages":[{"content":"abc`), iotest.ErrReader(exchange.ErrLost))
	if err := new(Reader).Read(r, "application/json", &f); err != exchange.ErrLost {
		t.Fatal(err)
	}
	if !f.Known || f.Whole || f.Model != "m" || !f.Stream || string(f.Text.Kept) != "abc" {
		t.Fatalf("%+v", f)
	}
}

// endless is a prompt without an end.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, exchange.ErrCut
	}
	n := min(len(p), e.left)
	for i := range p[:n] {
		p[i] = 'a'
	}
	e.left -= n
	return n, nil
}

func TestMemoryIsConstant(t *testing.T) {
	var f exchange.Facts
	bytes := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			f = exchange.Facts{}
			new(Reader).Read(io.MultiReader(strings.NewReader(`{"messages":[{"content":"`), &endless{16 << 20}), "", &f)
		}
	}).AllocedBytesPerOp()
	if f.Text.Bytes != 16<<20 || len(f.Text.Kept) != keptPrompt || bytes > 24<<10 {
		t.Fatalf("%d bytes allocated for a prompt of %d, %d kept", bytes, f.Text.Bytes, len(f.Text.Kept))
	}
}

func form(t *testing.T) (body []byte, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	p, err := w.CreateFormFile("file", "a.wav")
	if err != nil {
		t.Fatal(err)
	}
	p.Write(bytes.Repeat([]byte("sound"), 10000))
	for k, v := range map[string]string{"model": "whisper-1", "stream": "true", "prompt": "names"} {
		w.WriteField(k, v)
	}
	w.Close()
	return b.Bytes(), w.FormDataContentType()
}

func TestForm(t *testing.T) {
	body, ct := form(t)
	var f exchange.Facts
	if err := new(Reader).Read(iotest.HalfReader(bytes.NewReader(body)), ct, &f); err != nil {
		t.Fatal(err)
	}
	if f.Model != "whisper-1" || !f.Stream || !f.Known || !f.Whole || f.Bytes != int64(len(body)) || string(f.Text.Kept) != "names" || !f.Keys["file"] {
		t.Fatalf("%+v", f)
	}
	f = exchange.Facts{}
	r := io.MultiReader(bytes.NewReader(body[:20000]), iotest.ErrReader(exchange.ErrCut))
	if err := new(Reader).Read(r, ct, &f); !errors.Is(err, exchange.ErrCut) || !f.Known || f.Whole {
		t.Fatalf("%v, %+v", err, f)
	}
}

func TestFormHeadIsBounded(t *testing.T) {
	var f exchange.Facts
	r := io.MultiReader(strings.NewReader("--b\r\nX: "), &endless{1 << 30})
	if err := new(Reader).Read(r, "multipart/form-data; boundary=b", &f); !errors.Is(err, errPartHead) {
		t.Fatal(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"model":"m","messages":[{"content":[{"text":"a"}]}],"metadata":{"a":"b"},"tools":[{"function":{}}]}`), "application/json")
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n"), "multipart/form-data; boundary=b")
	f.Fuzz(func(t *testing.T, body []byte, ct string) {
		var facts exchange.Facts
		new(Reader).Read(bytes.NewReader(body), ct, &facts)
		if len(facts.Keys) > maxKeys || len(facts.Metadata) > maxMetadata || len(facts.Text.Kept) > keptPrompt || len(facts.Model) > 3*256 {
			t.Fatalf("too much kept: %+v", facts)
		}
	})
}

// TestNoSample: the prompt is counted, and nothing of it is kept.
func TestNoSample(t *testing.T) {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	w.WriteField("model", "whisper-1")
	w.WriteField("prompt", "secret words")
	w.Close()
	for _, c := range []struct{ name, body, contentType string }{
		{"JSON", `{"model":"m","messages":[{"role":"user","content":"secret words"}],"tools":[{"name":"secret","description":"words"}]}`, "application/json"},
		{"form", form.String(), w.FormDataContentType()},
	} {
		var with, without exchange.Facts
		if err := new(Reader).Read(strings.NewReader(c.body), c.contentType, &with); err != nil {
			t.Fatal(err)
		}
		if err := (&Reader{NoSample: true}).Read(strings.NewReader(c.body), c.contentType, &without); err != nil {
			t.Fatal(err)
		}
		if len(with.Text.Kept) == 0 || with.Text.Bytes == 0 {
			t.Errorf("%s: nothing is sampled: %+v", c.name, with.Text)
		}
		if without.Text.Kept != nil || without.Text.Bytes != with.Text.Bytes || without.Text.Chars != with.Text.Chars || without.Model != with.Model {
			t.Errorf("%s: %+v beside %+v", c.name, without.Text, with.Text)
		}
	}
}
