// Package answertest holds a vendor against the recorded corpora without a framing
// between them: what it makes of a recorded request, its response and its events.
package answertest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/request"
	"github.com/tollwire/tollwire/har"
	"github.com/tollwire/tollwire/llm"
)

// Expected is one line of expected.jsonl.gz.
type Expected struct {
	ID            string             `json:"id"`
	Family        string             `json:"family"`
	Operation     string             `json:"operation"`
	Framing       string             `json:"framing"`
	Provider      *string            `json:"provider"`
	RequestModel  *string            `json:"request_model"`
	ResponseModel *string            `json:"response_model"`
	ResponseID    *string            `json:"response_id"`
	Stream        bool               `json:"stream"`
	FinishReasons []any              `json:"finish_reasons"`
	Usage         map[string]float64 `json:"usage"`
	UsageSure     bool               `json:"usage_sure"`
	Error         bool               `json:"error"`
	Doubts        []string           `json:"doubts"`
}

// Case is a recorded exchange with what is expected of it.
type Case struct {
	Entry *har.Entry
	Want  *Expected
}

// Corpora is the folder of the recorded traffic.
func Corpora(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
	corpora := filepath.Join(dir, "..", "shared", "corpora")
	if _, err := os.Stat(corpora); err != nil {
		t.Fatalf("the corpora are missing: %v", err)
	}
	return corpora
}

// Load returns the cases of the families.
func Load(t testing.TB, families ...string) []Case {
	t.Helper()
	dir := Corpora(t)
	want := make(map[string]*Expected)
	f, err := os.Open(filepath.Join(dir, "expected.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(z); ; {
		e := new(Expected)
		if err := d.Decode(e); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(families, e.Family) {
			want[e.ID] = e
		}
	}
	var cases []Case
	for _, family := range families {
		files, _ := filepath.Glob(filepath.Join(dir, "*", family+".har.gz"))
		if len(files) == 0 {
			t.Fatalf("no recordings of %s", family)
		}
		for _, name := range files {
			r, err := har.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			for {
				e, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if want[e.ID] == nil {
					t.Fatalf("nothing is expected of %s", e.ID)
				}
				cases = append(cases, Case{e, want[e.ID]})
			}
			r.Close()
		}
	}
	return cases
}

// Contents counts the events of an answer by what they carried.
type Contents struct {
	Events, Hidden, Visible int
	Done                    bool
}

// pieces gives its bytes in pieces of random length, then err.
type pieces struct {
	b   []byte
	rnd *rand.Rand
	err error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, p.err
	}
	n := min(len(p.b), len(b), 1+p.rnd.IntN(700))
	copy(b, p.b[:n])
	p.b = p.b[n:]
	return n, nil
}

// Exchange is a made-up entry: a POST of JSON, answered with status 200. headers are
// the answer's, names and values in turn.
func Exchange(url, ask, contentType, body string, headers ...string) *har.Entry {
	h := http.Header{"Content-Type": {contentType}}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &har.Entry{
		ID:       url,
		Request:  har.Request{Method: "POST", URL: url, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(ask)},
		Response: har.Response{Status: 200, Header: h, Body: []byte(body)},
	}
}

// Classes is what u states, by name.
func Classes(u *llm.Usage) map[string]float64 {
	out := make(map[string]float64)
	for c := range llm.NumClasses {
		if u.Has(c) {
			out[c.String()] = u.Get(c)
		}
	}
	return out
}

// Whole is no cut.
const Whole = -1

// Decode hands a case to v. cut, unless it is Whole, is how much of the response's
// body crosses before it ends with err: exchange.ErrCut, or nil for an end in order.
func Decode(t testing.TB, v exchange.Vendor, e *har.Entry, cut int, err error) (*llm.Call, Contents) {
	t.Helper()
	u, bad := url.Parse(e.Request.URL)
	if bad != nil {
		t.Fatal(bad)
	}
	req := &exchange.Request{
		Method: e.Request.Method, Path: u.EscapedPath(), Query: u.RawQuery, Host: u.Host, Header: e.Request.Header,
	}
	var facts exchange.Facts
	early := v.Recognize(req, &facts)
	// Some recorded bodies are cut or were mended by hand; what was read stands.
	_ = new(request.Reader).Read(bytes.NewReader(e.Request.Body), e.Request.Header.Get("Content-Type"), &facts)
	sure := v.Recognize(req, &facts)
	if early == exchange.No || sure <= exchange.Maybe {
		t.Errorf("%s: not recognised: %v, then %v", e.ID, early, sure)
	}
	c := &llm.Call{Method: req.Method, Path: req.Path, ServerAddress: u.Hostname()}
	d := v.Open(req, &facts, c)
	c.Status = e.Response.Status
	d.Response(&exchange.Response{Status: e.Response.Status, Header: e.Response.Header})
	body, end := e.Response.Body, error(nil)
	if cut >= 0 && cut < len(body) {
		body, end = body[:cut], err
	}
	var n Contents
	fault := play(t, d, e.Response.Header.Get("Content-Type"), body, end, 0, &n)
	if cut < 0 && fault != nil {
		t.Errorf("%s: %v", e.ID, fault)
	}
	if end == nil {
		end = fault
	}
	if n.Done {
		end = nil
	}
	d.End(end)
	if end != nil && c.Completeness == llm.Exact {
		t.Errorf("%s: cut at %d, yet exact", e.ID, cut)
	}
	return c, n
}

func play(t testing.TB, d exchange.Decoder, contentType string, body []byte, end error, seed uint64, n *Contents) error {
	rnd := rand.New(rand.NewPCG(uint64(len(body)), seed))
	reader := func(b []byte, err error) io.Reader { return &pieces{b, rnd, err} }
	var split func(b []byte) (name string, data []byte, rest []byte, whole bool)
	switch contentType, _, _ = strings.Cut(contentType, ";"); contentType {
	case "text/event-stream":
		body = bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
		split = splitSSE
	case "application/x-ndjson", "application/stream+json":
		split = splitLines
	case "application/vnd.amazon.eventstream":
		split = splitFrames
	default:
		return d.Body(reader(body, or(end, io.EOF)))
	}
	var fault error
	for len(body) > 0 {
		name, data, rest, whole := split(body)
		if data == nil && whole {
			body = rest
			continue
		}
		ev := &exchange.Event{Name: name, Data: reader(data, io.EOF)}
		if !whole && end != nil {
			ev.Data = reader(data, end)
		}
		err := d.Event(ev)
		if fault == nil && (whole || end == nil) {
			fault = err
		}
		n.Events++
		switch ev.Content {
		case exchange.Hidden:
			n.Hidden++
		case exchange.Visible:
			n.Visible++
		}
		if ev.Done {
			n.Done = true
			return fault
		}
		body = rest
	}
	return fault
}

func or(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func splitSSE(b []byte) (name string, data, rest []byte, whole bool) {
	block, rest, whole := bytes.Cut(b, []byte("\n\n"))
	sc := bufio.NewScanner(bytes.NewReader(block))
	sc.Buffer(nil, 64<<20)
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch key {
		case "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
		case "event":
			name = value
		}
	}
	if !whole && len(rest) == 0 {
		whole = bytes.HasSuffix(block, []byte("\n"))
	}
	return name, data, rest, whole || data == nil
}

func splitLines(b []byte) (name string, data, rest []byte, whole bool) {
	data, rest, whole = bytes.Cut(b, []byte("\n"))
	if len(bytes.TrimSpace(data)) == 0 {
		data = nil
	}
	return "", data, rest, whole
}

func splitFrames(b []byte) (name string, data, rest []byte, whole bool) {
	if len(b) < 12 {
		return "", []byte{}, nil, false
	}
	total, heads := int(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint32(b[4:]))
	if heads > len(b)-12 || total < heads+16 {
		return "", []byte{}, nil, false
	}
	for h := b[12 : 12+heads]; len(h) > 0; {
		n := int(h[0])
		if len(h) < n+4 {
			return "", []byte{}, nil, false
		}
		k := string(h[1 : 1+n])
		h = h[1+n:]
		if n = int(binary.BigEndian.Uint16(h[1:])); len(h) < 3+n {
			return "", []byte{}, nil, false
		}
		if k == ":event-type" {
			name = string(h[3 : 3+n])
		}
		h = h[3+n:]
	}
	if len(b) < total {
		return name, b[12+heads : min(len(b), total-4)], nil, false
	}
	return name, b[12+heads : total-4], b[total:], true
}

// Fold sums the classes that the expectations don't keep apart.
func Fold(u *llm.Usage) map[string]float64 {
	into := map[llm.Class]string{
		llm.Input: "input", llm.InputAudio: "input", llm.InputImage: "input", llm.InputVideo: "input", llm.ToolInput: "input",
		llm.CacheRead: "cache_read", llm.CacheReadAudio: "cache_read",
		llm.CacheWrite: "cache_write", llm.CacheWrite5m: "cache_write_5m", llm.CacheWrite1h: "cache_write_1h",
		llm.Output: "output", llm.OutputAudio: "output", llm.OutputImage: "output", llm.Reasoning: "reasoning",
		llm.Citation: "output",
	}
	out := make(map[string]float64)
	for c, name := range into {
		out[name] += u.Get(c)
	}
	return out
}

// Check says how c differs from what is expected, field by field.
func Check(c *llm.Call, want *Expected) (diff []string) {
	say := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			diff = append(diff, fmt.Sprintf("%s %v, want %v", what, got, want))
		}
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if want.Provider != nil { // else OpenTelemetry has no name for it
		say("provider", c.Provider, *want.Provider)
	}
	say("operation", c.Operation, want.Operation)
	say("request model", c.RequestModel, text(want.RequestModel))
	say("response model", c.ResponseModel, text(want.ResponseModel))
	say("response id", c.ResponseID, text(want.ResponseID))
	say("stream", c.Stream, want.Stream)
	say("finish reasons", append([]string{}, c.FinishReasons...), append([]any{}, want.FinishReasons...))
	say("error", c.Status >= 400 || c.InBandError, want.Error)
	say("usage stated", c.Usage.HasTokens() && c.Completeness == llm.Exact, want.Usage != nil)
	if want.Usage != nil {
		say("usage", Fold(&c.Usage), want.Usage)
	}
	return diff
}

// Run holds v against the families. Every difference fails the test, but for those
// that explained names by entry and words it begins with.
func Run(t *testing.T, v exchange.Vendor, explained map[string]string, families ...string) {
	t.Helper()
	cases := Load(t, families...)
	exact, sure, used := 0, 0, make(map[string]bool)
	for _, x := range cases {
		c, n := Decode(t, v, x.Entry, Whole, nil)
		diff := Check(c, x.Want)
		if x.Want.UsageSure && x.Want.Usage != nil {
			sure++
			if !slices.ContainsFunc(diff, func(s string) bool { return strings.HasPrefix(s, "usage") }) {
				exact++
			}
		}
	next:
		for _, s := range diff {
			for part, why := range explained {
				id, what, _ := strings.Cut(part, "|")
				if strings.Contains(x.Want.ID, id) && strings.HasPrefix(s, what) && why != "" {
					used[part] = true
					continue next
				}
			}
			t.Errorf("%s: %s", x.Want.ID, s)
		}
		if x.Want.Framing != "json" && !x.Want.Error && n.Hidden+n.Visible == 0 {
			t.Logf("%s: no content in %d events", x.Want.ID, n.Events)
		}
		if c.Disagreement != "" {
			t.Logf("%s: %s", x.Want.ID, c.Disagreement)
		}
	}
	for part := range explained {
		if !used[part] {
			t.Errorf("explained, but doesn't happen: %s", part)
		}
	}
	t.Logf("usage exact %d of %d sure, %d calls", exact, sure, len(cases))
}

// Cuts cuts every response of the families at some places of its body, by a connection
// that breaks and by an end as if in order: what is then labelled exact must be right.
func Cuts(t *testing.T, v exchange.Vendor, places int, families ...string) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, x := range Load(t, families...) {
		if testing.Short() && i%8 != 0 {
			continue
		}
		whole, _ := Decode(t, v, x.Entry, Whole, nil)
		n := len(x.Entry.Response.Body)
		for range places {
			cut := rnd.IntN(n + 1)
			if rnd.IntN(2) == 0 {
				cut = max(0, n-rnd.IntN(min(n, 600)+1)) // where usage stands
			}
			for _, end := range []error{exchange.ErrCut, nil} {
				c, _ := Decode(t, v, x.Entry, cut, end)
				if c.Completeness == llm.Exact && c.Usage != whole.Usage {
					t.Errorf("%s: cut at %d of %d, %v: exact %v, want %v", x.Want.ID, cut, n, end, Fold(&c.Usage), Fold(&whole.Usage))
				}
			}
		}
	}
}

// Fuzz runs v on a few answers of each family and kind: what comes must not depend on
// the pieces it crosses in, and a cut answer must not be exact.
func Fuzz(f *testing.F, v exchange.Vendor, families ...string) {
	type shape struct{ path, query, contentType string }
	var shapes []shape
	seeds := make(map[string]int)
	for _, x := range Load(f, families...) {
		u, err := url.Parse(x.Entry.Request.URL)
		if err != nil {
			f.Fatal(err)
		}
		s := shape{u.EscapedPath(), u.RawQuery, x.Entry.Response.Header.Get("Content-Type")}
		kind := fmt.Sprint(s.path[strings.LastIndexAny(s.path, "/:"):], x.Want.Framing, x.Entry.Response.Status, x.Want.Doubts)
		if seeds[kind]++; seeds[kind] > 2 || len(x.Entry.Response.Body) > 32<<10 {
			continue
		}
		shapes = append(shapes, s)
		f.Add(uint8(len(shapes)-1), x.Entry.Request.Body[:min(len(x.Entry.Request.Body), 4<<10)], x.Entry.Response.Body, uint16(0))
	}
	f.Fuzz(func(t *testing.T, which uint8, ask, body []byte, cut uint16) {
		s := shapes[int(which)%len(shapes)]
		run := func(seed uint64, body []byte, end error) *llm.Call {
			req := &exchange.Request{Method: "POST", Path: s.path, Query: s.query, Host: "localhost:8080"}
			var facts exchange.Facts
			_ = new(request.Reader).Read(bytes.NewReader(ask), "application/json", &facts)
			v.Recognize(req, &facts)
			c := &llm.Call{Status: 200}
			d := v.Open(req, &facts, c)
			d.Response(&exchange.Response{Status: 200})
			var n Contents
			fault := play(t, d, s.contentType, body, end, seed, &n)
			if end == nil {
				end = fault
			}
			if n.Done {
				end = nil
			}
			d.End(end)
			if end != nil && c.Completeness == llm.Exact {
				t.Fatalf("exact, although %v", end)
			}
			if c.Usage.Empty() != (c.Completeness == llm.Missing) {
				t.Fatalf("%v, of %+v", c.Completeness, c.Usage)
			}
			return c
		}
		a, b := run(1, body, nil), run(2, body, nil)
		if a.Usage != b.Usage || a.ResponseID != b.ResponseID || a.ErrorType != b.ErrorType || !slices.Equal(a.FinishReasons, b.FinishReasons) || !slices.Equal(a.ToolCalls, b.ToolCalls) || !slices.Equal(a.Quality, b.Quality) {
			t.Fatalf("in other pieces another call:\n%+v\n%+v", a, b)
		}
		if int(cut) < len(body) {
			run(3, body[:cut], exchange.ErrCut)
		}
	})
}
