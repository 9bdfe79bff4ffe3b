package decoder

import (
	"errors"
	"io"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/sse"
	"github.com/tollwire/tollwire/decoder/stream"
)

// read hands the content of the response to the vendor: in one piece, or event by
// event when its type or its beginning says that it is a stream.
func (x *call) read(b exchange.Body) error {
	w, err := b.Window()
	if err != nil {
		if err == io.EOF {
			return nil
		}
		return err
	}
	x.clock.bytes(b.Time())
	switch {
	case x.respCT == "text/event-stream", x.call.Stream && looksLikeSSE(w):
		r := sse.NewReader(b)
		return x.events(b, r, r.Next)
	}
	return x.dec.Body(b)
}

// looksLikeSSE recognises a stream whose server mislabels it.
func looksLikeSSE(w []byte) bool {
	for _, p := range []string{"data:", "event:", ": "} {
		if len(w) >= len(p) && string(w[:len(p)]) == p {
			return true
		}
	}
	return false
}

// events hands over events until the body ends. next skips to the next event and
// returns its name; data then reads its data.
func (x *call) events(b exchange.Body, data io.Reader, next func() ([]byte, error)) error {
	var fault error
	for {
		name, err := next()
		if err == io.EOF {
			return fault
		}
		if err != nil {
			return err
		}
		x.data.event = exchange.Event{Name: x.d.intern(name)}
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
func (x *call) event(b exchange.Body, data io.Reader) error {
	d := &x.data
	e := &d.event
	d.r, d.b, d.err = data, b, nil
	e.Time, e.Data = b.Time(), d
	err := x.dec.Event(e)
	if d.err == nil {
		if _, end := io.Copy(io.Discard, d); end != nil {
			err = errors.Join(end, err)
		}
	}
	x.done = x.done || e.Done
	if err == nil || !readFailed(err) {
		x.clock.event(e.Time, e.Content)
	}
	return err
}

// eventData is an event and its data; the event's time follows the reads.
type eventData struct {
	event exchange.Event
	r     io.Reader
	b     exchange.Body
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

// readFailed tells the errors of the reader from those of the JSON.
func readFailed(err error) bool {
	return stream.Ended(err) || errors.Is(err, exchange.ErrLost) || errors.Is(err, errPanic)
}
