package conformance

import (
	"bytes"
	"io"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// place is a byte of a body at which a cut is decoded.
type place struct {
	at           int
	ends, breaks bool // the usage may be exact after such an end
}

// scout stands between the decoder and the vendors while an answer passes once, byte by
// byte, and finds the cuts that are worth decoding.
type scout struct {
	k *knife

	open  func() exchange.Decoder
	resp  *exchange.Response
	probe exchange.Decoder // is handed every beginning of every event

	pos    int  // bytes of the body that have been pushed
	inside bool // the vendor is reading
	done   bool // it has seen the terminator
	found  []place
}

func newScout(k *knife) *scout { return &scout{k: k} }

// places sends the answer and returns the places, in order.
func (s *scout) places() []place {
	var spied []exchange.Vendor
	for _, v := range s.k.vendors {
		spied = append(spied, spy{v, s})
	}
	w := wire{d: decoder.New(decoder.Config{Vendors: spied}), conn: s.k.next()}
	defer w.d.Close()
	for _, p := range s.k.request {
		w.push(flow.Write, p)
	}
	w.push(flow.Read, s.k.framed(len(s.k.body)))
	between := s.between(nil, 0)
	for n := range s.k.body {
		w.push(flow.Read, s.k.body[n:n+1])
		s.pos = n + 1
		if s.inside {
			between = nil
		} else if s.pos < len(s.k.body) {
			between = s.between(between, s.pos)
		}
	}
	return s.found
}

// between notes a place between two events: the first of a stretch, and the last so far.
func (s *scout) between(stretch []place, at int) []place {
	p := place{at, true, s.done}
	if len(stretch) < 2 {
		s.found = append(s.found, p)
		return append(stretch, p)
	}
	s.found[len(s.found)-1] = p
	return stretch
}

// within notes a place within an event, if the vendor took the beginning of it for a
// whole, and a few others.
func (s *scout) within(at int, err error) {
	if err == nil || s.k.rnd.IntN(Sample) == 0 {
		s.found = append(s.found, place{at, err == nil, false})
	}
}

// gather reads what the vendor is to be told; at is where in the body each byte of it
// was the last to come.
func (s *scout) gather(r io.Reader) (data []byte, at []int, err error) {
	s.inside = true
	defer func() { s.inside = false }()
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		if n > 0 {
			data, at = append(data, b[0]), append(at, s.pos+1)
		}
		if err != nil {
			return data, at, err
		}
	}
}

// spy is a vendor that is watched.
type spy struct {
	exchange.Vendor
	s *scout
}

func (y spy) Open(req *exchange.Request, f *exchange.Facts, c *llm.Call) exchange.Decoder {
	s, asked := y.s, *c
	s.open = func() exchange.Decoder {
		c := asked
		c.Status = s.resp.Status
		d := y.Vendor.Open(req, f, &c)
		d.Response(s.resp)
		return d
	}
	return &spied{y.Vendor.Open(req, f, c), s}
}

// spied is the decoder of a vendor that is watched.
type spied struct {
	exchange.Decoder
	s *scout
}

func (d *spied) Response(r *exchange.Response) {
	d.s.resp = r
	d.Decoder.Response(r)
}

func (d *spied) Body(r io.Reader) error {
	data, at, err := d.s.gather(r)
	for n := range data {
		d.s.within(at[n]-1, d.s.open().Body(bytes.NewReader(data[:n])))
	}
	if err != io.EOF {
		return err
	}
	return d.Decoder.Body(bytes.NewReader(data))
}

func (d *spied) Event(e *exchange.Event) error {
	data, at, err := d.s.gather(e.Data)
	if d.s.probe == nil {
		d.s.probe = d.s.open()
	}
	for n := range data {
		part := *e
		part.Data = bytes.NewReader(data[:n])
		d.s.within(at[n]-1, d.s.probe.Event(&part))
	}
	if err != io.EOF {
		return err
	}
	whole := *e
	whole.Data = bytes.NewReader(data)
	d.s.probe.Event(&whole)
	e.Data = bytes.NewReader(data)
	err = d.Decoder.Event(e)
	d.s.done = d.s.done || e.Done
	return err
}
