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

// framings are the ways to send an exchange, by name: the bytes of both directions, of
// an answer that ends, as if in order, after n bytes of its content as it is coded.
var framings = func() map[string]func(t *testing.T, rnd *rand.Rand, c Case, n int) frames {
	all := map[string]func(t *testing.T, rnd *rand.Rand, c Case, n int) frames{"HTTP/2": http2Frames}
	for coding, compress := range codings {
		all[coding] = func(t *testing.T, rnd *rand.Rand, c Case, n int) frames {
			return chunkedFrames(t, rnd, c, coding, compress, n)
		}
	}
	return all
}()

// frames are the bytes of the two directions of a connection.
type frames struct{ client, server []byte }

// decode returns the call of which n bytes of the answer have crossed.
func (f frames) decode(v []exchange.Vendor, rnd *rand.Rand, n int) (call *llm.Call) {
	d := decoder.New(decoder.Config{Vendors: v, Call: func(c *llm.Call) { call = c }})
	defer d.Close()
	w := wire{d: d, conn: flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: 1, Gen: 1}}
	for dir, b := range [][]byte{f.client, f.server[:n]} {
		for len(b) > 0 {
			m := min(len(b), 1+rnd.IntN(2000))
			w.push(flow.Dir(dir), b[:m])
			b = b[m:]
		}
	}
	w.close()
	return call
}

// TestReframed sends responses in chunks of random sizes, in each coding, and over
// HTTP/2, and the bytes of both directions in records of random sizes: the calls stay
// the same. Cut at random bytes, by either ending, none is exact and wrong.
func TestReframed(t *testing.T) {
	const whole = 1 << 40
	v := vendors.All(content.Config{})
	rnd := rand.New(rand.NewPCG(3, 4))
	entries, cuts, exact := 0, 0, 0
	err := Load(corpora(t), func(c Case) error {
		if !*all && rnd.IntN(12) != 0 {
			return nil
		}
		entries++
		want, err := Decode(v, c)
		if err != nil || want == nil {
			return err
		}
		for name, frame := range framings {
			f := frame(t, rnd, c, whole)
			got := f.decode(v, rnd, len(f.server))
			if got == nil {
				t.Errorf("%s by %q: no call", c.Want.ID, name)
				continue
			}
			if a, b := essence(got), essence(want); !reflect.DeepEqual(a, b) {
				t.Errorf("%s by %q:\n%+v\nwant\n%+v", c.Want.ID, name, a, b)
			}
			for range 6 {
				n := rnd.IntN(len(f.server))
				if rnd.IntN(2) == 0 {
					n = len(f.server) - 1 - rnd.IntN(min(len(f.server), 200))
				}
				short := frame(t, rnd, c, rnd.IntN(1+len(c.Entry.Response.Body)))
				for how, got := range map[Ending]*llm.Call{Broken: f.decode(v, rnd, n), Ended: short.decode(v, rnd, len(short.server))} {
					cuts++
					if got == nil || got.Completeness != llm.Exact {
						continue
					}
					exact++
					if got.Usage != want.Usage || want.Completeness != llm.Exact {
						t.Errorf("%s by %q, %v: %s; the whole %s", c.Want.ID, name, how, numbers(got), numbers(want))
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries in %d framings, %d cuts, %d still exact", entries, len(framings), cuts, exact)
}

// essence is a call without what the framing decides: sizes and clocks.
func essence(c *llm.Call) llm.Call {
	e := *c
	e.Times, e.ResponseBytes = llm.Times{}, 0
	return e
}

func chunkedFrames(t *testing.T, rnd *rand.Rand, c Case, coding string, compress func(io.Writer) io.WriteCloser, n int) frames {
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
	body = body[:min(n, len(body))]
	for len(body) > 0 {
		n := min(len(body), 1+rnd.IntN(700))
		fmt.Fprintf(&response, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	response.WriteString("0\r\n\r\n")
	return frames{request.Bytes(), response.Bytes()}
}

// http2Frames sends the exchange as one stream of an HTTP/2 connection, its DATA in
// frames of random sizes, some of them padded.
func http2Frames(t *testing.T, rnd *rand.Rand, c Case, n int) frames {
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
	write(&server, a.Header, a.Body[:min(n, len(a.Body))], ":status", strconv.Itoa(a.Status))

	return frames{client.Bytes(), server.Bytes()}
}
