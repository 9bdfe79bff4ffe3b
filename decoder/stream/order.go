package stream

import (
	"bytes"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// Limits bound what an Order waits for.
type Limits struct {
	Bytes    int           // held out of order
	Segments int           // held out of order
	Wait     time.Duration // for bytes that should have come before
}

// Counters say what became of the bytes of a direction, and of those of all others
// that share them.
type Counters struct {
	Delivered uint64                     // payload bytes handed to a parser
	Duplicate uint64                     // payload bytes that had been delivered before
	Refused   uint64                     // payload bytes whose parser had returned
	Late      uint64                     // payload bytes after the end
	Held      int64                      // payload bytes waiting now
	Lost      [flow.NumGapReasons]uint64 // bytes that never came, by reason
}

// Order hands the payloads of one direction to a Pipe by position. A jump that the
// kernel confirms becomes a hole at once; any other is waited for, within the
// limits, and becomes a hole for flow.GapReorder.
type Order struct {
	*Pipe
	limits Limits
	n      *Counters
	known  bool
	pos    uint64 // of the next byte
	ahead  []held // by position
	bytes  int    // in ahead
	eof    *held  // the end has been told, but not all before it has come
}

// held is a payload that came too early.
type held struct {
	Segment
	pos, gap uint64
	reason   flow.GapReason
}

// NewOrder returns an Order in front of p; n is shared with others.
func NewOrder(p *Pipe, l Limits, n *Counters) *Order { return &Order{Pipe: p, limits: l, n: n} }

// maxPos keeps sums of positions from wrapping.
const maxPos = 1 << 62

// Push takes a record of kind data or EOF of this direction.
func (o *Order) Push(d *flow.Data) {
	if !o.known {
		o.known = true
		if d.Late || d.Exchange > 1 { // there were bytes before, and not for us
			o.pos = d.Pos - min(d.Gap, d.Pos)
			if o.pos > 0 {
				o.Pipe.Push(Segment{Time: d.Time, Hole: o.pos, Reason: flow.GapIgnored, Exchange: d.Exchange})
			}
		}
	}
	if o.end != nil {
		o.n.Late += uint64(len(d.Payload))
		return
	}
	if d.Pos >= maxPos {
		o.n.Refused += uint64(len(d.Payload))
		return
	}
	h := held{
		Segment: Segment{Time: d.Time, Bytes: d.Payload, Exchange: d.Exchange, Head: d.Head},
		pos:     d.Pos, gap: min(d.Gap, d.Pos), reason: d.GapReason,
	}
	if d.Kind == flow.KindEOF {
		o.eof = &h
		o.advance()
		return
	}
	if h.pos-h.gap > o.pos {
		o.keep(h)
		return
	}
	o.deliver(h)
	o.advance()
}

// keep holds what came too early.
func (o *Order) keep(h held) {
	h.Bytes = bytes.Clone(h.Bytes)
	i := sort.Search(len(o.ahead), func(i int) bool { return o.ahead[i].pos > h.pos })
	o.ahead = slices.Insert(o.ahead, i, h)
	o.bytes += len(h.Bytes)
	o.n.Held += int64(len(h.Bytes))
	for len(o.ahead) > o.limits.Segments || o.bytes > o.limits.Bytes {
		o.skip()
		o.advance()
	}
}

// advance delivers what is in order now.
func (o *Order) advance() {
	for len(o.ahead) > 0 && o.ahead[0].pos-o.ahead[0].gap <= o.pos {
		h := o.ahead[0]
		if o.ahead = o.ahead[1:]; len(o.ahead) == 0 {
			o.ahead = nil
		}
		o.bytes -= len(h.Bytes)
		o.n.Held -= int64(len(h.Bytes))
		o.deliver(h)
	}
	if e := o.eof; e != nil && e.pos-e.gap <= o.pos {
		if e.pos > o.pos {
			o.hole(e.pos-o.pos, *e)
		}
		o.eof = nil
		o.Pipe.End(io.EOF, e.Time)
	}
}

// skip gives up what is missing before the first held payload, or before the end.
func (o *Order) skip() {
	h := o.eof
	if len(o.ahead) > 0 {
		h = &o.ahead[0]
	}
	if h == nil {
		return
	}
	missing := held{Segment: Segment{Time: h.Time, Exchange: h.Exchange}, reason: flow.GapReorder}
	o.hole(h.pos-h.gap-o.pos, missing)
}

func (o *Order) deliver(h held) {
	if h.pos < o.pos {
		n := min(o.pos-h.pos, uint64(len(h.Bytes)))
		o.n.Duplicate += n
		if h.Bytes = h.Bytes[n:]; n > 0 {
			h.Head, h.taken = false, true
		}
	} else if h.pos > o.pos {
		o.hole(h.pos-o.pos, h)
	}
	if len(h.Bytes) == 0 {
		return
	}
	o.pos += uint64(len(h.Bytes))
	if o.Pipe.Push(h.Segment) {
		o.n.Delivered += uint64(len(h.Bytes))
	} else {
		o.n.Refused += uint64(len(h.Bytes))
	}
}

// hole hands on that n bytes before h never came.
func (o *Order) hole(n uint64, h held) {
	if n == 0 {
		return
	}
	if h.reason == flow.GapNone || h.reason >= flow.NumGapReasons {
		h.reason = flow.GapReorder
	}
	o.n.Lost[h.reason] += n
	o.pos += n
	o.Pipe.Push(Segment{Time: h.Time, Hole: n, Reason: h.reason, Exchange: h.Exchange})
}

// Ahead reports whether payloads are held because others should come before.
func (o *Order) Ahead() bool { return len(o.ahead) > 0 || o.eof != nil }

// Tick gives up what has been waited for too long.
func (o *Order) Tick(now flow.Time) {
	for {
		h := o.eof
		if len(o.ahead) > 0 {
			h = &o.ahead[0]
		}
		if h == nil || now.Sub(h.Time) < o.limits.Wait {
			break
		}
		o.skip()
		o.advance()
	}
	if since, ok := o.Waiting(); ok && now.Sub(since) >= o.limits.Wait {
		o.GiveUp()
	}
}

// Finish hands on everything that is held, then the end: gap bytes never came
// before it. err is io.EOF or an error that wraps exchange.ErrCut.
func (o *Order) Finish(err error, at flow.Time, gap uint64, reason flow.GapReason) {
	for len(o.ahead) > 0 || o.eof != nil {
		o.skip()
		o.advance()
	}
	if o.Pipe.end == nil {
		o.hole(gap, held{Segment: Segment{Time: at}, reason: reason})
	}
	o.Pipe.End(err, at)
}

// Stop ends the parser and drops what is held.
func (o *Order) Stop() {
	o.n.Held -= int64(o.bytes)
	o.n.Refused += uint64(o.bytes)
	o.ahead, o.bytes, o.eof = nil, 0, nil
	o.Pipe.Stop()
}
