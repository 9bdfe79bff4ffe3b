// Package eventstream reads AWS event streams as they pass, checking both checksums.
// The format is https://smithy.io/2.0/aws/amazon-eventstream.html: a prelude of total
// length, headers' length and CRC-32; headers; payload; CRC-32 of all before it.
package eventstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/tollwire/tollwire/decoder/exchange"
)

var (
	// ErrChecksum is returned when a checksum is wrong: nothing after it can be trusted.
	ErrChecksum = errors.New("event stream: wrong checksum")
	// ErrFormat is returned when lengths or headers cannot be.
	ErrFormat = errors.New("event stream: malformed message")
)

const (
	preludeSize = 12
	trailerSize = 4
	maxHeaders  = 128 << 10 // the specification's
	maxMessage  = 24 << 20  // likewise
)

// Message is the head of a message, of which the payload follows.
type Message struct {
	Type      string // :message-type: event, exception, error
	Event     string // :event-type
	Exception string // :exception-type, or an error's :error-code
}

// Reader reads the messages of a body.
type Reader struct {
	b       exchange.Body
	left    int // payload
	in      bool
	sum     uint32
	headers []byte
	err     error
}

// NewReader returns a reader of b's messages.
func NewReader(b exchange.Body) *Reader { return &Reader{b: b} }

// Next skips what is left of the message before, and returns the next one's head; the
// Reader itself then reads its payload. Errors are final.
func (r *Reader) Next() (Message, error) {
	if r.in {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return Message{}, err
		}
	}
	if r.err != nil {
		return Message{}, r.err
	}
	m, err := r.next()
	r.err = err
	return m, err
}

func (r *Reader) next() (m Message, err error) {
	if _, err := r.b.Window(); err != nil {
		return m, err // io.EOF here is the end in order
	}
	var p [preludeSize]byte
	if err := r.full(p[:]); err != nil {
		return m, err
	}
	if crc32.ChecksumIEEE(p[:8]) != binary.BigEndian.Uint32(p[8:]) {
		return m, ErrChecksum
	}
	total, headers := binary.BigEndian.Uint32(p[:]), binary.BigEndian.Uint32(p[4:])
	if headers > maxHeaders || total > maxMessage || total < preludeSize+headers+trailerSize {
		return m, fmt.Errorf("%w: %d bytes, %d of headers", ErrFormat, total, headers)
	}
	if cap(r.headers) < int(headers) {
		r.headers = make([]byte, headers)
	}
	h := r.headers[:headers]
	if err := r.full(h); err != nil {
		return m, err
	}
	r.sum = crc32.Update(crc32.ChecksumIEEE(p[:]), crc32.IEEETable, h)
	if m, err = parse(h); err != nil {
		return m, err
	}
	r.left, r.in = int(total-headers)-preludeSize-trailerSize, true
	return m, nil
}

// Read reads the payload. io.EOF is its end, and says that its checksum is right.
func (r *Reader) Read(p []byte) (int, error) {
	if !r.in {
		return 0, io.EOF
	}
	if r.left == 0 {
		r.in = false
		var c [trailerSize]byte
		r.err = r.full(c[:])
		if r.err == nil && binary.BigEndian.Uint32(c[:]) != r.sum {
			r.err = ErrChecksum
		}
		if r.err != nil {
			return 0, r.err
		}
		return 0, io.EOF
	}
	n, err := r.b.Read(p[:min(len(p), r.left)])
	r.sum = crc32.Update(r.sum, crc32.IEEETable, p[:n])
	if r.left -= n; err != nil {
		r.in = false
		if err == io.EOF {
			err = exchange.ErrCut
		}
		r.err = err
	}
	return n, err
}

func (r *Reader) full(p []byte) error {
	_, err := io.ReadFull(r.b, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return exchange.ErrCut
	}
	return err
}

// valueSizes are the lengths of header values by type; -1: two bytes tell.
var valueSizes = [...]int{0, 0, 1, 2, 4, 8, -1, -1, 8, 16}

const typeString = 7

// parse picks what matters out of a message's headers.
func parse(h []byte) (m Message, err error) {
	var code string
	for len(h) > 0 {
		n := int(h[0])
		if len(h) < n+2 || int(h[n+1]) >= len(valueSizes) {
			return m, fmt.Errorf("%w: header", ErrFormat)
		}
		name, kind := string(h[1:n+1]), h[n+1]
		h = h[n+2:]
		size := valueSizes[kind]
		if size < 0 {
			if len(h) < 2 {
				return m, fmt.Errorf("%w: header %.40q", ErrFormat, name)
			}
			size = int(binary.BigEndian.Uint16(h))
			h = h[2:]
		}
		if len(h) < size {
			return m, fmt.Errorf("%w: header %.40q", ErrFormat, name)
		}
		value := h[:size]
		h = h[size:]
		if kind != typeString {
			continue
		}
		switch name {
		case ":message-type":
			m.Type = string(value)
		case ":event-type":
			m.Event = string(value)
		case ":exception-type":
			m.Exception = string(value)
		case ":error-code":
			code = string(value)
		}
	}
	if m.Exception == "" && m.Type == "error" {
		m.Exception = code
	}
	return m, nil
}
