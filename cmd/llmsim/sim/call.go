package sim

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tollwire/tollwire/llm"
)

// call is one call to a simulated model from its request to its ledger entry.
type call struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	conn  *countedConn
	plan  Plan
	body  []byte // of the request, decoded
	ask   ask
	entry *Entry
	seed  uint64 // of this call's content
	tag   string // what this call's ids end in
	stage llm.Usage
	later bool // the answer is fetched later, and the call's entry made then
}

// ask is what the vendors' request bodies have in common.
type ask struct {
	Model         string `json:"model"`
	Stream        bool   `json:"stream"`
	Background    bool   `json:"background"`
	Format        string `json:"-"` // response_format of a form
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// answer is how a vendor answers a call: one value, or events.
type answer struct {
	header  http.Header
	status  int    // 0 means 200
	unary   []byte // the body, when not a stream
	visible bool   // of unary: holds content
	kind    framing
	events  iter.Seq[event]
	usage   llm.Usage // what unary states; streams state theirs in events
	finish  []string  // likewise
	noUsage bool      // unary states no usage
}

// event is one event of a stream.
type event struct {
	name      string // SSE's event field, or the event-stream's :event-type
	data      []byte
	comment   bool // data is an SSE comment
	exception bool // event-stream: an error, name is its :exception-type
	content   bool // carries generated content
	tokens    int  // how many tokens were generated for it, for the pace
	// What an observer knows once this event has crossed; nil for nothing new.
	usage  *llm.Usage
	final  bool // usage is the provider's last word
	finish string
}

// vendor answers the calls of one API. An error is answered as refuse says.
type vendor struct {
	provider  string
	operation string
	// prepare sets what the path and the body's own words say of the call: the
	// model, whether it streams. nil: the fields that ask reads say it.
	prepare func(*call)
	respond func(*call) (*answer, error)
	// refusal is the body of an error with that status, and the words of its type
	// and code.
	refusal func(c *call, status int, message string) (body []byte, kind, code string)
	// broken is the in-band error event of a stream.
	broken func(c *call) (e event, kind, code string)
}

// serve answers one call and enters it into the ledger.
func (s *Server) serve(v *vendor, w http.ResponseWriter, r *http.Request) {
	c := s.begin(w, r)
	c.entry.Provider, c.entry.Operation = v.provider, v.operation
	if p := hostProvider(r.Host); p != "" && v.provider == "openai" {
		c.entry.Provider = p
	}
	defer c.finish()
	if err := c.read(); err != nil {
		c.refuse(v, http.StatusBadRequest, err.Error())
		return
	}
	plan, err := planFor(s.plan, r)
	if err != nil {
		c.refuse(v, http.StatusBadRequest, err.Error())
		return
	}
	c.plan = plan
	if c.plan.Input < 0 {
		c.plan.Input = max(1, len(c.body)/4)
	}
	c.seed = c.plan.Seed
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "multipart/") && len(c.body) > 0 {
		if err := json.Unmarshal(c.body, &c.ask); err != nil {
			c.refuse(v, http.StatusBadRequest, "the body is not the JSON that is expected: "+err.Error())
			return
		}
	}
	if v.prepare != nil {
		v.prepare(c)
	}
	c.entry.Asked, c.entry.Stream = c.ask.Model, c.ask.Stream
	c.wait(c.plan.Head)
	if status, err := strconv.Atoi(c.plan.Error); err == nil {
		c.refuse(v, status, "")
		return
	}
	a, err := v.respond(c)
	if err != nil {
		c.refuse(v, http.StatusBadRequest, err.Error())
		return
	}
	if a.events == nil {
		c.sendWhole(a)
	} else {
		c.sendStream(v, a)
	}
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) *call {
	now := Now()
	n := s.calls.Add(1)
	c := &call{s: s, w: w, r: r, tag: fmt.Sprintf("%s%08x", s.nonce, n)}
	e := &Entry{
		RequestID: "req_" + c.tag, Client: r.Header.Get("X-Client"), HTTP: r.Proto,
		Method: r.Method, Path: r.URL.EscapedPath(), Outcome: "completed", Stated: llm.Missing.String(),
		FirstByte: now,
	}
	if e.Client == "" {
		e.Client = r.UserAgent()
	}
	c.entry = e
	if c.conn, _ = r.Context().Value(connKey{}).(*countedConn); c.conn != nil {
		e.Conn, e.TLS, e.Cipher = c.conn.id, c.conn.tls, c.conn.cipher
		if r.ProtoMajor == 1 {
			if t := c.conn.first.Load(); t != 0 {
				e.FirstByte = t
			}
		} else if t := c.conn.last.Load(); t != 0 {
			e.FirstByte = t
		}
	}
	e.Started = time.Now().Add(-time.Duration(Now() - e.FirstByte))
	return c
}

// finish enters the call into the ledger, and makes the connection ready to note
// the next request's first byte.
func (c *call) finish() {
	e := c.entry
	if e.End == 0 {
		e.End = Now()
	}
	if !c.stage.Empty() {
		e.Usage = classes(&c.stage)
	}
	if c.conn != nil {
		c.conn.first.Store(0)
	}
	if !c.later {
		c.s.ledger.add(e)
	}
	if e.Outcome == "cut" {
		panic(http.ErrAbortHandler) // net/http's way to close without an end
	}
}

// read reads the request's body, and undoes its content coding.
func (c *call) read() error {
	raw, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	c.entry.RequestBytes, c.entry.RequestEnd = int64(len(raw)), Now()
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	var dec io.Reader
	switch coding := c.r.Header.Get("Content-Encoding"); coding {
	case "", "identity":
		c.body = raw
		return nil
	case "gzip":
		if dec, err = gzip.NewReader(bytes.NewReader(raw)); err != nil {
			return fmt.Errorf("decode gzip: %w", err)
		}
	case "zstd":
		z, err := zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBody))
		if err != nil {
			return fmt.Errorf("decode zstd: %w", err)
		}
		defer z.Close()
		dec = z
	default:
		return fmt.Errorf("content-encoding %q is not understood", coding)
	}
	c.body, err = io.ReadAll(io.LimitReader(dec, maxBody))
	if err != nil {
		return fmt.Errorf("decode body: %w", err)
	}
	return nil
}

// wait pauses for d; it returns false when the client has gone or the server closes.
func (c *call) wait(d time.Duration) bool {
	return d <= 0 || c.until(time.Now().Add(d))
}

func (c *call) until(t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return c.r.Context().Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.r.Context().Done():
	case <-c.s.ctx.Done():
	}
	return false
}

// say notes what an observer now knows of the usage: later values replace earlier
// ones, class by class.
func (c *call) say(u *llm.Usage, final bool) {
	if u == nil {
		return
	}
	for class := range llm.NumClasses {
		if u.Has(class) {
			c.stage.Set(class, u.Get(class))
		}
	}
	if final {
		c.entry.Stated = llm.Exact.String()
	} else if c.entry.Stated == llm.Missing.String() {
		c.entry.Stated = llm.Estimated.String()
	}
}

// refuse answers with an error.
func (c *call) refuse(v *vendor, status int, message string) {
	if message == "" {
		message = "llmsim was asked to answer with status " + strconv.Itoa(status)
	}
	body, kind, code := v.refusal(c, status, message)
	e := c.entry
	e.Status, e.Error, e.ErrorCode, e.Outcome, e.ID = status, kind, code, "error", ""
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if c.plan.Retry > 0 {
		h.Set("Retry-After", strconv.Itoa(c.plan.Retry))
	}
	if status == 429 || status >= 500 {
		h.Set("X-Should-Retry", "true")
	}
	c.commonHeader()
	e.HeadSent = Now()
	c.w.WriteHeader(status)
	c.put(body, 0)
	e.End = Now()
}

func (c *call) commonHeader() {
	h := c.w.Header()
	if h.Get("Request-Id") == "" && h.Get("X-Request-Id") == "" {
		h.Set("X-Request-Id", c.entry.RequestID)
	}
	if c.plan.Close {
		h.Set("Connection", "close")
	}
}

// put writes body bytes as they are and notes the write.
func (c *call) put(p []byte, content int) error {
	c.entry.write(Write{At: Now(), Bytes: len(p), Content: content})
	n, err := c.w.Write(p)
	c.entry.ResponseBytes += int64(n)
	return err
}

// sendWhole sends an answer that is one body.
func (c *call) sendWhole(a *answer) {
	e := c.entry
	pace := newPace(&c.plan)
	pace.advance(c.plan.Think + c.plan.Tokens)
	pace.advance(0)
	if !c.until(pace.due) {
		e.Outcome = "client_gone"
		return
	}
	h := c.w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	c.commonHeader()
	body := a.unary
	if coding := c.coding(); coding != "identity" {
		var b bytes.Buffer
		enc := newEncoder(coding, &b)
		enc.Write(body)
		enc.Close()
		body = b.Bytes()
		h.Set("Content-Encoding", coding)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	e.Status, e.HeadSent = cmp.Or(a.status, http.StatusOK), Now()
	c.w.WriteHeader(e.Status)
	content := 0
	if a.visible {
		content = 1
	}
	if c.plan.Cut >= 0 {
		c.put(body[:len(body)/2], 0)
		http.NewResponseController(c.w).Flush()
		e.Outcome, e.End = "cut", Now()
		return
	}
	if err := c.put(body, content); err != nil {
		e.Outcome = "client_gone"
		return
	}
	e.Finish = a.finish
	if !a.noUsage {
		c.say(&a.usage, true)
	}
}

// sendStream sends an answer that is a stream of events.
func (c *call) sendStream(v *vendor, a *answer) {
	e := c.entry
	e.Stream = true
	h := c.w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	h.Set("Content-Type", a.kind.contentType())
	if a.kind != ndjson && a.kind != ndjsonCohere && a.kind != jsonArray {
		h.Set("Cache-Control", "no-cache")
	}
	c.commonHeader()
	coding := c.coding()
	if coding != "identity" {
		h.Set("Content-Encoding", coding)
	}
	e.Status, e.HeadSent = http.StatusOK, Now()
	c.w.WriteHeader(http.StatusOK)
	out := newOutput(c, a.kind, coding)
	if out.flush() != nil {
		e.Outcome = "client_gone"
		return
	}
	pace := newPace(&c.plan)
	contents := 0
	for ev := range a.events {
		if ev.tokens > 0 {
			pace.advance(ev.tokens)
			if !c.until(pace.due) {
				e.Outcome = "client_gone"
				return
			}
		}
		if ev.content {
			if contents == c.plan.Cut {
				out.release()
				e.Outcome, e.End = "cut", Now()
				return
			}
			if c.plan.Error == "inband" && contents == c.plan.ErrorAt && v.broken != nil {
				bad, kind, code := v.broken(c)
				e.Error, e.ErrorCode, e.Outcome = kind, code, "error"
				out.event(bad)
				out.end()
				e.End = Now()
				return
			}
			contents++
		}
		if err := out.event(ev); err != nil {
			e.Outcome = "client_gone"
			return
		}
		c.say(ev.usage, ev.final)
		if ev.finish != "" {
			e.Finish = append(e.Finish, ev.finish)
		}
	}
	if err := out.end(); err != nil {
		e.Outcome = "client_gone"
	}
	e.End = Now()
}

// coding is the content coding of the response.
func (c *call) coding() string {
	if c.plan.Encoding != "auto" {
		return c.plan.Encoding
	}
	accept := c.r.Header.Get("Accept-Encoding")
	for _, coding := range []string{"gzip", "br", "zstd", "deflate"} {
		if strings.Contains(accept, coding) {
			return coding
		}
	}
	return "identity"
}

// pace says when tokens are due: the first one First after the start, each other
// one when those before it have taken their time.
type pace struct {
	due    time.Time
	plan   *Plan
	random *rand.Rand
	before int // tokens that are due at due
}

func newPace(p *Plan) *pace {
	return &pace{due: time.Now().Add(p.First), plan: p, random: rand.New(rand.NewPCG(p.Seed, 0x70616365))}
}

// advance makes due the time of the next tokens.
func (p *pace) advance(tokens int) {
	before := p.before
	p.before = tokens
	if p.plan.Rate <= 0 || before == 0 {
		return
	}
	gap := float64(before) / p.plan.Rate * float64(time.Second)
	gap *= 1 + p.plan.Jitter*(2*p.random.Float64()-1)
	p.due = p.due.Add(time.Duration(gap))
}
