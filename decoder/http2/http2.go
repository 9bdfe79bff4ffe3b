// Package http2 finds the exchanges on an HTTP/2 connection. Frames are read as they
// cross, the content of DATA without being gathered; header blocks by x/net's Framer
// and hpack. A connection that is joined late, or has holes, is followed as far as its
// bytes allow.
package http2

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/http1"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
)

// Config bounds a connection.
type Config struct {
	MaxHead    int // bytes of a header list, and of a frame that is no DATA
	MaxFields  int // fields of a header list
	MaxStreams int // open at a time
	MaxHeld    int // bytes of a stream that waits for its request
}

// Conn is the two directions of an HTTP/2 connection; Read runs on each.
type Conn struct {
	cfg     Config
	handler exchange.Handler
	claim   func(flow.Dir) bool
	streams map[uint32]*message
}

// message is one stream: a request and its response.
type message struct {
	id       uint32
	ex       exchange.Exchange
	request  *stream.Pipe       // its body
	body     *http1.Body        // the same
	response *stream.Pipe       // its body, after its head
	late     bool               // some of the head is unknown
	asked    bool               // the request has ended
	answered bool               // the response has ended
	head     *exchange.Response // until its exchange has taken it
}

// New returns a connection whose exchanges h is told of. claim notes the direction
// that requests take; it reports false when that is known to be the other.
func New(cfg Config, h exchange.Handler, claim func(flow.Dir) bool) *Conn {
	return &Conn{cfg: cfg, handler: h, claim: claim, streams: make(map[uint32]*message)}
}

// Open is the number of exchanges without a whole response.
func (c *Conn) Open() int { return len(c.streams) }

// Resume runs the streams that wait for what has come, and reports whether one did.
func (c *Conn) Resume() (ran bool) {
	for _, m := range c.streams {
		if m.response != nil && m.response.Resume() {
			ran = true
			c.settle(m)
		}
	}
	return ran
}

// Waiting reports whether a stream waits for something else than bytes.
func (c *Conn) Waiting() bool {
	for _, m := range c.streams {
		if m.response != nil {
			if _, ok := m.response.Waiting(); ok {
				return true
			}
		}
	}
	return false
}

// Tick gives up what has waited since before the time.
func (c *Conn) Tick(before flow.Time) {
	for _, m := range c.streams {
		if m.response != nil {
			if since, ok := m.response.Waiting(); ok && since <= before {
				m.response.GiveUp()
				c.settle(m)
			}
		}
	}
}

// End ends every stream that is open.
func (c *Conn) End(at flow.Time, err error) {
	if err == io.EOF || !stream.Ended(err) && err != exchange.ErrLost {
		err = exchange.ErrCut
	}
	for _, m := range c.streams {
		c.end(m, at, err)
	}
}

// preface is what a client sends first.
const preface = http2.ClientPreface

// Read reads one direction to its end. joined says that its first bytes were not seen.
func (c *Conn) Read(r *stream.Reader, dir flow.Dir, joined bool) {
	d := newDirection(c, r, dir, joined)
	for {
		if joined && !d.resync() {
			return
		}
		err := d.frame()
		if stream.Ended(err) {
			return
		}
		if joined = err != nil; joined { // a hole where framing was
			c.handler.Failed("http2_framing")
			n, reason := r.Hole()
			d.lost(n, reason)
		}
	}
}

// direction is one side's frames.
type direction struct {
	c      *Conn
	r      *stream.Reader
	dir    flow.Dir
	src    source
	framer *http2.Framer
	hpack  *hpack.Decoder
	block  block
}

// block is the header block being read.
type block struct {
	id     uint32 // 0: none
	end    bool   // END_STREAM stood on its HEADERS
	push   bool   // it is a promise
	time   flow.Time
	fields []hpack.HeaderField
	size   int
	late   bool // a field is unknown: it was put into the table before we joined
	cut    bool // it has more fields than are kept
	broken bool // the rest of it can't be read
}

// tableSize bounds the dynamic table, whatever is declared: 64 KiB is what browsers
// declare, and encoders use 4 KiB.
const tableSize = 64 << 10

func newDirection(c *Conn, r *stream.Reader, dir flow.Dir, joined bool) *direction {
	d := &direction{c: c, r: r, dir: dir}
	d.src.r = r
	d.framer = http2.NewFramer(nil, &d.src)
	d.framer.SetReuseFrames()
	d.framer.AllowIllegalReads = true // order is checked here, where it can be mended
	d.framer.SetMaxReadFrameSize(uint32(c.cfg.MaxHead))
	d.table(joined)
	return d
}

// unknownEntries fill the table of a decoder that joins late, one for the 32 bytes that
// an entry costs at least, so that every index an encoder may use is there. What was
// put in before is then a field without a name, and what comes after is right.
const unknownEntries = 4096 / 32

func (d *direction) table(joined bool) {
	d.block = block{}
	d.hpack = hpack.NewDecoder(4096, d.field)
	d.hpack.SetAllowedMaxDynamicTableSize(tableSize)
	d.hpack.SetMaxStringLength(d.c.cfg.MaxHead)
	if !joined {
		return
	}
	d.hpack.SetEmitEnabled(false)
	for range unknownEntries {
		d.hpack.Write([]byte{0x40, 0, 0}) // with incremental indexing: no name, no value
	}
	d.hpack.Close()
	d.hpack.SetEmitEnabled(true)
}

func (d *direction) field(f hpack.HeaderField) {
	if f.Name == "" {
		d.block.late = true
		return
	}
	d.block.size += len(f.Name) + len(f.Value) + 32
	if d.block.size > d.c.cfg.MaxHead || len(d.block.fields) == d.c.cfg.MaxFields {
		d.block.cut = true
		return
	}
	d.block.fields = append(d.block.fields, f)
}

// lost forgets what a hole of n bytes made worthless: the header table, and what was
// crossing in this direction. n is 0 when the framing was nonsense.
func (d *direction) lost(n uint64, reason flow.GapReason) {
	d.table(true)
	if len(d.c.streams) > 1 {
		n = 1 // which of them lost how much, nobody knows
	}
	hole := stream.Segment{Time: d.r.Time(), Hole: max(n, 1), Reason: max(reason, flow.GapReorder)}
	if n > 0 {
		hole.Reason = reason
	}
	for _, m := range d.c.streams {
		switch {
		case !d.isResponse() && m.request != nil:
			m.request.Push(hole)
		case d.isResponse() && m.response != nil: // its end may have been in the hole
			m.response.Push(hole)
			d.c.end(m, hole.Time, exchange.ErrLost)
		}
	}
}

// source feeds the Framer: a frame header that was read already, then the reader.
type source struct {
	head []byte
	r    *stream.Reader
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	return s.r.Read(p)
}

const headerSize = 9

// header is the start of a frame.
type header struct {
	length uint32
	kind   http2.FrameType
	flags  http2.Flags
	id     uint32
}

func parseHeader(b []byte) header {
	return header{
		length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		kind:   http2.FrameType(b[3]), flags: http2.Flags(b[4]),
		id: (uint32(b[5])<<24 | uint32(b[6])<<16 | uint32(b[7])<<8 | uint32(b[8])) &^ (1 << 31),
	}
}

// frame reads one frame.
func (d *direction) frame() error {
	if _, err := d.r.Window(); err != nil {
		if n, reason := d.r.Hole(); err == exchange.ErrLost && reason == flow.GapIgnored {
			d.r.Fill(n) // whole frames that a verdict held back
			return nil
		}
		return err
	}
	at := d.r.Time()
	var raw [headerSize]byte
	if _, err := io.ReadFull(d.r, raw[:]); err != nil {
		return ended(err)
	}
	if string(raw[:]) == preface[:headerSize] {
		var rest [len(preface) - headerSize]byte
		_, err := io.ReadFull(d.r, rest[:])
		return ended(err)
	}
	h := parseHeader(raw[:])
	switch {
	case h.kind == http2.FrameData:
		return d.data(h)
	case h.length > uint32(d.c.cfg.MaxHead):
		d.c.handler.Failed("http2_frame_size")
		if h.kind == http2.FrameHeaders || h.kind == http2.FrameContinuation || h.kind == http2.FramePushPromise {
			d.table(true)
		}
		return d.skip(uint64(h.length), nil)
	}
	d.src.head = raw[:]
	f, err := d.framer.ReadFrame()
	d.src.head = nil
	if err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF || err == exchange.ErrLost || stream.Ended(err) {
			return ended(err)
		}
		d.c.handler.Failed("http2_frame") // malformed, but read to its end
		return nil
	}
	return d.handle(f, at)
}

func ended(err error) error {
	if err == io.ErrUnexpectedEOF {
		return exchange.ErrCut
	}
	return err
}

func (d *direction) handle(f http2.Frame, at flow.Time) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		d.begin(f.StreamID, at)
		d.block.end = f.StreamEnded()
		d.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.PushPromiseFrame: // nobody pushes to a program; the table must be kept in step
		d.begin(f.StreamID, at)
		d.block.push = true
		d.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		if f.StreamID != d.block.id {
			d.c.handler.Failed("http2_continuation")
			d.table(true)
			return nil
		}
		d.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.RSTStreamFrame:
		if m := d.c.streams[f.StreamID]; m != nil {
			d.c.end(m, d.r.Time(), exchange.ErrCut)
		}
	case *http2.GoAwayFrame:
		for id, m := range d.c.streams {
			if id > f.LastStreamID && id%2 == 1 && m.response == nil && d.isResponse() {
				d.c.end(m, d.r.Time(), exchange.ErrCut)
			}
		}
	}
	return nil
}

// begin starts a header block. One that another block interrupts is lost, and the
// table with it.
func (d *direction) begin(id uint32, at flow.Time) {
	if d.block.id != 0 {
		d.c.handler.Failed("http2_continuation")
		d.table(true)
	}
	d.block = block{id: id, time: at}
}

func (d *direction) fragment(b []byte, end bool) {
	if !d.block.broken {
		_, err := d.hpack.Write(b)
		if err == nil && end {
			err = d.hpack.Close()
		}
		if err != nil { // what the rest of the block put into the table is unknown
			d.c.handler.Failed("http2_hpack")
			b := d.block
			d.table(true)
			d.block, d.block.late, d.block.broken = b, true, true
		}
	}
	if end {
		b := d.block
		d.block = block{}
		if b.cut {
			d.c.handler.Failed("head_cut")
		}
		if !b.push {
			d.c.head(d, b)
		}
	}
}

// data hands a DATA frame's content to its stream, as it crosses.
func (d *direction) data(h header) error {
	left := uint64(h.length)
	pad := uint64(0)
	if h.flags.Has(http2.FlagDataPadded) && left > 0 {
		w, err := d.r.Window()
		if err != nil {
			return err
		}
		pad = uint64(w[0])
		d.r.Discard(1)
		if left--; pad > left {
			d.c.handler.Failed("http2_padding")
			return d.skip(left, nil)
		}
	}
	to := d.c.pipe(h.id, d)
	if err := d.skip(left-pad, to); err != nil {
		return err
	}
	if err := d.skip(pad, nil); err != nil {
		return err
	}
	if h.flags.Has(http2.FlagDataEndStream) {
		d.c.endOf(h.id, d)
	}
	return nil
}

// skip takes n bytes of the frame, handing them to a stream if there is one. A hole
// inside of the frame is a hole in the stream; one that reaches beyond it is an error.
func (d *direction) skip(n uint64, to *stream.Pipe) error {
	for n > 0 {
		w, err := d.r.Window()
		s := stream.Segment{Time: d.r.Time(), Exchange: d.r.Exchange()}
		if err == exchange.ErrLost {
			hole, reason := d.r.Hole()
			s.Hole, s.Reason = min(hole, n), reason
			d.r.Fill(s.Hole)
			n -= s.Hole
		} else if err != nil {
			return err
		} else {
			s.Bytes = w[:min(n, uint64(len(w)))]
			n -= uint64(len(s.Bytes))
		}
		if to != nil {
			to.Push(s)
		}
		d.r.Discard(len(s.Bytes))
	}
	return nil
}

// isResponse reports whether the direction is known to carry responses.
func (d *direction) isResponse() bool { return !d.c.claim(d.dir) }

// pipe is where the content of a stream goes.
func (c *Conn) pipe(id uint32, d *direction) *stream.Pipe {
	m := c.streams[id]
	switch {
	case m == nil:
		return nil
	case d.isResponse():
		return m.response
	}
	return m.request
}

// endOf ends one side of a stream in order.
func (c *Conn) endOf(id uint32, d *direction) {
	if m := c.streams[id]; m != nil {
		if p := c.pipe(id, d); p != nil {
			p.End(io.EOF, d.r.Time())
		}
		c.settle(m)
	}
}

// end ends both sides of a stream.
func (c *Conn) end(m *message, at flow.Time, err error) {
	if m.request != nil {
		m.request.End(err, at)
		m.request.Stop()
	}
	if m.response != nil {
		m.response.End(err, at)
		for !m.response.Done() {
			if _, waits := m.response.Waiting(); !waits {
				break
			}
			m.response.GiveUp()
		}
		m.response.Stop()
	}
	if m.ex != nil {
		m.ex.End(exchange.Outcome{Time: at, Err: err})
	}
	delete(c.streams, m.id)
}

// settle forgets a stream whose response is whole.
func (c *Conn) settle(m *message) {
	if m.answered {
		if m.request != nil {
			m.request.Stop()
		}
		m.response.Stop()
		delete(c.streams, m.id)
	}
}

// head takes a whole header block.
func (c *Conn) head(d *direction, b block) {
	pseudo := make(map[string]string)
	fields := make(http.Header)
	for _, f := range b.fields {
		if f.IsPseudo() {
			pseudo[f.Name] = f.Value
		} else {
			fields.Add(f.Name, f.Value)
		}
	}
	m := c.streams[b.id]
	_, method := pseudo[":method"]
	status, isStatus := pseudo[":status"]
	switch {
	case method && c.claim(d.dir):
		if m == nil || m.ex == nil {
			c.ask(d, b, pseudo, fields)
		}
	case isStatus && c.claim(d.dir^1):
		n, err := strconv.Atoi(status)
		if err != nil || n < 200 {
			return
		}
		c.answer(b, n, fields)
	case b.late && m == nil && len(pseudo) > 0 && c.claim(d.dir):
		pseudo[":method"] = http.MethodPost // no pseudo field but :status is a response's
		c.ask(d, b, pseudo, fields)
	}
	if b.end { // trailers too
		c.endOf(b.id, d)
	}
}

// ask begins a stream with a request's head.
func (c *Conn) ask(d *direction, b block, pseudo map[string]string, fields http.Header) {
	m := c.open(b.id, b.time)
	path, query, _ := strings.Cut(pseudo[":path"], "?")
	host := pseudo[":authority"]
	if host == "" {
		host = fields.Get("Host")
	}
	fields.Del("Host")
	req := &exchange.Request{
		Time: b.time, Method: pseudo[":method"], Path: path, Query: query,
		Host: strings.ToLower(host), Header: fields,
	}
	m.late = b.late
	m.ex = c.handler.Request(req, b.id)
	m.request = stream.NewPipe(c.cfg.MaxHeld, func(r *stream.Reader) {
		content := http1.ToEnd(r)
		m.body = content
		m.ex.RequestBody(content)
		out, _ := content.Finish()
		out.Late = m.late
		m.asked = true
		m.ex.RequestEnd(out)
	})
}

// answer begins the response of a stream. Its request may be yet to come.
func (c *Conn) answer(b block, status int, fields http.Header) {
	m := c.open(b.id, b.time)
	if m.response != nil {
		return
	}
	m.head = &exchange.Response{Time: b.time, Status: status, Header: fields}
	m.late = m.late || b.late
	m.response = stream.NewPipe(c.cfg.MaxHeld, func(r *stream.Reader) {
		r.Await(func() bool { return m.asked || m.ex != nil && m.ex.Ignored() })
		if m.ex == nil {
			c.handler.Failed("orphan_response")
			http1.ToEnd(r).Finish()
			m.answered = true
			return
		}
		m.ex.Response(m.head)
		m.head = nil
		content := http1.ToEnd(r)
		m.ex.ResponseBody(content)
		out, _ := content.Finish()
		out.Late = m.late
		m.answered = true
		if !m.asked && m.body != nil {
			m.ex.RequestSoFar(m.body.SoFar())
		}
		m.ex.End(out)
	})
	m.response.Push(stream.Segment{Time: b.time}) // so that it begins
}

// open returns a stream, making it if need be. Where there are too many, the oldest
// goes: its end was lost, or nobody will ever end it.
func (c *Conn) open(id uint32, at flow.Time) *message {
	m := c.streams[id]
	if m == nil {
		if len(c.streams) >= c.cfg.MaxStreams {
			c.handler.Failed("http2_streams")
			c.end(c.streams[slices.Min(slices.Collect(maps.Keys(c.streams)))], at, exchange.ErrLost)
		}
		m = &message{id: id}
		c.streams[id] = m
	}
	return m
}

// Settings reports whether b begins as every server begins: with a SETTINGS frame. It
// is undecided while b is too short to tell.
func Settings(b []byte) (yes, undecided bool) {
	for i, c := range b[:min(len(b), headerSize)] {
		switch {
		case i == 3 && c != byte(http2.FrameSettings), (i == 0 || i > 3) && c != 0, i == 2 && c%6 != 0 && b[1] == 0:
			return false, false
		}
	}
	return len(b) >= headerSize, len(b) < headerSize
}
