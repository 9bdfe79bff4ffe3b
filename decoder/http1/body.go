package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/stream"
	"github.com/tollwire/tollwire/flow"
)

var (
	// errBroken ends a body whose framing can no longer be followed: a hole in it, or nonsense.
	errBroken = errors.New("framing of the body is broken")
	// errSkipped ends a body that a verdict held back.
	errSkipped = errors.New("the rest of the body was held back")
)

// maxLine bounds a chunk's header or a trailer line.
const maxLine = 8 << 10

// Body is the content of one message. Holes inside of it are filled for the framing,
// which goes on after them; the content ends at the first.
type Body struct {
	r       *stream.Reader
	framing framing
	left    uint64 // of the content, or of the chunk
	state   chunkState
	err     error // how the framing ended
	content error // how the content ended
	out     exchange.Outcome
	start   uint64 // what the reader had taken before the head
	first   flow.Time
}

type chunkState uint8

const (
	chunkHead chunkState = iota
	chunkData
	chunkEnd
	trailers
)

// newBody returns the body after a head that began when the reader had taken start bytes.
func newBody(r *stream.Reader, start uint64, f framing, n uint64) *Body {
	return &Body{r: r, start: start, framing: f, left: n, out: exchange.Outcome{Time: r.Time()}}
}

// next lends content. At a hole inside of it, it fills it and returns ErrLost once;
// any other error is final.
func (b *Body) next() ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.framing == chunked {
		if err := b.chunk(); err != nil {
			return nil, b.fail(err)
		}
	}
	if b.framing == none || b.framing == length && b.left == 0 {
		return nil, b.fail(io.EOF)
	}
	w, err := b.r.Window()
	switch {
	case err == exchange.ErrLost:
		n, reason := b.r.Hole()
		if reason == flow.GapIgnored {
			b.r.Fill(n)
			return nil, b.fail(errSkipped)
		}
		if b.framing != toClose {
			n = min(n, b.left)
			b.left -= n
		}
		b.r.Fill(n)
		b.lost(n, reason)
		b.out.Bytes += int64(n)
		return nil, exchange.ErrLost
	case err == io.EOF && b.framing == toClose:
		return nil, b.fail(io.EOF)
	case err == io.EOF:
		return nil, b.fail(exchange.ErrCut)
	case err != nil:
		return nil, b.fail(err)
	}
	b.out.Time = b.r.Time()
	if b.framing != toClose {
		w = w[:min(uint64(len(w)), b.left)]
	}
	return w, nil
}

func (b *Body) take(n int) {
	b.r.Discard(n)
	b.out.Bytes += int64(n)
	if b.framing != toClose {
		b.left -= uint64(n)
	}
}

func (b *Body) lost(n uint64, reason flow.GapReason) {
	b.out.Lost += n
	b.out.Reason = max(b.out.Reason, reason)
	b.out.Time = b.r.Time()
}

// fail ends the framing of the body.
func (b *Body) fail(err error) error {
	b.err = err
	if err != io.EOF && stream.Ended(err) {
		b.out.Time = max(b.out.Time, b.r.EndTime())
	}
	return err
}

// chunk goes on to the next chunk that has data; io.EOF is the end of the body.
func (b *Body) chunk() error {
	for {
		if b.state == chunkData {
			if b.left > 0 {
				return nil
			}
			b.state = chunkEnd
		}
		line, err := b.line()
		if err != nil {
			return err
		}
		switch b.state {
		case chunkEnd:
			if len(line) > 0 {
				return errBroken
			}
			b.state = chunkHead
		case chunkHead:
			n, ok := chunkSize(line)
			if !ok {
				return errBroken
			}
			b.left, b.state = n, chunkData
			if n == 0 {
				b.state = trailers
			}
		case trailers:
			if len(line) == 0 {
				return io.EOF
			}
		}
	}
}

// chunkSize reads a chunk's header: a hexadecimal number, then spaces or an extension.
func chunkSize(line []byte) (n uint64, ok bool) {
	for i, c := range line {
		var digit byte
		switch {
		case '0' <= c && c <= '9':
			digit = c - '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			digit = c | 0x20 - 'a' + 10
		default:
			return n, i > 0 && (c == ';' || c == ' ' || c == '\t')
		}
		if n >= 1<<58 {
			return 0, false
		}
		n = n<<4 | uint64(digit)
	}
	return n, len(line) > 0
}

// line reads a line of the framing, without its end.
func (b *Body) line() ([]byte, error) {
	var gathered []byte
	for {
		w, err := b.r.Window()
		switch {
		case err == exchange.ErrLost:
			n, reason := b.r.Hole()
			b.r.Fill(n)
			if reason == flow.GapIgnored {
				return nil, errSkipped
			}
			b.lost(n, reason)
			return nil, errBroken
		case err == io.EOF:
			return nil, exchange.ErrCut
		case err != nil:
			return nil, err
		}
		b.out.Time = b.r.Time()
		i := bytes.IndexByte(w, '\n')
		if i < 0 {
			gathered = append(gathered, w...)
			b.r.Discard(len(w))
			if len(gathered) > maxLine {
				return nil, errBroken
			}
			continue
		}
		line := w[:i]
		if gathered != nil {
			line = append(gathered, line...)
		}
		b.r.Discard(i + 1)
		return bytes.TrimSuffix(line, []byte("\r")), nil
	}
}

// Window implements exchange.Body.
func (b *Body) Window() ([]byte, error) {
	if b.content != nil {
		return nil, b.content
	}
	w, err := b.next()
	switch {
	case err == nil:
		if b.first == 0 {
			b.first = b.r.Time()
		}
		return w, nil
	case err == errBroken:
		err = exchange.ErrLost
	case err == errSkipped:
		err = exchange.ErrCut
	}
	b.content = err
	return nil, err
}

// Discard implements exchange.Body.
func (b *Body) Discard(n int) { b.take(n) }

// Read implements exchange.Body.
func (b *Body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w, err := b.Window()
	n := copy(p, w)
	if n > 0 {
		b.take(n)
	}
	return n, err
}

// Resume implements exchange.Body.
func (b *Body) Resume() bool {
	if b.content != exchange.ErrLost || b.err != nil {
		return false
	}
	b.content = nil
	return true
}

// SoFar is how the message would have ended now.
func (b *Body) SoFar() exchange.Outcome {
	out := b.out
	out.Wire = b.r.Taken() - b.start
	return out
}

// Time implements exchange.Body.
func (b *Body) Time() flow.Time { return b.r.Time() }

// Finish skips to the end of the body, over holes, and says how it ended. resync is
// true when the next head must be searched for.
func (b *Body) Finish() (out exchange.Outcome, resync bool) {
	for b.err == nil {
		if w, err := b.next(); err == nil {
			b.take(len(w))
		}
	}
	out = b.SoFar()
	switch {
	case b.err == errSkipped:
		return out, true
	case b.err == errBroken:
		out.Err = exchange.ErrLost
	case out.Lost > 0:
		out.Err = exchange.ErrLost
	case b.err != io.EOF:
		out.Err = b.err
	}
	return out, b.err == errBroken
}

// ToEnd returns the content of a reader that holds one message's and nothing else.
func ToEnd(r *stream.Reader) *Body { return newBody(r, 0, toClose, 0) }
