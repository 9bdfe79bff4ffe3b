package decoder

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// talk is a vendor on a WebSocket: each "done" of the server ends an answer.
type talk struct{ echo }

func (talk) Recognize(req *exchange.Request, _ *exchange.Facts) exchange.Confidence {
	if req.Path == "/talk" {
		return exchange.Path
	}
	return exchange.No
}

func (talk) Open(_ *exchange.Request, _ *exchange.Facts, c *llm.Call) exchange.Decoder {
	return &talkDecoder{echoDecoder{c: c}}
}

type talkDecoder struct{ echoDecoder }

func (d *talkDecoder) Event(e *exchange.Event) error {
	if e.FromClient {
		var b bytes.Buffer
		_, err := b.ReadFrom(e.Data)
		d.c.RequestModel += fmt.Sprintf("<%d>", b.Len())
		e.Asked = b.String() == "well?"
		return err
	}
	if err := d.echoDecoder.Event(e); err != nil {
		return err
	}
	e.Done = d.usage != nil
	return nil
}

// wire writes WebSocket frames.
type wire struct {
	client   bool
	deflate  *flate.Writer // nil: no compression
	takeover bool
	raw      bytes.Buffer
}

func newWire(client, compressed, takeover bool) *wire {
	w := &wire{client: client, takeover: takeover}
	if compressed {
		w.deflate, _ = flate.NewWriter(&w.raw, 9)
	}
	return w
}

// message frames a text message in so many fragments, with a ping between them.
func (w *wire) message(s string, fragments int) string {
	p := []byte(s)
	if w.deflate != nil {
		if !w.takeover {
			w.deflate.Reset(&w.raw)
		}
		w.raw.Reset()
		w.deflate.Write(p)
		w.deflate.Flush()
		p = bytes.TrimSuffix(bytes.Clone(w.raw.Bytes()), []byte{0, 0, 0xff, 0xff})
	}
	var out bytes.Buffer
	put := func(f ws.Frame) {
		if w.client {
			f = ws.MaskFrame(f)
		}
		ws.WriteFrame(&out, f)
	}
	for i := range fragments {
		op := ws.OpContinuation
		if i == 0 {
			op = ws.OpText
		}
		n := len(p) / (fragments - i)
		f := ws.NewFrame(op, i == fragments-1, bytes.Clone(p[:n]))
		f.Header.Rsv = ws.Rsv(i == 0 && w.deflate != nil, false, false)
		p = p[n:]
		put(f)
		if i < fragments-1 {
			put(ws.NewPingFrame([]byte("ping")))
		}
	}
	return out.String()
}

const handshake = "GET /talk?model=x HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"

func accept(extensions string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n" + extensions + "\r\n"
}

func talking(c *Config) { c.Vendors = []exchange.Vendor{talk{}} }

func TestWebSocket(t *testing.T) {
	noLeak(t)
	long := strings.Repeat("a long prompt ", 10_000)
	for _, s := range []struct {
		name, extensions     string
		compressed, takeover bool
	}{
		{"plain", "", false, false},
		{"deflate", "Sec-WebSocket-Extensions: permessage-deflate\r\n", true, true},
		{"deflate without context", "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n", true, false},
	} {
		client, server := newWire(true, s.compressed, s.takeover), newWire(false, s.compressed, s.takeover)
		msgs := []message{
			{flow.Write, handshake}, {flow.Read, accept(s.extensions)},
			{flow.Read, server.message(`{"hello":1}`, 1)},
			{flow.Write, client.message("first", 1)},
			{flow.Read, server.message(`{"text":"a"}`, 3) + server.message(`{"text":"b"}`, 1)},
			{flow.Read, server.message(`{"usage":1}`, 2) + server.message(`{"after":1}`, 1)},
			{flow.Write, client.message(long, 4)},
			{flow.Write, client.message("more", 2)},
			{flow.Read, server.message(`{"text":"`+strings.Repeat("c", 100_000)+`"}`, 3)},
			{flow.Read, server.message(`{"usage":2}`, 1)},
			{flow.Write, client.message("third", 1)},
			{flow.Read, server.message(`{"text":"cut`+"\"}", 1)},
		}
		want := []string{"<5> ab 1 exact", "<140000><4> " + strings.Repeat("c", 100_000) + " 2 exact", "<5> cut 0 missing cut"}
		rnd := rand.New(rand.NewPCG(9, 9))
		for how, m := range map[string][]message{"whole": msgs, "bytes": split(msgs, nil, 1), "random": split(msgs, rnd, 300)} {
			r := newRig(t, talking)
			for _, m := range m {
				r.push(m.dir, m.bytes)
			}
			r.end(flow.KindClose, flow.Write)
			var got []string
			for _, c := range r.calls {
				n, _ := c.Usage.OutputTotal()
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %v %v %s", c.RequestModel, c.ResponseModel, n, c.Completeness, c.ErrorType)))
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s: %.300q", s.name, how, got)
			}
			if f := r.Stats().Failures; len(f) > 0 {
				t.Errorf("%s, %s: %v", s.name, how, f)
			}
		}
	}
}

// TestWebSocketClocks: a call begins with what the client says, not with its handshake.
func TestWebSocketClocks(t *testing.T) {
	r := newRig(t, talking)
	client, server := newWire(true, false, false), newWire(false, false, false)
	r.push(flow.Write, handshake)                          // 1 ms
	r.push(flow.Read, accept(""))                          // 2
	r.push(flow.Read, server.message(`{"hello":1}`, 1))    // 3
	r.push(flow.Write, client.message("one", 1))           // 4
	r.push(flow.Read, server.message(`{}`, 1))             // 5
	r.push(flow.Read, server.message(`{"text":"a"}`, 1))   // 6
	r.push(flow.Read, server.message(`{"text":"b"}`, 1))   // 7
	r.push(flow.Read, server.message(`{"usage":1}`, 1))    // 8
	r.push(flow.Write, client.message("idle, no call", 1)) // 9
	c := r.one()
	at := func(ms int) flow.Time { return 1000 + flow.Time(ms)*flow.Time(time.Millisecond) }
	tm := c.Times
	if tm.Start != at(4) || tm.FirstByte != at(5) || tm.FirstContent != at(6) || tm.LastContent != at(7) || tm.End != at(8) || tm.Chunks != 2 {
		t.Errorf("%+v", tm)
	}
	if strings.Join(r.verdicts, " ") != "0:3" {
		t.Errorf("%v", r.verdicts)
	}
}

// TestWebSocketNoAnswer: a connection that closes on a question is a call that failed;
// one that closes on anything else, or before its handshake was answered, is none.
func TestWebSocketNoAnswer(t *testing.T) {
	for said, want := range map[string]string{"well?": "<5> cut cut missing", "hello": ""} {
		client := newWire(true, false, false)
		r := newRig(t, talking)
		r.push(flow.Write, handshake)
		r.push(flow.Read, accept(""))
		r.push(flow.Write, client.message(said, 1))
		r.end(flow.KindClose, flow.Write)
		got := ""
		for _, c := range r.calls {
			got += fmt.Sprintf("%s %s %s %v", c.RequestModel, c.ErrorType, c.Partial, c.Completeness)
		}
		if got != want {
			t.Errorf("after %q: %q, want %q", said, got, want)
		}
	}
}

func TestWebSocketHole(t *testing.T) {
	noLeak(t)
	server := newWire(false, false, false)
	first, second := server.message(`{"text":"a long text in here"}`, 1), server.message(`{"usage":1}`, 1)
	all := first + second
	for from := range len(all) - 5 {
		r := newRig(t, talking)
		client := newWire(true, false, false)
		r.push(flow.Write, handshake)
		r.push(flow.Read, accept(""))
		r.push(flow.Write, client.message("one", 1))
		r.push(flow.Read, server.message(`{"text":"x"}`, 1))
		r.push(flow.Read, all[:from])
		r.lose(flow.Read, 5, flow.GapRingFull, all[from+5:])
		if c := r.one(); c.Partial != llm.PartialLost {
			t.Fatalf("hole at %d: %s", from, essence(r.calls))
		}
	}
}

func FuzzWebSocket(f *testing.F) {
	for _, compressed := range []bool{false, true} {
		client, server := newWire(true, compressed, true), newWire(false, compressed, true)
		f.Add(client.message("hello", 2)+client.message("again", 1), server.message(`{"text":"a"}`, 2)+server.message(`{"usage":1}`, 1), 3, compressed)
	}
	f.Fuzz(func(t *testing.T, ask, answer string, size int, compressed bool) {
		play := func(size int) []string {
			r := newRig(t, talking)
			r.push(flow.Write, handshake)
			extensions := ""
			if compressed {
				extensions = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
			}
			r.push(flow.Read, accept(extensions))
			for _, m := range split([]message{{flow.Write, ask}, {flow.Read, answer}}, nil, size) {
				r.push(m.dir, m.bytes)
			}
			r.Close()
			r.check()
			if s := r.Stats(); s.Failures["panic"] > 0 || s.Exchanges > 0 {
				t.Fatalf("%+v", s)
			}
			return essence(r.calls)
		}
		if whole, pieces := play(1<<20), play(1+int(uint(size)%100)); !reflect.DeepEqual(whole, pieces) {
			t.Errorf("whole %q, in pieces %q", whole, pieces)
		}
	})
}
