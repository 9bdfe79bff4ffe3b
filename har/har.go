// Package har reads HTTP archives (HAR 1.2, http://www.softwareishard.com/blog/har-12-spec/)
// one entry at a time and turns an entry back into the HTTP/1.1 bytes of its exchange.
//
// Two fields beyond the specification are understood: an entry's `_id`, the
// recording's own name for it, and `content._chunks`, the sizes in bytes of the
// pieces in which a response's body arrived.
package har

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// MaxEntry bounds the JSON of one entry, in bytes; a longer one ends the reading.
const MaxEntry = 512 << 20

// Entry is one exchange of the archive.
type Entry struct {
	ID       string    // `_id`, or ""
	Number   int       // its place in the file, from 0
	Started  time.Time // startedDateTime; zero when the archive has none
	Timings  Timings
	Request  Request
	Response Response
}

// Timings are how long the parts of the exchange took; zero when not recorded.
type Timings struct {
	Send, Wait, Receive time.Duration
}

// Request is the recorded request, its body decoded.
type Request struct {
	Method      string
	URL         string
	HTTPVersion string
	Header      http.Header
	Body        []byte
	binary      bool // postData.encoding was base64: the body's bytes are those of the wire
}

// Response is the recorded response, its body decoded. Status is 0 when the
// recorder saw none.
type Response struct {
	Status      int
	StatusText  string
	HTTPVersion string
	Header      http.Header
	Body        []byte
	Chunks      []int // content._chunks: sum at most len(Body); nil when not recorded
}

// EntryError is one entry that cannot be used. The archive around it is sound, so
// Next may be called again.
type EntryError struct {
	Number int    // place in the file, from 0
	ID     string // `_id`, or ""
	Offset int64  // where the entry ends, in bytes of the decompressed file
	Err    error
}

func (e *EntryError) Error() string {
	if e.ID != "" {
		return fmt.Sprintf("entry %d (%s, before byte %d): %v", e.Number, e.ID, e.Offset, e.Err)
	}
	return fmt.Sprintf("entry %d (before byte %d): %v", e.Number, e.Offset, e.Err)
}

func (e *EntryError) Unwrap() error { return e.Err }

// Reader reads the entries of one archive in order, holding one at a time.
type Reader struct {
	dec    *json.Decoder
	limit  *limiter
	close  func() error
	number int
	state  state
	err    error // final: every further Next returns it
}

type state uint8

const (
	atStart   state = iota
	inEntries       // inside log.entries
	atEnd
)

// Open opens the archive at path, compressed with gzip or not, whatever its name.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // *PathError names the action and the file
	}
	r, err := NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.close = f.Close
	return r, nil
}

// NewReader reads an archive from src, compressed with gzip or not.
func NewReader(src io.Reader) (*Reader, error) {
	br := bufio.NewReaderSize(src, 64<<10)
	if magic, _ := br.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("read gzip head: %w", err)
		}
		br = bufio.NewReaderSize(z, 64<<10)
	}
	if bom, _ := br.Peek(3); bytes.Equal(bom, []byte{0xef, 0xbb, 0xbf}) {
		br.Discard(3)
	}
	l := &limiter{r: br, left: MaxEntry}
	return &Reader{dec: json.NewDecoder(l), limit: l, close: func() error { return nil }}, nil
}

// Close closes the file; the Reader is of no use afterwards.
func (r *Reader) Close() error { return r.close() }

// Next returns the next entry, or io.EOF after the last one of a sound archive. An
// *EntryError spoils only its own entry; any other error is final.
func (r *Reader) Next() (*Entry, error) {
	if r.err != nil {
		return nil, r.err
	}
	e, err := r.next()
	var bad *EntryError
	if err != nil && !errors.As(err, &bad) {
		r.err = err
	}
	return e, err
}

func (r *Reader) next() (*Entry, error) {
	if r.state == atStart {
		if err := r.findEntries(); err != nil {
			return nil, r.broken("find log.entries", err)
		}
		r.state = inEntries
	}
	if !r.dec.More() {
		if err := r.finish(); err != nil {
			return nil, r.broken("read what follows the entries", err)
		}
		r.state = atEnd
		return nil, io.EOF
	}
	number := r.number
	r.number++
	r.limit.left = MaxEntry
	var raw rawEntry
	err := r.dec.Decode(&raw)
	bad := func(err error) error {
		return &EntryError{Number: number, ID: raw.ID, Offset: r.dec.InputOffset(), Err: err}
	}
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		return nil, bad(fmt.Errorf("%s is a %s, want %s", wrongType.Field, wrongType.Value, wrongType.Type))
	case err != nil:
		return nil, r.broken(fmt.Sprintf("read entry %d", number), err)
	}
	e, err := raw.entry()
	if err != nil {
		return nil, bad(err)
	}
	e.Number = number
	return e, nil
}

// broken is a final error with its place in the file.
func (r *Reader) broken(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	offset := r.dec.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	return fmt.Errorf("%s: byte %d: %w", what, offset, err)
}

// findEntries moves to the first element of log.entries.
func (r *Reader) findEntries() error {
	if err := r.findKey("log"); err != nil {
		return err
	}
	if err := r.findKey("entries"); err != nil {
		return err
	}
	return r.delim('[')
}

// findKey enters the object that comes next and moves to the value of key.
func (r *Reader) findKey(key string) error {
	if err := r.delim('{'); err != nil {
		return err
	}
	for r.dec.More() {
		t, err := r.dec.Token()
		if err != nil {
			return err
		}
		if t == key {
			return nil
		}
		if err := r.skip(); err != nil {
			return err
		}
	}
	return fmt.Errorf("not a HAR file: no key %q", key)
}

func (r *Reader) delim(want json.Delim) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("not a HAR file: %v where %v should be", t, want)
	}
	return nil
}

// skip passes over one value.
func (r *Reader) skip() error {
	for depth := 0; ; {
		r.limit.left = MaxEntry
		t, err := r.dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// finish reads the end of entries, of log and of the file.
func (r *Reader) finish() error {
	if err := r.delim(']'); err != nil {
		return err
	}
	for range 2 {
		for r.dec.More() {
			if _, err := r.dec.Token(); err != nil {
				return err
			}
			if err := r.skip(); err != nil {
				return err
			}
		}
		if err := r.delim('}'); err != nil {
			return err
		}
	}
	switch t, err := r.dec.Token(); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%v after the end of the archive", t)
	}
}

// limiter stops a reading that would gather more than MaxEntry for one value.
type limiter struct {
	r    io.Reader
	left int64
}

func (l *limiter) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("entry is longer than %d bytes", int64(MaxEntry))
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// The archive's own shape.
type (
	rawEntry struct {
		ID      string `json:"_id"`
		Started string `json:"startedDateTime"`
		Timings struct {
			Send    float64 `json:"send"`
			Wait    float64 `json:"wait"`
			Receive float64 `json:"receive"`
		} `json:"timings"`
		Request  *rawRequest  `json:"request"`
		Response *rawResponse `json:"response"`
	}
	rawRequest struct {
		Method      string     `json:"method"`
		URL         string     `json:"url"`
		HTTPVersion string     `json:"httpVersion"`
		Headers     []rawField `json:"headers"`
		PostData    *struct {
			MimeType string     `json:"mimeType"`
			Text     string     `json:"text"`
			Encoding string     `json:"encoding"`
			Params   []rawField `json:"params"`
		} `json:"postData"`
	}
	rawResponse struct {
		Status      int        `json:"status"`
		StatusText  string     `json:"statusText"`
		HTTPVersion string     `json:"httpVersion"`
		Headers     []rawField `json:"headers"`
		Content     struct {
			MimeType string `json:"mimeType"`
			Text     string `json:"text"`
			Encoding string `json:"encoding"`
			Chunks   []int  `json:"_chunks"`
		} `json:"content"`
	}
	rawField struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

func (raw *rawEntry) entry() (*Entry, error) {
	if raw.Request == nil {
		return nil, errors.New("no request")
	}
	e := &Entry{ID: raw.ID, Timings: Timings{
		Send:    milliseconds(raw.Timings.Send),
		Wait:    milliseconds(raw.Timings.Wait),
		Receive: milliseconds(raw.Timings.Receive),
	}}
	if raw.Started != "" {
		t, err := time.Parse(time.RFC3339Nano, raw.Started)
		if err != nil {
			return nil, fmt.Errorf("startedDateTime: %w", err)
		}
		e.Started = t
	}
	q := raw.Request
	e.Request = Request{Method: q.Method, URL: q.URL, HTTPVersion: q.HTTPVersion, Header: header(q.Headers)}
	if p := q.PostData; p != nil {
		var err error
		if e.Request.Body, err = body(p.Text, p.Encoding); err != nil {
			return nil, fmt.Errorf("request.postData: %w", err)
		}
		e.Request.binary = p.Encoding != ""
		if p.Text == "" && strings.HasPrefix(p.MimeType, "application/x-www-form-urlencoded") {
			e.Request.Body = []byte(form(p.Params))
		}
		if p.MimeType != "" && e.Request.Header.Get("Content-Type") == "" {
			e.Request.Header.Set("Content-Type", p.MimeType)
		}
	}
	if raw.Response == nil {
		return e, nil
	}
	a := raw.Response
	e.Response = Response{
		Status: a.Status, StatusText: a.StatusText, HTTPVersion: a.HTTPVersion,
		Header: header(a.Headers), Chunks: a.Content.Chunks,
	}
	var err error
	if e.Response.Body, err = body(a.Content.Text, a.Content.Encoding); err != nil {
		return nil, fmt.Errorf("response.content: %w", err)
	}
	if a.Content.MimeType != "" && e.Response.Header.Get("Content-Type") == "" {
		e.Response.Header.Set("Content-Type", a.Content.MimeType)
	}
	left := len(e.Response.Body)
	for i, n := range e.Response.Chunks {
		if n < 0 || n > left {
			return nil, fmt.Errorf("response.content._chunks[%d] is %d, with %d of the body's %d bytes left",
				i, n, left, len(e.Response.Body))
		}
		left -= n
	}
	return e, nil
}

func milliseconds(ms float64) time.Duration {
	if !(ms > 0 && ms < 1e12) { // -1 means that it does not apply
		return 0
	}
	return time.Duration(ms * float64(time.Millisecond))
}

func header(fields []rawField) http.Header {
	h := make(http.Header, len(fields))
	for _, f := range fields {
		h.Add(f.Name, f.Value)
	}
	return h
}

func body(text, encoding string) ([]byte, error) {
	switch encoding {
	case "":
		if text == "" {
			return nil, nil
		}
		return []byte(text), nil
	case "base64":
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("decode base64: %w", err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("encoding %q, want base64 or none", encoding)
}

func form(params []rawField) string {
	var b strings.Builder
	for _, p := range params {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(p.Name) + "=" + url.QueryEscape(p.Value))
	}
	return b.String()
}
