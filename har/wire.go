package har

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// errNoResponse is returned for an entry whose recorder saw no response.
var errNoResponse = errors.New("no response was recorded")

// RequestWire returns the request as HTTP/1.1 bytes: its head, and, when there is
// one, its body as a second piece. Host comes from the URL, Content-Length from
// the body; header fields that speak of the recorded framing are left out.
func (e *Entry) RequestWire() ([][]byte, error) {
	q := &e.Request
	u, err := url.Parse(q.URL)
	if err != nil {
		return nil, fmt.Errorf("request.url: %w", err)
	}
	if u.Host == "" || strings.ContainsAny(u.Host, " \r\n") {
		return nil, fmt.Errorf("request.url %q has no usable host", q.URL)
	}
	if !httpguts.ValidHeaderFieldName(q.Method) { // a method is a token too
		return nil, fmt.Errorf("request.method %q is no method", q.Method)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.Method, u.RequestURI(), u.Host)
	drop := []string{"Host"}
	if !q.binary {
		drop = append(drop, "Content-Encoding")
	}
	writeFields(&b, q.Header, drop...)
	if len(q.Body) > 0 || q.Method == http.MethodPost || q.Method == http.MethodPut {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(q.Body))
	}
	b.WriteString("\r\n")
	if len(q.Body) == 0 {
		return [][]byte{b.Bytes()}, nil
	}
	return [][]byte{b.Bytes(), q.Body}, nil
}

// ResponseWire returns the response as HTTP/1.1 bytes in pieces: the head, the
// body's pieces, and the end of a chunked body. A body with Chunks, or of a type
// that streams, is chunked in the pieces it arrived in (what Chunks leaves over
// is one more); any other has a Content-Length.
func (e *Entry) ResponseWire() ([][]byte, error) {
	a := &e.Response
	if a.Status == 0 {
		return nil, errNoResponse
	}
	if a.Status < 100 || a.Status > 999 {
		return nil, fmt.Errorf("response.status %d is no status", a.Status)
	}
	var b bytes.Buffer
	reason := http.StatusText(a.Status)
	if a.StatusText != "" && httpguts.ValidHeaderFieldValue(a.StatusText) {
		reason = a.StatusText
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", a.Status, reason)
	writeFields(&b, a.Header, "Content-Encoding")
	bodiless := a.Status < 200 || a.Status == http.StatusNoContent || a.Status == http.StatusNotModified
	switch {
	case bodiless:
		b.WriteString("\r\n")
		return [][]byte{b.Bytes()}, nil
	case e.Request.Method == http.MethodHead:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(a.Body))
		return [][]byte{b.Bytes()}, nil
	case a.Chunks == nil && !a.Streams():
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(a.Body))
		if len(a.Body) == 0 {
			return [][]byte{b.Bytes()}, nil
		}
		return [][]byte{b.Bytes(), a.Body}, nil
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	pieces := [][]byte{b.Bytes()}
	for _, p := range a.Pieces() {
		c := strconv.AppendInt(make([]byte, 0, len(p)+12), int64(len(p)), 16)
		c = append(c, "\r\n"...)
		c = append(c, p...)
		pieces = append(pieces, append(c, "\r\n"...))
	}
	return append(pieces, []byte("0\r\n\r\n")), nil
}

// Pieces cuts the body where Chunks says; what is left over is the last piece.
// Pieces of no bytes are left out. Without Chunks the body is one piece.
func (a *Response) Pieces() [][]byte {
	var pieces [][]byte
	rest := a.Body
	for _, n := range a.Chunks {
		n = min(max(n, 0), len(rest))
		if n > 0 {
			pieces = append(pieces, rest[:n])
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		pieces = append(pieces, rest)
	}
	return pieces
}

// Streams reports whether the content type is one that is sent as it is made.
func (a *Response) Streams() bool {
	t, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(t)) {
	case "text/event-stream", "application/x-ndjson", "application/stream+json", "application/vnd.amazon.eventstream":
		return true
	}
	return false
}

// framing are the fields that the bytes on the wire decide anew.
var framing = []string{"Content-Length", "Transfer-Encoding", "Trailer"}

// writeFields writes what of h can stand on the wire, in the order of the names.
func writeFields(b *bytes.Buffer, h http.Header, drop ...string) {
	names := make([]string, 0, len(h))
	for name := range h {
		if httpguts.ValidHeaderFieldName(name) && !slices.Contains(framing, name) && !slices.Contains(drop, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range h[name] {
			if httpguts.ValidHeaderFieldValue(v) {
				fmt.Fprintf(b, "%s: %s\r\n", name, v)
			}
		}
	}
}
