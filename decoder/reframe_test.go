package decoder_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/conformance"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/har"
	"github.com/tollwire/tollwire/llm"
)

// player feeds a decoder of its own with all vendors.
type player struct {
	*decoder.Decoder
	rnd   *rand.Rand
	calls []*llm.Call
	pos   [2]uint64
}

func newPlayer(rnd *rand.Rand) *player {
	p := &player{rnd: rnd}
	p.Decoder = decoder.New(decoder.Config{
		Vendors: vendors.All(content.Config{}),
		Call:    func(c *llm.Call) { p.calls = append(p.calls, c) },
	})
	return p
}

// push plays bytes in records of random sizes, or in one without a source of chance.
func (p *player) push(dir flow.Dir, b []byte) {
	limit := 1 << 20
	if p.rnd != nil {
		limit = []int{3, 40, 700, 20_000}[p.rnd.IntN(4)]
	}
	for len(b) > 0 {
		n := min(len(b), limit)
		if p.rnd != nil {
			n = 1 + p.rnd.IntN(n)
		}
		p.Push(&flow.Data{
			Kind: flow.KindData, Conn: flow.Conn{Key: 1, Gen: 1}, Source: flow.SourceReplay,
			Dir: dir, Pos: p.pos[dir], Payload: b[:n],
		})
		p.pos[dir] += uint64(n)
		b = b[n:]
	}
}

// end closes the connection and returns the calls without what framing changes.
func (p *player) end(t *testing.T) []*llm.Call {
	p.Push(&flow.Data{Kind: flow.KindClose, Conn: flow.Conn{Key: 1, Gen: 1}})
	p.Close()
	if s := p.Stats(); s.Failures["panic"] > 0 || s.Refused+s.Ignored+s.Duplicate > 0 {
		t.Errorf("%+v", s)
	}
	for _, c := range p.calls {
		c.Times, c.RequestBytes, c.ResponseBytes, c.Conn = llm.Times{}, 0, 0, flow.Conn{}
	}
	return p.calls
}

func ends(wire [][]byte) []byte { return bytes.Join(wire, nil) }

// withoutFraming is a header without the fields that speak of how a body is framed.
func withoutFraming(h http.Header) http.Header {
	h = maps.Clone(h)
	for _, k := range []string{"Content-Length", "Transfer-Encoding", "Content-Encoding", "Connection", "Host"} {
		h.Del(k)
	}
	return h
}

func headOf(first string, h http.Header, more ...string) []byte {
	var b bytes.Buffer
	b.WriteString(first + "\r\n")
	withoutFraming(h).Write(&b)
	for _, m := range more {
		b.WriteString(m + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// chunks frames a body in chunks of random sizes.
func chunks(rnd *rand.Rand, body []byte) []byte {
	var b bytes.Buffer
	for limit := 1 + rnd.IntN(2000); len(body) > 0; {
		n := 1 + rnd.IntN(min(limit, len(body)))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

// encode compresses a body, flushed at random.
func encode(rnd *rand.Rand, name string, body []byte) []byte {
	var b bytes.Buffer
	var w interface {
		io.WriteCloser
		Flush() error
	}
	switch name {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriterLevel(&b, 3)
	case "zstd":
		w, _ = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	}
	for len(body) > 0 {
		n := 1 + rnd.IntN(len(body))
		w.Write(body[:n])
		w.Flush()
		body = body[n:]
	}
	w.Close()
	return b.Bytes()
}

func requestLine(t *testing.T, e *har.Entry) (line, host string) {
	u, err := url.Parse(e.Request.URL)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s HTTP/1.1", e.Request.Method, u.RequestURI()), "Host: " + u.Host
}

// h1 frames an entry in chunks, with an encoding if one is named.
func h1(t *testing.T, rnd *rand.Rand, e *har.Entry, encoding string) (ask, answer []byte) {
	line, host := requestLine(t, e)
	q, a := &e.Request, &e.Response
	status := fmt.Sprintf("HTTP/1.1 %d X", a.Status)
	qb, ab, field := q.Body, a.Body, "X-Nothing: 1"
	if encoding != "" {
		field = "Content-Encoding: " + encoding
		qb, ab = encode(rnd, encoding, qb), encode(rnd, encoding, ab)
	}
	ask = append(headOf(line, q.Header, host, field, "Transfer-Encoding: chunked"), chunks(rnd, qb)...)
	answer = append(headOf(status, a.Header, field, "Transfer-Encoding: chunked"), chunks(rnd, ab)...)
	return ask, answer
}

// side is one side of an HTTP/2 connection.
type side struct {
	bytes.Buffer
	*http2.Framer
	*hpack.Encoder
	head bytes.Buffer
}

func newSide() *side {
	s := &side{}
	s.Framer, s.Encoder = http2.NewFramer(&s.Buffer, nil), hpack.NewEncoder(&s.head)
	return s
}

func (s *side) headers(rnd *rand.Rand, id uint32, h http.Header, pseudo ...string) {
	s.head.Reset()
	for i := 0; i < len(pseudo); i += 2 {
		s.WriteField(hpack.HeaderField{Name: pseudo[i], Value: pseudo[i+1]})
	}
	for k, v := range withoutFraming(h) {
		for _, v := range v {
			s.WriteField(hpack.HeaderField{Name: strings.ToLower(k), Value: v})
		}
	}
	b := s.head.Bytes()
	n := rnd.IntN(len(b))
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:n], PadLength: uint8(rnd.IntN(9))})
	s.WriteContinuation(id, true, b[n:])
}

// data writes the next frame of a body, the last one with END_STREAM.
func (s *side) data(rnd *rand.Rand, id uint32, body []byte) (rest []byte) {
	n := min(len(body), 1+rnd.IntN(16<<10))
	s.WriteDataPadded(id, n == len(body), body[:n], make([]byte, rnd.IntN(20)))
	return body[n:]
}

// h2 plays entries as streams of one connection, their frames interleaved.
func h2(t *testing.T, rnd *rand.Rand, entries []*har.Entry) []*llm.Call {
	p := newPlayer(rnd)
	c, s := newSide(), newSide()
	c.WriteString(http2.ClientPreface)
	c.WriteSettings()
	s.WriteSettings()
	s.WriteSettingsAck()
	rests := make([][2][]byte, len(entries))
	turn := func(side *side, which int) {
		order := rnd.Perm(len(entries))
		for open := true; open; {
			open = false
			for _, i := range order {
				if r := &rests[i][which]; *r != nil {
					if *r = side.data(rnd, uint32(2*i+1), *r); len(*r) == 0 {
						*r = nil
					}
					open = true
				}
			}
		}
		p.push(flow.Dir(which), side.Buffer.Bytes())
		side.Buffer.Reset()
	}
	for i, e := range entries {
		u, _ := url.Parse(e.Request.URL)
		c.headers(rnd, uint32(2*i+1), e.Request.Header, ":method", e.Request.Method, ":scheme", "https", ":path", u.RequestURI(), ":authority", u.Host)
		s.headers(rnd, uint32(2*i+1), e.Response.Header, ":status", fmt.Sprint(e.Response.Status))
		rests[i] = [2][]byte{append([]byte{}, e.Request.Body...), append([]byte{}, e.Response.Body...)}
	}
	turn(c, 0)
	turn(s, 1)
	return p.end(t)
}

// TestReframed plays every few recorded calls in all framings: the same calls come out.
func TestReframed(t *testing.T) {
	dir, err := conformance.Find()
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(11, 12))
	var batch []*har.Entry
	var batchWant []string
	entries, n := 0, 0
	key := func(c *llm.Call) string { return fmt.Sprintf("%+v", *c) }
	check := func(how string, e *har.Entry, got, want []*llm.Call) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s %s:", how, e.ID)
			for _, c := range got {
				t.Errorf("  got %+v", *c)
			}
			for _, c := range want {
				t.Errorf(" want %+v", *c)
			}
		}
	}
	err = conformance.Load(dir, func(c conformance.Case) error {
		e := c.Entry
		if n++; n%64 != 0 && !(c.Want.Framing != "json" && n%16 == 0) || e.Response.Status < 200 || len(e.Response.Body) == 0 || len(e.Response.Body) > 1<<20 {
			return nil
		}
		ask, err := e.RequestWire()
		if err != nil {
			return err
		}
		answer, err := e.ResponseWire()
		if err != nil {
			return err
		}
		entries++
		whole := newPlayer(nil)
		whole.push(flow.Write, ends(ask))
		whole.push(flow.Read, ends(answer))
		want := whole.end(t)

		pieces := newPlayer(rnd)
		pieces.push(flow.Write, ends(ask))
		pieces.push(flow.Read, ends(answer))
		check("in pieces", e, pieces.end(t), want)

		for _, encoding := range []string{"", "gzip", "deflate", "br", "zstd"} {
			p := newPlayer(rnd)
			a, b := h1(t, rnd, e, encoding)
			p.push(flow.Write, a)
			p.push(flow.Read, b)
			check("chunked "+encoding, e, p.end(t), want)
		}

		batch = append(batch, e)
		for _, c := range want {
			batchWant = append(batchWant, key(c))
		}
		if len(batch) == 8 {
			var got []string
			for _, c := range h2(t, rnd, batch) {
				got = append(got, key(c))
			}
			slices.Sort(got)
			slices.Sort(batchWant)
			if !slices.Equal(got, batchWant) {
				t.Errorf("HTTP/2, 8 up to %s:\n got %s\nwant %s", e.ID, strings.Join(got, "\n     "), strings.Join(batchWant, "\n     "))
			}
			batch, batchWant = nil, nil
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if entries < 50 {
		t.Errorf("only %d entries", entries)
	}
	t.Logf("%d entries in 8 framings", entries)
}
