package decoder

import (
	"io"
	"net/netip"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/http1"
	"github.com/tollwire/tollwire/decoder/http2"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// conn is one connection: two directions, and the framing that its first bytes show.
type conn struct {
	d       *Decoder
	id      flow.Conn
	source  flow.Source
	cgroup  uint64
	peer    netip.AddrPort
	late    bool
	dirs    [2]*stream.Order // by flow.Dir
	http1   *http1.Conn
	http2   *http2.Conn // nil until it is known to be that
	session *session    // nil unless it became a WebSocket
	request flow.Dir    // the direction that requests take
	known   bool        // it is known
	dead    bool        // no HTTP: nobody reads it any more
	last    flow.Time
	calls   int // bytes that its open calls hold
	open    int // exchanges, as the decoder counts them
	held    int // bytes, as the decoder counts them

	newer, older *conn // in the lru
}

func newConn(d *Decoder, f *flow.Data) *conn {
	c := &conn{d: d, id: f.Conn, source: f.Source, cgroup: f.Cgroup, peer: f.Peer, late: f.Late}
	c.http1 = http1.New(d.http1, c, c.upgraded)
	limits := stream.Limits{Bytes: d.cfg.MaxHeld, Segments: 256, Wait: d.cfg.Hold}
	for dir := range c.dirs {
		pipe := stream.NewPipe(d.cfg.MaxHeld, func(r *stream.Reader) { c.parse(flow.Dir(dir), r) })
		c.dirs[dir] = stream.NewOrder(pipe, limits, &d.n)
	}
	return c
}

// role is the captured process's part in the exchanges.
func (c *conn) role() llm.Role {
	switch {
	case !c.known:
		return llm.RoleUnknown
	case c.request == flow.Write:
		return llm.RoleClient
	}
	return llm.RoleServer
}

func (c *conn) exchanges() int {
	if c.http2 != nil {
		return c.http2.Open()
	}
	return c.http1.Open()
}

// push takes bytes, or the end of a direction.
func (c *conn) push(f *flow.Data) {
	if c.dead {
		c.d.ignored += uint64(len(f.Payload))
		return
	}
	if f.Cgroup != 0 {
		c.cgroup = f.Cgroup
	}
	if f.Peer.IsValid() {
		c.peer = f.Peer
	}
	c.dirs[f.Dir&1].Push(f)
	c.settle()
}

// settle runs what the last push made ready, in the other direction too.
func (c *conn) settle() {
	for c.dirs[0].Resume() || c.dirs[1].Resume() || c.http2 != nil && c.http2.Resume() {
	}
	waits := c.http2 != nil && c.http2.Waiting()
	for _, o := range c.dirs {
		if err := o.Err(); err != nil && !c.dead {
			c.d.panicked(err)
			c.dead = true
			c.end(c.d.now, exchange.ErrLost)
		}
		_, waiting := o.Waiting()
		waits = waits || waiting || o.Ahead()
	}
	if c.dead {
		c.dirs[0].Stop()
		c.dirs[1].Stop()
		c.end(c.d.now, exchange.ErrCut)
		waits = false
	}
	if waits {
		c.d.waiting[c] = struct{}{}
	} else {
		delete(c.d.waiting, c)
	}
	c.weigh()
}

// tick gives up what has waited too long.
func (c *conn) tick(now flow.Time) {
	c.dirs[0].Tick(now)
	c.dirs[1].Tick(now)
	if c.http2 != nil {
		c.http2.Tick(now - flow.Time(c.d.cfg.Hold))
	}
	c.settle()
}

// close ends both directions, the requests' first, and forgets the connection. err
// says how what is still open ended. A program that closes has ended its own
// direction in order; what it might have been sent, nobody knows.
func (c *conn) close(f *flow.Data, err error) {
	order := []flow.Dir{flow.Write, flow.Read}
	if c.known && c.request == flow.Read {
		order = []flow.Dir{flow.Read, flow.Write}
	}
	for _, dir := range order {
		end := err
		if f.Kind == flow.KindClose && dir == flow.Write {
			end = io.EOF
		}
		gap := uint64(0)
		if f.Kind == flow.KindClose && dir == f.Dir {
			gap = f.Gap
		}
		c.dirs[dir].Finish(end, f.Time, gap, f.GapReason)
	}
	for {
		c.settle()
		_, a := c.dirs[0].Waiting()
		_, b := c.dirs[1].Waiting()
		if !a && !b {
			break
		}
		c.dirs[order[0]].GiveUp()
		c.settle()
		c.dirs[order[1]].GiveUp()
	}
	c.dirs[0].Stop()
	c.dirs[1].Stop()
	c.end(f.Time, err)
	c.d.forget(c)
}

// giveUp ends what is open. An HTTP/2 connection is kept: what its header tables hold
// cannot be learned again.
func (c *conn) giveUp(now flow.Time, err error) {
	if c.http2 == nil || c.dead {
		c.close(&flow.Data{Time: now}, err)
		return
	}
	c.end(now, err)
	c.weigh()
}

// end settles every exchange that is open.
func (c *conn) end(at flow.Time, err error) {
	if c.session != nil {
		c.session.end(at, err)
	}
	c.http1.End(at, err)
	if c.http2 != nil {
		c.http2.End(at, err)
	}
}

// parse reads one direction from its first byte to its end.
func (c *conn) parse(dir flow.Dir, r *stream.Reader) {
	switch kind, joined, err := c.detect(r); {
	case err != nil:
	case kind == kindRequest && c.http2 == nil && c.claim(dir):
		c.http1.Requests(r, c.late)
	case kind == kindResponse && c.http2 == nil && c.claim(dir.Other()):
		c.http1.Responses(r, joined)
	case kind == kindPreface && c.claim(dir), kind == kindFrames:
		if c.http2 == nil {
			c.http2 = http2.New(c.d.http2, c, c.claim)
		}
		c.http2.Read(r, dir, joined)
	default:
		c.notHTTP()
	}
}

// claim notes the direction that requests take. It reports false when it takes the other.
func (c *conn) claim(request flow.Dir) bool {
	if c.known {
		return c.request == request
	}
	c.request, c.known = request, true
	return true
}

// detect finds out what the direction carries. Where its first bytes were not seen,
// which joined reports, it skips to the first that tell.
func (c *conn) detect(r *stream.Reader) (kind kind, joined bool, err error) {
	joined = c.late
	for {
		w, err := r.Window()
		if err == exchange.ErrLost {
			n, _ := r.Hole()
			r.Fill(n)
			joined = true
			continue
		}
		if err == nil {
			kind, err = sniff(r)
		}
		if err == exchange.ErrLost {
			continue
		}
		if err != nil || kind != kindOther {
			return kind, joined, err
		}
		if w, err = r.Window(); err != nil {
			continue
		}
		if c.http2 != nil || joined && !c.known && http2.Looks(w) {
			return kindFrames, true, nil
		}
		if !joined {
			return kind, joined, nil
		}
		r.Discard(len(w))
	}
}

// kind is what a direction carries.
type kind uint8

const (
	kindUndecided kind = iota
	kindRequest        // HTTP/1
	kindResponse       // HTTP/1
	kindPreface        // HTTP/2, from the client
	kindFrames         // HTTP/2
	kindOther
)

func kindOf(b []byte) kind {
	settings, undecided := http2.Settings(b)
	switch k := http1.Sniff(b); {
	case settings:
		return kindFrames
	case undecided || k == http1.Undecided:
		return kindUndecided
	case k == http1.Request:
		return kindRequest
	case k == http1.Response:
		return kindResponse
	case k == http1.Preface:
		return kindPreface
	}
	return kindOther
}

// maxSniff is more than any kind needs, in bytes.
const maxSniff = 64

// sniff waits for as many bytes as it takes to tell what begins here, and takes none.
func sniff(r *stream.Reader) (kind, error) {
	var gathered []byte
	at := r.Time()
	for {
		w, err := r.Window()
		if err != nil {
			if stream.Ended(err) && len(gathered) > 0 { // too short to be anything
				return kindOther, nil
			}
			return kindUndecided, err
		}
		w = w[:min(len(w), maxSniff)]
		if gathered == nil {
			if k := kindOf(w); k != kindUndecided {
				return k, nil
			}
		}
		gathered = append(gathered, w...)
		r.Discard(len(w))
		if k := kindOf(gathered); k != kindUndecided {
			r.Unread(gathered, at)
			return k, nil
		}
		if len(gathered) >= maxSniff {
			r.Unread(gathered, at)
			return kindOther, nil
		}
	}
}

// notHTTP gives the connection up for good.
func (c *conn) notHTTP() {
	c.dead = true
	c.d.verdict(c.id, 0, flow.VerdictNotHTTP)
}

// Request implements exchange.Handler.
func (c *conn) Request(req *exchange.Request, number uint32) exchange.Exchange {
	return c.begin(req, number)
}

// Failed implements exchange.Handler.
func (c *conn) Failed(kind string) { c.d.fail(kind) }
