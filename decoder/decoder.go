// Package decoder turns the plaintext of connections into calls to models. It finds
// the framing, asks the vendors whose call an exchange is, and keeps the clocks.
package decoder

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"github.com/tollwire/tollwire/decoder/coding"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/http1"
	"github.com/tollwire/tollwire/decoder/http2"
	"github.com/tollwire/tollwire/decoder/request"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// Config is what a Decoder is made from. Zero limits take the defaults named here.
type Config struct {
	Vendors []exchange.Vendor // the first wins a tie
	// ReadFacts reads a request's body, for every vendor alike; a request.Reader's by default.
	ReadFacts func(r io.Reader, contentType string, f *exchange.Facts) error
	// Call takes a finished call, which is then its own. It must not block.
	Call func(*llm.Call)
	// Verdict tells the kernel what is not needed. May be nil.
	Verdict func(c flow.Conn, exchange uint32, v flow.Verdict)

	// Deferred joins answers that are fetched later to their calls, for all decoders that
	// share it. nil: each exchange stands alone.
	Deferred *Deferred

	AllowHeaders []string // request headers that are kept
	AllowBaggage []string // keys of a request's W3C baggage that are kept
	KeySecret    []byte   // keys the hash of credentials and of retries' ids; empty: none is kept

	BodyLimit      uint64        // bytes of a message with its head that the kernel lets cross, 4 MiB and 64 KiB
	MaxHead        int           // bytes of a head, 64 KiB
	MaxFields      int           // fields of a head that are kept, 256
	MaxOpen        int           // bytes that open exchanges hold, 64 MiB; those on the connections that were quiet longest go first
	MaxConnections int           // 16384; the one that was quiet longest goes first
	MaxHeld        int           // bytes held in a direction, 1 MiB
	MaxPipelined   int           // requests without a response on a connection, 64
	MaxStreams     int           // open streams on an HTTP/2 connection, 256
	Hold           time.Duration // how long bytes wait for others, 100 ms
	IdleTimeout    time.Duration // quiet time after which a call is given up, 15 min

	Logger *slog.Logger // nil: none
}

func (c Config) withDefaults() Config {
	or := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if c.BodyLimit == 0 {
		c.BodyLimit = 4<<20 + 64<<10
	}
	or(&c.MaxHead, 64<<10)
	or(&c.MaxFields, 256)
	or(&c.MaxOpen, 64<<20)
	or(&c.MaxConnections, 16384)
	or(&c.MaxHeld, 1<<20)
	or(&c.MaxPipelined, 64)
	or(&c.MaxStreams, 256)
	if c.Hold <= 0 {
		c.Hold = 100 * time.Millisecond
	}
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = 15 * time.Minute
	}
	if c.ReadFacts == nil {
		c.ReadFacts = new(request.Reader).Read
	}
	if c.Call == nil {
		c.Call = func(*llm.Call) {}
	}
	if c.Verdict == nil {
		c.Verdict = func(flow.Conn, uint32, flow.Verdict) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Stats are a Decoder's counts since it was made, and its state. At any time
// Pushed = Decoded + Ignored + Duplicate + Refused + Held.
type Stats struct {
	Pushed    uint64 // payload bytes
	Decoded   uint64 // handed to a parser
	Ignored   uint64 // of connections that are not HTTP
	Duplicate uint64 // seen before
	Refused   uint64 // of a connection that ended, failed or was evicted
	Held      uint64 // waiting for bytes that come before them

	Lost        [flow.NumGapReasons]uint64 // bytes that never came, by reason
	Calls       uint64
	Failures    map[string]uint64 // by kind
	Evicted     uint64            // connections, for want of a place
	EvictedOpen uint64            // connections' open exchanges, for want of memory
	Connections int               // open
	Exchanges   int               // requests without a whole response
}

// Decoder decodes the connections of one shard. It is not safe for concurrent use.
type Decoder struct {
	cfg   Config
	http1 *http1.Config
	http2 http2.Config
	conns map[flow.Proc]map[flow.Conn]*conn
	lru   lru
	// waiting are the connections that a clock may move on.
	waiting     map[*conn]struct{}
	asking      asking
	now         flow.Time // the latest seen
	n           stream.Counters
	pushed      uint64
	ignored     uint64
	calls       uint64
	evicted     uint64
	open        int // exchanges
	held        int // bytes that these hold
	evictedOpen uint64
	failures    map[string]uint64
	names       map[string]string
	scratch     [512]byte // for what nobody reads
}

// New returns a Decoder. Close must be called to end its parsers.
func New(cfg Config) *Decoder {
	cfg = cfg.withDefaults()
	return &Decoder{
		cfg:      cfg,
		http1:    http1.NewConfig(cfg.MaxHead, cfg.MaxFields, cfg.MaxPipelined),
		http2:    http2.Config{MaxHead: cfg.MaxHead, MaxFields: cfg.MaxFields, MaxStreams: cfg.MaxStreams, MaxHeld: cfg.MaxHeld},
		conns:    make(map[flow.Proc]map[flow.Conn]*conn),
		waiting:  make(map[*conn]struct{}),
		asking:   make(asking),
		failures: make(map[string]uint64),
		names:    make(map[string]string),
	}
}

// Push takes one record of the ring. Its payload is not kept.
func (d *Decoder) Push(f *flow.Data) {
	d.now = max(d.now, f.Time)
	d.pushed += uint64(len(f.Payload))
	if f.Kind == flow.KindExit {
		for _, c := range d.conns[f.Conn.Proc] {
			c.close(f, exchange.ErrCut)
		}
		return
	}
	c := d.lru.head // most often the same as the last
	if c == nil || c.id != f.Conn {
		c = d.conns[f.Conn.Proc][f.Conn]
	}
	switch {
	case c == nil && f.Kind != flow.KindData:
		return
	case c == nil:
		c = d.follow(f)
	}
	d.lru.touch(c)
	c.last = d.now
	switch f.Kind {
	case flow.KindData, flow.KindEOF:
		c.push(f)
	case flow.KindClose:
		c.close(f, exchange.ErrCut)
	}
	d.makeRoom()
}

// Tick tells the Decoder the time, so that what waits in vain is given up.
func (d *Decoder) Tick(now flow.Time) {
	d.now = max(d.now, now)
	for c := range d.waiting {
		c.tick(d.now)
	}
	for c := d.lru.oldest(); c != nil && d.now.Sub(c.last) >= d.cfg.IdleTimeout; c = d.lru.oldest() {
		d.lru.touch(c)
		c.last = d.now
		c.giveUp(d.now, stream.ErrTimeout)
	}
	d.cfg.Deferred.expire(d.now-flow.Time(d.cfg.IdleTimeout), d.count)
}

// Close ends everything that is open, as cut.
func (d *Decoder) Close() {
	for c := d.lru.oldest(); c != nil; c = d.lru.oldest() {
		c.close(&flow.Data{Time: d.now}, exchange.ErrCut)
	}
	d.cfg.Deferred.expire(math.MaxInt64, d.count) // other shards' clocks may be ahead
}

// Stats returns the counts.
func (d *Decoder) Stats() Stats {
	s := Stats{
		Pushed: d.pushed, Decoded: d.n.Delivered, Ignored: d.ignored,
		Duplicate: d.n.Duplicate, Refused: d.n.Refused + d.n.Late, Held: uint64(max(d.n.Held, 0)),
		Lost: d.n.Lost, Calls: d.calls, Evicted: d.evicted, EvictedOpen: d.evictedOpen,
		Connections: d.lru.n, Exchanges: d.open, Failures: make(map[string]uint64, len(d.failures)),
	}
	for k, v := range d.failures {
		s.Failures[k] = v
	}
	return s
}

// follow makes room for a connection and begins it.
func (d *Decoder) follow(f *flow.Data) *conn {
	for d.lru.n >= d.cfg.MaxConnections {
		d.evicted++
		d.lru.oldest().close(&flow.Data{Time: d.now}, errEvicted)
	}
	c := newConn(d, f)
	if d.conns[f.Conn.Proc] == nil {
		d.conns[f.Conn.Proc] = make(map[flow.Conn]*conn)
	}
	d.conns[f.Conn.Proc][f.Conn] = c
	return c
}

// forget removes a connection from the table.
func (d *Decoder) forget(c *conn) {
	of := d.conns[c.id.Proc]
	if delete(of, c.id); len(of) == 0 {
		delete(d.conns, c.id.Proc)
	}
	delete(d.waiting, c)
	d.lru.remove(c)
	d.open -= c.open
	d.held -= c.held
	c.open, c.held = 0, 0
}

func (d *Decoder) verdict(c flow.Conn, exchange uint32, v flow.Verdict) {
	d.cfg.Verdict(c, exchange, v)
}

// emit hands on a finished call, unless its answer is yet to be fetched.
func (d *Decoder) emit(c *llm.Call) { d.cfg.Deferred.add(c, d.now, d.count) }

func (d *Decoder) count(c *llm.Call) {
	d.calls++
	d.cfg.Call(c)
}

// fail counts a failure by its kind.
func (d *Decoder) fail(kind string) { d.failures[kind]++ }

// failedBody counts a body that was whole and yet could not be read.
func (d *Decoder) failedBody(kind string, err error) {
	switch {
	case errors.Is(err, coding.ErrExpands):
		d.fail("decoded_size")
	case err != nil && !readFailed(err):
		d.fail(kind)
	}
}

func (d *Decoder) panicked(v any) {
	d.fail("panic")
	d.cfg.Logger.Error("decode a call", "panic", v, "stack", string(debug.Stack()))
}

// maxNames bounds the event names that are kept to be shared.
const maxNames = 256

// intern returns name as a string, without a copy when it was seen before.
func (d *Decoder) intern(name []byte) string {
	if len(name) == 0 {
		return ""
	}
	if s, ok := d.names[string(name)]; ok {
		return s
	}
	s := string(name)
	if len(d.names) < maxNames {
		d.names[s] = s
	}
	return s
}

// lru orders connections by when they were last heard of.
type lru struct {
	head, tail *conn // newest, oldest
	n          int
}

func (l *lru) oldest() *conn { return l.tail }

func (l *lru) touch(c *conn) {
	if l.head == c {
		return
	}
	l.remove(c)
	if c.older = l.head; l.head != nil {
		l.head.newer = c
	}
	l.head = c
	if l.tail == nil {
		l.tail = c
	}
	l.n++
}

func (l *lru) remove(c *conn) {
	if c.newer == nil && l.head != c {
		return // not in it
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		l.head = c.older
	}
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		l.tail = c.newer
	}
	c.newer, c.older = nil, nil
	l.n--
}
