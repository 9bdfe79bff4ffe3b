package decoder

import (
	"io"
	"net/http"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/http1"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/decoder/websocket"
	"github.com/tollwire/tollwire/flow"
)

// session makes calls of the messages of a WebSocket: one for each answer. A call
// begins with the first message that the client sends after the one before it was
// done, and is done when the vendor says so. What the server says in between, and a
// session in which nothing was answered, are no calls.
type session struct {
	*websocket.Conn
	first  *call // made by the handshake
	resp   *exchange.Response
	call   *call // the current one, nil between two
	opened bool
	out    exchange.Outcome // of the current call
	ended  bool
}

func newSession(x *call, resp *exchange.Response) *session {
	s := &session{first: x, call: x, resp: resp}
	s.Conn = websocket.New(s, resp.Header)
	return s
}

// Message implements websocket.Session.
func (s *session) Message(m *websocket.Message) {
	if s.ended {
		return
	}
	if s.call == nil {
		if !m.FromClient {
			return
		}
		s.call, s.opened, s.out = s.first.again(), false, exchange.Outcome{}
	}
	x := s.call
	if !s.opened {
		x.decide()
		x.Response(s.resp)
		s.opened = true
	}
	if x.state != captured {
		return
	}
	t := &x.call.Times
	switch asked := x.reqOut.Bytes > 0; {
	case m.FromClient && !asked: // a session may have been idle since its handshake
		x.clock = clock{}
		t.Start, t.FirstByte, x.reqOut.Time = m.Time(), 0, m.Time()
	case m.FromClient && x.clock.t.Chunks == 0:
		x.reqOut.Time = m.Time()
	case !m.FromClient && asked && t.FirstByte == 0:
		t.FirstByte = m.Time()
		x.clock.bytes(m.Time())
	}
	x.vendor(func() error {
		x.data.event = exchange.Event{FromClient: m.FromClient}
		return x.event(m, m.Data)
	})
	if m.FromClient {
		x.reqOut.Bytes += m.Size()
	} else {
		s.out.Bytes += m.Size()
	}
	if x.done {
		s.finish(m.Time(), nil)
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
	if c == nil || x.clock.t.Chunks == 0 && c.ResponseID == "" && c.ErrorType == "" {
		x.state = ignored // nothing was asked, or nothing answered
	}
	s.finish(at, err)
}

// upgraded is called on each side of a connection that has left HTTP/1.
func (c *conn) upgraded(r *stream.Reader, side http1.Side, t *http1.Tunnel) {
	x := t.Exchange.(*call)
	if t.Protocol != "websocket" || t.Response.Status != http.StatusSwitchingProtocols || x.state != captured {
		x.state = ignored
		c.notHTTP(r.Exchange())
		return
	}
	if c.session == nil {
		c.session = newSession(x, t.Response)
		c.d.verdict(c.id, x.number, flow.VerdictCapture)
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
