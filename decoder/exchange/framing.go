package exchange

import (
	"io"

	"github.com/tollwire/tollwire/flow"
)

// Body is the content of a message as a framing hands it over, while it crosses.
// Its reads wait for bytes that have not crossed yet. They return ErrLost at the
// first byte of a hole, until Resume is called, and ErrCut when the message ended
// before its end, from then on always.
type Body interface {
	io.Reader
	// Window lends at least one byte without a copy, valid until the next call of any method.
	Window() ([]byte, error)
	// Discard takes n bytes of the last window.
	Discard(n int)
	// Resume goes on after the hole at which the body failed with ErrLost, and reports
	// whether it can: not where the framing, or the context of an encoding, was lost too.
	Resume() bool
	// Time is when the bytes of the last window crossed.
	Time() flow.Time
}

// Outcome is how a message ended.
type Outcome struct {
	Time   flow.Time      // of its last byte, or of the moment it was given up
	Bytes  int64          // of the body on the wire without its framing, holes included
	Wire   uint64         // of the message with its head and its framing, as far as seen
	Lost   uint64         // of these and of the framing: known to be missing
	Reason flow.GapReason // why; the worst one
	Err    error          // nil: it ended in order; else ErrLost, ErrCut or one that wraps them
	Late   bool           // the connection was in use before the tap: of its head or its answer not all may be known
}

// Handler is told of the exchanges that a framing finds on one connection.
type Handler interface {
	// Request is called with a request's head; number is what a verdict names the
	// exchange by: the kernel's count on HTTP/1, the stream on HTTP/2.
	Request(req *Request, number uint32) Exchange
	// Failed counts a failure of the framing by its kind.
	Failed(kind string)
}

// Exchange is the framing's side of one request and its response. The request's two
// methods and the response's three are each called in order; the two sides are not
// ordered between them. A body's method may return before it has read the body: the
// framing skips the rest.
type Exchange interface {
	RequestBody(b Body)
	RequestEnd(o Outcome)
	// RequestSoFar tells, before End, how much of a request has been seen whose end has
	// not: the response was faster, or the end will never come.
	RequestSoFar(o Outcome)
	Response(r *Response)
	ResponseBody(b Body)
	// End is called once, whatever happened; nothing of the response follows.
	End(o Outcome)
	// Ignored reports that nobody needs the rest of this exchange.
	Ignored() bool
}
