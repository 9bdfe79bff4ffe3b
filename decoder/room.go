package decoder

import (
	"fmt"

	"github.com/tollwire/tollwire/decoder/exchange"
)

// errEvicted ends what is given up for want of room: the record says that it is lost.
var errEvicted = fmt.Errorf("no room: %w", exchange.ErrCut)

// What an open exchange holds beside its head, in bytes, as measured.
const (
	openSize  = 4 << 10  // any: the parsers of its two sides
	callSize  = 16 << 10 // one that is a call, or may be: its decoder, its clocks, texts of bounded length
	fieldSize = 64       // a field of its head, beside its name and value
)

// hold charges the call's connection with what the call holds.
func (x *call) hold() {
	n := callSize
	for name, values := range x.req.Header {
		n += fieldSize + len(name)
		for _, v := range values {
			n += len(v) + fieldSize/4
		}
	}
	for k := range x.facts.Keys {
		n += fieldSize + len(k)
	}
	for k, v := range x.facts.Metadata {
		n += fieldSize + len(k) + len(v)
	}
	n += cap(x.facts.Text.Kept)
	x.conn.calls += n - x.held
	x.held = n
}

// release takes the charge back.
func (x *call) release() {
	x.conn.calls -= x.held
	x.held = 0
}

// weigh tells the decoder what the connection's open exchanges hold now.
func (c *conn) weigh() {
	open := c.exchanges()
	held := c.calls + open*openSize
	c.d.open += open - c.open
	c.d.held += held - c.held
	c.open, c.held = open, held
}

// makeRoom gives up the open exchanges of the connections that were quiet longest, where
// all together hold too much, until an eighth of the room is free: one search serves
// many that come.
func (d *Decoder) makeRoom() {
	if d.held <= d.cfg.MaxOpen {
		return
	}
	for c := d.lru.oldest(); c != nil && d.held > d.cfg.MaxOpen-d.cfg.MaxOpen/8; {
		newer := c.newer
		if c.held > 0 {
			d.evictedOpen++
			c.giveUp(d.now, errEvicted)
		}
		c = newer
	}
}
