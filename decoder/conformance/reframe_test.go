package conformance

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// codings are the content codings that a body may have.
var codings = map[string]func(w io.Writer) io.WriteCloser{
	"":     nil,
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"br":   func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
	"zstd": func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
}

// TestReframed sends responses in chunks of random sizes, in each coding, and the
// bytes of both directions in records of random sizes: the calls stay the same.
func TestReframed(t *testing.T) {
	v := vendors.All(content.Config{})
	rnd := rand.New(rand.NewPCG(3, 4))
	entries := 0
	err := Load(corpora(t), func(c Case) error {
		if !*all && rnd.IntN(12) != 0 {
			return nil
		}
		entries++
		want, err := Decode(v, c)
		if err != nil || want == nil {
			return err
		}
		if got := reframed2(t, rnd, v, c); got == nil {
			t.Errorf("%s over HTTP/2: no call", c.Want.ID)
		} else if a, b := essence(got), essence(want); !reflect.DeepEqual(a, b) {
			t.Errorf("%s over HTTP/2:\n%+v\nwant\n%+v", c.Want.ID, a, b)
		}
		for coding, compress := range codings {
			got := reframed(t, rnd, v, c, coding, compress)
			if got == nil {
				t.Errorf("%s in %q: no call", c.Want.ID, coding)
				continue
			}
			if a, b := essence(got), essence(want); !reflect.DeepEqual(a, b) {
				t.Errorf("%s in %q:\n%+v\nwant\n%+v", c.Want.ID, coding, a, b)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries in %d codings and over HTTP/2", entries, len(codings))
}

// essence is a call without what the framing decides: sizes and clocks.
func essence(c *llm.Call) llm.Call {
	e := *c
	e.Times, e.ResponseBytes = llm.Times{}, 0
	return e
}

func reframed(t *testing.T, rnd *rand.Rand, v []exchange.Vendor, c Case, coding string, compress func(io.Writer) io.WriteCloser) (call *llm.Call) {
	t.Helper()
	var request bytes.Buffer
	pieces, err := c.Entry.RequestWire()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		request.Write(p)
	}
	a := &c.Entry.Response
	body := a.Body
	var response bytes.Buffer
	fmt.Fprintf(&response, "HTTP/1.1 %d %s\r\nTransfer-Encoding: chunked\r\n", a.Status, http.StatusText(a.Status))
	for name, values := range a.Header {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Content-Encoding", "Trailer":
			continue
		}
		for _, value := range values {
			fmt.Fprintf(&response, "%s: %s\r\n", name, value)
		}
	}
	if compress != nil {
		var b bytes.Buffer
		w := compress(&b)
		w.Write(body)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		body = b.Bytes()
		fmt.Fprintf(&response, "Content-Encoding: %s\r\n", coding)
	}
	response.WriteString("\r\n")
	for len(body) > 0 {
		n := min(len(body), 1+rnd.IntN(700))
		fmt.Fprintf(&response, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	response.WriteString("0\r\n\r\n")

	d := decoder.New(decoder.Config{Vendors: v, Call: func(c *llm.Call) { call = c }})
	defer d.Close()
	conn := flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: 1, Gen: 1}
	push(d, rnd, conn, flow.Write, request.Bytes())
	push(d, rnd, conn, flow.Read, response.Bytes())
	d.Push(&flow.Data{Kind: flow.KindClose, Conn: conn, Source: flow.SourceReplay})
	return call
}

// reframed2 sends the exchange as one stream of an HTTP/2 connection, its DATA in
// frames of random sizes, some of them padded.
func reframed2(t *testing.T, rnd *rand.Rand, v []exchange.Vendor, c Case) (call *llm.Call) {
	t.Helper()
	u, err := url.Parse(c.Entry.Request.URL)
	if err != nil {
		t.Fatal(err)
	}
	var client, server bytes.Buffer
	client.WriteString(http2.ClientPreface)
	write := func(to *bytes.Buffer, h http.Header, body []byte, pseudo ...string) {
		f := http2.NewFramer(to, nil)
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for i := 0; i < len(pseudo); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: pseudo[i], Value: pseudo[i+1]})
		}
		for name, values := range h {
			switch name {
			case "Content-Length", "Transfer-Encoding", "Content-Encoding", "Trailer", "Connection", "Keep-Alive", "Host":
				continue
			}
			for _, value := range values {
				enc.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: value})
			}
		}
		err := f.WriteSettings()
		if err == nil {
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: len(body) == 0})
		}
		for len(body) > 0 && err == nil {
			n := min(len(body), 1+rnd.IntN(4000))
			err = f.WriteDataPadded(1, n == len(body), body[:n], make([]byte, rnd.IntN(2)*rnd.IntN(20)))
			body = body[n:]
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	q, a := &c.Entry.Request, &c.Entry.Response
	write(&client, q.Header, q.Body, ":method", q.Method, ":scheme", "https", ":authority", u.Host, ":path", u.RequestURI())
	write(&server, a.Header, a.Body, ":status", strconv.Itoa(a.Status))

	d := decoder.New(decoder.Config{Vendors: v, Call: func(c *llm.Call) { call = c }})
	defer d.Close()
	conn := flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: 1, Gen: 1}
	push(d, rnd, conn, flow.Write, client.Bytes())
	push(d, rnd, conn, flow.Read, server.Bytes())
	d.Push(&flow.Data{Kind: flow.KindClose, Conn: conn, Source: flow.SourceReplay})
	return call
}

func push(d *decoder.Decoder, rnd *rand.Rand, conn flow.Conn, dir flow.Dir, b []byte) {
	for pos := uint64(0); len(b) > 0; {
		n := min(len(b), 1+rnd.IntN(2000))
		d.Push(&flow.Data{Kind: flow.KindData, Conn: conn, Source: flow.SourceReplay, Dir: dir, Pos: pos, Payload: b[:n]})
		pos, b = pos+uint64(n), b[n:]
	}
}
