package decoder

import (
	"bytes"
	"errors"
	"io"

	"github.com/tollwire/tollwire/decoder/eventstream"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/jsonstream"
	"github.com/tollwire/tollwire/decoder/sse"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
)

// read hands the content of the response to the vendor: in one piece, or event by
// event when its type or its beginning says that it is a stream.
func (x *call) read(b exchange.Body) error {
	if _, err := b.Window(); err != nil {
		if err == io.EOF {
			return nil
		}
		return err
	}
	x.clock.bytes(b.Time())
	switch x.contentType {
	case "text/event-stream":
		return x.readSSE(b)
	case "application/vnd.amazon.eventstream":
		r := eventstream.NewReader(b)
		return x.events(b, r, func(e *exchange.Event) error {
			m, err := r.Next()
			e.Name, e.Exception = m.Event, m.Exception
			return err
		})
	case "application/x-ndjson", "application/ndjson", "application/stream+json", "application/jsonl", "application/x-jsonlines":
		return x.readJSON(b)
	}
	if !x.call.Stream || x.call.Status/100 != 2 {
		return x.dec.Body(b)
	}
	p := &peeked{Body: b}
	switch p.shape(x.sized) {
	case sseEvents:
		return x.readSSE(p)
	case jsonValues:
		return x.readJSON(p)
	}
	return x.dec.Body(p)
}

func (x *call) readSSE(b exchange.Body) error {
	r := sse.NewReader(b)
	for {
		err := x.events(b, r, func(e *exchange.Event) error {
			name, err := r.Next()
			e.Name = x.d.intern(name)
			return err
		})
		if !errors.Is(err, exchange.ErrLost) || !r.Resume() {
			return err
		}
		x.fault = exchange.ErrLost // the usage may be after the hole
	}
}

func (x *call) readJSON(b exchange.Body) error {
	r := jsonstream.NewReader(b)
	return x.events(b, r, func(*exchange.Event) error { return r.Next() })
}

// shape is what a body is made of, as far as its beginning tells.
type shape uint8

const (
	unknown    shape = iota // more must be seen
	oneValue                // or no JSON at all
	jsonValues              // one after the other, or in an array
	sseEvents
)

// peeked is a body of which the beginning was looked at.
type peeked struct {
	exchange.Body
	seen []byte
}

// maxPeek is how long the first value of a mislabelled stream may be, in bytes.
const maxPeek = 16 << 10

// shape looks at as much of the body as it takes to tell. sized says that the body's
// length was stated, which no stream's is.
func (p *peeked) shape(sized bool) shape {
	for {
		w, err := p.Body.Window()
		if err != nil {
			return oneValue
		}
		p.seen = append(p.seen, w...)
		p.Body.Discard(len(w))
		if s := shapeOf(p.seen, sized); s != unknown || len(p.seen) > maxPeek {
			return s
		}
	}
}

// shapeOf tells a stream from a single value where the content type says JSON either
// way. An array is a stream (Gemini); so is an object that is followed by a newline
// or an object (Ollama, Cohere): nothing after the newline is waited for, unless the
// length was stated.
func shapeOf(b []byte, sized bool) shape {
	for _, s := range []string{"data:", "event:", ": "} {
		if n := min(len(b), len(s)); string(b[:n]) == s[:n] {
			return [...]shape{unknown, sseEvents}[n/len(s)]
		}
	}
	b = bytes.TrimLeft(b, " \t\r\n")
	switch {
	case len(b) == 0:
		return unknown
	case b[0] == '[':
		return jsonValues
	case b[0] != '{':
		return oneValue
	}
	var v jsonstream.Value
	n, whole, err := v.Scan(b)
	if err != nil {
		return oneValue
	}
	rest := bytes.TrimLeft(b[n:], " \t\r")
	switch {
	case !whole || len(rest) == 0:
		return unknown
	case rest[0] != '\n' && rest[0] != '{':
		return oneValue
	case sized && len(bytes.TrimSpace(rest)) == 0:
		return unknown
	}
	return jsonValues
}

// Window implements exchange.Body.
func (p *peeked) Window() ([]byte, error) {
	if len(p.seen) > 0 {
		return p.seen, nil
	}
	return p.Body.Window()
}

// Discard implements exchange.Body.
func (p *peeked) Discard(n int) {
	if len(p.seen) == 0 {
		p.Body.Discard(n)
	} else if p.seen = p.seen[n:]; len(p.seen) == 0 {
		p.seen = nil
	}
}

// Read implements exchange.Body.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.seen) == 0 {
		return p.Body.Read(b)
	}
	n := copy(b, p.seen)
	p.Discard(n)
	return n, nil
}

// events hands over events until the body ends. next skips to the next event and says
// what is known of it; data then reads its data.
func (x *call) events(b exchange.Body, data io.Reader, next func(*exchange.Event) error) error {
	x.unlimit()
	var fault error
	for {
		x.data.event = exchange.Event{}
		err := next(&x.data.event)
		if err == io.EOF {
			return fault
		}
		if err != nil {
			return err
		}
		if err := x.event(b, data); err != nil {
			if readFailed(err) {
				return err
			}
			if fault == nil { // bad JSON in one event; the others may still be good
				fault = err
			}
		}
		if x.done {
			return nil
		}
	}
}

// event hands over one event, reads what the vendor left of it, and keeps its time.
func (x *call) event(b timed, data io.Reader) error {
	d := &x.data
	e := &d.event
	d.r, d.b, d.err = data, b, nil
	e.Time, e.Data = b.Time(), d
	err := x.dec.Event(e)
	for d.err == nil {
		d.Read(x.d.scratch[:])
	}
	if d.err != io.EOF && !errors.Is(err, d.err) {
		err = errors.Join(d.err, err)
	}
	x.done = x.done || e.Done && d.err == io.EOF // whole, and good by its checksum
	if !e.FromClient && (err == nil || !readFailed(err)) {
		x.clock.event(e.Time, e.Content)
	}
	return err
}

// timed tells when the bytes last read crossed.
type timed interface{ Time() flow.Time }

// eventData is an event and its data; the event's time follows the reads.
type eventData struct {
	event exchange.Event
	r     io.Reader
	b     timed
	err   error
}

func (d *eventData) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.r.Read(p)
	d.err, d.event.Time = err, d.b.Time()
	return n, err
}

// Whole implements jsonscan.Whole: the scanners read in place what has crossed whole.
func (d *eventData) Whole() ([]byte, bool) {
	w, ok := d.r.(jsonscan.Whole)
	if !ok || d.err != nil {
		return nil, false
	}
	b, ok := w.Whole()
	if ok {
		d.err, d.event.Time = io.EOF, d.b.Time()
	}
	return b, ok
}

// readFailed tells the errors of the reader from those of the JSON.
func readFailed(err error) bool {
	return stream.Ended(err) || skipped(err) || errors.Is(err, errPanic)
}
