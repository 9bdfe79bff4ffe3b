package har

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const archive = `{"log":{"version":"1.2","creator":{"name":"x","nested":[{"entries":[1]}]},"entries":[
{"_id":"a","startedDateTime":"2026-03-12T18:08:41.250+01:00","timings":{"send":1,"wait":20.5,"receive":-1},
 "request":{"method":"POST","url":"https://API.example/v1/model/a%3Ab/invoke?x=1#frag",
  "headers":[{"name":":authority","value":"api"},{"name":"host","value":"other"},{"name":"content-length","value":"9"},
             {"name":"x-two","value":"1"},{"name":"x-two","value":"2"},{"name":"bad","value":"a\r\nb: c"}],
  "postData":{"mimeType":"application/json","text":"{\"é\":1}"}},
 "response":{"status":200,"headers":[{"name":"content-encoding","value":"gzip"},{"name":"transfer-encoding","value":"chunked"}],
  "content":{"mimeType":"text/event-stream","text":"data: 1\n\ndata: 2\n\n","_chunks":[3,0,6]}}},
{"_id":"b","request":{"method":"POST","url":"http://h:81/","headers":[{"name":"content-encoding","value":"gzip"}],
  "postData":{"text":"AAEC","encoding":"base64"}},
 "response":{"status":200,"statusText":"Fine","headers":[],"content":{"text":"/wA=","encoding":"base64"}}},
{"request":{"method":"GET","url":"http://h/"},"response":{"status":0,"content":{}}}
],"comment":"after"}}`

func all(t *testing.T, text string) []*Entry {
	t.Helper()
	r, err := NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var es []*Entry
	for {
		e, err := r.Next()
		if err == io.EOF {
			return es
		}
		if err != nil {
			t.Fatal(err)
		}
		es = append(es, e)
	}
}

func TestRead(t *testing.T) {
	es := all(t, archive)
	if len(es) != 3 {
		t.Fatalf("%d entries", len(es))
	}
	a := es[0]
	if want := time.Date(2026, 3, 12, 17, 8, 41, 250e6, time.UTC); !a.Started.Equal(want) {
		t.Errorf("started %v", a.Started)
	}
	if a.ID != "a" || a.Timings.Wait != 20500*time.Microsecond || a.Timings.Receive != 0 {
		t.Errorf("%+v", a)
	}
	if string(a.Request.Body) != `{"é":1}` || a.Request.Header.Get("Content-Type") != "application/json" {
		t.Errorf("request %+v", a.Request)
	}
	if !slices.Equal(a.Response.Chunks, []int{3, 0, 6}) {
		t.Errorf("chunks %v", a.Response.Chunks)
	}
	if !bytes.Equal(es[1].Request.Body, []byte{0, 1, 2}) || !bytes.Equal(es[1].Response.Body, []byte{0xff, 0}) {
		t.Errorf("base64: %+v", es[1])
	}
	if !es[2].Started.IsZero() || es[2].Number != 2 {
		t.Errorf("%+v", es[2])
	}
}

func TestWire(t *testing.T) {
	es := all(t, archive)
	join := func(p [][]byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.Join(p, []byte("|")))
	}
	for _, c := range []struct{ got, want string }{
		{join(es[0].RequestWire()), "POST /v1/model/a%3Ab/invoke?x=1 HTTP/1.1\r\nHost: API.example\r\nContent-Type: application/json\r\n" +
			"X-Two: 1\r\nX-Two: 2\r\nContent-Length: 8\r\n\r\n|{\"é\":1}"},
		{join(es[0].ResponseWire()), "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"|3\r\ndat\r\n|6\r\na: 1\n\n\r\n|9\r\ndata: 2\n\n\r\n|0\r\n\r\n"},
		{join(es[1].RequestWire()), "POST / HTTP/1.1\r\nHost: h:81\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n|\x00\x01\x02"},
		{join(es[1].ResponseWire()), "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n|\xff\x00"},
		{join(es[2].RequestWire()), "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
	} {
		if c.got != c.want {
			t.Errorf("got  %q\nwant %q", c.got, c.want)
		}
	}
	if _, err := es[2].ResponseWire(); !errors.Is(err, errNoResponse) {
		t.Errorf("status 0: %v", err)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		``:                         "byte 0",
		`[]`:                       "[ where { should be",
		`{"log":{"pages":[]}}`:     `no key "entries"`,
		`{"log":{"entries":{}}}`:   "{ where [ should be",
		`{"log":{"entries":[{},`:   "entry 0",
		`{"log":{"entries":[]}} 1`: "after the end",
		`{"log":{"entries":[`:      "unexpected EOF",
		`{"log":{"entries":[]`:     "unexpected EOF",
		`{"log":{"entries":[{"_id":"x","request":{"method":1}}]}}`:                                      "entry 0 (x, before byte 53): request.method is a number",
		`{"log":{"entries":[{"request":{}, "response":{"content":{"text":"!","encoding":"base64"}}}]}}`: "response.content: decode base64",
		`{"log":{"entries":[{"request":{}, "response":{"content":{"text":"é","_chunks":[1,2]}}}]}}`:     "_chunks[1] is 2, with 1 of the body's 2 bytes left",
		`{"log":{"entries":[{"startedDateTime":"yesterday","request":{}}]}}`:                            "startedDateTime",
		"\x1f\x8b": "gzip",
	} {
		var err error
		var r *Reader
		if r, err = NewReader(strings.NewReader(text)); err == nil {
			for err == nil {
				_, err = r.Next()
			}
		}
		if err == io.EOF || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestBadEntrySpoilsOnlyItself(t *testing.T) {
	r, err := NewReader(strings.NewReader(`{"log":{"entries":[{"_id":7},{"_id":"good","request":{"method":"GET"}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Next()
	if bad := new(EntryError); !errors.As(err, &bad) || bad.Number != 0 {
		t.Fatalf("first: %v", err)
	}
	if e, err := r.Next(); err != nil || e.ID != "good" || e.Number != 1 {
		t.Fatalf("second: %v, %v", e, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("end: %v", err)
	}
}

// TestCorpora reads every recorded archive and has net/http read the bytes made of
// each entry back.
func TestCorpora(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(corpora(t), "*", "*.har.gz"))
	if len(files) == 0 {
		t.Fatal("no .har.gz in the corpora")
	}
	n := 0
	for _, path := range files {
		r, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if e.ID == "" || e.Started.IsZero() {
				t.Fatalf("%s: entry %d has no id or no time", path, e.Number)
			}
			roundTrip(t, e)
			n++
		}
		r.Close()
	}
	if n != 3847 {
		t.Errorf("%d entries, the corpora's README says 3847", n)
	}
}

func roundTrip(t *testing.T, e *Entry) {
	t.Helper()
	e.Response.Chunks = []int{len(e.Response.Body) / 3, len(e.Response.Body) / 2}
	q, err := e.RequestWire()
	if err != nil {
		t.Fatalf("%s: %v", e.ID, err)
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.Join(q, nil))))
	if err != nil {
		t.Fatalf("%s: %v", e.ID, err)
	}
	if b, err := io.ReadAll(req.Body); err != nil || !bytes.Equal(b, e.Request.Body) {
		t.Fatalf("%s: request body differs, %v", e.ID, err)
	}
	if got := "https://" + req.Host + req.RequestURI; got != e.Request.URL && "http"+got[5:] != e.Request.URL {
		t.Fatalf("URL %s, want %s", got, e.Request.URL)
	}
	a, err := e.ResponseWire()
	if err != nil {
		t.Fatalf("%s: %v", e.ID, err)
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(bytes.Join(a, nil))), req)
	if err != nil {
		t.Fatalf("%s: %v", e.ID, err)
	}
	if b, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(b, e.Response.Body) || res.StatusCode != e.Response.Status {
		t.Fatalf("%s: response differs, %v", e.ID, err)
	}
}

// corpora finds ../shared/corpora beside the repository.
func corpora(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(filepath.Dir(dir), "shared", "corpora")
			if _, err := os.Stat(path); err != nil {
				t.Fatalf("THE CORPORA ARE MISSING: %v", err)
			}
			return path
		}
	}
	t.Fatal("no go.mod above the working folder")
	return ""
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(archive))
	f.Add([]byte(`{"log":{"entries":[{"_id":7},{"request":{}}]}}`))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte(archive))
	w.Close()
	f.Add(z.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		for range len(data) + 2 {
			e, err := r.Next()
			if bad := new(EntryError); errors.As(err, &bad) {
				continue
			}
			if err != nil {
				if _, again := r.Next(); again != err {
					t.Fatalf("after %v came %v", err, again)
				}
				return
			}
			if _, err := json.Marshal(e); err != nil {
				t.Fatal(err)
			}
			check(t, e)
		}
		t.Fatal("the archive has no end")
	})
}

// check holds what is made of any entry to be HTTP that says the same.
func check(t *testing.T, e *Entry) {
	q, err := e.RequestWire()
	if err != nil {
		return
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.Join(q, nil))))
	if err != nil {
		return // net/http is stricter about hosts and paths than a recording
	}
	if b, err := io.ReadAll(req.Body); err == nil && !bytes.Equal(b, e.Request.Body) && req.ContentLength >= 0 {
		t.Fatalf("request body %q became %q", e.Request.Body, b)
	}
	a, err := e.ResponseWire()
	if err != nil {
		return
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(bytes.Join(a, nil))), req)
	if err != nil {
		t.Fatalf("response: %v in %q", err, a)
	}
	b, err := io.ReadAll(res.Body)
	if len(b) > 0 && (err != nil || !bytes.Equal(b, e.Response.Body)) {
		t.Fatalf("response body %q became %q, %v", e.Response.Body, b, err)
	}
}
