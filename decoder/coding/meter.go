package coding

import (
	"errors"
	"io"
)

// ErrExpands is wrapped by the error of a reader whose compressed bytes make more than a
// Meter allows.
var ErrExpands = errors.New("compressed content expands too far")

// What a Meter allows, in decoded bytes: some for free and some for each byte that
// crossed. The most that a body of the recorded corpora shrinks is 96 times (brotli; 59
// times by gzip). A stream of one token 20,000 times or 2,048 embeddings of one text come
// to some 1,000 times, and gzip's format can do no more than 1,032: what real traffic
// might say passes. A lower ratio would save nothing, as who means harm takes the free
// part again with every message.
const (
	freeBytes = 1 << 20
	maxRatio  = 1000
)

// Meter bounds what compressed bytes are decoded to. The bytes of codings on top of each
// other count together, so that none of them can make the next one's work endless.
type Meter struct{ in, out int64 }

// In counts the compressed bytes that are read from r.
func (m *Meter) In(r io.Reader) io.Reader { return meteredIn{r, m} }

// Out counts the decoded bytes that are read from r, and fails with ErrExpands from
// where they are too many.
func (m *Meter) Out(r io.Reader) io.Reader { return meteredOut{r, m} }

func (m *Meter) err() error {
	if m.out > freeBytes+maxRatio*m.in {
		return ErrExpands
	}
	return nil
}

type meteredIn struct {
	io.Reader
	m *Meter
}

func (r meteredIn) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.m.in += int64(n)
	return n, err
}

type meteredOut struct {
	io.Reader
	m *Meter
}

func (r meteredOut) Read(p []byte) (int, error) {
	if err := r.m.err(); err != nil {
		return 0, err
	}
	n, err := r.Reader.Read(p)
	r.m.out += int64(n)
	if past := r.m.err(); past != nil {
		err = past
	}
	return n, err
}
