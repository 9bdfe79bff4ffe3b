package decoder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// echo is a vendor with the smallest of APIs. POST /echo; the body's usage is that
// of the response, whole or as events {"text"|"think"|"usage"}, ended by [DONE].
type echo struct{}

func (echo) Name() string { return "echo" }

func (echo) Recognize(req *exchange.Request, f *exchange.Facts) exchange.Confidence {
	switch {
	case req.Path == "/echo":
		return exchange.Path
	case req.Path != "/maybe" && req.Path != "":
	case !f.Known:
		return exchange.Maybe
	case f.Model == "echo":
		return exchange.Weak
	}
	return exchange.No
}

func (echo) Open(req *exchange.Request, f *exchange.Facts, c *llm.Call) exchange.Decoder {
	c.RequestModel, c.Stream = f.Model, f.Stream
	return &echoDecoder{c: c}
}

type echoDecoder struct {
	c     *llm.Call
	text  strings.Builder
	usage *float64
}

func (d *echoDecoder) Response(*exchange.Response) {}

func (d *echoDecoder) Body(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return d.value(b, &exchange.Event{})
}

func (d *echoDecoder) Event(e *exchange.Event) error {
	b, err := io.ReadAll(e.Data)
	if err != nil {
		return err
	}
	if string(b) == "[DONE]" {
		e.Done = true
		return nil
	}
	return d.value(b, e)
}

func (d *echoDecoder) value(b []byte, e *exchange.Event) error {
	var v struct {
		Text, Think string
		Usage       *float64
		Panic       bool
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v.Panic {
		panic("as told")
	}
	d.text.WriteString(v.Text)
	if v.Usage != nil {
		d.usage = v.Usage
	}
	switch {
	case v.Text != "":
		e.Content = exchange.Visible
	case v.Think != "":
		e.Content = exchange.Hidden
	}
	return nil
}

func (d *echoDecoder) End(err error) {
	d.c.ResponseModel = d.text.String()
	if d.usage != nil && d.c.Usage.Set(llm.Output, *d.usage) {
		d.c.Completeness, d.c.UsageSource = llm.Exact, llm.SourceBody
	}
}

func readFacts(r io.Reader, contentType string, f *exchange.Facts) error {
	b, err := io.ReadAll(r)
	f.Bytes = int64(len(b))
	if err != nil {
		return err
	}
	var v struct {
		Model  string
		Stream bool
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	f.Known, f.Whole, f.Model, f.Stream = true, true, v.Model, v.Stream
	return nil
}

// rig is a Decoder with what it said.
type rig struct {
	*Decoder
	t        testing.TB
	calls    []*llm.Call
	verdicts []string
	pos      [2]uint64
	now      flow.Time
	conn     flow.Conn
	number   uint32
}

func newRig(t testing.TB, edit ...func(*Config)) *rig {
	r := &rig{t: t, conn: flow.Conn{Proc: flow.Proc{PID: 7, Start: 1}, Key: 0xabc, Gen: 1}, now: 1000}
	cfg := Config{
		Vendors: []exchange.Vendor{echo{}}, ReadFacts: readFacts,
		Call: func(c *llm.Call) { r.calls = append(r.calls, c) },
		Verdict: func(c flow.Conn, n uint32, v flow.Verdict) {
			r.verdicts = append(r.verdicts, fmt.Sprintf("%d:%d", n, v))
		},
	}
	for _, e := range edit {
		e(&cfg)
	}
	r.Decoder = New(cfg)
	return r
}

// data makes the record of the next bytes in a direction, a millisecond after the last.
func (r *rig) data(dir flow.Dir, b []byte) *flow.Data {
	r.now += flow.Time(time.Millisecond)
	d := &flow.Data{
		Kind: flow.KindData, Conn: r.conn, Dir: dir, Source: flow.SourceOpenSSL,
		Time: r.now, Pos: r.pos[dir], Exchange: r.number, Payload: bytes.Clone(b),
	}
	r.pos[dir] += uint64(len(b))
	return d
}

func (r *rig) push(dir flow.Dir, s string) { r.Push(r.data(dir, []byte(s))) }

// lose lets n bytes be missing: the next record confirms them.
func (r *rig) lose(dir flow.Dir, n int, reason flow.GapReason, next string) {
	r.pos[dir] += uint64(n)
	d := r.data(dir, []byte(next))
	d.Gap, d.GapReason = uint64(n), reason
	r.Push(d)
}

func (r *rig) end(k flow.Kind, dir flow.Dir) {
	r.now += flow.Time(time.Millisecond)
	r.Push(&flow.Data{Kind: k, Conn: r.conn, Dir: dir, Time: r.now, Pos: r.pos[dir]})
}

// Close ends what is open.
func (r *rig) Close() {
	r.t.Helper()
	r.Decoder.Close()
	if n := len(r.asking); n > 0 {
		r.t.Errorf("%d requests are open after their end", n)
	}
	if r.held != 0 || r.open != 0 {
		r.t.Errorf("%d open exchanges hold %d bytes after their end", r.open, r.held)
	}
}

// one closes the decoder and returns the only call.
func (r *rig) one() *llm.Call {
	r.t.Helper()
	r.Close()
	r.check()
	if len(r.calls) != 1 {
		r.t.Fatalf("%d calls, want 1", len(r.calls))
	}
	return r.calls[0]
}

// check holds the counters to their sum.
func (r *rig) check() {
	r.t.Helper()
	if s := r.Stats(); s.Pushed != s.Decoded+s.Ignored+s.Duplicate+s.Refused+s.Held {
		r.t.Errorf("bytes do not add up: %+v", s)
	}
	open, held := 0, 0
	for _, conns := range r.conns {
		for _, c := range conns {
			if c.exchanges() == 0 && c.session == nil && c.calls != 0 {
				r.t.Errorf("connection %v holds %d bytes for nothing", c.id, c.calls)
			}
			open += c.exchanges()
			held += c.calls + c.exchanges()*openSize
		}
	}
	if r.open != open || r.held != held {
		r.t.Errorf("counted %d exchanges of %d bytes, there are %d of %d", r.open, r.held, open, held)
	}
}

// noLeak fails the test if it leaves goroutines behind.
func noLeak(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 100 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
	})
}

// message is what crossed in one direction before the other side spoke.
type message struct {
	dir   flow.Dir
	bytes string
}

// split cuts messages into pieces of random or of the given size.
func split(msgs []message, rnd *rand.Rand, size int) (out []message) {
	for _, m := range msgs {
		for b := m.bytes; len(b) > 0; {
			n := size
			if rnd != nil {
				n = 1 + rnd.IntN(2*size)
			}
			n = min(n, len(b))
			out = append(out, message{m.dir, b[:n]})
			b = b[n:]
		}
	}
	return out
}

func post(path, body string, header ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: api.example.com\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		path, strings.Join(append(header, ""), "\r\n"), len(body), body)
}

func reply(body string, header ...string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		strings.Join(append(header, ""), "\r\n"), len(body), body)
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func event(s string) string { return chunk("data: " + s + "\n\n") }

const lastChunk = "0\r\n\r\n"
