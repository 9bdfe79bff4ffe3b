// Package stream puts one direction of a connection back in order and runs its
// parser: ordinary code that reads, in a coroutine that stops when bytes run out.
package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
)

// ErrTimeout ends a direction on which no byte came for too long. It wraps exchange.ErrCut.
var ErrTimeout = fmt.Errorf("no byte for too long: %w", exchange.ErrCut)

// Segment is a piece of one direction, in order: bytes or a hole.
type Segment struct {
	Time     flow.Time
	Bytes    []byte
	Hole     uint64 // so many bytes are missing, and Bytes is empty
	Reason   flow.GapReason
	Exchange uint32 // the kernel's number when these bytes crossed
	Head     bool   // the kernel takes Bytes for the start of a head

	taken bool // the first bytes are gone already
}

// Pipe runs a parser on the segments that are pushed. Between two calls the parser
// stands still, and a Pipe holds no bytes unless the parser awaits something else
// than bytes. A Pipe that was pushed to must be stopped, or a goroutine is left.
type Pipe struct {
	parse func(*Reader)
	max   int // bytes that may be held while the parser awaits something

	next    func() (struct{}, bool)
	stop    func()
	cur     Segment   // what is being read; Bytes is borrowed from Push
	queue   []Segment // what follows it, copied
	held    int       // bytes in queue
	wait    func() bool
	since   flow.Time // of the byte that waits
	giveUp  bool
	end     error // set when nothing will be pushed any more
	endTime flow.Time
	done    bool
	failure error
}

// NewPipe returns a pipe whose parser may hold up to max bytes while it awaits.
// When the parser returns, the rest of what is pushed is dropped.
func NewPipe(max int, parse func(*Reader)) *Pipe {
	return &Pipe{parse: parse, max: max}
}

// Push hands a segment to the parser and runs it as far as it gets. Bytes are
// valid until Push returns. It reports whether the parser was still there.
func (p *Pipe) Push(s Segment) bool {
	if p.done || p.end != nil {
		return false
	}
	if p.wait == nil {
		p.cur = s
		p.run()
		return true
	}
	s.Bytes = bytes.Clone(s.Bytes)
	p.queue = append(p.queue, s)
	p.held += len(s.Bytes)
	if p.held > p.max {
		p.giveUp = true
	}
	p.Resume()
	return true
}

// End tells the parser that nothing follows: io.EOF in order, else an error that
// wraps exchange.ErrCut.
func (p *Pipe) End(err error, at flow.Time) {
	if p.done || p.end != nil {
		return
	}
	if err == exchange.ErrLost { // is no end: whoever fills holes would wait for one
		err = exchange.ErrCut
	}
	p.end, p.endTime = err, at
	if p.wait == nil {
		p.run()
	} else {
		p.Resume()
	}
}

// Resume runs the parser if what it awaits has come, and reports whether it had.
func (p *Pipe) Resume() bool {
	if p.wait == nil || !p.giveUp && !p.wait() {
		return false
	}
	p.run()
	return true
}

// Waiting reports since when the parser has awaited something else than bytes.
func (p *Pipe) Waiting() (since flow.Time, ok bool) { return p.since, p.wait != nil }

// GiveUp makes Await return false if the parser is in it.
func (p *Pipe) GiveUp() {
	if p.wait != nil {
		p.giveUp = true
		p.run()
	}
}

// Held is the number of bytes held while the parser awaits something.
func (p *Pipe) Held() int { return p.held }

// Done reports that the parser has returned.
func (p *Pipe) Done() bool { return p.done }

// Err returns what the parser panicked with, if it did.
func (p *Pipe) Err() error { return p.failure }

// Stop ends the parser; it sees the end of the stream as a cut if it had not ended.
func (p *Pipe) Stop() {
	if p.end == nil {
		p.end = exchange.ErrCut
	}
	p.giveUp = true
	if p.stop != nil && !p.done {
		p.guard(p.stop)
	}
	p.finish()
}

func (p *Pipe) run() {
	if p.next == nil {
		p.next, p.stop = iter.Pull(func(yield func(struct{}) bool) {
			p.parse(&Reader{p: p, yield: yield})
		})
	}
	p.guard(func() {
		if _, ok := p.next(); !ok {
			p.finish()
		}
	})
	if len(p.cur.Bytes) == 0 {
		p.cur.Bytes = nil // an empty slice would keep the whole payload
	}
	if p.wait == nil {
		return
	}
	if len(p.cur.Bytes) > 0 || p.cur.Hole > 0 { // borrowed: must outlive Push
		c := p.cur
		c.Bytes = bytes.Clone(c.Bytes)
		p.queue = append([]Segment{c}, p.queue...)
		p.held += len(c.Bytes)
		p.cur.Bytes, p.cur.Hole = nil, 0
	}
	if p.held > p.max {
		p.GiveUp()
	}
}

// guard turns a panic of the parser into its end.
func (p *Pipe) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			p.failure = fmt.Errorf("parser panicked: %v", v)
			p.finish()
		}
	}()
	f()
}

func (p *Pipe) finish() {
	if !p.done && p.stop != nil {
		p.stop()
	}
	p.done = true
	p.queue, p.held, p.wait = nil, 0, nil
	p.cur = Segment{Time: p.cur.Time}
}

// Reader is the parser's end of a Pipe, to be used only by the parser.
type Reader struct {
	p       *Pipe
	taken   uint64
	yield   func(struct{}) bool
	stopped bool
}

// load makes the current segment one with bytes or a hole, waiting for it.
func (r *Reader) load() error {
	p := r.p
	for len(p.cur.Bytes) == 0 && p.cur.Hole == 0 {
		switch {
		case len(p.queue) > 0:
			p.cur = p.queue[0]
			p.held -= len(p.cur.Bytes)
			if p.queue = p.queue[1:]; len(p.queue) == 0 {
				p.queue = nil
			}
		case p.end != nil:
			return p.end
		case r.stopped || !r.yield(struct{}{}):
			r.stopped = true
			return exchange.ErrCut
		}
	}
	return nil
}

// Window lends the bytes that have crossed, at least one, all of one segment, until
// the next call. At a hole it returns exchange.ErrLost, until Fill has taken it.
func (r *Reader) Window() ([]byte, error) {
	if err := r.load(); err != nil {
		return nil, err
	}
	if r.p.cur.Hole > 0 {
		return nil, exchange.ErrLost
	}
	return r.p.cur.Bytes, nil
}

// Discard takes n bytes of the last window.
func (r *Reader) Discard(n int) {
	if n > 0 {
		r.p.cur.Bytes = r.p.cur.Bytes[n:]
		r.p.cur.taken = true
		r.taken += uint64(n)
	}
}

// Taken is the number of bytes read so far, without holes.
func (r *Reader) Taken() uint64 { return r.taken }

// Read implements io.Reader over Window and Discard.
func (r *Reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	w, err := r.Window()
	n := copy(b, w)
	r.Discard(n)
	return n, err
}

// Hole returns the hole that Window stands at.
func (r *Reader) Hole() (n uint64, reason flow.GapReason) { return r.p.cur.Hole, r.p.cur.Reason }

// Fill takes n bytes of the hole, as if they had been read.
func (r *Reader) Fill(n uint64) { r.p.cur.Hole -= min(n, r.p.cur.Hole) }

// Unread puts back bytes that were discarded; the first of them crossed at that time.
func (r *Reader) Unread(b []byte, at flow.Time) {
	p := r.p
	r.taken -= uint64(len(b))
	front := Segment{Time: at, Bytes: bytes.Clone(b), Exchange: p.cur.Exchange, Head: p.cur.Head}
	if len(p.cur.Bytes) > 0 || p.cur.Hole > 0 {
		c := p.cur
		c.Bytes = bytes.Clone(c.Bytes)
		p.queue = append([]Segment{c}, p.queue...)
		p.held += len(c.Bytes)
	}
	p.cur = front
}

// Time is when the bytes of the last window crossed.
func (r *Reader) Time() flow.Time { return r.p.cur.Time }

// EndTime is when the direction ended, or zero.
func (r *Reader) EndTime() flow.Time { return r.p.endTime }

// Exchange is the kernel's number for the bytes of the last window.
func (r *Reader) Exchange() uint32 { return r.p.cur.Exchange }

// Start reports whether the window begins where a segment begins, and whether the
// kernel takes it for the start of a head.
func (r *Reader) Start() (start, head bool) {
	return !r.p.cur.taken, !r.p.cur.taken && r.p.cur.Head
}

// Await stands still until ready returns true; what crosses meanwhile is held. It
// returns false when it was given up: the wait was too long, or too much was held.
func (r *Reader) Await(ready func() bool) bool {
	p := r.p
	defer func() { p.wait, p.giveUp = nil, false }()
	for !ready() {
		if p.giveUp || r.stopped {
			return false
		}
		p.wait, p.since = ready, p.cur.Time
		r.stopped = !r.yield(struct{}{})
	}
	return true
}

// Ended reports whether err is the end of the direction, in order or not.
func Ended(err error) bool {
	return err == io.EOF || errors.Is(err, exchange.ErrCut)
}
