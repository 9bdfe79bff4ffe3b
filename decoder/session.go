package decoder

import (
	"io"
	"net/http"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/http1"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/decoder/websocket"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// session makes calls of the messages of a WebSocket: one for each answer. A call
// begins with the first message after the call before it was done, or with the one
// that the vendor takes for the question's start, and is done when the vendor says so.
// Where nothing was answered there is no call, unless the vendor says that an answer
// was due.
type session struct {
	*websocket.Conn
	last   *call // the current one, or the one before
	resp   *exchange.Response
	call   *call // the current one, nil between two
	opened bool
	asked  bool             // an answer to the current call is due
	out    exchange.Outcome // of the current call
	ended  bool
}

func newSession(x *call, resp *exchange.Response) *session {
	s := &session{last: x, call: x, resp: resp}
	s.Conn = websocket.New(s, resp.Header)
	return s
}

// Message implements websocket.Session.
func (s *session) Message(m *websocket.Message) {
	if s.ended {
		return
	}
	if s.call == nil {
		s.call, s.opened, s.out = s.last.next(), false, exchange.Outcome{}
		s.asked = false
		s.last = s.call
	}
	x := s.call
	if first := !s.opened; first {
		s.opened = true
		x.decide()
		x.Response(s.resp)
		if x.state == captured {
			x.begins(m.Time()) // the session may have been idle since its handshake
		}
	}
	if x.state != captured {
		return
	}
	asked, answered := x.reqOut.Bytes > 0, x.clock.t.Chunks > 0
	switch {
	case m.FromClient && !asked && !answered:
		x.begins(m.Time())
	case m.FromClient && !answered:
		x.reqOut.Time = m.Time()
	case !m.FromClient && x.call.Times.FirstByte == 0:
		x.call.Times.FirstByte = m.Time()
		x.clock.bytes(m.Time())
	}
	x.vendor(func() error {
		x.data.event = exchange.Event{FromClient: m.FromClient}
		return x.event(m, m.Data)
	})
	e := &x.data.event
	if e.Start && !answered {
		x.begins(e.Time)
	}
	s.asked = s.asked || e.Asked
	if m.FromClient {
		x.reqOut.Bytes += m.Size()
	} else {
		s.out.Bytes += m.Size()
	}
	if fill := e.Aside; fill != nil {
		x.aside(m.Time(), fill)
	}
	if x.done {
		s.finish(m.Time(), nil)
	}
}

// begins starts the clocks of a WebSocket's call.
func (x *call) begins(at flow.Time) {
	x.clock = clock{}
	x.call.Times.Start, x.call.Times.FirstByte, x.reqOut.Time = at, 0, at
}

// aside hands on a call of which a single message tells. How long it took nobody knows.
func (x *call) aside(at flow.Time, fill func(*llm.Call)) {
	c := x.newCall()
	c.Status, c.Times.Start = x.call.Status, at
	if x.safely(func() error { fill(c); return nil }) == nil {
		x.d.emit(c)
	}
}

// Lost implements websocket.Session.
func (s *session) Lost(n uint64, reason flow.GapReason) {
	s.out.Lost += n
	s.out.Reason = max(s.out.Reason, reason)
}

// finish settles the current call.
func (s *session) finish(at flow.Time, err error) {
	s.out.Time, s.out.Err = at, err
	s.call.End(s.out)
	s.call = nil
}

// end settles what is open when the connection ends.
func (s *session) end(at flow.Time, err error) {
	x := s.call
	if s.ended = true; x == nil {
		return
	}
	c := x.call
	if c == nil || !s.asked && x.clock.t.Chunks == 0 && c.ResponseID == "" && c.ErrorType == "" {
		x.state = ignored // nothing was asked, or nothing answered
	}
	s.finish(at, err)
}

// upgraded is called on each side of a connection that has left HTTP/1.
func (c *conn) upgraded(r *stream.Reader, side http1.Side, t *http1.Tunnel) {
	x := t.Exchange.(*call)
	if t.Protocol != "websocket" || t.Response.Status != http.StatusSwitchingProtocols || x.state != captured {
		x.state, x.req.Header, t.Response.Header = ignored, nil, nil
		c.d.asking.remove(x)
		c.notHTTP()
		return
	}
	if c.session == nil {
		c.session = newSession(x, t.Response)
		x.unlimit()
	}
	err := c.session.Read(r, side == http1.Client)
	if err == websocket.ErrFraming {
		c.d.fail("websocket_framing")
		err = exchange.ErrLost
	} else if err == nil || err == io.EOF {
		err = exchange.ErrCut
	}
	c.session.end(max(r.Time(), r.EndTime()), err)
}
