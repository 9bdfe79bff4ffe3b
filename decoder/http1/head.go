package http1

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/stream"
)

// errHead is returned when what should be a head is none, or one longer than the limit.
var errHead = errors.New("not a head")

// headEnd returns the length of the head that b starts with, its empty line
// included, or 0 when it isn't whole. Searching starts at from.
func headEnd(b []byte, from int) int {
	for i := max(from-3, 0); ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n
		switch rest := b[i+1:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 2
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		}
	}
}

// readHead reads a head of at most max bytes, its empty line included, and gives it
// to use, which must not keep it. Empty lines before it are skipped.
func readHead(r *stream.Reader, max int, use func([]byte) error) error {
	var gathered []byte
	for {
		w, err := r.Window()
		if err != nil {
			return err
		}
		if gathered == nil {
			blank := len(w) - len(bytes.TrimLeft(w, "\r\n"))
			if r.Discard(blank); blank == len(w) {
				continue
			}
			w = w[blank:]
			if n := headEnd(w, 0); n > 0 && n <= max { // the usual case: no copy
				err := use(w[:n])
				r.Discard(n)
				return err
			}
		}
		before := len(gathered)
		gathered = append(gathered, w[:min(len(w), max-before+1)]...)
		if n := headEnd(gathered, before); n > 0 && n <= max {
			r.Discard(n - before)
			return use(gathered[:n])
		}
		r.Discard(len(gathered) - before)
		if len(gathered) > max {
			return errHead
		}
	}
}

// heads parses heads with net/http's own readers.
type heads struct {
	buf       *bufio.Reader
	maxFields int
}

func newHeads(maxFields int) *heads { return &heads{bufio.NewReader(nil), maxFields} }

// tooMany reports whether a head has more than max fields.
func tooMany(head []byte, max int) bool {
	return bytes.Count(head, []byte("\n")) > max+2 // the first line, and the empty one
}

func (h *heads) request(head []byte) (*http.Request, error) {
	if tooMany(head, h.maxFields) {
		head = mend(head, h.maxFields)
	}
	h.buf.Reset(bytes.NewReader(head))
	req, err := http.ReadRequest(h.buf)
	if err != nil {
		h.buf.Reset(bytes.NewReader(mend(head, h.maxFields)))
		req, err = http.ReadRequest(h.buf)
	}
	h.buf.Reset(nil)
	return req, err
}

func (h *heads) response(head []byte) (*http.Response, error) {
	if tooMany(head, h.maxFields) {
		head = mend(head, h.maxFields)
	}
	h.buf.Reset(bytes.NewReader(head))
	resp, err := http.ReadResponse(h.buf, nil)
	if err != nil {
		h.buf.Reset(bytes.NewReader(mend(head, h.maxFields)))
		resp, err = http.ReadResponse(h.buf, nil)
	}
	h.buf.Reset(nil)
	return resp, err
}

// mend makes of a head that net/http refuses one that it takes: lines that are no
// field, control characters in values, repeated single fields and any beyond max go.
func mend(head []byte, max int) []byte {
	var out bytes.Buffer
	seen := make(map[string]bool)
	fields := 0
	for i, line := range bytes.Split(head, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if i == 0 {
			line = mendTarget(line)
		} else {
			name, value, ok := bytes.Cut(line, []byte(":"))
			name = bytes.TrimRight(name, " \t")
			if !ok || len(name) == 0 || bytes.ContainsFunc(name, func(c rune) bool { return !isToken(c) }) {
				continue
			}
			key := strings.ToLower(string(name))
			single := slices.Contains([]string{"host", "content-length", "transfer-encoding"}, key)
			if fields++; single && seen[key] || !single && fields > max {
				continue
			}
			seen[key] = true
			value = bytes.TrimSpace(bytes.Map(func(c rune) rune {
				if c < ' ' && c != '\t' || c == 0x7f {
					return -1
				}
				return c
			}, value))
			line = slices.Concat(name, []byte(": "), value)
		}
		out.Write(line)
		out.WriteString("\r\n")
	}
	out.WriteString("\r\n")
	return out.Bytes()
}

// mendTarget escapes what net/url refuses in a request target.
func mendTarget(line []byte) []byte {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	i := bytes.LastIndexByte(rest, ' ')
	if !ok || i < 0 {
		return line
	}
	path, query, _ := strings.Cut(string(rest[:i]), "?")
	target := (&url.URL{Path: path, RawQuery: url.PathEscape(query)}).String()
	return slices.Concat(method, []byte(" "), []byte(target), rest[i:])
}

func isToken(c rune) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune(`()<>@,;:\"/[]?={}`, c)
}

// framing says how the body after a head ends.
type framing uint8

const (
	none    framing = iota
	length          // after Content-Length bytes
	chunked         // after the last chunk
	toClose         // where the connection does
)

func requestFraming(req *http.Request) (framing, uint64) {
	switch {
	case slices.Contains(req.TransferEncoding, "chunked"):
		return chunked, 0
	case req.ContentLength > 0:
		return length, uint64(req.ContentLength)
	}
	return none, 0
}

func responseFraming(method string, resp *http.Response) (framing, uint64) {
	switch {
	case method == http.MethodHead, resp.StatusCode == http.StatusNoContent, resp.StatusCode == http.StatusNotModified:
		return none, 0
	case slices.Contains(resp.TransferEncoding, "chunked"):
		return chunked, 0
	case resp.ContentLength > 0:
		return length, uint64(resp.ContentLength)
	case resp.ContentLength == 0:
		return none, 0
	}
	return toClose, 0
}

// target splits a request target, absolute or not, into path and query as on the wire.
func target(uri string) (path, query string) {
	if _, rest, ok := strings.Cut(uri, "://"); ok && !strings.HasPrefix(uri, "/") {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			uri = rest[i:]
		} else {
			uri = "/"
		}
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}

func exchangeRequest(req *http.Request) *exchange.Request {
	path, query := target(req.RequestURI)
	return &exchange.Request{
		Method: req.Method, Path: path, Query: query,
		Host: strings.ToLower(req.Host), Header: req.Header,
	}
}

// Kind is what the first bytes of a direction look like.
type Kind uint8

const (
	Undecided Kind = iota // so far anything
	Request
	Response
	Preface // HTTP/2's
	Other
)

var methods = []string{"POST ", "GET ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "}

// Sniff says what b is the beginning of.
func Sniff(b []byte) Kind {
	b = bytes.TrimLeft(b, "\r\n")
	is := func(s string) (whole, prefix bool) {
		n := min(len(b), len(s))
		return n == len(s) && string(b[:n]) == s, string(b[:n]) == s[:n]
	}
	undecided := false
	for i, s := range append([]string{"HTTP/1.", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, methods...) {
		whole, prefix := is(s)
		if whole {
			return [...]Kind{Response, Preface, Request}[min(i, 2)]
		}
		undecided = undecided || prefix
	}
	if undecided {
		return Undecided
	}
	return Other
}
