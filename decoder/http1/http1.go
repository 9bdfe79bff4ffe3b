// Package http1 finds the exchanges on an HTTP/1 connection. Heads are read by
// net/http, bodies by hand, because a hole in one must not end the other.
package http1

import (
	"io"
	"net/http"
	"strings"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
)

// Config is shared by all connections of one decoder.
type Config struct {
	MaxHead      int // bytes of a head
	MaxFields    int // fields of a head that are kept, beside those that its framing needs
	MaxPipelined int // requests without a response
	heads        *heads
}

// NewConfig returns a Config with room for one head being parsed at a time.
func NewConfig(maxHead, maxFields, maxPipelined int) *Config {
	return &Config{MaxHead: maxHead, MaxFields: maxFields, MaxPipelined: maxPipelined, heads: newHeads(maxFields)}
}

// Upgraded is called on each side when the connection has left HTTP/1: the server
// answered 101, or 2xx to CONNECT. What follows is read from r.
type Upgraded func(r *stream.Reader, s Side, t *Tunnel)

// Side is a direction of a connection by who sends.
type Side bool

const (
	Client Side = true
	Server Side = false
)

// Conn is the two directions of an HTTP/1 connection. Requests runs on one of them,
// Responses on the other.
type Conn struct {
	cfg     *Config
	handler exchange.Handler
	upgrade Upgraded
	pending []*pending // requests whose response hasn't ended, oldest first
	closed  bool       // no request follows
	tunnel  *Tunnel
}

type pending struct {
	exchange.Exchange
	req      *exchange.Request
	number   uint32
	body     *Body
	ended    bool // the request has
	upgrade  bool // it asks to leave HTTP
	answered bool // with anything but that
}

// end ends the exchange.
func (p *pending) end(o exchange.Outcome) {
	if !p.ended && p.body != nil {
		p.RequestSoFar(p.body.SoFar())
	}
	p.End(o)
}

// Tunnel is how a connection left HTTP.
type Tunnel struct {
	exchange.Exchange
	Protocol string // the response's Upgrade field, lower case
	Response *exchange.Response
}

// New returns a connection whose exchanges h is told of.
func New(cfg *Config, h exchange.Handler, up Upgraded) *Conn {
	return &Conn{cfg: cfg, handler: h, upgrade: up}
}

// Open is the number of requests without a whole response.
func (c *Conn) Open() int { return len(c.pending) }

// Requests reads one direction as requests, to its end. late says that the connection
// was in use before the tap: whether the first answer seen is that of the first request
// seen, nobody can know, and that exchange says so.
func (c *Conn) Requests(r *stream.Reader, late bool) {
	defer func() { c.closed = true }()
	for {
		if _, err := r.Window(); err != nil {
			if !c.hole(r, err, Request) {
				return
			}
			continue
		}
		start, number, taken := r.Time(), r.Exchange(), r.Taken()
		if len(c.pending) >= c.cfg.MaxPipelined {
			r.Await(func() bool { return len(c.pending) < c.cfg.MaxPipelined })
			for len(c.pending) >= c.cfg.MaxPipelined {
				c.handler.Failed("pipelined")
				c.pop().end(exchange.Outcome{Time: r.Time(), Err: exchange.ErrLost})
			}
		}
		var req *http.Request
		err := readHead(r, c.cfg.MaxHead, func(head []byte) (err error) {
			c.long(head)
			req, err = c.cfg.heads.request(head)
			return err
		})
		if err != nil {
			if stream.Ended(err) {
				return
			}
			if err != exchange.ErrLost {
				c.handler.Failed("request_head")
				if !resync(r, Request) {
					return
				}
			} else if !c.hole(r, err, Request) {
				return
			}
			continue
		}
		p := &pending{req: exchangeRequest(req), number: number}
		p.req.Time = start
		p.upgrade = req.Method == http.MethodConnect || req.Header.Get("Upgrade") != ""
		f, n := requestFraming(req)
		req = nil // the exchange says what of its head is kept
		p.Exchange = c.handler.Request(p.req, number)
		c.pending = append(c.pending, p)

		b := newBody(r, taken, f, n)
		p.body = b
		if f != none {
			p.RequestBody(b)
		}
		out, torn := b.Finish()
		out.Late, late = late, false
		p.RequestEnd(out)
		p.ended = true
		if torn && !resync(r, Request) {
			return
		}
		if p.upgrade && c.left(r, p) {
			return
		}
	}
}

// long counts a head of which fields are left out.
func (c *Conn) long(head []byte) {
	if tooMany(head, c.cfg.MaxFields) {
		c.handler.Failed("head_cut")
	}
}

// left waits for the answer to a request that asks to leave HTTP, and reports whether
// it did.
func (c *Conn) left(r *stream.Reader, p *pending) bool {
	if _, err := r.Window(); err != nil && err != exchange.ErrLost {
		return false
	}
	r.Await(func() bool { return c.tunnel != nil || p.answered })
	if c.tunnel == nil {
		return false
	}
	c.upgrade(r, Client, c.tunnel)
	return true
}

// hole goes on after a hole between messages or in a head. It reports false at the
// end of the direction.
func (c *Conn) hole(r *stream.Reader, err error, k Kind) bool {
	if err != exchange.ErrLost {
		return false
	}
	n, reason := r.Hole()
	r.Fill(n)
	if reason != flow.GapIgnored {
		c.handler.Failed("head_lost")
	}
	return resync(r, k)
}

// resync skips to where a head begins: where the kernel says so, or a segment begins
// with what only a head begins with. It reports false at the end of the direction.
func resync(r *stream.Reader, k Kind) bool {
	for {
		w, err := r.Window()
		if err == exchange.ErrLost {
			n, _ := r.Hole()
			r.Fill(n)
			continue
		}
		if err != nil {
			return false
		}
		if start, head := r.Start(); start && (Sniff(w) == k || head && Sniff(w) == Undecided) {
			return true
		}
		r.Discard(len(w))
	}
}

// Responses reads one direction as responses, to its end, and ends what is open then.
// joined says that bytes before the first were not seen.
func (c *Conn) Responses(r *stream.Reader, joined bool) {
	if joined {
		c.align(r)
	}
	err := c.responses(r)
	c.End(max(r.Time(), r.EndTime()), err)
}

// End ends the exchanges that are open: no response follows.
func (c *Conn) End(at flow.Time, err error) {
	if err == io.EOF || !stream.Ended(err) && err != exchange.ErrLost {
		err = exchange.ErrCut
	}
	for len(c.pending) > 0 {
		c.pop().end(exchange.Outcome{Time: at, Err: err})
	}
}

func (c *Conn) responses(r *stream.Reader) error {
	for {
		if _, err := r.Window(); err != nil {
			if !c.hole(r, err, Response) {
				return err
			}
			c.align(r)
			continue
		}
		start, taken := r.Time(), r.Taken()
		var resp *http.Response
		err := readHead(r, c.cfg.MaxHead, func(head []byte) (err error) {
			c.long(head)
			resp, err = c.cfg.heads.response(head)
			return err
		})
		if err != nil {
			if stream.Ended(err) {
				return err
			}
			if err == exchange.ErrLost && !c.hole(r, err, Response) {
				return exchange.ErrCut
			}
			if err != exchange.ErrLost {
				c.handler.Failed("response_head")
				if !resync(r, Response) {
					return exchange.ErrCut
				}
			}
			c.align(r)
			continue
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		head := &exchange.Response{Time: start, Status: resp.StatusCode, Header: resp.Header}
		p := c.request(r)
		if p == nil {
			c.handler.Failed("orphan_response")
			f, n := responseFraming(http.MethodGet, resp)
			if _, torn := newBody(r, taken, f, n).Finish(); torn && !resync(r, Response) {
				return exchange.ErrCut
			}
			continue
		}
		if c.tunnelled(p, head) {
			c.upgrade(r, Server, c.tunnel)
			return exchange.ErrCut
		}
		p.answered = true
		f, n := responseFraming(p.req.Method, resp)
		p.Response(head)
		resp = nil
		b := newBody(r, taken, f, n)
		if f != none {
			p.ResponseBody(b)
		}
		out, torn := b.Finish()
		if len(c.pending) > 0 && c.pending[0] == p {
			c.pop()
		}
		p.end(out)
		if torn {
			if !resync(r, Response) {
				return exchange.ErrCut
			}
			c.align(r)
		}
	}
}

// request waits for the request that the response now begun answers. nil: it was
// never seen, as the kernel had counted fewer requests by then.
func (c *Conn) request(r *stream.Reader) *pending {
	number := r.Exchange()
	r.Await(func() bool {
		return len(c.pending) > 0 && (c.pending[0].ended || c.pending[0].Ignored())
	})
	if len(c.pending) == 0 || number > 0 && c.pending[0].number > number {
		return nil
	}
	return c.pending[0]
}

// align drops, after a hole, the requests whose responses fell into it.
func (c *Conn) align(r *stream.Reader) {
	if _, err := r.Window(); err != nil {
		return
	}
	number := r.Exchange()
	for len(c.pending) > 0 {
		p := c.pending[0]
		if number > 0 && p.number >= number || number == 0 && !p.Ignored() {
			return
		}
		c.pop().end(exchange.Outcome{Time: r.Time(), Err: exchange.ErrLost})
	}
}

// tunnelled notes that the connection leaves HTTP with this response.
func (c *Conn) tunnelled(p *pending, resp *exchange.Response) bool {
	connect := p.req.Method == http.MethodConnect && resp.Status/100 == 2
	if !connect && resp.Status != http.StatusSwitchingProtocols {
		return false
	}
	c.tunnel = &Tunnel{p.Exchange, strings.ToLower(resp.Header.Get("Upgrade")), resp}
	return true
}

func (c *Conn) pop() *pending {
	p := c.pending[0]
	if c.pending = c.pending[1:]; len(c.pending) == 0 {
		c.pending = nil
	}
	return p
}
