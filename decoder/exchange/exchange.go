// Package exchange is the seam between framing and vendors. A framing (HTTP/1.1,
// HTTP/2, a recording) knows requests, responses, chunks and their times, and no
// vendor; a vendor knows one API family's JSON, and no framing. Both know this.
package exchange

import (
	"errors"
	"io"
	"net/http"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// ErrLost is returned by a content reader at the first byte of a hole: bytes of
// this body were dropped. What was read before it stands.
var ErrLost = errors.New("bytes of the body are missing")

// ErrCut is returned by a content reader when the body ended before its end: the
// connection closed, the stream was reset.
var ErrCut = errors.New("the body ended before its end")

// Request is a request's head.
type Request struct {
	Time   flow.Time // its first byte
	Method string
	Path   string // as on the wire, still percent-encoded, without the query
	Query  string
	Host   string // Host or :authority, lower case, with the port if it had one
	Header http.Header
}

// Response is a response's head.
type Response struct {
	Time   flow.Time // its first byte
	Status int
	Header http.Header
}

// Facts is what the JSON body of any LLM request says at its top level; read once
// as it passes, for every vendor alike, whatever of it has crossed so far. Strings
// are cut at 256 bytes.
type Facts struct {
	Known            bool   // the body was seen (in part at least) and is a JSON object, or a multipart form
	Whole            bool   // …to its end
	Model            string // model, modelId, model_id, deployment …
	Stream           bool
	StreamSet        bool
	IncludeUsage     bool            // stream_options.include_usage
	Keys             map[string]bool // top-level keys seen, at most 64
	AnthropicVersion string          // the body's own (Bedrock, Vertex)
	ServiceTier      string
	Metadata         map[string]string // metadata's string values, at most 16
	JSONSchema       bool              // a schema or JSON object was asked for
	SearchContext    string            // web_search_options.search_context_size
	ImageSize        string
	ImageQuality     string
	ImageCount       int
	JSONRPCMethod    string // jsonrpc bodies: method
	JSONRPCTool      string // params.name
	JSONRPCID        string
	Bytes            int64 // body bytes read
	// Text is the prompt's text: its length, and as much of it as the sampler was
	// allowed to keep, for the tokenizer when the provider states no usage.
	Text Sample
}

// Sample is a text of which only a part may be kept.
type Sample struct {
	Bytes int64  // length of all text seen
	Chars int64  // the same in characters
	Kept  []byte // the first part of it, bounded
}

// Confidence is how sure a vendor is that an exchange is one of its calls.
type Confidence uint8

const (
	No    Confidence = iota // certainly not
	Maybe                   // cannot tell before the body's facts are known
	Weak                    // by the body's shape alone
	Path                    // by its path
	Sure                    // by path and host, or by a header only this vendor's clients send
)

// Vendor recognises and decodes the calls of one API family. It keeps no state:
// one Vendor serves every connection.
type Vendor interface {
	// Name is the folder's name: "openai", "anthropic" …
	Name() string
	// Recognize is asked when the head has crossed (facts.Known is false) and again
	// when the facts are known. The surest vendor gets the call; on a tie the first
	// in the decoder's table.
	Recognize(req *Request, facts *Facts) Confidence
	// Open starts the decoding of the call. It fills what the request says of it
	// (provider, operation, request model, stream); c is the decoder's until End
	// returns. facts may still grow until Response is called.
	Open(req *Request, facts *Facts, c *llm.Call) Decoder
}

// Decoder decodes one call. Its methods are called one after the other, on one
// goroutine: Response, then either Body once or Event many times, then End.
// Errors are only those of the reader or of the JSON; the caller labels the call
// by them and calls End all the same.
type Decoder interface {
	// Response is called when the response's head has crossed.
	Response(r *Response)
	// Body reads a body that is one JSON value (or no JSON at all, when the content
	// type says so), as it passes; it must not gather it.
	Body(r io.Reader) error
	// Event reads one event of a stream: SSE, NDJSON, event-stream frame, WebSocket
	// message, element of a JSON array.
	Event(e *Event) error
	// End settles the call: usage classes, completeness, finish reasons. err is nil
	// when the body ended in order, else ErrCut, ErrLost or what the parser said.
	End(err error)
}

// Sequel is a Decoder of a WebSocket's calls. What a session has been told (its model,
// its settings) holds for all of them.
type Sequel interface {
	Decoder
	// Next opens the call that follows on the same WebSocket, as Vendor.Open the first.
	// The call before it is not the decoder's any more.
	Next(c *llm.Call) Decoder
}

// Event is one event of a stream.
type Event struct {
	Time flow.Time // when its last byte crossed
	Name string    // SSE's event field, or the event-stream's :event-type; often empty
	// Exception is the event-stream's :exception-type, when the frame is an error.
	Exception string
	// Data is the event's payload, read as it passes; what is left unread is skipped.
	Data io.Reader
	// FromClient: the client sent it (WebSocket).
	FromClient bool

	// Set by the decoder: what the event was. The framing keeps the clocks with it.
	Content Content
	// Done is set by the decoder on a terminator: nothing of this call follows.
	Done bool
	// Start is set by the decoder of a WebSocket's call where the question only begins
	// with this event: what came before set the session up, or was said by the user.
	Start bool
	// Asked is set by the decoder of a WebSocket's call where an answer is due from here
	// on: a connection that closes without one has failed a call.
	Asked bool
	// Aside is set by the decoder of a WebSocket's call when this event tells of another
	// call, made for the session at another model. It fills that call in.
	Aside func(*llm.Call)
}

// Content says whether an event carried generated content.
type Content uint8

const (
	NoContent Content = iota // framing, usage, a role, a ping
	Hidden                   // reasoning
	Visible                  // text, tool arguments, audio, an image
)
