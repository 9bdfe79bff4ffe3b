// Package websocket reads the messages of a WebSocket connection as they pass: masked
// or not, in fragments, compressed with or without context (RFC 6455, RFC 7692).
package websocket

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/tollwire/tollwire/decoder/coding"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
)

// ErrFraming is returned for bytes that are no frames, and for what follows a hole in
// the framing itself.
var ErrFraming = errors.New("websocket: framing lost")

// Message is a text or binary message. Its methods and Data are valid until the
// Session returns.
type Message struct {
	Data       io.Reader // what is left unread is skipped; fails with exchange.ErrLost at a hole, with coding.ErrExpands where it gets too long
	FromClient bool
	r          *reader
}

// Time is when the last byte that was read of the message crossed.
func (m *Message) Time() flow.Time { return m.r.src.Time() }

// Size is the length of the message on the wire, as far as it has crossed, in bytes.
func (m *Message) Size() int64 { return m.r.size }

// Session takes the messages of both directions, one after the other.
type Session interface {
	Message(*Message)
	// Lost is told of bytes that are missing.
	Lost(n uint64, reason flow.GapReason)
}

// Conn is the two directions of a connection; Read runs on each.
type Conn struct {
	session Session
	deflate [2]deflate // by whether the client sends
	busy    bool       // a message is being read, and waits for bytes
}

// deflate is what was agreed on for one side.
type deflate struct{ on, keep bool }

// New returns a connection as its handshake's answer, of the header h, set it up.
func New(s Session, h http.Header) *Conn {
	c := &Conn{session: s}
	for _, ext := range h.Values("Sec-Websocket-Extensions") {
		for e := range strings.SplitSeq(ext, ",") {
			name, params, _ := strings.Cut(e, ";")
			if strings.TrimSpace(name) != "permessage-deflate" {
				continue
			}
			c.deflate = [2]deflate{{true, true}, {true, true}}
			for p := range strings.SplitSeq(params, ";") {
				switch strings.TrimSpace(p) {
				case "server_no_context_takeover":
					c.deflate[0].keep = false
				case "client_no_context_takeover":
					c.deflate[1].keep = false
				}
			}
		}
	}
	return c
}

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
)

// maxGather is the longest message that is gathered before it is handed on, in bytes.
// A longer one is handed on as it passes, and the other direction waits for it.
const maxGather = 64 << 10

// Read reads one direction to its end, or to its closing frame. It returns nil after
// that, else why it stopped.
func (c *Conn) Read(src *stream.Reader, fromClient bool) error {
	r := &reader{c: c, src: src, client: fromClient, agreed: c.deflate[0]}
	if fromClient {
		r.agreed = c.deflate[1]
	}
	for {
		h, err := r.header()
		if err != nil {
			return err
		}
		switch h.op {
		case opText, opBinary:
			err = r.message(h)
		case opClose:
			return r.skip(h)
		default: // a ping, a pong, or a fragment of what was given up
			err = r.skip(h)
		}
		if err != nil {
			return err
		}
	}
}

// reader is one direction.
type reader struct {
	c      *Conn
	src    *stream.Reader
	client bool
	agreed deflate

	frame  header // being read
	left   uint64 // of it
	at     int    // place in its mask
	size   int64  // of the message so far
	lost   bool   // a hole in the message
	inflat inflater
}

type header struct {
	fin, compressed bool
	op              byte
	length          uint64
	masked          bool
	mask            [4]byte
}

func (r *reader) header() (h header, err error) {
	var b [14]byte
	if err := r.full(b[:2]); err != nil {
		return h, err
	}
	h.fin, h.compressed, h.op, h.masked = b[0]&0x80 != 0, b[0]&0x40 != 0, b[0]&0xf, b[1]&0x80 != 0
	if b[0]&0x30 != 0 || h.op > 2 && h.op < 8 || h.op > 10 || h.op >= 8 && (!h.fin || b[1]&0x7f > 125) || h.compressed && !r.agreed.on {
		return h, ErrFraming
	}
	switch h.length = uint64(b[1] & 0x7f); h.length {
	case 126:
		err = r.full(b[:2])
		h.length = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		err = r.full(b[:8])
		h.length = binary.BigEndian.Uint64(b[:])
	}
	if err == nil && h.length > 1<<62 {
		err = ErrFraming
	}
	if err == nil && h.masked {
		err = r.full(h.mask[:])
	}
	return h, err
}

// full reads a piece of the framing.
func (r *reader) full(b []byte) error {
	_, err := io.ReadFull(r.src, b)
	switch err {
	case io.ErrUnexpectedEOF, io.EOF:
		return exchange.ErrCut
	case exchange.ErrLost:
		n, reason := r.src.Hole()
		r.c.session.Lost(n, reason)
		return ErrFraming
	}
	return err
}

// message reads a message that begins with h.
func (r *reader) message(h header) error {
	r.begin(h)
	r.size, r.lost = 0, false
	compressed := h.compressed

	var gathered bytes.Buffer
	_, err := io.CopyN(&gathered, (*payload)(r), maxGather)
	whole := err == io.EOF
	if err != nil && !whole && err != exchange.ErrLost {
		return err
	}
	var data io.Reader = &gathered
	switch {
	case err == exchange.ErrLost:
		data = io.MultiReader(&gathered, failing{err})
	case !whole:
		data = io.MultiReader(&gathered, (*payload)(r))
		if !r.src.Await(func() bool { return !r.c.busy }) {
			return r.drain() // the other direction has been in its own for too long
		}
		r.c.busy = true
		defer func() { r.c.busy = false }()
	case r.c.busy && !r.src.Await(func() bool { return !r.c.busy }):
		return nil
	}
	if compressed {
		data = r.inflat.open(data, r.agreed.keep)
	}
	m := &Message{Data: data, FromClient: r.client, r: r}
	r.c.session.Message(m)
	if compressed {
		_, err := io.Copy(io.Discard, data)
		r.inflat.close(r.lost || errors.Is(err, coding.ErrExpands))
	}
	if whole {
		return nil
	}
	return r.drain()
}

// drain skips what is left of the message, over holes in it.
func (r *reader) drain() error {
	for {
		_, err := io.Copy(io.Discard, (*payload)(r))
		if err != exchange.ErrLost {
			return err
		}
	}
}

func (r *reader) begin(h header) { r.frame, r.left, r.at = h, h.length, 0 }

// skip drops a frame's payload.
func (r *reader) skip(h header) error {
	for left := h.length; left > 0; {
		w, err := r.src.Window()
		if err == exchange.ErrLost {
			n, reason := r.src.Hole()
			n = min(n, left)
			r.src.Fill(n)
			r.c.session.Lost(n, reason)
			left -= n
			continue
		}
		if err != nil {
			return cut(err)
		}
		n := min(left, uint64(len(w)))
		r.src.Discard(int(n))
		left -= n
	}
	return nil
}

func cut(err error) error {
	if err == io.EOF {
		return exchange.ErrCut
	}
	return err
}

// payload reads the message's bytes, of all its fragments, unmasked. At a hole it fails
// once with exchange.ErrLost and then goes on after it.
type payload reader

func (p *payload) Read(b []byte) (int, error) {
	r := (*reader)(p)
	for r.left == 0 {
		if r.frame.fin {
			return 0, io.EOF
		}
		h, err := r.header()
		if err != nil {
			return 0, err
		}
		switch {
		case h.op == opContinuation:
			r.begin(h)
		case h.op < opClose:
			return 0, ErrFraming
		default:
			if err := r.skip(h); err != nil {
				return 0, err
			}
		}
	}
	w, err := r.src.Window()
	if err == exchange.ErrLost {
		n, reason := r.src.Hole()
		n = min(n, r.left)
		r.src.Fill(n)
		r.c.session.Lost(n, reason)
		r.left -= n
		r.size += int64(n)
		r.at += int(n % 4)
		r.lost = true
		return 0, err
	}
	if err != nil {
		return 0, cut(err)
	}
	n := copy(b, w[:min(r.left, uint64(len(w)))])
	if r.frame.masked {
		for i := range b[:n] {
			b[i] ^= r.frame.mask[(r.at+i)&3]
		}
	}
	r.at += n
	r.src.Discard(n)
	r.left -= uint64(n)
	r.size += int64(n)
	return n, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// window is how far back deflate can refer, in bytes.
const window = 32 << 10

// inflater decompresses messages, each with what came before it as context.
type inflater struct {
	r       io.Reader
	context []byte // the last bytes of earlier messages
	broken  bool   // a message of the context is missing
}

// tail is what a sender leaves out of a message's end, and an empty last block.
const tail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

func (f *inflater) open(src io.Reader, keep bool) io.Reader {
	if f.broken && keep {
		return failing{exchange.ErrLost}
	}
	if !keep {
		f.context = nil
	}
	m := new(coding.Meter)
	src = io.MultiReader(m.In(src), strings.NewReader(tail))
	if f.r == nil {
		f.r = flate.NewReaderDict(src, f.context)
	} else {
		f.r.(flate.Resetter).Reset(src, f.context)
	}
	r := m.Out(f.r)
	if !keep {
		return r
	}
	return io.TeeReader(r, (*contextWriter)(f))
}

func (f *inflater) close(lost bool) { f.broken = f.broken || lost }

// contextWriter keeps the last window of what is written.
type contextWriter inflater

func (f *contextWriter) Write(p []byte) (int, error) {
	if len(p) >= window {
		f.context = append(f.context[:0], p[len(p)-window:]...)
		return len(p), nil
	}
	if over := len(f.context) + len(p) - window; over > 0 {
		f.context = f.context[:copy(f.context, f.context[over:])]
	}
	f.context = append(f.context, p...)
	return len(p), nil
}
